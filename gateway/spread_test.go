package gateway

import (
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
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"vivarium.io/vivarium/internal/names"
)

func TestSpreadPays(t *testing.T) {
	for name, tc := range map[string]struct {
		namespaces, behind int
		want               bool
	}{
		"NoNamespaces": {0, 1e9, false}, "Alone": {5, 10, false}, "Many": {5, 100_000, true}, "Even": {5, 30_000, false},
		"ManyNamespaces": {30, 100_000, false}, "TooMany": {65, 1e9, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := spreadPays(tc.namespaces, tc.behind); got != tc.want {
				t.Errorf("%v", got)
			}
		})
	}
}

// crowd is a stand-in for a control cluster in which a tenant is one of many: it has the keys of a collection and serves
// them as an API server does, all of them or by namespace.
type crowd struct {
	keys
	namespaces []string
	forbidden  bool // the user may not list everything
	failing    string
}

func newCrowd(mine int) *crowd {
	c := &crowd{namespaces: []string{"abc123-a", "abc123-a-b", "abc123-b", "abc123-empty", "abc1234-a", "zzz999-a"}}
	for i := range mine {
		// One with a hyphen comes before the one that it begins with.
		c.keys = append(c.keys, fmt.Sprintf("%s/cm%04d", c.namespaces[i%3], i))
	}
	for i := range 20 {
		c.keys = append(c.keys, fmt.Sprintf("aaa111-ns/cm%04d", i), fmt.Sprintf("abc1234-a/cm%04d", i), fmt.Sprintf("zzz999-a/cm%04d", i))
	}
	slices.Sort(c.keys)
	return c
}

func (c *crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	switch path := strings.TrimPrefix(r.URL.Path, "/api/v1"); {
	case strings.HasSuffix(path, "/subjectaccessreviews"):
		raw, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(raw), `"verb":"list"`) || !strings.Contains(string(raw), `"resource":"configmaps"`) || strings.Contains(string(raw), `"namespace"`) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprintf(w, `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","metadata":{},"spec":{},"status":{"allowed":%v}}`, !c.forbidden)
	case path == "/namespaces":
		c.list(w, r, "PartialObjectMetadataList", "meta.k8s.io/v1", "", c.namespaces)
	case path == "/configmaps" && c.forbidden:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"configmaps is forbidden","reason":"Forbidden","code":403}`)
	case path == "/configmaps":
		c.list(w, r, "ConfigMapList", "v1", "", c.keys)
	default:
		ns := strings.TrimSuffix(strings.TrimPrefix(path, "/namespaces/"), "/configmaps")
		if ns == c.failing || query.Has("resourceVersion") && (query.Get("resourceVersion") != "9" || query.Get("resourceVersionMatch") != "Exact") {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		c.list(w, r, "ConfigMapList", "v1", ns+"/", c.keys)
	}
}

func (c *crowd) list(w http.ResponseWriter, r *http.Request, kind, version, prefix string, keys []string) {
	query := r.URL.Query()
	if strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadataList") {
		kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
	}
	token := struct {
		RV    int64  `json:"rv"`
		Start string `json:"start"`
	}{RV: -1}
	if text := query.Get("continue"); text != "" {
		raw, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil || json.Unmarshal(raw, &token) != nil || token.RV != 9 && token.RV != -1 || query.Has("resourceVersion") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
	}
	from, _ := slices.BinarySearch(keys, prefix+strings.TrimPrefix(token.Start, "/"))
	var page []string
	for _, key := range keys[from:] {
		if strings.HasPrefix(key, prefix) {
			page = append(page, key)
		}
	}
	var limit int
	if _, err := fmt.Sscan(query.Get("limit"), &limit); err != nil || limit <= 0 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	next := ""
	if len(page) > limit {
		// In a token of one namespace the slash behind that comes first.
		start, _ := json.Marshal(strings.TrimPrefix(page[limit-1], strings.TrimSuffix(prefix, "/")) + "\x00")
		next = base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"v":"meta.k8s.io/v1","rv":9,"start":%s}`, start))
		page = page[:limit]
	}
	items := []string{}
	for _, key := range page {
		ns, name, ok := strings.Cut(key, "/")
		if !ok {
			ns, name = "", ns
		}
		items = append(items, fmt.Sprintf(`{"metadata":{"name":%q,"namespace":%q}}`, name, ns))
	}
	// There is a crowd behind.
	answerJSON(fmt.Sprintf(`{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"9","continue":%q,"remainingItemCount":1000000},"items":[%s]}`,
		kind, version, next, strings.Join(items, ",")))(w, r)
}

func (c *crowd) own() []string {
	var out []string
	for _, key := range c.keys {
		if rest, ok := strings.CutPrefix(key, "abc123-"); ok {
			out = append(out, rest)
		}
	}
	return out
}

