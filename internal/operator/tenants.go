package operator

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

// CreateTenant makes a tenant.
func (o *Operator) CreateTenant(ctx context.Context, id string, spec v1alpha1.TenantSpec) error {
	if _, err := names.ParseTenantID(id); err != nil {
		return err
	}
	err := o.Admin.Create(ctx, &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: id}, Spec: spec})
	if apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("tenant %s exists already", id)
	}
	return o.admin(err)
}

// AwaitTenant waits until a tenant is ready, or says why it is not.
func (o *Operator) AwaitTenant(ctx context.Context, id string) (*v1alpha1.Tenant, error) {
	tenant := &v1alpha1.Tenant{}
	err := o.await(ctx, tenant, id, func() (bool, error) {
		ready := meta.IsStatusConditionTrue(tenant.Status.Conditions, v1alpha1.TenantReady) && tenant.Annotations[v1alpha1.AnnotationKubeconfig] != ""
		return ready, nil
	})
	if err != nil {
		return nil, fmt.Errorf("tenant %s was made and is not ready yet: %s", id, reason(err, tenant.Status.Conditions))
	}
	return tenant, nil
}

// Tenant reads a tenant.
func (o *Operator) Tenant(ctx context.Context, id string) (*v1alpha1.Tenant, error) {
	tenant := &v1alpha1.Tenant{}
	err := o.Admin.Get(ctx, client.ObjectKey{Name: id}, tenant)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is no tenant %s", id)
	}
	return tenant, o.admin(err)
}

// TenantKubeconfig reads the kubeconfig of a tenant's administrator, waiting for it when the tenant is new.
func (o *Operator) TenantKubeconfig(ctx context.Context, id string) ([]byte, error) {
	tenant, err := o.Tenant(ctx, id)
	if err != nil {
		return nil, err
	}
	if tenant.Annotations[v1alpha1.AnnotationKubeconfig] == "" {
		if tenant.DeletionTimestamp != nil {
			return nil, fmt.Errorf("tenant %s is being deleted and has no credentials any more", id)
		}
		if tenant, err = o.AwaitTenant(ctx, id); err != nil {
			return nil, err
		}
	}
	return Kubeconfig(tenant)
}

// Kubeconfig decodes the kubeconfig that a Tenant carries.
func Kubeconfig(tenant *v1alpha1.Tenant) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(tenant.Annotations[v1alpha1.AnnotationKubeconfig])
	if err != nil || len(raw) == 0 {
		return nil, fmt.Errorf("tenant %s carries no readable kubeconfig", tenant.Name)
	}
	return raw, nil
}

// ChangeTenant changes a tenant's spec.
func (o *Operator) ChangeTenant(ctx context.Context, id string, change func(*v1alpha1.TenantSpec)) error {
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		tenant, err := o.Tenant(ctx, id)
		if err != nil {
			return err
		}
		if tenant.DeletionTimestamp != nil {
			return fmt.Errorf("tenant %s is being deleted", id)
		}
		before := tenant.DeepCopy()
		change(&tenant.Spec)
		return o.Admin.Patch(ctx, tenant, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	})
	return o.admin(err)
}

// RotateTenant refuses every client certificate that was issued so far and waits for a new kubeconfig.
func (o *Operator) RotateTenant(ctx context.Context, id string) ([]byte, error) {
	tenant, err := o.Tenant(ctx, id)
	if err != nil {
		return nil, err
	}
	old := tenant.Annotations[v1alpha1.AnnotationKubeconfig]
	// The moment is whole seconds, as certificates are.
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	if err := o.ChangeTenant(ctx, id, func(spec *v1alpha1.TenantSpec) { spec.CredentialsNotBefore = &now }); err != nil {
		return nil, err
	}
	err = o.await(ctx, tenant, id, func() (bool, error) {
		current := tenant.Annotations[v1alpha1.AnnotationKubeconfig]
		return current != "" && current != old, nil
	})
	if err != nil {
		return nil, fmt.Errorf("the old credentials of tenant %s are refused, but there are no new ones yet: %s", id, reason(err, tenant.Status.Conditions))
	}
	return Kubeconfig(tenant)
}

// DeleteTenant asks for a tenant's deletion; its credentials are refused from then on.
func (o *Operator) DeleteTenant(ctx context.Context, id string) error {
	err := o.Admin.Delete(ctx, &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: id}})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("there is no tenant %s", id)
	}
	return o.admin(err)
}

// AwaitTenantGone waits until nothing of a deleted tenant is left, or says what is.
func (o *Operator) AwaitTenantGone(ctx context.Context, id string) error {
	tenant := &v1alpha1.Tenant{}
	err := o.await(ctx, tenant, id, func() (bool, error) { return false, nil })
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("tenant %s is still being deleted: %s", id, reason(err, tenant.Status.Conditions))
}

// await reads an object until done, the end of ctx or an error that will not pass.
func (o *Operator) await(ctx context.Context, object client.Object, name string, done func() (bool, error)) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := o.Admin.Get(ctx, client.ObjectKey{Name: name}, object)
		switch {
		case err == nil:
			if ok, err := done(); ok || err != nil {
				return err
			}
		case apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// reason says why a wait ended: the conditions know best.
func reason(err error, conditions []metav1.Condition) string {
	var words []string
	for _, c := range conditions {
		if c.Status == metav1.ConditionFalse && c.Message != "" {
			words = append(words, c.Type+": "+c.Message)
		}
	}
	text := strings.Join(words, "; ")
	switch {
	case text != "":
		return text
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time; does the gateway run, and are its logs quiet?"
	default:
		return err.Error()
	}
}

// admin explains errors of the admin API.
func (o *Operator) admin(err error) error {
	host := ""
	if o.AdminConfig != nil {
		host = o.AdminConfig.Host
	}
	return Explain("the admin API", host, err)
}
