package discovery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"vivarium.io/vivarium/gateway/internal/kinds"
)

func TestCutIssuer(t *testing.T) {
	document := func(issuer, keys string) string {
		return fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q,"response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["RS256"]`, issuer, keys)
	}
	const own = "https://gateway.test:6443/openid/v1/jwks"
	for name, tc := range map[string]struct {
		reason, issuer, keys, want string
	}{
		"Gateway":        {"as the operator is told to have it", "https://gateway.test:6443", own, own},
		"ControlAddress": {"what an API server says of itself unless it is told", "https://gateway.test:6443", "https://10.0.0.1:6443/openid/v1/jwks", own},
		"ControlName":    {"the default of many installers", "https://kubernetes.default.svc", "https://10.0.0.1:6443/openid/v1/jwks", own},
		"Elsewhere":      {"published by the operator", "https://issuers.test/a", "https://issuers.test/a/keys.json", "https://issuers.test/a/keys.json"},
		"OtherPort":      {"another server", "https://issuers.test", "https://issuers.test:6443/keys", own},
		"NotSecret":      {"nobody should ask there", "https://issuers.test", "http://issuers.test/keys", own},
		"NoAddress":      {"nothing to tell", "https://issuers.test", ":", own},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := cutIssuer([]byte(document(tc.issuer, tc.keys)+`,"authorization_endpoint":"https://10.0.0.1"}`), "gateway.test:6443")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(document(tc.issuer, tc.want)+"}", string(raw)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
	for _, raw := range []string{"", "[]", "{}", document("http://issuers.test", "x") + "}", document("https://", "x") + "}"} {
		if got, err := cutIssuer([]byte(raw), "gateway.test"); err == nil {
			t.Errorf("%s becomes %s", raw, got)
		}
	}
}

// TestCutKeys gives it what must never leave: the private parts of a key, and a key that is nothing else.
func TestCutKeys(t *testing.T) {
	got, err := cutKeys([]byte(`{"keys":[
		{"use":"sig","kty":"RSA","kid":"a","alg":"RS256","n":"n1","e":"AQAB","d":"secret","p":"secret","q":"secret","dp":"secret","dq":"secret","qi":"secret"},
		{"use":"sig","kty":"EC","kid":"b","alg":"ES256","crv":"P-256","x":"x1","y":"y1","d":"secret","x5c":["secret"]},
		{"kty":"oct","kid":"c","k":"secret"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"keys":[{"kty":"RSA","use":"sig","kid":"a","alg":"RS256","n":"n1","e":"AQAB"},{"kty":"EC","use":"sig","kid":"b","alg":"ES256","crv":"P-256","x":"x1","y":"y1"}]}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, err := cutKeys([]byte("<html>")); err == nil {
		t.Errorf("a page becomes %s", got)
	}
}

// TestIssuerGone changes an issuer into one that is not published: what was known of it is not told any longer.
func TestIssuerGone(t *testing.T) {
	f := newFixture(t)
	f.documents[issuerPath] = `{"issuer":"https://gateway.test","jwks_uri":"https://gateway.test/openid/v1/jwks"}`
	f.world.MayRead = func(context.Context, string) error { return nil }
	get := func(path string) (string, error) {
		t.Helper()
		f.now = f.now.Add(2 * freshFor)
		w, err := f.get(t, path, "")
		return w.Body.String(), err
	}
	if body, err := get(issuerPath); err != nil || !strings.Contains(body, `"issuer":"https://gateway.test"`) {
		t.Fatal(err, body)
	}
	if body, err := get("/"); err != nil || !strings.Contains(body, issuerPath) || !strings.Contains(body, keysPath) {
		t.Error(err, body)
	}
	f.down = true
	if body, err := get(issuerPath); err != nil || !strings.Contains(body, `"issuer":"https://gateway.test"`) {
		t.Error("while the control cluster is away:", err, body)
	}
	if body, err := get(keysPath); !apierrors.IsServiceUnavailable(err) {
		t.Error(err, body)
	}
	f.missing = map[string]bool{issuerPath: true, keysPath: true}
	for range 2 {
		if body, err := get(issuerPath); !errors.Is(err, kinds.ErrNoSuchPath) {
			t.Error("after it is gone:", err, body)
		}
	}
	if body, err := get("/"); err != nil || strings.Contains(body, issuerPath) {
		t.Error(err, body)
	}
}

// TestIssuerRefused asks as somebody who may not: the control cluster must not be asked.
func TestIssuerRefused(t *testing.T) {
	f := newFixture(t)
	refused := apierrors.NewForbidden(schema.GroupResource{}, "", errors.New("no"))
	for _, world := range []World{{}, {MayRead: func(context.Context, string) error { return refused }}} {
		f.world = world
		if w, err := f.get(t, keysPath, ""); err == nil || w.Body.Len() > 0 || len(f.asked) > 0 {
			t.Error(err, w.Body, f.asked)
		}
	}
}
