package paging

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

func newSealer(t testing.TB, secret string) *Sealer {
	t.Helper()
	s, err := NewSealer([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSeal(t *testing.T) {
	scope := Scope{TenantUID: "a", Group: "apps", Version: "v1", Resource: "deployments", Namespace: "web", LabelSelector: "x=y"}
	const control = `{"v":"meta.k8s.io/v1","rv":7,"start":"abc123-web/a\u0000"}`
	s := newSealer(t, "secret")
	token := s.Seal(scope, control)
	if got, err := newSealer(t, "secret").Open(scope, token); err != nil || got != control {
		t.Fatalf("Open at another replica = %q, %v", got, err)
	}
	if raw, err := base64.RawURLEncoding.DecodeString(token); err != nil || strings.Contains(string(raw), "abc123") {
		t.Errorf("the token shows the control name: %q %v", raw, err)
	}
	if s.Seal(scope, control) == token {
		t.Error("two tokens are equal")
	}
	for name, change := range map[string]func(*Scope){
		"Tenant":   func(s *Scope) { s.TenantUID = "b" },
		"Group":    func(s *Scope) { s.Group = "" },
		"Version":  func(s *Scope) { s.Version = "v2" },
		"Resource": func(s *Scope) { s.Resource = "replicasets" },
		"AllNS":    func(s *Scope) { s.Namespace = "" },
		"Labels":   func(s *Scope) { s.LabelSelector = "" },
		"Fields":   func(s *Scope) { s.FieldSelector = "a=b" },
		"Shifted":  func(s *Scope) { s.Namespace, s.LabelSelector = "webx", "=y" },
	} {
		t.Run(name, func(t *testing.T) {
			other := scope
			change(&other)
			if got, err := s.Open(other, token); !errors.Is(err, ErrInvalid) {
				t.Errorf("Open = %q, %v", got, err)
			}
		})
	}
	for name, forged := range map[string]string{
		"Empty": "", "ControlToken": Start("abc123", Latest), "Truncated": token[:len(token)-1], "Longer": token + "AA",
		"Changed":   flip(token),
		"NotBase64": "!!!", "Huge": strings.Repeat("A", 1<<20), "OtherSecret": newSealer(t, "other").Seal(scope, control),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := s.Open(scope, forged); !errors.Is(err, ErrInvalid) {
				t.Errorf("Open = %q, %v", got, err)
			}
		})
	}
}

// flip changes one bit of the sealed text.
func flip(token string) string {
	raw, _ := base64.RawURLEncoding.DecodeString(token)
	raw[len(raw)/2] ^= 1
	return base64.RawURLEncoding.EncodeToString(raw)
}

func TestStart(t *testing.T) {
	raw, err := base64.RawURLEncoding.DecodeString(Start("abc123", Latest))
	if want := `{"v":"meta.k8s.io/v1","rv":-1,"start":"abc123-"}`; err != nil || string(raw) != want {
		t.Errorf("Start = %s, %v, want %s", raw, err, want)
	}
}

func TestOneNamespace(t *testing.T) {
	at, err := At("abc123-web", "7")
	if raw, _ := base64.RawURLEncoding.DecodeString(at); err != nil || string(raw) != `{"v":"meta.k8s.io/v1","rv":7,"start":"abc123-web/\u0000"}` {
		t.Errorf("At = %s, %v", raw, err)
	}
	if _, err := At("abc123-web", "x"); err == nil {
		t.Error("a revision that is none")
	}
	wide, err := Widen("abc123-web", base64.RawURLEncoding.EncodeToString([]byte(`{"v":"meta.k8s.io/v1","rv":7,"start":"/one\u0000"}`)))
	if raw, _ := base64.RawURLEncoding.DecodeString(wide); err != nil || string(raw) != `{"v":"meta.k8s.io/v1","rv":7,"start":"abc123-web/one\u0000"}` {
		t.Errorf("Widen = %s, %v", raw, err)
	}
	for _, bad := range []string{"", "%", "e30", base64.RawURLEncoding.EncodeToString([]byte(`{"rv":7}`))} {
		if got, err := Widen("abc123-web", bad); err == nil {
			t.Errorf("Widen(%q) = %q", bad, got)
		}
	}
}

// FuzzOpen checks that nothing opens but what was sealed for the very same scope.
func FuzzOpen(f *testing.F) {
	s := newSealer(f, "secret")
	scope := Scope{TenantUID: "a", Resource: "pods"}
	f.Add(s.Seal(scope, "x"), "b", "ns")
	f.Add("", "", "")
	f.Fuzz(func(t *testing.T, token, uid, ns string) {
		if got, err := s.Open(Scope{TenantUID: "z", Resource: "pods"}, token); err == nil {
			t.Fatalf("%q opened for a stranger: %q", token, got)
		}
		if strings.ContainsAny(uid+ns, "\x00") {
			return
		}
		mine := Scope{TenantUID: "a", Resource: "pods", Namespace: ns}
		got, err := s.Open(mine, s.Seal(mine, token))
		if err != nil && len(token) < 1024 || err == nil && got != token {
			t.Fatalf("Open(Seal(%q)) = %q, %v", token, got, err)
		}
	})
}
