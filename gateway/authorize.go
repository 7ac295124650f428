package gateway

import (
	"context"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"vivarium.io/vivarium/gateway/internal/identity"
	"vivarium.io/vivarium/internal/boot"
)

// authorize asks the control cluster's authorizer whether the user may do what the request asks, with the verb given. It
// is for requests that the gateway answers itself; every other one is decided where it arrives.
func (x *exchange) authorize(ctx context.Context, verb string) error {
	request := x.facts.request
	as := &x.facts.identity
	question := identity.Access{
		User: as.ControlUser(), Groups: as.ControlGroups(), Verb: verb, Group: x.view.Group(request.Group), Resource: request.Resource,
		Subresource: request.Subresource, Name: x.view.ResourceName(request.Group, request.Resource, request.Name),
	}
	where := "at the cluster scope"
	if request.Namespace != "" {
		ns, err := x.facts.tenant.ID.NamespaceToControl(request.Namespace)
		if err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		question.Namespace = string(ns)
		where = fmt.Sprintf("in the namespace %q", request.Namespace)
	}
	allowed, err := x.front.control.ReviewAccess(ctx, question)
	if err != nil {
		return unreviewed(ctx, err, as)
	}
	if allowed {
		return nil
	}
	resource := request.Resource
	if request.Subresource != "" {
		resource += "/" + request.Subresource
	}
	refused := apierrors.NewForbidden(schema.GroupResource{Group: request.Group, Resource: request.Resource}, request.Name,
		fmt.Errorf("User %q cannot %s resource %q in API group %q %s", as.User, verb, resource, request.Group, where))
	refused.ErrStatus.Code = http.StatusForbidden
	return refused
}

// unreviewed is the error where the authorizer could not be asked.
func unreviewed(ctx context.Context, err error, as *identity.Identity) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	boot.Logger(ctx).Error("Access cannot be reviewed", "error", err, "tenant", as.Tenant)
	return apierrors.NewServiceUnavailable("whether this user may do that cannot be checked at the moment")
}

// mayRead asks whether a user may read what is at a path that leads to no resource and that not everybody may read.
func (f *front) mayRead(ctx context.Context, as *identity.Identity, path string) error {
	// Every cluster lets its ServiceAccounts read who issues their tokens. A binding of each tenant that says so would have to
	// be looked at for every request of all of them.
	if as.IsServiceAccount() {
		return nil
	}
	allowed, err := f.access.read(ctx, as, path)
	switch {
	case err != nil:
		return unreviewed(ctx, err, as)
	case !allowed:
		return errStatus(http.StatusForbidden, metav1.StatusReasonForbidden, fmt.Sprintf("forbidden: User %q cannot get path %q", as.User, path))
	}
	return nil
}
