package gateway

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"vivarium.io/vivarium/gateway/internal/customs"
	"vivarium.io/vivarium/gateway/internal/kinds"
)

// checkDefinitions refuses one CustomResourceDefinition too many, in the words of a quota: each costs the shared control
// cluster memory and a place in its discovery, whether it has objects or not.
func (x *exchange) checkDefinitions(has *customs.Snapshot) error {
	r := x.facts.request
	if x.kind.Confined != kinds.ByDefinition || r.Subresource != "" {
		return nil
	}
	limit := x.facts.tenant.Limits.CustomResourceDefinitions
	// Applying what is not there creates it.
	if creates := r.Verb == "create" || r.Verb == "patch" && !has.Defines(r.Name); !creates || has.Definitions() < limit {
		return nil
	}
	const what = "count/customresourcedefinitions.apiextensions.k8s.io"
	return apierrors.NewForbidden(r.GroupResource(), r.Name, fmt.Errorf(
		"exceeded quota: tenant, requested: %s=1, used: %s=%d, limited: %s=%d", what, what, has.Definitions(), what, limit))
}
