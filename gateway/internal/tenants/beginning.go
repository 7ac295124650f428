package tenants

import (
	"context"
	"fmt"
	"math"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/api/v1alpha1"
)

// A name may be given to another tenant when nothing is left of the first (ADR 42). What was there can be read for a while
// longer, by whoever asks for it as of an older resource version: names alone do not tell the two tenants apart.

// Beginning is where a tenant's history begins: nothing older is its own. Zero is no bound, for a tenant of a release that
// did not know of it.
type Beginning struct{ Control, Events, Admin uint64 }

// notBegun is the beginning of a tenant of which it is not known yet: no history at all is its own.
var notBegun = Beginning{Control: math.MaxUint64, Events: math.MaxUint64, Admin: math.MaxUint64}

// begin notes where the history of a new tenant begins, before anything is made for it and before it gets credentials. The
// name was given away because nothing was left under it, so that every resource version from now on is late enough.
func (c *Controller) begin(ctx context.Context, t *v1alpha1.Tenant) (*v1alpha1.Tenant, error) {
	if t.Status.Beginning != nil || t.Annotations[v1alpha1.AnnotationKubeconfig] != "" {
		return t, nil
	}
	// Without a resource version, a list is as of now; with a limit, it is short.
	namespaces, err := c.control.CoreV1().Namespaces().List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return t, fmt.Errorf("ask for the resource version of now: %w", err)
	}
	events, err := c.control.CoreV1().Events("").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return t, fmt.Errorf("ask for the resource version of events of now: %w", err)
	}
	var began v1alpha1.TenantBeginning
	for _, part := range []struct {
		of      string
		version string
		into    *int64
	}{
		{"the control cluster", namespaces.ResourceVersion, &began.Control},
		{"events of the control cluster", events.ResourceVersion, &began.Events},
		// What the admin API keeps of the earlier tenant went before this object was made.
		{"tenant " + t.Name, t.ResourceVersion, &began.Admin},
	} {
		if *part.into, err = strconv.ParseInt(part.version, 10, 64); err != nil {
			return t, fmt.Errorf("read the resource version of %s: %w", part.of, err)
		}
	}
	status := t.Status.DeepCopy()
	status.Beginning = &began
	return c.updateStatus(ctx, t, status)
}
