package identity

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"vivarium.io/vivarium/internal/names"
)

const (
	headerUser  = "Impersonate-User"
	headerGroup = "Impersonate-Group"
	headerUID   = "Impersonate-Uid"
	// maxGroups bounds the groups of one request; each costs the control cluster a decision.
	maxGroups = 32

	userServiceAccount = "system:serviceaccount:"
)

// Access is a question to the control cluster's authorizer, in its words.
type Access struct {
	User   string
	Groups []string
	Verb   string
	Group  string
	// Version may be empty.
	Version string
	// Subresource may be empty.
	Resource, Subresource string
	Namespace             string
	Name                  string
	// Path is asked about if it is not empty: one that leads to no resource.
	Path string
}

// AccessReviewer answers it. An error means that it could not tell.
type AccessReviewer interface {
	ReviewAccess(ctx context.Context, access Access) (allowed bool, err error)
}

// AccessReviewerFn makes an AccessReviewer of a function.
type AccessReviewerFn func(ctx context.Context, access Access) (bool, error)

// ReviewAccess calls the function.
func (f AccessReviewerFn) ReviewAccess(ctx context.Context, access Access) (bool, error) {
	return f(ctx, access)
}

// Impersonator lets a user of a tenant act as another one of the same tenant, if the tenant's own RBAC lets it.
type Impersonator struct{ Reviewer AccessReviewer }

// CheckHeaders refuses identity headers that are not a tenant's to send. Headers of a client never reach the control
// cluster, so that ignoring them would be safe; it would also run a request as somebody else than its sender meant.
func CheckHeaders(h http.Header) error {
	for name := range h {
		if !suspicious(name) || name == headerUser || name == headerGroup || name == headerUID {
			continue
		}
		plain := plainName.Replace(strings.ToLower(name))
		switch {
		case strings.HasPrefix(plain, "impersonate"):
			return errBadRequest(fmt.Sprintf("header %q: only %s, %s and %s can be used to act as somebody else", name, headerUser, headerGroup, headerUID))
		case strings.HasPrefix(plain, "x-remote-user"), strings.HasPrefix(plain, "x-remote-group"),
			strings.HasPrefix(plain, "x-remote-extra"), strings.HasPrefix(plain, "x-remote-uid"):
			return errBadRequest(fmt.Sprintf("header %q: is not accepted", name))
		case plain == "authorization" && name != "Authorization":
			return errBadRequest(fmt.Sprintf("header %q: is not accepted", name))
		}
	}
	return nil
}

// plainName spells a header as servers do that have been known to take an underscore for a dash.
var plainName = strings.NewReplacer("_", "-", ".", "-")

// suspicious reports whether a header may be about identity by how it begins. Nearly all are not, and are not looked at
// any closer.
func suspicious(name string) bool {
	for _, prefix := range []string{"impersonate", "authorization"} {
		if len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
			return true
		}
	}
	return len(name) > 8 && (name[0] == 'x' || name[0] == 'X') && strings.EqualFold(name[2:8], "remote")
}

// Impersonate gives the identity that a request runs as: the sender's, or the one that its headers ask for. The error is
// an API error in the tenant's words.
func (i Impersonator) Impersonate(ctx context.Context, sender Identity, h http.Header) (Identity, error) {
	users, groups, uids := h.Values(headerUser), h.Values(headerGroup), h.Values(headerUID)
	if len(users) == 0 && len(groups) == 0 && len(uids) == 0 {
		return sender, nil
	}
	if len(users) != 1 {
		return Identity{}, errBadRequest(fmt.Sprintf("header %s: must be given exactly once", headerUser))
	}
	if len(groups) > maxGroups {
		return Identity{}, errBadRequest(fmt.Sprintf("header %s: is given more than %d times", headerGroup, maxGroups))
	}
	if len(uids) > 1 {
		return Identity{}, errBadRequest(fmt.Sprintf("header %s: is given more than once", headerUID))
	}
	user := users[0]
	for _, name := range append(append([]string{user}, groups...), uids...) {
		if !names.IsPrincipal(name) {
			return Identity{}, errBadRequest("the user, the groups and the UID to act as must be printable and not empty")
		}
	}
	if user == userAnonymous {
		return Identity{}, errBadRequest("nobody can act as system:anonymous: every user of a tenant is known")
	}
	target := sender
	target.User, target.Groups, target.UID = user, everybody(groups), ""
	question := Access{User: sender.ControlUser(), Groups: sender.ControlGroups(), Verb: "impersonate", Resource: "users"}
	question.Name = target.ControlUser()
	if account, ok := strings.CutPrefix(user, userServiceAccount); ok {
		ns, name, _ := strings.Cut(account, ":")
		controlNS, err := sender.Tenant.NamespaceToControl(names.TenantNamespace(ns))
		if err != nil || len(validation.IsDNS1123Subdomain(name)) > 0 {
			return Identity{}, errBadRequest(fmt.Sprintf("%q is not a ServiceAccount: write %sNAMESPACE:NAME", user, userServiceAccount))
		}
		question.Resource, question.Namespace, question.Name = "serviceaccounts", string(controlNS), name
		if len(groups) == 0 {
			target.Groups = serviceAccountGroups(names.TenantNamespace(ns))
		}
	}
	if err := i.ask(ctx, sender, user, question); err != nil {
		return Identity{}, err
	}
	for _, group := range groups {
		question.Resource, question.Namespace, question.Name = "groups", "", sender.Tenant.UserGroupToControl(group)
		if err := i.ask(ctx, sender, group, question); err != nil {
			return Identity{}, err
		}
	}
	if len(uids) > 0 {
		// A UID says nothing about rights; it is the tenant's own word in its own audit and reviews.
		target.UID = uids[0]
		question.Group, question.Resource, question.Namespace, question.Name = "authentication.k8s.io", "uids", "", uids[0]
		if err := i.ask(ctx, sender, uids[0], question); err != nil {
			return Identity{}, err
		}
	}
	return target, nil
}

func (i Impersonator) ask(ctx context.Context, sender Identity, name string, question Access) error {
	allowed, err := i.Reviewer.ReviewAccess(ctx, question)
	switch {
	case err != nil:
		return errUnavailable("whether this user may act as another cannot be checked at the moment")
	case !allowed:
		return apierrors.NewForbidden(schema.GroupResource{Resource: question.Resource}, name,
			fmt.Errorf("User %q cannot impersonate resource %q in API group %q at the cluster scope", sender.User, question.Resource, question.Group))
	}
	return nil
}
