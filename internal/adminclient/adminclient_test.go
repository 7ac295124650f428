package adminclient

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
)

// TestPaths pins that every kind is found without asking the server, under the path that the gateway serves.
func TestPaths(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		w.Header().Set("Content-Type", "application/json")
		kind := map[string]string{"/apis/vivarium.io/v1alpha1/tenants": "TenantList", "/apis/vivarium.io/v1alpha1/resourcepools": "ResourcePoolList"}[r.URL.Path]
		fmt.Fprintf(w, `{"apiVersion":"vivarium.io/v1alpha1","kind":%q,"items":[]}`, kind)
	}))
	defer server.Close()
	c, err := New(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	if len(asked) > 0 {
		t.Errorf("asked %v before its first use", asked)
	}
	for _, list := range []client.ObjectList{&v1alpha1.TenantList{}, &v1alpha1.ResourcePoolList{}} {
		if err := c.List(t.Context(), list); err != nil {
			t.Error(err)
		}
	}
	want := []string{"/apis/vivarium.io/v1alpha1/tenants", "/apis/vivarium.io/v1alpha1/resourcepools"}
	if len(asked) != len(want) || asked[0] != want[0] || asked[1] != want[1] {
		t.Errorf("asked %v, want %v", asked, want)
	}
}
