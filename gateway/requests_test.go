package gateway

import (
	"bufio"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vivarium.io/vivarium/gateway/internal/paging"
)

// TestRequests shows what the control cluster is asked for each kind of request that is let in.
func TestRequests(t *testing.T) {
	first := url.QueryEscape(paging.Start(tenantA, paging.Latest))
	cases := map[string]struct {
		method, uri, body string
		want              string
		proto             int
	}{
		"Get":            {"GET", pods + "/a", "", "GET /api/v1/namespaces/abc123-default/pods/a", 1},
		"List":           {"GET", pods + "?labelSelector=a%3Db&limit=5", "", "GET /api/v1/namespaces/abc123-default/pods?labelSelector=a%3Db&limit=5", 1},
		"ListEverywhere": {"GET", "/api/v1/pods", "", "GET /api/v1/pods?continue=" + first + "&limit=500", 1},
		"ListAtZero":     {"GET", "/api/v1/pods?resourceVersion=0&resourceVersionMatch=NotOlderThan&limit=7", "", "GET /api/v1/pods?continue=" + first + "&limit=7", 1},
		"ListHuge":       {"GET", "/api/v1/pods?limit=1000000", "", "GET /api/v1/pods?continue=" + first + "&limit=5000", 1},
		"ListExact": {"GET", "/apis/apps/v1/deployments?resourceVersion=42&resourceVersionMatch=Exact", "",
			"GET /apis/apps/v1/deployments?continue=" + url.QueryEscape(paging.Start(tenantA, 42)) + "&limit=500", 1},
		"ListNamespaces":  {"GET", "/api/v1/namespaces", "", "GET /api/v1/namespaces?continue=" + first + "&limit=500", 1},
		"ListNodes":       {"GET", "/api/v1/nodes?labelSelector=a%3Db", "", "GET /api/v1/nodes?labelSelector=a%3Db%2Cvivarium.io%2Fpool", 1},
		"Watch":           {"GET", pods + "?watch=true&resourceVersion=7", "", "GET /api/v1/namespaces/abc123-default/pods?resourceVersion=7&watch=true", 2},
		"WatchEverywhere": {"GET", "/api/v1/pods?watch=true&resourceVersion=7&allowWatchBookmarks=true", "", "GET /api/v1/pods?allowWatchBookmarks=true&resourceVersion=7&watch=true", 2},
		"WatchNamespace":  {"GET", "/api/v1/namespaces?watch=true&fieldSelector=metadata.name%3Dweb", "", "GET /api/v1/namespaces?fieldSelector=metadata.name%3Dabc123-web&watch=true", 2},
		"Prefixed":        {"GET", "/api/v1/namespaces/abc123-default/pods", "", "GET /api/v1/namespaces/abc123-abc123-default/pods", 1},
		"OtherTenant":     {"GET", "/api/v1/namespaces/zzz999-default/secrets/s", "", "GET /api/v1/namespaces/abc123-zzz999-default/secrets/s", 1},
		"GetNamespace":    {"GET", "/api/v1/namespaces/web", "", "GET /api/v1/namespaces/abc123-web", 1},
		"GetRole":         {"GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin", "", "GET /apis/rbac.authorization.k8s.io/v1/clusterroles/abc123-cluster-admin", 1},
		"Create": {"POST", "/api/v1/namespaces/default/configmaps?fieldManager=x", `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}`,
			`POST /api/v1/namespaces/abc123-default/configmaps?fieldManager=x {"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}`, 1},
		"Delete":           {"DELETE", pods + "/a", "", "DELETE /api/v1/namespaces/abc123-default/pods/a", 1},
		"DeleteOptions":    {"DELETE", pods + "/a", `{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0}`, `DELETE /api/v1/namespaces/abc123-default/pods/a {"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0}`, 1},
		"DeleteCollection": {"DELETE", pods + "?labelSelector=a%3Db", "", "DELETE /api/v1/namespaces/abc123-default/pods?labelSelector=a%3Db", 1},
		"Review": {"POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", `{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","spec":{"resourceAttributes":{"namespace":"web","verb":"get","resource":"pods"}}}`,
			`POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews {"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","spec":{"resourceAttributes":{"namespace":"abc123-web","verb":"get","resource":"pods"}}}`, 1},
		"Log":         {"GET", pods + "/a/log?container=c&insecureSkipTLSVerifyBackend=true", "", "GET /api/v1/namespaces/abc123-default/pods/a/log?container=c", 2},
		"EscapedName": {"GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/a%20b", "", "GET /apis/rbac.authorization.k8s.io/v1/clusterroles/abc123-a%20b", 1},
	}
	h := newHarness(t)
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			header := http.Header{}
			if tc.body != "" {
				header.Set("Content-Type", "application/json")
			}
			h.do(tc.method, tc.uri, tc.body, header)
			got, own := h.taken()
			if len(got) != 1 || len(own) != 0 {
				t.Fatalf("the control cluster was asked %v and %v", got, own)
			}
			text := got[0].String()
			if got[0].Body != "" {
				text += " " + got[0].Body
			}
			if diff := cmp.Diff(tc.want, text); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got[0].Proto != tc.proto {
				t.Errorf("sent over HTTP/%d, want %d", got[0].Proto, tc.proto)
			}
		})
	}
}