// forgetItems makes it unknown how many items lists have.
func (s *sizes) forgetItems() {
	for _, key := range s.seen.Keys() {
		if key.about == itsItems {
			s.seen.Remove(key)
		}
	}
}

// listAll lists over all namespaces, in pages if limit is above 0.
func (h *harness) listAll(t *testing.T, limit int, selector string) (keys []string, pages int) {
	t.Helper()
	for token := ""; ; {
		query := url.Values{}
		if limit > 0 {
			query.Set("limit", fmt.Sprint(limit))
		}
		if selector != "" {
			query.Set("labelSelector", selector)
		}
		if token != "" {
			query.Set("continue", token)
		}
		res, body := h.do("GET", "/api/v1/configmaps?"+query.Encode(), "", nil)
		var list configMaps
		if err := json.Unmarshal([]byte(body), &list); err != nil || res.StatusCode != 200 {
			t.Fatalf("%d %.300s", res.StatusCode, body)
		}
		if list.Metadata.ResourceVersion != "9" || list.Metadata.RemainingItemCount != nil || limit > 0 && len(list.Items) > limit {
			t.Errorf("limit %d: %d items, %+v", limit, len(list.Items), list.Metadata)
		}
		if pages++; list.Metadata.Continue != "" && len(list.Items) != limit {
			t.Errorf("limit %d: page %d has %d items", limit, pages, len(list.Items))
		}
		for _, item := range list.Items {
			keys = append(keys, item.Metadata.Namespace+"/"+item.Metadata.Name)
		}
		if token = list.Metadata.Continue; token == "" {
			return keys, pages
		}
	}
}

// TestSpread lists a tenant's objects where a crowd of others' stands behind them: by namespaces, at one revision, in the
// order of a list over all, and in pages of every size.
func TestSpread(t *testing.T) {
	for _, mine := range []int{0, 1, 9, 30, 1600} {
		t.Run(fmt.Sprint(mine), func(t *testing.T) {
			h := newHarness(t)
			c := newCrowd(mine)
			h.answerWith(c.ServeHTTP)
			for i, limit := range []int{0, 0, 3, 8, 9, 10, 30, 31, 1600, 2000} {
				if limit > 0 && mine > 100*limit {
					continue
				}
				h.front.sizes.forgetItems()
				h.taken()
				got, pages := h.listAll(t, limit, "")
				if diff := cmp.Diff(c.own(), got); diff != "" && len(got)+mine > 0 {
					t.Fatalf("limit %d (-want +got):\n%s", limit, diff)
				}
				// A page from the tenant's first key on cannot tell that the next one would be empty.
				if want := max(1, (mine+limit-1)/max(1, limit)); limit > 0 && pages != want && pages != want+1 {
					t.Errorf("limit %d: %d pages, want %d", limit, pages, want)
				}
				asked, _ := h.taken()
				spread := strings.Contains(asked[0].URI, "/namespaces/")
				if i == 0 && spread {
					t.Error("spread before anything is known")
				}
				if i > 0 && !spread {
					t.Errorf("limit %d: not spread: %v", limit, asked[0])
				}
			}
		})
	}
}

// TestSpreadFallsBack looks at what happens when a list by namespaces cannot be had, or must not.
func TestSpreadFallsBack(t *testing.T) {
	learnt := func(t *testing.T) (*harness, *crowd) {
		h, c := newHarness(t), newCrowd(9)
		h.answerWith(c.ServeHTTP)
		h.listAll(t, 0, "")
		h.taken()
		return h, c
	}
	t.Run("Forbidden", func(t *testing.T) {
		h, c := learnt(t)
		c.forbidden = true
		res, body := h.do("GET", "/api/v1/configmaps", "", nil)
		status(t, res, body, 403)
		if asked, _ := h.taken(); len(asked) != 1 || strings.Contains(asked[0].URI, "/namespaces/") {
			t.Errorf("asked %v", asked)
		}
	})
	t.Run("Failing", func(t *testing.T) {
		h, c := learnt(t)
		c.failing = "abc123-b"
		if got, _ := h.listAll(t, 0, ""); len(got) != 9 {
			t.Errorf("%v", got)
		}
	})
	t.Run("Selector", func(t *testing.T) {
		h, c := newHarness(t), newCrowd(9)
		h.answerWith(c.ServeHTTP)
		if got, _ := h.listAll(t, 0, "a=b"); len(got) != 9 {
			t.Errorf("%v", got)
		}
		asked, _ := h.taken()
		if len(asked) < 3 || strings.Contains(asked[0].URI, "abelSelector") || !strings.Contains(asked[1].URI, "/namespaces/") || !strings.Contains(asked[1].URI, "labelSelector=a%3Db") {
			t.Errorf("asked %v", asked)
		}
	})
	t.Run("KnownToBeLong", func(t *testing.T) {
		// Pages behind the first are lists from a key on anyway, and say nothing of how long the list is.
		h, _ := learnt(t)
		for range 2 {
			h.listAll(t, 4, "")
		}
		if asked, _ := h.taken(); len(asked) < 6 || slices.ContainsFunc(asked, func(r *recorded) bool { return strings.Contains(r.URI, "/namespaces/") }) {
			t.Errorf("asked %v", asked)
		}
	})
	t.Run("Exact", func(t *testing.T) {
		h, _ := learnt(t)
		h.do("GET", "/api/v1/configmaps?resourceVersion=9&resourceVersionMatch=Exact", "", nil)
		if asked, _ := h.taken(); len(asked) != 1 || strings.Contains(asked[0].URI, "/namespaces/") {
			t.Errorf("asked %v", asked)
		}
	})
}

