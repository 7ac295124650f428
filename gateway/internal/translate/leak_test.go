package translate

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// TestForeignNamesNeverShow stores every published object as another tenant would, gives it to this one, and looks for the
// other in what this one sees.
func TestForeignNamesNeverShow(t *testing.T) {
	fixtures(t, func(name string, root rules.Root, doc []byte) {
		if root.Op == rules.VirtualNode || root.Kind == "TokenReview" || !root.Namespaced && !root.Prefixed {
			return
		}
		t.Run(name, func(t *testing.T) {
			k := kindOf(root)
			namespace := ""
			if root.Namespaced {
				namespace = "ns1"
			}
			foreign, _, err := other.BodyToControl(k, "update", "", acceptable(t, root, doc), namespace, "")
			if err != nil {
				t.Fatal(err)
			}
			stored, err := jsonwire.Parse(foreign)
			if err != nil {
				t.Fatal(err)
			}
			if root.Namespaced {
				stored.At("metadata", "namespace").SetText("zq7x9k-ns1")
			} else {
				stored.At("metadata", "name").SetText("zq7x9k-own1")
				stored.At("metadata", "generateName").SetText("zq7x9k-own")
			}
			var out bytes.Buffer
			if err := view.ObjectToTenant(k, &out, bytes.NewReader(stored.Append(nil))); err != nil {
				t.Fatal(err)
			}
			if i := strings.Index(out.String(), "canary"); i >= 0 {
				t.Errorf("shows …%s", out.String()[max(0, i-100):min(out.Len(), i+100)])
			}
			if i := strings.Index(out.String(), "zq7x9k-"); i >= 0 {
				t.Errorf("shows the prefix …%s", out.String()[max(0, i-100):min(out.Len(), i+100)])
			}
		})
	})
}

// FuzzBody holds request translation to its laws for arbitrary bodies: what is taken is one JSON document without
// platform keys of the tenant's making, and comes back as it was.
func FuzzBody(f *testing.F) {
	kinds := []Kind{pods, deployments, namespaces, configMaps, policies, clusterRoles, clusterBinds, roles, bindings, events, quotas, services}
	verbs := []string{"create", "update", "patch", "patch", "patch", "patch"}
	media := []string{"application/json", typeYAML, merge0, strategic, jsonPatch, apply}
	f.Add(uint8(0), uint8(0), []byte(`{"metadata":{"name":"a","namespace":"default","labels":{"a":"b"}},"spec":{"containers":[]}}`))
	f.Add(uint8(4), uint8(0), []byte(`{"spec":{"ingress":[{"from":[{"namespaceSelector":{}}]}]}}`))
	f.Add(uint8(2), uint8(2), []byte(`{"metadata":{"labels":{"a":null}}}`))
	f.Add(uint8(4), uint8(4), []byte(`[{"op":"remove","path":"/spec/ingress/0/from/0/namespaceSelector/matchLabels"}]`))
	f.Add(uint8(5), uint8(4), []byte(`[{"op":"move","from":"/metadata/labels/a~1b","path":"/metadata/labels/c"}]`))
	f.Add(uint8(7), uint8(3), []byte(`{"rules":[{"$patch":"replace"},{"apiGroups":["example.com"],"resources":["x"],"resourceNames":["y"]}]}`))
	f.Add(uint8(9), uint8(5), []byte("apiVersion: v1\nkind: Event\ninvolvedObject: {kind: Namespace, name: x}\n"))
	f.Add(uint8(8), uint8(1), []byte("roleRef: {kind: ClusterRole, name: x}\nsubjects: [{kind: User, name: a}]\n"))
	f.Fuzz(func(t *testing.T, kind, how uint8, body []byte) {
		k := kinds[int(kind)%len(kinds)]
		verb, contentType := verbs[int(how)%len(verbs)], media[int(how)%len(media)]
		namespace := ""
		if k.Namespaced {
			namespace = "default"
		}
		control, _, err := view.BodyToControl(k, verb, contentType, body, namespace, "")
		if err != nil {
			return
		}
		stored, err := jsonwire.Parse(control)
		if err != nil {
			t.Fatalf("%s: output %q: %v", contentType, control, err)
		}
		if contentType == jsonPatch || stored.Kind() != jsonwire.Object {
			return
		}
		// The other way must never fail on what was taken, nor show a prefix that the tenant did not write.
		root, _ := View{}.bodyRoot(k)
		r, err := view.newResponse(k, io.Discard, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		before := bytes.Count(body, []byte("zq7x9k"))
		if err := r.treeToTenant(root.Place, stored); err != nil {
			return
		}
		if shown := stored.Append(nil); before == 0 && !bytes.Contains(body, []byte(`\`)) && bytes.Contains(shown, []byte("zq7x9k-")) {
			t.Fatalf("%s %q\nis stored as %s\nand shown as %s", contentType, body, control, shown)
		}
	})
}

// FuzzResponse feeds the scanner what no encoder writes: it must end, with an error or not, and never show a foreign item.
func FuzzResponse(f *testing.F) {
	f.Add([]byte(podList("zq7x9k", 1)))
	f.Add([]byte(`{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{},"columnDefinitions":[{"name":"Name"}],"rows":[{"cells":["a"],"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"namespace":"zq7x9k-a"}}}]}`))
	f.Add([]byte(`{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"namespace":"zq7x9k-a"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, size := range []int{1, 64} {
			var whole bytes.Buffer
			_ = view.ObjectToTenant(pods, &whole, &chunks{data, size})
			_ = view.WatchToTenant(pods, &whole, nil, &chunks{data, size}, true)
			_ = view.ListToTenant(pods, &whole, ListOptions{OnePage: true}, func(string) (io.ReadCloser, error) {
				return io.NopCloser(&chunks{data, size}), nil
			})
		}
		_ = view.StatusToTenant(pods, 500, data)
	})
}

func TestTextLaw(t *testing.T) {
	for name, text := range map[string]string{
		"Plain": "nothing here", "Quoted": `namespaces "zq7x9k-a" not found`, "Twice": "zq7x9k-zq7x9k-a", "Inside": "xzq7x9k-a",
		"Path": "/api/zq7x9k-a/zq7x9k-b", "Bare": "zq7x9k", "Dash": "a-zq7x9k-b", "Colon": "system:serviceaccount:zq7x9k-a:b",
		"End": "zq7x9k-", "Unicode": "ézq7x9k-a",
	} {
		t.Run(name, func(t *testing.T) {
			if got := view.TextToTenant(view.textToControl(text)); got != text {
				t.Errorf("%q comes back as %q", text, got)
			}
			if got := view.TextToTenant(view.textToControl(text, "zq7x9k-a"), "zq7x9k-a"); got != text {
				t.Errorf("with a name kept, %q comes back as %q", text, got)
			}
		})
	}
	if got, want := view.TextToTenant(`User "zq7x9k-alice" in zq7x9k-web, not in zq7x9-k`), `User "alice" in web, not in zq7x9-k`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