// TestGetNode: to get a node is to list with its name, for who may get it, whether or not it may list.
func TestGetNode(t *testing.T) {
	h := newHarness(t)
	h.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/subjectaccessreviews") {
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":true}}`)
			return
		}
		_, _ = io.WriteString(w, `{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[]}`)
	})
	h.do("GET", "/api/v1/nodes/n1", "", http.Header{})
	got, own := h.taken()
	if len(own) != 1 || !strings.Contains(own[0].Body, `"verb":"get"`) {
		t.Fatalf("before, it is asked %v", own)
	}
	const want = "GET /api/v1/nodes?fieldSelector=metadata.name%3Dn1&labelSelector=vivarium.io%2Fpool"
	if len(got) != 1 || got[0].String() != want || !slices.Contains(got[0].Header.Values("Impersonate-Group"), "abc123-system:masters") {
		t.Errorf("the control cluster was asked %v %v, want %s", got, got[0].Header, want)
	}
}

// keys is a stand-in for a collection of all tenants' ConfigMaps in the order of their keys; it serves pages as an API
// server does.
type keys []string

func (k keys) serve(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		var token struct{ Start string }
		raw, err := base64.RawURLEncoding.DecodeString(query.Get("continue"))
		if err != nil || json.Unmarshal(raw, &token) != nil {
			t.Errorf("continue %q", query.Get("continue"))
		}
		var limit int
		if _, err := fmt.Sscan(query.Get("limit"), &limit); err != nil || query.Has("resourceVersion") {
			t.Errorf("query %v", query)
		}
		from, _ := slices.BinarySearch(k, token.Start)
		page := k[from:]
		next := ""
		if len(page) > limit {
			// The key behind the last one, as it is in a token.
			start, _ := json.Marshal(page[limit-1] + "\x00")
			next = base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"v":"meta.k8s.io/v1","rv":9,"start":%s}`, start))
			page = page[:limit]
		}
		items := []string{}
		for _, key := range page {
			ns, name, _ := strings.Cut(key, "/")
			items = append(items, fmt.Sprintf(`{"metadata":{"name":%q,"namespace":%q}}`, name, ns))
		}
		answerJSON(fmt.Sprintf(`{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"9","continue":%q,"remainingItemCount":99},"items":[%s]}`,
			next, strings.Join(items, ",")))(w, r)
	}
}

func allKeys(mine int) keys {
	var all keys
	for i := range mine {
		all = append(all, fmt.Sprintf("abc123-ns%d/cm%04d", i%3, i))
	}
	for i := range 2000 {
		all = append(all, fmt.Sprintf("aaa111-ns/cm%04d", i), fmt.Sprintf("zzz999-ns/cm%04d", i), fmt.Sprintf("abc1234-ns/cm%04d", i))
	}
	slices.Sort(all)
	return all
}

type configMaps struct {
	Metadata struct {
		Continue           string
		ResourceVersion    string
		RemainingItemCount *int
	}
	Items []struct {
		Metadata struct{ Name, Namespace string }
	}
}

// TestPageSizes lists again and again: what is asked for follows what the tenant had last time, so that nothing of its
// neighbours is read, and a tenant that has more by now still gets all of it.
func TestPageSizes(t *testing.T) {
	h := newHarness(t)
	for i, tc := range []struct {
		mine  int
		query string
		want  []string
	}{
		{10, "", []string{"500"}},
		{10, "", []string{"12"}},
		{12, "", []string{"12", "500"}},
		{32, "", []string{"14", "500"}},
		{32, "?labelSelector=a%3Db", []string{"500"}},
		{32, "?limit=7", []string{"7"}},
		{32, "", []string{"36"}},
		{0, "", []string{"36"}},
		{1, "", []string{"2"}},
	} {
		h.answerWith(allKeys(tc.mine).serve(t))
		res, body := h.do("GET", "/api/v1/configmaps"+tc.query, "", nil)
		var list configMaps
		if err := json.Unmarshal([]byte(body), &list); err != nil || res.StatusCode != 200 {
			t.Fatalf("%d: %d %.300s", i, res.StatusCode, body)
		}
		if len(list.Items) != tc.mine && tc.query != "?limit=7" {
			t.Errorf("%d: %d items of %d", i, len(list.Items), tc.mine)
		}
		var limits []string
		sent, _ := h.taken()
		for _, one := range sent {
			u, err := url.Parse(one.URI)
			if err != nil {
				t.Fatal(err)
			}
			limits = append(limits, u.Query().Get("limit"))
		}
		if diff := cmp.Diff(tc.want, limits); diff != "" {
			t.Errorf("%d: limits (-want +got):\n%s", i, diff)
		}
	}
}

// TestPages lists a tenant's objects out of a collection of all tenants', as one list and in pages of every size. Nothing
// is missing, nothing is there twice, nothing is somebody else's, and no page costs more than it should.
func TestPages(t *testing.T) {
	for _, mine := range []int{0, 1, 499, 500, 501, 1200} {
		t.Run(fmt.Sprint(mine), func(t *testing.T) {
			h := newHarness(t)
			h.answerWith(allKeys(mine).serve(t))
			for _, limit := range []int{0, 1200, 500, 499, 7} {
				if limit == 7 && mine > 600 {
					continue
				}
				seen := map[string]bool{}
				token, pages := "", 0
				for {
					uri := "/api/v1/configmaps"
					if limit > 0 {
						uri += fmt.Sprintf("?limit=%d", limit)
						if token != "" {
							uri += "&continue=" + token
						}
					}
					res, body := h.do("GET", uri, "", nil)
					var list configMaps
					if err := json.Unmarshal([]byte(body), &list); err != nil || res.StatusCode != 200 {
						t.Fatalf("%s: %d %.300s", uri, res.StatusCode, body)
					}
					for _, item := range list.Items {
						key := item.Metadata.Namespace + "/" + item.Metadata.Name
						if seen[key] || !strings.HasPrefix(key, "ns") {
							t.Fatalf("limit %d: %q is there twice, or not ours", limit, key)
						}
						seen[key] = true
					}
					if limit > 0 && len(list.Items) > limit || list.Metadata.RemainingItemCount != nil || list.Metadata.ResourceVersion != "9" {
						t.Fatalf("limit %d: page is %+v", limit, list.Metadata)
					}
					pages++
					if token = list.Metadata.Continue; token == "" {
						break
					}
					if raw, _ := base64.RawURLEncoding.DecodeString(token); strings.Contains(string(raw), "abc123") || limit == 0 {
						t.Fatalf("limit %d: token %s", limit, token)
					}
				}
				if len(seen) != mine {
					t.Errorf("limit %d: %d of %d", limit, len(seen), mine)
				}
				got, _ := h.taken()
				if limit == 0 && len(got) > mine/pageSize+1 {
					t.Errorf("%d requests for one list", len(got))
				}
				if limit > 0 && (len(got) != pages || pages > mine/limit+2) {
					t.Errorf("limit %d: %d requests for %d pages", limit, len(got), pages)
				}
			}
		})
	}
}

// TestForeignTokens checks that a continue token opens nothing but what it was made for.
func TestForeignTokens(t *testing.T) {
	h := newHarness(t)
	h.answerWith(allKeys(10).serve(t))
	_, body := h.do("GET", "/api/v1/configmaps?limit=3", "", nil)
	var list configMaps
	if err := json.Unmarshal([]byte(body), &list); err != nil || list.Metadata.Continue == "" {
		t.Fatalf("%v %s", err, body)
	}
	h.taken()
	token := list.Metadata.Continue
	for name, uri := range map[string]string{
		"OtherKind":      "/api/v1/secrets?limit=3&continue=" + token,
		"OtherNamespace": "/api/v1/namespaces/default/configmaps?limit=3&continue=" + token,
		"OtherSelector":  "/api/v1/configmaps?limit=3&labelSelector=a%3Db&continue=" + token,
		"Truncated":      "/api/v1/configmaps?limit=3&continue=" + token[:len(token)-2],
		"WithVersion":    "/api/v1/configmaps?limit=3&resourceVersion=5&continue=" + token,
	} {
		t.Run(name, func(t *testing.T) {
			res, body := h.do("GET", uri, "", nil)
			status(t, res, body, 400)
			if got, _ := h.taken(); len(got) != 0 {
				t.Errorf("the control cluster was asked %v", got)
			}
		})
	}
	t.Run("OtherTenant", func(t *testing.T) {
		res, body := h.raw(request("GET /api/v1/configmaps?limit=3&continue="+token), h.client(tenantB, nil))
		status(t, res, body, 400)
	})
	t.Run("Deletion", func(t *testing.T) {
		res, body := h.do("DELETE", "/api/v1/namespaces/default/configmaps?continue="+token, "", nil)
		status(t, res, body, 400)
	})
}

// TestExpiredPage checks what a tenant hears when the next page is gone: a token of its own to go on with.
func TestExpiredPage(t *testing.T) {
	h := newHarness(t)
	h.answerWith(allKeys(10).serve(t))
	_, body := h.do("GET", "/api/v1/configmaps?limit=3", "", nil)
	var list configMaps
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Fatal(err)
	}
	h.answerWith(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusGone)
		_, _ = fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","metadata":{"continue":%q},"status":"Failure","message":"expired","reason":"Expired","code":410}`,
			paging.Start(tenantA, paging.Latest))
	})
	res, body := h.do("GET", "/api/v1/configmaps?limit=3&continue="+list.Metadata.Continue, "", nil)
	status(t, res, body, 410)
	var gone struct{ Metadata struct{ Continue string } }
	if err := json.Unmarshal([]byte(body), &gone); err != nil || gone.Metadata.Continue == "" {
		t.Fatalf("%v %s", err, body)
	}
	h.answerWith(allKeys(10).serve(t))
	if res, body := h.do("GET", "/api/v1/configmaps?limit=3&continue="+gone.Metadata.Continue, "", nil); res.StatusCode != 200 {
		t.Errorf("going on: %d %s", res.StatusCode, body)
	}
}

