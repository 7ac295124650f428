package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"vivarium.io/vivarium/gateway/internal/tenants"
)

// TestNotBefore is what becomes of every way to ask for the past.
func TestNotBefore(t *testing.T) {
	h := newHarness(t)
	tenant := wide(tenantA)
	tenant.Beginning = tenants.Beginning{Control: 1000, Events: 3000, Admin: 50}
	h.tenants.set(tenant)
	allowed := true
	h.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/subjectaccessreviews") {
			w.WriteHeader(http.StatusCreated)
			_, _ = fmt.Fprintf(w, `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":%v}}`, allowed)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,"message":"nothing here"}`)
	})
	const pods, secrets, roles = "/api/v1/pods", "/api/v1/namespaces/default/secrets", "/apis/rbac.authorization.k8s.io/v1/clusterroles"
	const asked = ""
	for _, tc := range []struct {
		method, uri string
		code        int
		want        string // what the control cluster is asked for besides; [asked] for what the tenant asks for
	}{
		{"GET", secrets + "?resourceVersion=999&resourceVersionMatch=Exact", 410, ""},
		{"GET", secrets + "?resourceVersion=0999&resourceVersionMatch=Exact", 410, ""},
		{"GET", secrets + "?resourceVersion=%2B999&resourceVersionMatch=Exact", 400, ""},
		{"GET", roles + "?resourceVersion=%2B999&resourceVersionMatch=Exact", 400, ""},
		{"GET", secrets + "?resourceVersion=999&limit=1", 410, ""},
		{"GET", secrets + "?resourceVersion=999&limit=1&resourceVersionMatch=exact", 410, ""},
		{"DELETE", secrets + "?resourceVersion=999&resourceVersionMatch=Exact&dryRun=All", 410, ""},
		{"DELETE", secrets + "?resourceVersion=999&limit=5&dryRun=All", 410, ""},
		{"DELETE", roles + "?resourceVersion=999&resourceVersionMatch=Exact&dryRun=All", 410, ""},
		{"GET", pods + "?resourceVersion=999&resourceVersionMatch=Exact", 410, ""},
		{"GET", roles + "?resourceVersion=1&resourceVersionMatch=Exact", 410, ""},
		{"GET", secrets + "?watch=1&resourceVersion=999", 410, ""},
		{"GET", secrets + "?watch=true&resourceVersion=1", 410, ""},
		{"GET", secrets + "?watch=1&resourceVersion=%2B1", 400, ""},
		{"GET", secrets + "?watch=1&resourceVersion=999&sendInitialEvents=false&resourceVersionMatch=NotOlderThan", 410, ""},
		{"GET", pods + "?watch=1&resourceVersion=999", 410, ""},
		{"GET", pods + "?watch=1&resourceVersion=999&labelSelector=a", 410, ""},
		{"GET", roles + "?watch=1&resourceVersion=999", 410, ""},
		{"GET", "/api/v1/nodes?watch=1&resourceVersion=999", 410, ""},
		{"GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?watch=1&resourceVersion=999", 410, ""},
		{"GET", "/api/v1/events?watch=1&resourceVersion=2999", 410, ""},
		{"GET", "/apis/events.k8s.io/v1/namespaces/default/events?watch=1&resourceVersion=2999", 410, ""},
		{"GET", "/apis/events.k8s.io/v1/namespaces/default/events?watch=1&resourceVersion=3000", 404, "resourceVersion=3000&watch=1"},
		{"GET", secrets + "?watch=1&resourceVersion=1000", 404, "resourceVersion=1000&watch=1"},
		{"GET", secrets + "?watch=1&resourceVersion=0", 404, "resourceVersion=0&watch=1"},
		{"GET", secrets + "?watch=1", 404, asked},
		{"GET", secrets + "?resourceVersion=1000&resourceVersionMatch=Exact", 404, "resourceVersion=1000&resourceVersionMatch=Exact"},
		{"GET", secrets + "?resourceVersion=1000&limit=7", 404, "limit=7&resourceVersion=1000"},
		{"GET", secrets, 404, asked},
		// A cache of the control cluster may be behind where nothing of a kind has happened.
		{"GET", secrets + "?resourceVersion=0", 404, "resourceVersion=1000&resourceVersionMatch=NotOlderThan"},
		{"GET", secrets + "?resourceVersion=0&limit=7", 404, "limit=7&resourceVersion=1000&resourceVersionMatch=NotOlderThan"},
		{"GET", secrets + "?resourceVersion=999", 404, "resourceVersion=1000&resourceVersionMatch=NotOlderThan"},
		{"GET", secrets + "?resourceVersion=999&limit=0&resourceVersionMatch=NotOlderThan", 404, "limit=0&resourceVersion=1000&resourceVersionMatch=NotOlderThan"},
		{"GET", secrets + "/one?resourceVersion=0", 404, "/one?resourceVersion=0"},
	} {
		res, body := h.do(tc.method, tc.uri, "", nil)
		requests, _ := h.taken()
		status(t, res, body, tc.code)
		switch {
		case tc.code != http.StatusNotFound && len(requests) > 0:
			t.Errorf("%s %s reaches the control cluster: %v", tc.method, tc.uri, requests)
		case tc.code == http.StatusNotFound && (len(requests) != 1 || !strings.HasSuffix(requests[0].URI, tc.want)):
			t.Errorf("%s %s becomes %v, want %s", tc.method, tc.uri, requests, tc.want)
		}
		if tc.code == http.StatusGone && !strings.Contains(body, `"reason":"Expired"`) {
			t.Errorf("%s %s: %s", tc.method, tc.uri, body)
		}
	}

	// Who may not look hears that, and not how old the tenant is.
	allowed = false
	for _, uri := range []string{secrets + "?watch=1&resourceVersion=1", pods + "?watch=1&resourceVersion=1", roles + "?resourceVersion=1&resourceVersionMatch=Exact"} {
		res, body := h.do("GET", uri, "", nil)
		if status(t, res, body, http.StatusForbidden); !strings.Contains(body, " at the cluster scope") && !strings.Contains(body, `in the namespace \"default\"`) {
			t.Errorf("%s: %s", uri, body)
		}
	}

	// A tenant of an earlier release has no bound.
	allowed = true
	h.tenants.set(wide(tenantA))
	if res, body := h.do("GET", secrets+"?watch=1&resourceVersion=1", "", nil); res.StatusCode != http.StatusNotFound {
		t.Errorf("without a beginning: %s", body)
	}
}

