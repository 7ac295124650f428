package gateway

import (
	"net/http"
	"strings"
	"testing"
)

// TestUnknownGroups checks that a group nobody knows costs the control cluster a question about the tenant's own name, and
// shows nothing.
func TestUnknownGroups(t *testing.T) {
	h := newHarness(t)
	for range 5 {
		res, body := h.do("GET", "/apis/zzz999-example.com/v1/namespaces/default/foos/a", "", nil)
		if res.StatusCode != http.StatusNotFound || strings.TrimSpace(body) != "404 page not found" {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	}
	asTenant, own := h.taken()
	if len(asTenant) != 0 || len(own) == 0 {
		t.Errorf("the control cluster was asked %v %v", asTenant, own)
	}
	for _, r := range own {
		if r.URI != "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/foos.abc123-zzz999-example.com" {
			t.Errorf("asked %s", r)
		}
	}
	// What cannot be a kind of anybody's is not asked for.
	for _, path := range []string{"/apis/nodots/v1/foos", "/apis/example.com/v1/FOOS", "/apis/vivarium.io/v1alpha1/tenants", "/apis/-x.com/v1/foos", "/apis/x.com/v1/foos.x"} {
		if res, body := h.do("GET", path, "", nil); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
	if asTenant, own := h.taken(); len(asTenant)+len(own) != 0 {
		t.Errorf("the control cluster was asked %v %v", asTenant, own)
	}
}
