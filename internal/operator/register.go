package operator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
)

// managedBy is LabelManagedBy on what the command line makes in the control cluster.
const managedBy = "vivarium-cli"

// setupTimeout bounds the making of an identity in a pool, a namespace that is still going away included.
const setupTimeout = time.Minute

// Registration says what pool to register.
type Registration struct {
	Name string
	// Kubeconfig is what [ReadKubeconfig] returned.
	Kubeconfig []byte
	// Spec is the ResourcePool's, without credentials and identity.
	Spec      v1alpha1.ResourcePoolSpec
	Manifests Manifests
	// Wait is how long the pool may take to become ready; zero does not wait.
	Wait time.Duration
}

// Register makes a cluster a pool: it checks the cluster, makes an identity of least privilege there, stores its
// credentials in the control cluster and makes the ResourcePool. On any error everything that it made is taken back.
func (o *Operator) Register(ctx context.Context, r Registration) (err error) {
	if problems := validation.IsDNS1123Label(r.Name); len(problems) > 0 {
		return fmt.Errorf("%q cannot be a pool's name: it must be lower-case letters, digits and '-', as in \"pool-a\"", r.Name)
	}
	config, err := pools.ParseKubeconfig(r.Kubeconfig)
	if err != nil {
		return err
	}
	config.UserAgent = "vivarium-cli"
	undo := &undo{say: o.say}
	defer func() {
		if err != nil {
			err = undo.run(context.WithoutCancel(ctx), err)
		}
	}()

	o.say("asking %s who it is", config.Host)
	uid, err := o.identify(ctx, config, r)
	if err != nil {
		return err
	}
	resource := &v1alpha1.ResourcePool{ObjectMeta: metav1.ObjectMeta{Name: r.Name}, Spec: r.Spec}
	resource.Spec.ClusterUID = uid.ClusterUID
	resource.Spec.Credentials = v1alpha1.PoolCredentials{KubeconfigSecret: "pool-" + r.Name}
	// What the admin API would refuse is refused before anything is made.
	if err := o.admin(o.Admin.Create(ctx, resource.DeepCopy(), client.DryRunAll)); err != nil {
		return err
	}
	credentials, err := o.credentials(ctx, config, r, uid, undo)
	if err != nil {
		return err
	}
	if err := o.store(ctx, r.Name, resource.Spec.Credentials.KubeconfigSecret, credentials, undo); err != nil {
		return err
	}
	if err := o.admin(o.Admin.Create(ctx, resource)); err != nil {
		return err
	}
	undo.add("ResourcePool "+r.Name, func(ctx context.Context) error { return o.withdraw(ctx, resource) })
	if r.Wait == 0 {
		return nil
	}
	o.say("waiting until the pool is ready")
	return o.awaitPool(ctx, r.Name, r.Wait)
}

// Refresh brings what Register set up in a pool up to date: a newer release may need other rights there.
func (o *Operator) Refresh(ctx context.Context, name string, kubeconfig []byte, manifests Manifests) error {
	resource, err := o.Pool(ctx, name)
	if err != nil {
		return err
	}
	config, err := pools.ParseKubeconfig(kubeconfig)
	if err != nil {
		return err
	}
	config.UserAgent = "vivarium-cli"
	asking, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	found, err := pools.Preflight(asking, config, resource.Spec.Network.Driver)
	switch {
	case err != nil:
		return Explain("the pool", config.Host, err)
	case found.ClusterUID != resource.Spec.ClusterUID:
		return fmt.Errorf("%s is another cluster than the one that pool %s is: %s, not %s", config.Host, name, found.ClusterUID, resource.Spec.ClusterUID)
	}
	objects, policies, err := Registration{Manifests: manifests}.objects()
	if err != nil {
		return err
	}
	install, err := newInstaller(config)
	if err != nil {
		return err
	}
	if install.servesPolicies() {
		objects = append(objects, policies...)
	}
	setup, cancelSetup := context.WithTimeout(ctx, setupTimeout)
	defer cancelSetup()
	return install.apply(setup, objects)
}

