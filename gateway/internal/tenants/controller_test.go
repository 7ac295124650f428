package tenants_test

import (
	"encoding/base64"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/api/v1alpha1"
)

func TestCreate(t *testing.T) {
	w := newWorld(t)
	w.startController()
	begin := time.Now()
	x := w.create("creat1")
	t.Logf("created in %s", time.Since(begin))
	x = w.await("creat1", v1alpha1.TenantActive)
	t.Logf("ready in %s", time.Since(begin))
	t.Logf("%+v", x.Status)
	raw, _ := base64.StdEncoding.DecodeString(x.Annotations[v1alpha1.AnnotationKubeconfig])
	t.Log(string(raw))
	begin = time.Now()
	if err := w.admin.Delete(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	w.eventually("gone", func() error {
		x := w.get("creat1")
		for _, f := range x.Finalizers {
			if f == v1alpha1.FinalizerControl {
				return errStill(x)
			}
		}
		return nil
	})
	t.Logf("gone in %s", time.Since(begin))
	_ = metav1.Now
}

func errStill(x *v1alpha1.Tenant) error { return &still{x} }

type still struct{ x *v1alpha1.Tenant }

func (s *still) Error() string {
	out := ""
	for _, c := range s.x.Status.Conditions {
		out += c.Type + " " + c.Message + "; "
	}
	return out
}
