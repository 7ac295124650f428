package admin_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/gateway/internal/admin"
)

const secretKubeconfig = "c2VjcmV0LWtleQ=="

func TestStrangersStayOut(t *testing.T) {
	f := start(t, scannerFn(emptyControl))
	if err := f.operator(t).Create(t.Context(), tenant("demo01")); err != nil {
		t.Fatal(err)
	}
	tenantCA := newCA(t, f.dir, "tenant-ca")
	address := "https://" + f.server.Address().String() + "/apis/vivarium.io/v1alpha1/tenants"
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(f.serving.Cert)
	if err != nil {
		t.Fatal(err)
	}
	roots.AppendCertsFromPEM(pem)

	t.Run("NoCredentials", func(t *testing.T) {
		for _, path := range []string{address, strings.TrimSuffix(address, "/apis/vivarium.io/v1alpha1/tenants") + "/livez"} {
			for _, authorization := range []string{"", "Bearer ", "Bearer null", "Bearer 00000000-0000-0000-0000-000000000000"} {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				request.Header.Set("Authorization", authorization)
				request.Header.Set("X-Remote-User", "root")
				request.Header.Set("X-Remote-Group", "system:masters")
				request.Header.Set("Impersonate-Group", "system:masters")
				response, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}).Do(request)
				if err != nil {
					t.Fatal(err)
				}
				response.Body.Close()
				if response.StatusCode != http.StatusUnauthorized {
					t.Errorf("%s with Authorization %q: %s", path, authorization, response.Status)
				}
			}
		}
	})
	t.Run("CertificateOfAnotherCA", func(t *testing.T) {
		c := f.clientFor(t, f.kubeconfig(t, tenantCA, "admin", "system:masters"))
		if err := c.List(t.Context(), &v1alpha1.TenantList{}); !apierrors.IsUnauthorized(err) {
			t.Errorf("a tenant's certificate: %v", err)
		}
	})
	t.Run("NobodyInParticular", func(t *testing.T) {
		k := f.kubeconfig(t, f.ca, "somebody", "developers")
		c := f.clientFor(t, k)
		if err := c.List(t.Context(), &v1alpha1.TenantList{}); !apierrors.IsForbidden(err) {
			t.Errorf("list: %v", err)
		}
		if err := c.Create(t.Context(), tenant("demo02")); !apierrors.IsForbidden(err) {
			t.Errorf("create: %v", err)
		}
		if out := mustKubectl(t, k, "", "get", "--raw", "/livez"); out != "ok" {
			t.Errorf("/livez: %s", out)
		}
		if _, _, err := kubectl(t, k, "", "get", "--raw", "/metrics"); err == nil {
			t.Error("/metrics is open to anybody with a certificate")
		}
	})
}

