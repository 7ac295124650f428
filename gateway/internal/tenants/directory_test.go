package tenants_test

import (
	"fmt"
	"math"
	"testing"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/gateway/internal/tenants"
	"vivarium.io/vivarium/internal/names"
)

func TestDirectory(t *testing.T) {
	w := newWorld(t)
	told := make(chan names.TenantID, 100)
	w.directory.Subscribe(func(id names.TenantID) { told <- id })
	w.eventually("the directory has synced", func() error {
		if !w.directory.HasSynced() {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	if got, ok := w.directory.Get("direc1"); ok {
		t.Errorf("an unknown tenant is %+v", got)
	}
	x := w.create("direc1", func(x *v1alpha1.Tenant) { x.Spec.Limits.RequestsPerSecond = 50 })
	if id := <-told; id != "direc1" {
		t.Errorf("told of %q", id)
	}
	// Nobody runs who notes where the tenant begins.
	never := tenants.Beginning{Control: math.MaxUint64, Events: math.MaxUint64, Admin: math.MaxUint64}
	want := tenants.Tenant{ID: "direc1", UID: x.UID, Beginning: never, Limits: tenants.Limits{RequestsPerSecond: 50, Burst: 100, MaxInFlight: 100, MaxWatches: 1000, MaxStreams: 100, CustomResourceDefinitions: 100}}
	if got, ok := w.directory.Get("direc1"); !ok || got != want {
		t.Errorf("got %+v, %t, want %+v", got, ok, want)
	}
	w.change("direc1", func(x *v1alpha1.Tenant) {
		x.Annotations = map[string]string{v1alpha1.AnnotationMaxInFlight: "7"}
		x.Spec.Suspended = true
	})
	<-told
	want.Limits.MaxInFlight, want.Suspended = 7, true
	if got, _ := w.directory.Get("direc1"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	// What does not matter to requests is not told.
	w.change("direc1", func(x *v1alpha1.Tenant) { x.Spec.Weight++ })
	// Labels decide what the operator offers.
	w.change("direc1", func(x *v1alpha1.Tenant) { x.Labels = map[string]string{"team": "a"} })
	<-told
	want.Labels = "team=a"
	if got, _ := w.directory.Get("direc1"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	w.delete("direc1")
	<-told
	want.Terminating = true
	if got, _ := w.directory.Get("direc1"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	w.change("direc1", func(x *v1alpha1.Tenant) { x.Finalizers = nil })
	<-told
	if got, ok := w.directory.Get("direc1"); ok {
		t.Errorf("a removed tenant is %+v", got)
	}
}
