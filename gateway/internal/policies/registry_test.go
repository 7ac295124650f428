package policies

import (
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
)

// TestMayHave: who must not miss a policy is told that there may be one for as long as nobody knows.
func TestMayHave(t *testing.T) {
	control := fake.NewClientset(&admissionregistrationv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "abc123-b"}})
	bindings := informers.NewSharedInformerFactory(control, 0).Admissionregistration().V1().ValidatingAdmissionPolicyBindings().Informer()
	if err := bindings.AddIndexers(cache.Indexers{byTenant: tenantOf}); err != nil {
		t.Fatal(err)
	}
	r := &Registry{bound: map[side]bool{}, sorts: []*sort{{which: Validating, bindings: bindings}}}
	if !r.MayHave("abc123", Validating) || !r.MayHave("zzz999", Validating) {
		t.Error("nothing is known, and nobody has any")
	}
	go bindings.RunWithContext(t.Context())
	if !cache.WaitForCacheSync(t.Context().Done(), bindings.HasSynced) {
		t.Fatal("no cache")
	}
	if !r.MayHave("abc123", Validating) || r.MayHave("zzz999", Validating) || r.Has("abc123", Validating) {
		t.Error("it is not who has a binding")
	}
}
