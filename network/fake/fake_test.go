package fake_test

import (
	"fmt"
	"testing"

	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/drivertest"
	"vivarium.io/vivarium/network/fake"
)

func TestContract(t *testing.T) {
	// A driver in memory has one state for all processes, so "another process" is the same value.
	drivers := map[*testing.T]*fake.Driver{}
	drivertest.Run(t, drivertest.Harness{
		Driver: func(t *testing.T) network.Driver {
			if drivers[t] == nil {
				drivers[t] = fake.New()
			}
			return drivers[t]
		},
		Pool: func(*testing.T, ...network.Namespace) network.Pool {
			return network.Pool{Name: "pool-a", ControlUID: "control"}
		},
		Snapshot: func(t *testing.T, driver network.Driver, pool network.Pool) any {
			t.Helper()
			d, ok := driver.(*fake.Driver)
			if !ok {
				t.Fatalf("got a %T", driver)
			}
			return d.Dump(pool.Name)
		},
	})
}

func TestFailAndCalls(t *testing.T) {
	d := fake.New()
	d.Fail = func(c fake.Call) error {
		if c.Pool == "down" {
			return fmt.Errorf("refused")
		}
		return nil
	}
	ns := network.Namespace{Name: "abc123-web", Tenant: "abc123"}
	if err := d.EnsureNamespace(t.Context(), network.Pool{Name: "down"}, ns); err == nil {
		t.Error("did not fail on request")
	}
	if err := d.EnsureNamespace(t.Context(), network.Pool{Name: "up"}, ns); err != nil {
		t.Error(err)
	}
	if got := d.Namespaces("up"); len(got) != 1 || len(d.Namespaces("down")) != 0 {
		t.Errorf("namespaces: %v", got)
	}
	if got := d.Calls(); len(got) != 2 || got[1] != (fake.Call{Method: "EnsureNamespace", Pool: "up", Object: "abc123-web"}) {
		t.Errorf("calls: %v", got)
	}
}
