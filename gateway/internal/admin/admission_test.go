package admin_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

func TestTenantAdmission(t *testing.T) {
	control := scannerFn(func(_ context.Context, id names.TenantID) ([]string, error) {
		switch id {
		case "taken1":
			return []string{`namespace "taken1-x"`, `clusterrole "taken1-y"`}, nil
		case "broken":
			return nil, errors.New("list nodes: connection refused")
		default:
			return nil, nil
		}
	})
	f := start(t, control)
	c := f.operator(t)
	if err := c.Create(t.Context(), pool("pool01", "uid-1")); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), pool("pool02-west", "uid-2")); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		name   string
		is     func(error) bool
		reason string
	}{
		"Good":         {"demo01", func(err error) bool { return err == nil }, ""},
		"Again":        {"demo01", apierrors.IsAlreadyExists, "demo01"},
		"TooShort":     {"demo1", apierrors.IsInvalid, "metadata.name: Invalid value: \"demo1\": \"demo1\" is not a tenant ID: it must be exactly 6 characters of a-z and 0-9"},
		"Dash":         {"abc12-", apierrors.IsInvalid, "exactly 6 characters"},
		"UpperCase":    {"ABC123", apierrors.IsInvalid, "exactly 6 characters"},
		"Taken":        {"taken1", apierrors.IsInvalid, `the control cluster has namespace "taken1-x" and 1 more; everything that starts with "taken1-"`},
		"ControlAway":  {"broken", apierrors.IsServiceUnavailable, "connection refused"},
		"Pool":         {"pool01", apierrors.IsInvalid, `resource pool "pool01"`},
		"PoolsPrefix":  {"pool02", apierrors.IsInvalid, `resource pool "pool02-west"`},
		"PoolsNotQuit": {"pool0w", func(err error) bool { return err == nil }, ""},
	}
	for _, name := range []string{"Good", "Again", "TooShort", "Dash", "UpperCase", "Taken", "ControlAway", "Pool", "PoolsPrefix", "PoolsNotQuit"} {
		tc := cases[name]
		err := c.Create(t.Context(), tenant(tc.name))
		if !tc.is(err) || (err != nil && !strings.Contains(err.Error(), tc.reason)) {
			t.Errorf("%s: create %q: %v", name, tc.name, err)
		}
	}
	for name, want := range map[string]string{"demo01": "tenant \"demo01\"", "demo01-west": "\"demo01-\""} {
		err := c.Create(t.Context(), pool(name, "uid-3"))
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("create pool %q: %v", name, err)
		}
	}
}

func TestRevocation(t *testing.T) {
	f := start(t, scannerFn(emptyControl))
	c := f.operator(t)
	at := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: time.Now().Add(d)} }
	x := tenant("demo01")
	x.Spec.CredentialsNotBefore = at(time.Hour)
	if err := c.Create(t.Context(), x); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "must not be in the future") {
		t.Errorf("revoke in the future: %v", err)
	}
	x.Spec.CredentialsNotBefore = at(-time.Hour)
	if err := c.Create(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		at     *metav1.Time
		reason string
	}{
		"Back":   {at(-2 * time.Hour), "would be good again"},
		"Unset":  {nil, "would be good again"},
		"Future": {at(time.Hour), "must not be in the future"},
	} {
		change := x.DeepCopy()
		change.Spec.CredentialsNotBefore = tc.at
		if err := c.Update(t.Context(), change); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tc.reason) {
			t.Errorf("%s: %v", name, err)
		}
	}
	x.Spec.CredentialsNotBefore = at(0)
	if err := c.Update(t.Context(), x); err != nil {
		t.Error(err)
	}
}

func TestPoolAdmission(t *testing.T) {
	f := start(t, scannerFn(emptyControl))
	c := f.operator(t)
	x := pool("pool-a", "uid-a")
	if err := c.Create(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	if x.Spec.Location.Zone != "pool-a" || x.Spec.Nodes.Mode != v1alpha1.NodesShaped || x.Spec.Nodes.Max != 200 || x.Spec.Network.Driver != "flat" {
		t.Errorf("defaults: %+v", x.Spec)
	}
	if err := c.Create(t.Context(), pool("pool-b", "uid-a")); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), `resource pool "pool-a" already`) {
		t.Errorf("one cluster twice: %v", err)
	}
	x.Spec.ClusterUID = "uid-b"
	if err := c.Update(t.Context(), x); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.clusterUID: Forbidden: cannot be changed") {
		t.Errorf("another cluster under the same name: %v", err)
	}
	if err := c.Delete(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(x), x); err != nil || x.DeletionTimestamp == nil {
		t.Errorf("a pool that was not drained: %v, %v", err, x.DeletionTimestamp)
	}
}
