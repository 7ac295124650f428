package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"

	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/gateway/internal/offers"
	"vivarium.io/vivarium/gateway/internal/policies"
	"vivarium.io/vivarium/gateway/internal/translate"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
)

// tenantPolicies applies tenants' admission policies: it is asked by the control cluster, on the tenant listener.
type tenantPolicies struct {
	front    *front
	registry *policies.Registry
	reviewer *policies.Reviewer
	worlds   *policies.Worlds
	// path is what only the control cluster is told: an API server sends a webhook no credential of its own.
	path string
}

// admissionPath starts the path of every question. No path of an API begins so.
const admissionPath = "/vivarium-admission/"

func newTenantPolicies(ctx context.Context, f *front, control *rest.Config, url string, ca, secret []byte) (*tenantPolicies, error) {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("admission webhook"))
	p := &tenantPolicies{front: f, path: admissionPath + hex.EncodeToString(mac.Sum(nil))}
	client := func(which string) admissionregistrationv1.WebhookClientConfig {
		target := strings.TrimSuffix(url, "/") + p.path + "/" + which
		return admissionregistrationv1.WebhookClientConfig{URL: &target, CABundle: ca}
	}
	var err error
	if p.registry, err = policies.NewRegistry(control, client(policies.Validating), client(policies.Mutating)); err != nil {
		return nil, err
	}
	p.worlds = policies.NewWorlds(ctx, func(id names.TenantID) http.RoundTripper { return inside{f, id} })
	p.reviewer = &policies.Reviewer{Worlds: p.worlds, Find: p.find}
	return p, nil
}

// Run follows what policies there are until ctx is done.
func (p *tenantPolicies) Run(ctx context.Context) error {
	go func() {
		tick := time.NewTicker(time.Minute)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				p.worlds.Prune(p.registry.Has)
			}
		}
	}()
	return p.registry.Run(ctx)
}

// handler answers the control cluster and leaves everybody else to next, to whom such a path is like any other.
func (p *tenantPolicies) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, admissionPath) && r.Method == http.MethodPost {
			for _, which := range []string{policies.Validating, policies.Mutating} {
				if subtle.ConstantTimeCompare([]byte(r.URL.Path), []byte(p.path+"/"+which)) == 1 {
					p.reviewer.Serve(w, r, which)
					return
				}
			}
		}
		next.ServeHTTP(w, r)
	})
}

// find implements policies.Reviewer. The policies of a tenant that is being removed end with its credentials, so that they
// cannot keep it.
func (p *tenantPolicies) find(id names.TenantID) (policies.Tenant, bool, error) {
	f := p.front
	if !f.tenants.HasSynced() || !f.customs.HasSynced() || f.offers != nil && f.offers.Known() != nil {
		return policies.Tenant{}, false, errors.New("the gateway is starting")
	}
	tenant, ok := f.tenants.Get(id)
	if !ok && (p.registry.Has(id, policies.Validating) || p.registry.Has(id, policies.Mutating)) {
		// Its bindings go before it does, so that this replica is only late to know it.
		return policies.Tenant{}, false, fmt.Errorf("tenant %s is not known yet", id)
	}
	if !ok || tenant.Terminating {
		return policies.Tenant{}, false, nil
	}
	has := f.customs.Of(id)
	lookup := func(group, resource string) (*kinds.Kind, bool) {
		if kind, ok := f.table.Lookup(group, resource); ok {
			return kind, true
		}
		if custom, ok := has.Lookup(group, resource); ok {
			return custom.Kind, true
		}
		return nil, false
	}
	x := &exchange{front: f, facts: &facts{tenant: tenant}, viewer: offers.Viewer{ID: id, Labels: tenant.Labels, Beginning: tenant.Beginning.Control}}
	return policies.Tenant{
		View: f.viewOf(x, has),
		Kind: func(group, version, resource, subresource string) (translate.Kind, bool) {
			kind, ok := lookup(group, resource)
			if !ok {
				return translate.Kind{}, false
			}
			out := translate.Kind{Group: group, Version: version, Resource: resource, Kind: kind.Kind, Namespaced: kind.Namespaced, Subresource: subresource}
			if kind.Custom != nil {
				out.Custom, out.ListKind = true, kind.Custom.ListKind
			}
			return out, true
		},
		Allows: func(group, resource, subresource, verb string) bool {
			kind, ok := lookup(group, resource)
			return ok && kind.Allows(subresource, verb)
		},
		Versions: func(group, resource string) ([]string, string) {
			custom, ok := has.Lookup(group, resource)
			if !ok {
				return nil, ""
			}
			versions := make([]string, len(custom.Versions))
			for i, v := range custom.Versions {
				versions[i] = v.Name
			}
			return versions, custom.Kind.Kind
		},
	}, true, nil
}

// checkPolicies refuses a policy or a binding that the tenant has no room for, and a binding that would not be applied: who
// makes one counts on it.
func (x *exchange) checkPolicies() error {
	request := x.facts.request
	if x.kind.Group != "admissionregistration.k8s.io" || x.front.policies == nil || !slices.Contains([]string{"create", "update", "patch"}, request.Verb) {
		return nil
	}
	registry := x.front.policies.registry
	if !registry.Room(x.facts.tenant.ID, x.kind.Resource, request.Name) {
		return apierrors.NewForbidden(request.GroupResource(), request.Name, fmt.Errorf("a cluster may have %d of these", policies.Most))
	}
	if !strings.HasSuffix(x.kind.Resource, "bindings") || registry.Check() == nil {
		return nil
	}
	return apierrors.NewServiceUnavailable("admission policies cannot be applied at the moment")
}

// checkConnect asks the tenant's validating policies about a request that is proxied. The control cluster asks about every
// other way to connect, and does not hear of this one. The path is unescaped, as an API server shows it to policies.
func (x *exchange) checkConnect(ctx context.Context, w http.ResponseWriter, path string) error {
	tenant, request, p := x.facts.tenant.ID, x.facts.request, x.front.policies
	if p == nil || !p.registry.MayHave(tenant, policies.Validating) {
		return nil
	}
	namespace, err := tenant.NamespaceToControl(request.Namespace)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	options := metav1.GroupVersionKind{Version: request.Version, Kind: x.kind.Kind + "ProxyOptions"}
	object, err := json.Marshal(map[string]string{"apiVersion": options.Version, "kind": options.Kind, "path": path})
	if err != nil {
		return fmt.Errorf("write a question about a proxied request: %w", err)
	}
	as := &x.facts.identity
	said, err := p.reviewer.Answer(ctx, &admissionv1.AdmissionRequest{
		Kind: options, Resource: metav1.GroupVersionResource{Version: request.Version, Resource: request.Resource}, SubResource: request.Subresource,
		Name: request.Name, Namespace: string(namespace), Operation: admissionv1.Connect,
		UserInfo: authenticationv1.UserInfo{Username: as.ControlUser(), UID: as.UID, Groups: as.ControlGroups()},
		Object:   runtime.RawExtension{Raw: object},
	}, policies.Validating)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		boot.Logger(ctx).Error("Admission policies cannot be asked about a proxied request", "tenant", tenant, "error", err)
		return apierrors.NewServiceUnavailable("admission policies cannot be applied at the moment")
	}
	for _, text := range said.Warnings {
		if warning, err := utilnet.NewWarningHeader(299, "-", x.view.TextToTenant(text)); err == nil {
			w.Header().Add("Warning", warning)
		}
	}
	if said.Allowed {
		return nil
	}
	refused := *said.Result
	refused.Message = x.view.TextToTenant(refused.Message)
	return &apierrors.StatusError{ErrStatus: refused}
}