// identify finds out which cluster it is and whether it can become the pool.
func (o *Operator) identify(ctx context.Context, config *rest.Config, r Registration) (pools.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	report, err := pools.Preflight(ctx, config, r.Spec.Network.Driver)
	if err != nil {
		return report, Explain("the pool", config.Host, err)
	}
	if report.ClusterUID == "" {
		return report, fmt.Errorf("the pool: %s", strings.Join(report.Problems, "; "))
	}
	if len(report.Problems) > 0 {
		return report, fmt.Errorf("the pool: %s", strings.Join(report.Problems, "; "))
	}
	known := &v1alpha1.ResourcePoolList{}
	if err := o.Admin.List(ctx, known); err != nil {
		return report, o.admin(err)
	}
	for i := range known.Items {
		switch pool := &known.Items[i]; {
		case pool.Name == r.Name:
			return report, fmt.Errorf("there is a pool %s already; remove it first (vivarium pool remove %s) or choose another name", r.Name, r.Name)
		case pool.Spec.ClusterUID == report.ClusterUID:
			return report, fmt.Errorf("this cluster is registered already, as pool %s", pool.Name)
		}
	}
	control, err := o.Control.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return report, Explain("the control cluster", "", fmt.Errorf("identify the control cluster: %w", err))
	}
	if control.UID == report.ClusterUID {
		return report, errors.New("this is the control cluster itself, which cannot be a pool")
	}
	return report, nil
}

// credentials makes an identity of least privilege in the pool and gives its kubeconfig. Where the given credentials may
// not do that but are themselves enough to run pods, they are used as they are.
func (o *Operator) credentials(ctx context.Context, config *rest.Config, r Registration, given pools.Report, undo *undo) ([]byte, error) {
	objects, policies, err := r.objects()
	if err != nil {
		return nil, err
	}
	install, err := newInstaller(config)
	if err != nil {
		return nil, err
	}
	served := install.servesPolicies()
	if served {
		objects = append(objects, policies...)
	}
	missing, err := install.missing(ctx, objects)
	if err != nil {
		return nil, Explain("the pool", config.Host, err)
	}
	if len(missing) > 0 {
		if len(given.Missing) > 0 {
			return nil, fmt.Errorf("the credentials may neither set the pool up nor use it.\nTo set it up they lack: %s.\nTo use it they lack: %s.\n"+
				"Give a cluster administrator's kubeconfig, or have the pool's administrator apply `vivarium pool register --print-role` and give a kubeconfig of that ServiceAccount",
				strings.Join(missing, "; "), strings.Join(given.Missing, "; "))
		}
		o.say("the credentials may not set anything up in the pool (%s) but suffice to use it: they are stored as they are, and no admission policy is installed", strings.Join(missing, "; "))
		return r.Kubeconfig, nil
	}
	o.say("making an identity of least privilege in the pool")
	undo.add("what was set up in the pool", install.undo)
	setup, cancelSetup := context.WithTimeout(ctx, setupTimeout)
	defer cancelSetup()
	if err := install.apply(setup, objects); err != nil {
		if apierrors.IsForbidden(err) && strings.Contains(err.Error(), "attempting to grant RBAC permissions not currently held") {
			return nil, fmt.Errorf("%w\nThe credentials cannot grant rights that they do not have themselves; give a cluster administrator's kubeconfig", err)
		}
		return nil, err
	}
	if !served {
		o.say("the pool serves no ValidatingAdmissionPolicy: it has no second wall")
	}
	tokenCtx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	token, err := install.token(tokenCtx)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := withToken(r.Kubeconfig, r.Name, token)
	if err != nil {
		return nil, err
	}
	return kubeconfig, o.prove(ctx, kubeconfig, r, given)
}

func (r Registration) objects() (access, policies []*unstructured.Unstructured, err error) {
	if access, err = decode(r.Manifests.Role, r.Manifests.Access); err != nil {
		return nil, nil, err
	}
	policies, err = decode(r.Manifests.Policy)
	return access, policies, err
}

