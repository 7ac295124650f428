package syncer

import (
	"fmt"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"vivarium.io/vivarium/internal/names"
)

// TestTokensBeyondTenants uses the syncer's own credential for what it must not be good for: a token of the platform's
// ServiceAccounts, and one that no pod bounds.
func TestTokensBeyondTenants(t *testing.T) {
	if shared == nil {
		t.Skip("it needs control planes")
	}
	ctx := t.Context()
	const tenantNamespace = "tok7q1-default"
	if _, err := shared.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: tenantNamespace, Labels: map[string]string{names.LabelTenant: "tok7q1"},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	syncer := kubernetes.NewForConfigOrDie(shared.control.ConfigFor(t, "vivarium-syncer"))
	ask := func(namespace, account string, bound *authenticationv1.BoundObjectReference) error {
		_, err := syncer.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"vivarium-gateway"}, BoundObjectRef: bound},
		}, metav1.CreateOptions{})
		return err
	}
	pod := &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "nothere", UID: types.UID("00000000-0000-0000-0000-000000000000")}
	cases := map[string]struct {
		namespace, account string
		bound              *authenticationv1.BoundObjectReference
		want               string
	}{
		"Platform":        {"kube-system", "generic-garbage-collector", nil, "tenants' namespaces only"},
		"PlatformForAPod": {"kube-system", "generic-garbage-collector", pod, "tenants' namespaces only"},
		"NotForAPod":      {tenantNamespace, "default", nil, "for pods only"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			// A policy takes effect some time after it was made, and a namespace gets its ServiceAccount.
			deadline := time.Now().Add(patience)
			for {
				err := ask(tc.namespace, tc.account, tc.bound)
				if apierrors.IsForbidden(err) && strings.Contains(err.Error(), tc.want) {
					return
				}
				if time.Now().After(deadline) {
					t.Fatal(fmt.Errorf("got %v, want a refusal with %q", err, tc.want))
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
}
