package tenants_test

import (
	"fmt"
	"testing"

	"vivarium.io/vivarium/gateway/internal/admin"
	"vivarium.io/vivarium/gateway/internal/tenants"
	"vivarium.io/vivarium/internal/names"
)

// TestSecondReplicaAgrees deletes a tenant at one replica and looks at another, which knows of it from etcd alone.
func TestSecondReplicaAgrees(t *testing.T) {
	w := newWorld(t)
	other, err := admin.New(t.Context(), w.adminConfig)
	if err != nil {
		t.Fatal(err)
	}
	w.inBackground(other.Run)
	w.eventually("the second replica is ready", func() error { return other.Ready(t.Context()) })
	directory, err := tenants.NewDirectory(other.LoopbackConfig())
	if err != nil {
		t.Fatal(err)
	}
	w.inBackground(directory.Run)
	x := w.create("repli1")
	see := func(what string, good func(tenants.Tenant, bool) bool) {
		t.Helper()
		w.eventually("the second replica sees the tenant "+what, func() error {
			if got, ok := directory.Get(names.TenantID("repli1")); !good(got, ok) {
				return fmt.Errorf("%+v, %t", got, ok)
			}
			return nil
		})
	}
	see("created", func(got tenants.Tenant, ok bool) bool { return ok && got.UID == x.UID && !got.Terminating })
	w.delete("repli1")
	see("terminating", func(got tenants.Tenant, ok bool) bool { return ok && got.Terminating })
}