// prove asks the pool with the credentials that will be stored, until the pool's own caches have caught up.
func (o *Operator) prove(ctx context.Context, kubeconfig []byte, r Registration, given pools.Report) error {
	config, err := pools.ParseKubeconfig(kubeconfig)
	if err != nil {
		return fmt.Errorf("the kubeconfig that was made: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	for {
		report, err := pools.Preflight(ctx, config, r.Spec.Network.Driver)
		switch {
		case err == nil && report.ClusterUID != "" && report.ClusterUID != given.ClusterUID:
			return errors.New("another cluster answered at the same address; is there more than one behind it?")
		case err == nil && len(report.Missing)+len(report.Problems) == 0:
			return nil
		}
		select {
		case <-ctx.Done():
			if err != nil {
				return Explain("the pool, with the identity that was made for it", config.Host, err)
			}
			return fmt.Errorf("the identity that was made in the pool lacks rights: %s", strings.Join(append(report.Missing, report.Problems...), "; "))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// store keeps the pool's credentials in the control cluster.
func (o *Operator) store(ctx context.Context, pool, name string, kubeconfig []byte, undo *undo) error {
	secrets := o.Control.CoreV1().Secrets(names.SystemNamespace)
	wanted := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{names.LabelManagedBy: managedBy, names.LabelPool: pool}},
		Data:       map[string][]byte{pools.KubeconfigKey: kubeconfig},
	}
	made, err := secrets.Create(ctx, wanted, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		old, getErr := secrets.Get(ctx, name, metav1.GetOptions{})
		if getErr != nil {
			return fmt.Errorf("read Secret %s/%s in the control cluster: %w", names.SystemNamespace, name, getErr)
		}
		if old.Labels[names.LabelManagedBy] != managedBy {
			return fmt.Errorf("Secret %s/%s is in the control cluster already and was not made by this command; delete it or choose another name for the pool", names.SystemNamespace, name)
		}
		// Left by an earlier pool of that name.
		wanted.ResourceVersion = old.ResourceVersion
		made, err = secrets.Update(ctx, wanted, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("store the credentials in the control cluster: %w", err)
	}
	undo.add("the stored credentials", func(ctx context.Context) error {
		err := secrets.Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &made.UID}})
		return client.IgnoreNotFound(err)
	})
	return nil
}

// awaitPool waits until the vk-provider says that pods can be placed in the pool.
func (o *Operator) awaitPool(ctx context.Context, name string, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	resource := &v1alpha1.ResourcePool{}
	err := o.await(ctx, resource, name, func() (bool, error) {
		return meta.IsStatusConditionTrue(resource.Status.Conditions, v1alpha1.PoolReady), nil
	})
	switch {
	case err == nil:
		o.say("pool %s is ready: %d nodes, %d virtual nodes", name, resource.Status.Nodes, resource.Status.VirtualNodes)
		return nil
	case len(resource.Status.Conditions) == 0:
		return fmt.Errorf("pool %s was registered and nobody has looked at it within %s; does the vk-provider run?", name, within)
	default:
		return fmt.Errorf("pool %s did not become ready within %s: %s", name, within, reason(err, resource.Status.Conditions))
	}
}

// withdraw deletes a ResourcePool that never became ready. Nothing was placed in it, so nobody has to let go of it.
func (o *Operator) withdraw(ctx context.Context, made *v1alpha1.ResourcePool) error {
	if err := o.Admin.Delete(ctx, made, client.Preconditions{UID: &made.UID}); err != nil {
		return client.IgnoreNotFound(err)
	}
	short, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	resource := &v1alpha1.ResourcePool{}
	if err := o.await(short, resource, made.Name, func() (bool, error) { return resource.UID != made.UID, nil }); err == nil || apierrors.IsNotFound(err) {
		return nil
	}
	return o.letGo(ctx, made.Name)
}

// letGo takes every finalizer from a ResourcePool.
func (o *Operator) letGo(ctx context.Context, name string) error {
	err := o.Admin.Patch(ctx, &v1alpha1.ResourcePool{ObjectMeta: metav1.ObjectMeta{Name: name}},
		client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`)))
	return client.IgnoreNotFound(err)
}

// undo takes steps back, last first.
type undo struct {
	say   func(string, ...any)
	steps []step
}

type step struct {
	what string
	back func(context.Context) error
}

func (u *undo) add(what string, back func(context.Context) error) {
	u.steps = append(u.steps, step{what, back})
}

// run takes everything back and adds to cause what could not be.
func (u *undo) run(ctx context.Context, cause error) error {
	for i := len(u.steps) - 1; i >= 0; i-- {
		attempt, cancel := context.WithTimeout(ctx, 30*time.Second)
		err := u.steps[i].back(attempt)
		cancel()
		if err != nil {
			cause = fmt.Errorf("%w\n%s could not be removed again: %w", cause, u.steps[i].what, err)
		} else {
			u.say("removed %s again", u.steps[i].what)
		}
	}
	u.steps = nil
	return cause
}
