package control

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"vivarium.io/vivarium/gateway/internal/identity"
)

func pemOf(t *testing.T, server *httptest.Server) []byte {
	t.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}

func TestReviews(t *testing.T) {
	c, _ := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Impersonate-User") != "" || r.Header.Get("Authorization") != "Bearer own" {
			t.Errorf("headers %v", r.Header)
		}
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/base/apis/authentication.k8s.io/v1/tokenreviews":
			var review authenticationv1.TokenReview
			if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
				t.Error(err)
			}
			review.Status.Authenticated = review.Spec.Token == "good"
			review.Status.Audiences = review.Spec.Audiences
			review.Status.User.Username = "system:serviceaccount:abc123-web:x"
			_ = json.NewEncoder(w).Encode(review)
		case "/base/apis/authorization.k8s.io/v1/subjectaccessreviews":
			var review authorizationv1.SubjectAccessReview
			if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
				t.Error(err)
			}
			want := authorizationv1.SubjectAccessReviewSpec{
				User: "abc123-alice", Groups: []string{"system:authenticated", "abc123-dev"},
				ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "impersonate", Resource: "users", Name: "abc123-bob"},
			}
			if diff := cmp.Diff(want, review.Spec); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			review.Status.Allowed = true
			_ = json.NewEncoder(w).Encode(review)
		default:
			t.Errorf("asked for %s", r.URL.Path)
		}
	})
	review, err := c.ReviewToken(t.Context(), "good", "gateway")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(identity.Review{Authenticated: true, Audiences: []string{"gateway"}, User: "system:serviceaccount:abc123-web:x"}, review); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	allowed, err := c.ReviewAccess(t.Context(), identity.Access{User: "abc123-alice", Groups: []string{"abc123-dev"}, Verb: "impersonate", Resource: "users", Name: "abc123-bob"})
	if err != nil || !allowed {
		t.Errorf("%v, %v", allowed, err)
	}
}

func TestFetch(t *testing.T) {
	c, _ := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RequestURI() != "/base/openapi/v3/api/v1?hash=X" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Etag", `"1"`)
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = io.WriteString(w, "{}")
	})
	got, err := c.Fetch(t.Context(), "/openapi/v3/api/v1?hash=X", "application/json", "")
	if diff := cmp.Diff(Document{Body: []byte("{}"), ETag: `"1"`, Fresh: true}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	got, err = c.Fetch(t.Context(), "/openapi/v3/api/v1?hash=X", "application/json", `"1"`)
	if diff := cmp.Diff(Document{Body: nil, ETag: `"1"`}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := c.Fetch(t.Context(), "/nothing", "application/json", ""); err == nil {
		t.Error("no error for a 404")
	}
}
