package carrier

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/syncer/internal/engine"
	"vivarium.io/vivarium/syncer/internal/kind"
)

// TestFair: a tenant with many keys and one with few take turns, and each tenant's own keys keep their order.
func TestFair(t *testing.T) {
	f := newFair()
	key := func(namespace names.ControlNamespace, n int) kind.Key {
		return kind.Key{Kind: kind.Secret, Namespace: namespace, Name: fmt.Sprint(n)}
	}
	for n := range 4 {
		f.Push(key("loud00-x", n))
	}
	f.Push(key("quiet0-x", 0))
	f.Push(key("quiet0-y", 1))
	var got []string
	for f.Len() > 0 {
		k := f.Pop()
		got = append(got, string(k.Namespace)+"/"+k.Name)
		if len(got) == 3 {
			f.Push(key("late00-x", 0))
		}
	}
	want := []string{"loud00-x/0", "quiet0-x/0", "loud00-x/1", "quiet0-y/1", "loud00-x/2", "late00-x/0", "loud00-x/3"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if len(f.lines) != 0 || len(f.turns) != 0 {
		t.Errorf("left %v, %v", f.lines, f.turns)
	}
}

// TestComplaints: a tenant is told what concerns it, in its own words: nothing of control's or the pool's names, and
// nothing of the API server's text.
func TestComplaints(t *testing.T) {
	resource := corev1.Resource("secrets")
	terminating := apierrors.NewForbidden(resource, "s", errors.New("namespace abc123-web is being terminated"))
	terminating.ErrStatus.Details.Causes = append(terminating.ErrStatus.Details.Causes, metav1.StatusCause{Type: corev1.NamespaceTerminatingCause})
	cases := map[string]struct {
		key    kind.Key
		err    error
		reason string
		names  string
	}{
		"Foreign":          {kind.Key{Kind: kind.Secret, Namespace: "abc123-web", Name: "s"}, fmt.Errorf("write Secret abc123-web/s in pool east: %w", engine.ErrConflict), "PoolNameConflict", `Secret "s"`},
		"ForeignNamespace": {kind.Key{Kind: kind.ConfigMap, Namespace: "abc123-web", Name: "c"}, fmt.Errorf("namespace abc123-web in pool east: %w", pools.ErrNotOurs), "PoolNameConflict", `ConfigMap "c"`},
		"RootCA":           {kind.Key{Kind: kind.ConfigMap, Namespace: "abc123-web", Name: names.RootCAConfigMap}, fmt.Errorf("x: %w", engine.ErrConflict), "PoolNameConflict", `ConfigMap "kube-root-ca.crt"`},
		"Token":            {kind.Key{Kind: kind.Token, Namespace: "abc123-web", Name: "vivarium-token-u1"}, fmt.Errorf("x: %w", engine.ErrConflict), "PoolNameConflict", "ServiceAccount token"},
		"TooLarge":         {kind.Key{Kind: kind.Secret, Namespace: "abc123-web", Name: "s"}, fmt.Errorf("east: %w", apierrors.NewRequestEntityTooLargeError("abc123-web")), "DeliveryRefused", `Secret "s"`},
		"Quota":            {kind.Key{Kind: kind.Secret, Namespace: "abc123-web", Name: "s"}, fmt.Errorf("east: %w", apierrors.NewForbidden(resource, "abc123-web", errors.New("exceeded quota"))), "DeliveryRefused", `Secret "s"`},
		"Terminating":      {kind.Key{Kind: kind.Secret, Namespace: "abc123-web", Name: "s"}, fmt.Errorf("east: %w", terminating), "", ""},
		"Unreachable":      {kind.Key{Kind: kind.Secret, Namespace: "abc123-web", Name: "s"}, errors.New("dial tcp east: connection refused"), "", ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, ok := complaintAbout(tc.key, tc.err)
			if ok != (tc.reason != "") || got.reason != tc.reason {
				t.Fatalf("got %+v, %t", got, ok)
			}
			if !strings.Contains(got.message, tc.names) {
				t.Errorf("message %q does not name %s", got.message, tc.names)
			}
			for _, forbidden := range []string{"abc123", "east", "vivarium-token", "quota", names.RootCAConfigMap} {
				if strings.Contains(got.message, forbidden) {
					t.Errorf("message %q leaks %q", got.message, forbidden)
				}
			}
		})
	}
}
