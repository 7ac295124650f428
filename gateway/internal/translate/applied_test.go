package translate

import (
	"bytes"
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestLastApplied checks the annotation in which the API server quotes the whole object, in the control cluster's names,
// when kubectl applies on the server side. What kubectl itself put there passes byte for byte.
func TestLastApplied(t *testing.T) {
	for name, tc := range map[string]struct{ namespace, annotation, want string }{
		"Client":       {"zq7x9k-web", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"web"},"data":{"x":"zq7x9k-a  "}}` + "\n", ""},
		"Server":       {"zq7x9k-web", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"zq7x9k-web","ownerReferences":[{"apiVersion":"v1","kind":"Namespace","name":"zq7x9k-web","uid":"u"}]}}` + "\n", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"web","ownerReferences":[{"apiVersion":"v1","kind":"Namespace","name":"web","uid":"u"}]}}` + "\n"},
		"ServerTwice":  {"zq7x9k-zq7x9k-web", `{"metadata":{"namespace":"zq7x9k-zq7x9k-web"}}`, `{"metadata":{"namespace":"zq7x9k-web"}}` + "\n"},
		"ClientTwice":  {"zq7x9k-zq7x9k-web", `{"metadata":{"namespace":"zq7x9k-web"}}`, ""},
		"NoNamespace":  {"zq7x9k-web", `{"metadata":{"name":"zq7x9k-web"}}`, ""},
		"NoJSON":       {"zq7x9k-web", `zq7x9k-web`, ""},
		"PlatformKeys": {"zq7x9k-web", `{"metadata":{"namespace":"zq7x9k-web","labels":{"vivarium.io/tenant":"zq7x9k"}}}`, `{"metadata":{"namespace":"web","labels":{}}}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			stored := &corev1.ConfigMap{}
			stored.Name, stored.Namespace = "a", tc.namespace
			stored.Annotations = map[string]string{annotationLastApplied: tc.annotation}
			want := tc.want
			if want == "" {
				want = tc.annotation
			}
			gvk := schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}
			proto := toProto(t, stored, gvk)
			plain, err := json.Marshal(stored)
			if err != nil {
				t.Fatal(err)
			}
			for encoding, doc := range map[string][]byte{"protobuf": proto, "JSON": plain} {
				var out bytes.Buffer
				if err := view.ObjectToTenant(configMaps, &out, bytes.NewReader(doc)); err != nil {
					t.Fatal(err)
				}
				if got := decode(t, out.Bytes()).(*corev1.ConfigMap).Annotations[annotationLastApplied]; got != want {
					t.Errorf("%s: got  %s\nwant %s", encoding, got, want)
				}
			}
		})
	}
}