// TestWatchFrames checks that frames are passed as they come and those of others are left out.
func TestWatchFrames(t *testing.T) {
	h := newHarness(t)
	next := make(chan string)
	h.answerWith(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = http.NewResponseController(w).Flush()
		for frame := range next {
			_, _ = io.WriteString(w, frame+"\n")
			_ = http.NewResponseController(w).Flush()
		}
	})
	conn := h.dial(h.client(tenantA, nil))
	defer conn.Close()
	if _, err := io.WriteString(conn, request("GET /api/v1/configmaps?watch=true&allowWatchBookmarks=true")); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	frames := json.NewDecoder(res.Body)
	event := func(kind, ns, name string) string {
		return fmt.Sprintf(`{"type":%q,"object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":%q,"namespace":%q}}}`, kind, name, ns)
	}
	for _, step := range []struct{ send, want string }{
		{event("ADDED", "abc123-web", "a"), event("ADDED", "web", "a")},
		{event("ADDED", "zzz999-web", "b") + "\n" + event("MODIFIED", "kube-system", "c") + "\n" + event("DELETED", "abc123-web", "d"), event("DELETED", "web", "d")},
		{`{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"12"}}}`, `{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"12"}}}`},
		{`{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","code":410,"message":"too old"}}`, `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","code":410,"message":"too old"}}`},
	} {
		next <- step.send
		var got json.RawMessage
		if err := frames.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(decode(t, step.want), decode(t, string(got))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	close(next)
	var rest json.RawMessage
	if err := frames.Decode(&rest); err != io.EOF {
		t.Errorf("after the end: %s %v", rest, err)
	}
}

func decode(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// TestImpersonation is `kubectl --as`: the tenant's own RBAC is asked, and the request runs as the target.
func TestImpersonation(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		t.Run(fmt.Sprint(allowed), func(t *testing.T) {
			h := newHarness(t)
			h.answerWith(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/subjectaccessreviews") {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(http.StatusCreated)
					_, _ = fmt.Fprintf(w, `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":%v}}`, allowed)
					return
				}
				answerJSON(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"abc123-default"}}`)(w, r)
			})
			res, body := h.do("GET", pods+"/a", "", http.Header{"Impersonate-User": {"zzz999-admin"}})
			got, own := h.taken()
			if len(own) != 1 || !strings.Contains(own[0].Body, `"name":"abc123-zzz999-admin"`) || !strings.Contains(own[0].Body, `"user":"abc123-admin"`) {
				t.Errorf("asked %v", own)
			}
			if !allowed {
				status(t, res, body, 403, "zzz999-admin")
				if len(got) != 0 {
					t.Errorf("sent %v", got)
				}
				return
			}
			if res.StatusCode != 200 || len(got) != 1 || got[0].Header.Get("Impersonate-User") != "abc123-zzz999-admin" ||
				!slices.Equal(got[0].Header["Impersonate-Group"], []string{"abc123-system:authenticated"}) {
				t.Errorf("%d, sent %v", res.StatusCode, got)
			}
		})
	}
}

// TestLimits checks that a tenant beyond its limits is told when to come back, and that others are not.
func TestLimits(t *testing.T) {
	h := newHarness(t)
	slow := wide(tenantA)
	slow.Limits.RequestsPerSecond, slow.Limits.Burst = 0.1, 1
	h.tenants.set(slow)
	h.raw(request("GET "+pods), h.client(tenantA, nil))
	h.taken()
	res, body := h.raw(request("GET "+pods), h.client(tenantA, func(c *x509.Certificate) { c.Subject.CommonName = "somebody-else" }))
	status(t, res, body, 429)
	if res.Header.Get("Retry-After") != "10" {
		t.Errorf("Retry-After is %q", res.Header.Get("Retry-After"))
	}
	if got, _ := h.taken(); len(got) != 0 {
		t.Errorf("sent %v", got)
	}
	if res, _ := h.raw(request("GET "+pods), h.client(tenantB, nil)); res.StatusCode != 404 {
		t.Errorf("the other tenant: %d", res.StatusCode)
	}
}