func TestComponents(t *testing.T) {
	f := start(t, scannerFn(emptyControl))
	operator, component := f.operator(t), f.component(t)
	x := tenant("demo01")
	x.Annotations = map[string]string{v1alpha1.AnnotationKubeconfig: secretKubeconfig, "other": "kept"}
	if err := operator.Create(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	p := pool("pool-a", "uid-a")
	if err := operator.Create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	key := client.ObjectKeyFromObject(x)

	t.Run("AreNotShownKubeconfigs", func(t *testing.T) {
		hidden := func(what string, o any) {
			t.Helper()
			raw, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(raw), secretKubeconfig) || !strings.Contains(string(raw), "kept") {
				t.Errorf("%s shows %s", what, raw)
			}
		}
		var got v1alpha1.Tenant
		if err := component.Get(t.Context(), key, &got); err != nil {
			t.Fatal(err)
		}
		hidden("get", got)
		var list v1alpha1.TenantList
		if err := component.List(t.Context(), &list); err != nil {
			t.Fatal(err)
		}
		hidden("list", list)
		k := f.kubeconfig(t, f.ca, "vivarium-network", admin.GroupComponents)
		for _, header := range []string{"application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"} {
			response := f.raw(t, k, http.MethodGet, "/apis/vivarium.io/v1alpha1/tenants?includeObject=Object", header, "")
			hidden(header, response)
		}
		hidden("status", f.raw(t, k, http.MethodGet, "/apis/vivarium.io/v1alpha1/tenants/demo01/status", "application/json", ""))
		hidden("status patch", f.raw(t, k, http.MethodPatch, "/apis/vivarium.io/v1alpha1/tenants/demo01/status", "application/json", `{"status":{"server":"https://a"}}`))
		hidden("patch", f.raw(t, k, http.MethodPatch, "/apis/vivarium.io/v1alpha1/tenants/demo01", "application/json", `{"metadata":{"finalizers":["vivarium.io/control","vivarium.io/pools","vivarium.io/more"]}}`))

		// More watchers than one, so that the server shares what it encodes among them.
		for range 5 {
			for _, c := range []client.WithWatch{operator, component} {
				w, err := c.Watch(t.Context(), &v1alpha1.TenantList{}, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: "0"}})
				if err != nil {
					t.Fatal(err)
				}
				defer w.Stop()
				event := <-w.ResultChan()
				if c == component {
					hidden("watch", event.Object)
				}
			}
		}
		w, err := component.Watch(t.Context(), &v1alpha1.TenantList{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		<-w.ResultChan() // what exists
		update(t, operator, "demo01", func(x *v1alpha1.Tenant) { x.Spec.Weight = 77 })
		hidden("watch", (<-w.ResultChan()).Object)
		if err := operator.Get(t.Context(), key, &got); err != nil || got.Annotations[v1alpha1.AnnotationKubeconfig] != secretKubeconfig {
			t.Errorf("the operator is shown %v, %v", got.Annotations, err)
		}
	})

	t.Run("ReleaseFinalizersAndNothingElse", func(t *testing.T) {
		get := func() *v1alpha1.Tenant {
			t.Helper()
			var got v1alpha1.Tenant
			if err := component.Get(t.Context(), key, &got); err != nil {
				t.Fatal(err)
			}
			return &got
		}
		for name, change := range map[string]func(*v1alpha1.Tenant){
			"Spec":       func(x *v1alpha1.Tenant) { x.Spec.Suspended = true },
			"Label":      func(x *v1alpha1.Tenant) { x.Labels = map[string]string{"a": "b"} },
			"Annotation": func(x *v1alpha1.Tenant) { x.Annotations["other"] = "changed" },
			"Owner": func(x *v1alpha1.Tenant) {
				x.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "a", UID: "b"}}
			},
			"GatewaysOwn":    func(x *v1alpha1.Tenant) { x.Finalizers = []string{v1alpha1.FinalizerPools} },
			"SpecAndControl": func(x *v1alpha1.Tenant) { x.Finalizers = nil; x.Spec.Weight = 1 },
		} {
			got := get()
			change(got)
			if err := component.Update(t.Context(), got); !apierrors.IsForbidden(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
		got := get()
		got.Finalizers = []string{v1alpha1.FinalizerControl}
		if err := component.Update(t.Context(), got); err != nil {
			t.Errorf("release the pools' finalizer: %v", err)
		}
		meta.SetStatusCondition(&got.Status.Conditions, metav1.Condition{Type: "CleanedPools", Status: metav1.ConditionTrue, Reason: "Gone"})
		if err := component.Status().Update(t.Context(), got); err != nil {
			t.Errorf("update status: %v", err)
		}
		var now v1alpha1.Tenant
		if err := operator.Get(t.Context(), key, &now); err != nil {
			t.Fatal(err)
		}
		if now.Annotations[v1alpha1.AnnotationKubeconfig] != secretKubeconfig {
			t.Error("an update by one who was not shown the kubeconfig removed it")
		}
		var pools v1alpha1.ResourcePoolList
		if err := component.List(t.Context(), &pools); err != nil || len(pools.Items) != 1 {
			t.Fatalf("list pools: %v", err)
		}
		p := &pools.Items[0]
		p.Finalizers = append(p.Finalizers, "vivarium.io/pool-content")
		if err := component.Update(t.Context(), p); err != nil {
			t.Errorf("add a finalizer to a pool: %v", err)
		}
		p.Spec.Cordoned = true
		if err := component.Update(t.Context(), p); !apierrors.IsForbidden(err) {
			t.Errorf("cordon a pool: %v", err)
		}
	})

	t.Run("BecomeNobodyElse", func(t *testing.T) {
		k := f.kubeconfig(t, f.ca, "vivarium-vk-provider", admin.GroupComponents)
		for _, as := range [][]string{{"--as=root", "--as-group=system:masters"}, {"--as=vivarium-syncer"}} {
			_, stderr, err := kubectl(t, k, "", append([]string{"get", "tenants"}, as...)...)
			if err == nil || !strings.Contains(stderr, "Forbidden") {
				t.Errorf("%v: %v, %s", as, err, stderr)
			}
		}
	})

	t.Run("CreateAndDeleteNothing", func(t *testing.T) {
		if err := component.Create(t.Context(), tenant("demo02")); !apierrors.IsForbidden(err) {
			t.Errorf("create: %v", err)
		}
		if err := component.Delete(t.Context(), tenant("demo01")); !apierrors.IsForbidden(err) {
			t.Errorf("delete: %v", err)
		}
		if err := component.DeleteAllOf(t.Context(), &v1alpha1.ResourcePool{}); !apierrors.IsForbidden(err) {
			t.Errorf("delete collection: %v", err)
		}
	})
}

// raw sends one request with a kubeconfig's credentials and gives the body of a good answer.
func (f *fixture) raw(t *testing.T, kubeconfig, method, path, accept, patch string) json.RawMessage {
	t.Helper()
	httpClient, base := f.httpClient(t, kubeconfig)
	request, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(patch))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	request.Header.Set("Content-Type", "application/merge-patch+json")
	response, err := httpClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var body json.RawMessage
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		t.Fatal(fmt.Errorf("%s %s: %w", method, path, err))
	}
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s", method, path, body)
	}
	return body
}