// TestSpreadForReal compares lists by namespaces with those of a stock API server from the tenant's first key on, in every
// form.
func TestSpreadForReal(t *testing.T) {
	w := theWorld(t)
	config := client(t, w.tenant(t, "spread"))
	kube := kubernetes.NewForConfigOrDie(config)
	const count = 25
	for i, ns := range []string{"a", "a-b", "b"} {
		if _, err := kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		for n := i; n < count; n += 3 {
			_, err := kube.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("one-%02d", n), Labels: map[string]string{"half": fmt.Sprint(n % 2)}},
			}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	tenant, err := w.server.front.authenticator.Tenant(names.TenantID("spread"))
	if err != nil {
		t.Fatal(err)
	}
	// crowded makes the gateway believe that the tenant is alone, or in a crowd.
	crowded := func(behind int) {
		w.server.front.sizes.put(sizeKey{about: behindIt, tenant: tenant.UID, resource: "secrets"}, behind)
	}
	items := func(path string, body []byte) (rows []string, version, token string) {
		var list struct {
			Metadata struct{ ResourceVersion, Continue string }
			Rows     []struct {
				Cells  []any
				Object metav1.PartialObjectMetadata
			}
			Items []metav1.PartialObjectMetadata
		}
		if err := json.Unmarshal(body, &list); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, one := range list.Items {
			rows = append(rows, one.Namespace+"/"+one.Name+" "+one.ResourceVersion)
		}
		for _, one := range list.Rows {
			rows = append(rows, one.Object.Namespace+"/"+one.Object.Name+" "+one.Object.ResourceVersion)
		}
		return rows, list.Metadata.ResourceVersion, list.Metadata.Continue
	}
	for form, accept := range map[string]string{
		"JSON": "application/json", "Table": "application/json;as=Table;v=v1;g=meta.k8s.io", "Metadata": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
	} {
		for _, selector := range []string{"", "half=1"} {
			for _, limit := range []int64{0, 1, 9, 24, 25, 26} {
				t.Run(fmt.Sprintf("%s/%s/%d", form, selector, limit), func(t *testing.T) {
					var want []string
					for _, behind := range []int{0, 1e9} {
						var got []string
						version, token := "", ""
						for first := true; first || token != ""; first = false {
							crowded(behind)
							w.server.front.sizes.forgetItems()
							body, err := kube.CoreV1().RESTClient().Get().AbsPath("/api/v1/secrets").SetHeader("Accept", accept).
								VersionedParams(&metav1.ListOptions{Limit: limit, Continue: token, LabelSelector: selector}, metav1.ParameterCodec).DoRaw(t.Context())
							if err != nil {
								t.Fatalf("%v %s", err, body)
							}
							rows, at, next := items(form, body)
							if version != "" && at != version {
								t.Errorf("a page at %s behind one at %s", at, version)
							}
							if limit > 0 && (len(rows) > int(limit) || next != "" && len(rows) < int(limit)) {
								t.Errorf("%d rows, continue %q", len(rows), next)
							}
							got, version, token = append(got, rows...), at, next
						}
						if behind == 0 {
							want = got
						} else if diff := cmp.Diff(want, got); diff != "" || len(got) == 0 {
							t.Errorf("(-whole +spread):\n%s", diff)
						}
					}
				})
			}
		}
	}
	t.Run("Protobuf", func(t *testing.T) {
		config := rest.CopyConfig(config)
		config.ContentType = "application/vnd.kubernetes.protobuf"
		kube := kubernetes.NewForConfigOrDie(config)
		var lists [2][]corev1.Secret
		for i, behind := range []int{0, 1e9} {
			crowded(behind)
			list, err := kube.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			lists[i] = list.Items
		}
		if diff := cmp.Diff(lists[0], lists[1]); diff != "" || len(lists[1]) != count {
			t.Errorf("(-whole +spread):\n%s", diff)
		}
	})
}