// TestEarlierTenant gives a tenant's name to another one, which must not see what the first had, however it asks.
func TestEarlierTenant(t *testing.T) {
	w := theWorld(t)
	const id, relic = "past0a", "relic"
	first := w.inVPC(t, id)
	version := func(kubeconfig, path string) string {
		t.Helper()
		var list struct {
			Metadata struct{ ResourceVersion string }
		}
		if err := json.Unmarshal([]byte(w.must(t, kubeconfig, "", "get", "--raw", path)), &list); err != nil {
			t.Fatal(err)
		}
		return list.Metadata.ResourceVersion
	}
	crd := `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"relics.past.test"},"spec":{"group":"past.test",
"scope":"Namespaced","names":{"plural":"relics","singular":"relic","kind":"Relic","listKind":"RelicList"},"versions":[{"name":"v1","served":true,"storage":true,
"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}`
	w.must(t, first, crd, "create", "-f", "-")
	w.must(t, first, "", "wait", "--for=condition=Established", "crd/relics.past.test", "--timeout=180s")
	w.must(t, first, "", "create", "secret", "generic", relic)
	w.must(t, first, "", "create", "clusterrole", relic, "--verb=get", "--resource=pods")
	custom := `{"apiVersion":"past.test/v1","kind":"Relic","metadata":{"name":"` + relic + `"}}`
	eventually(t, "objects of the definition can be made", func() bool {
		_, err := w.run(first, custom, "apply", "--validate=false", "-f", "-")
		return err == nil
	})
	flow := `{"apiVersion":"flowcontrol.apiserver.k8s.io/v1","kind":"FlowSchema","metadata":{"name":"` + relic + `"},"spec":{"priorityLevelConfiguration":{"name":"exempt"}}}`
	w.must(t, first, flow, "create", "-f", "-")
	event := `{"apiVersion":"v1","kind":"Event","metadata":{"name":"` + relic + `","namespace":"default"},"involvedObject":{"kind":"Pod","namespace":"default","name":"` + relic + `"}}`
	w.must(t, first, event, "create", "-f", "-")
	collections := []string{
		"/api/v1/secrets", "/api/v1/namespaces/default/secrets", "/apis/rbac.authorization.k8s.io/v1/clusterroles",
		"/apis/past.test/v1/relics", "/apis/past.test/v1/namespaces/default/relics", "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
		"/api/v1/events", "/apis/events.k8s.io/v1/namespaces/default/events", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
		"/api/v1/namespaces", "/apis/vivarium.io/v1alpha1/subnets",
	}
	past := map[string]string{}
	for _, path := range collections {
		past[path] = version(first, path)
	}

	w.must(t, w.operator, "", "delete", "tenant", id, "--wait=false")
	eventually(t, "the control cluster is empty of the tenant", func() bool {
		// What the network controller does.
		for _, one := range []string{"subnet/past0a-web", "subnet/past0a-db", "vpc/past0a-main"} {
			_, _ = w.run(w.operator, "", "patch", one, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
		}
		out, err := w.run(w.operator, "", "get", "tenant", id, "-o", "jsonpath={.metadata.finalizers}")
		return err == nil && out == `["vivarium.io/pools"]`
	})
	// What the syncer does.
	w.must(t, w.operator, "", "patch", "tenant", id, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	w.must(t, w.operator, "", "wait", "--for=delete", "tenant/"+id, "--timeout=180s")
	second := w.inVPC(t, id)
	w.must(t, second, crd, "create", "-f", "-")
	w.must(t, second, "", "wait", "--for=condition=Established", "crd/relics.past.test", "--timeout=180s")
	eventually(t, "objects of the definition can be listed", func() bool {
		_, err := w.run(second, "", "get", "--raw", "/apis/past.test/v1/relics")
		return err == nil
	})

	config := client(t, second)
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, uri string) (int, string) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, method, config.Host+uri, nil)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		res, err := client.Do(r)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		return res.StatusCode, string(body)
	}
	for _, path := range collections {
		offered := strings.HasPrefix(path, "/apis/vivarium.io/")
		for _, query := range []string{
			"?resourceVersion=%s&resourceVersionMatch=Exact", "?resourceVersion=%s&limit=10", "?watch=1&timeoutSeconds=1&resourceVersion=%s",
			"?watch=1&timeoutSeconds=1&resourceVersion=%s&labelSelector=a!%%3Db",
		} {
			uri := path + fmt.Sprintf(query, past[path])
			code, body := ask(http.MethodGet, uri)
			if code != http.StatusGone && !offered || offered && !strings.Contains(body, "Expired") && !strings.Contains(query, "limit") {
				t.Errorf("%s: %d %s", uri, code, body)
			}
			if strings.Contains(body, relic+`"`) && !strings.Contains(body, `"kind":"Status"`) || strings.Contains(body, "DELETED") {
				t.Errorf("%s shows what another tenant had: %s", uri, body)
			}
		}
		if path == "/api/v1/namespaces" || offered {
			continue // nobody deletes all of them
		}
		uri := path + "?dryRun=All&resourceVersionMatch=Exact&resourceVersion=" + past[path]
		if path != "/api/v1/secrets" && path != "/api/v1/events" && path != "/apis/past.test/v1/relics" {
			if code, body := ask(http.MethodDelete, uri); code != http.StatusGone {
				t.Errorf("DELETE %s: %d %s", uri, code, body)
			}
		}
	}

	// Whoever is honest is not hindered, also where nothing has happened since the tenant began.
	var honest sync.WaitGroup
	for _, path := range append(slices.Clone(collections), "/api/v1/namespaces/default/podtemplates", "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
		"/apis/policy/v1/poddisruptionbudgets", "/apis/storage.k8s.io/v1/storageclasses", "/api/v1/nodes", "/api/v1/namespaces/default/events") {
		for _, query := range []string{"", "?resourceVersion=0", "?resourceVersion=0&limit=500", "?resourceVersion=1"} {
			honest.Go(func() {
				code, body := ask(http.MethodGet, path+query)
				var list struct{ Metadata metav1.ListMeta }
				if err := json.Unmarshal([]byte(body), &list); err != nil || code != http.StatusOK {
					t.Errorf("%s%s: %d %s", path, query, code, body)
					return
				}
				uri := path + "?watch=1&timeoutSeconds=1&resourceVersion=" + list.Metadata.ResourceVersion
				if code, body := ask(http.MethodGet, uri); code != http.StatusOK || strings.Contains(body, `"ERROR"`) {
					t.Errorf("%s: %d %s", uri, code, body)
				}
			})
		}
	}
	honest.Wait()
}
