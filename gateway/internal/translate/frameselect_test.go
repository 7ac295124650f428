package translate

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// selectableForms are frames about one ConfigMap in the forms that a control cluster sends.
func selectableForms(t *testing.T, kind string, cm *corev1.ConfigMap) map[string]string {
	t.Helper()
	raw, err := json.Marshal(cm)
	if err != nil {
		t.Fatal(err)
	}
	partial := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"}, ObjectMeta: cm.ObjectMeta}
	metadata, err := json.Marshal(partial)
	if err != nil {
		t.Fatal(err)
	}
	// As custom resources: keys in alphabetical order.
	var sorted map[string]any
	if err := json.Unmarshal(raw, &sorted); err != nil {
		t.Fatal(err)
	}
	custom, err := json.Marshal(sorted)
	if err != nil {
		t.Fatal(err)
	}
	in := func(doc []byte) string { return fmt.Sprintf(`{"type":%q,"object":%s}`, kind, doc) + "\n" }
	return map[string]string{
		"json": in(raw), "metadata": in(metadata), "custom": in(custom),
		"proto":         string(frameOf(t, kind, cm, schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"})),
		"protoMetadata": string(frameOf(t, kind, partial, schema.GroupVersionKind{Group: "meta.k8s.io", Version: "v1", Kind: "PartialObjectMetadata"})),
	}
}

func TestSelectableOfFrame(t *testing.T) {
	for name, want := range map[string]map[string]string{
		"None": nil, "One": {"app": "web"}, "Empty": {"app": ""}, "Several": {"a": "b", "vivarium.io/x": "y", "z": ""},
		"Odd": {`a"b`: `\\`, "ü": "\u2028", "labels": "metadata"},
	} {
		for _, decoys := range []bool{false, true} {
			cm := &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "b", ResourceVersion: "7", Labels: want}}
			if decoys {
				cm.Annotations = map[string]string{"labels": `{"labels":{"app":"no"}}`}
				cm.Data = map[string]string{"metadata": `{"labels":{}}`, "labels": "x"}
				cm.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "x", FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:metadata":{"f:labels":{}}}`)}}}
				cm.GenerateName = "labels"
			}
			for form, frame := range selectableForms(t, "MODIFIED", cm) {
				kind, found, err := SelectableOfFrame([]byte(frame))
				got := map[string]string{}
				for i := 0; i < len(found); i += 2 {
					got[found[i]] = found[i+1]
				}
				if err != nil || kind != "MODIFIED" || !maps.Equal(got, want) {
					t.Errorf("%s, %s: %s %v %v, want %v", name, form, kind, got, err, want)
				}
				for key, value := range want {
					if !found.Has(key) || found.Get(key) != value {
						t.Errorf("%s, %s: %q is %q", name, form, key, found.Get(key))
					}
				}
				if found.Has("b") || found.Get("nothing") != "" {
					t.Errorf("%s, %s has what it has not", name, form)
				}
				for n := range len(frame) {
					_, _, _ = SelectableOfFrame([]byte(frame[:n]))
				}
			}
		}
	}
	if _, found, err := SelectableOfFrame([]byte(`{"type":"ADDED","object":{"metadata":{"labels":null,"name":"a"}}}`)); err != nil || len(found) > 0 {
		t.Errorf("no labels: %v %v", found, err)
	}
	var _ labels.Labels = Labels{}
}

// TestFormerFrame compares with what an API server encodes.
func TestFormerFrame(t *testing.T) {
	object := func(rv string) *corev1.ConfigMap {
		return &corev1.ConfigMap{
			TypeMeta:   metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"},
			ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "b", UID: "u", ResourceVersion: rv, Labels: map[string]string{"resourceVersion": "1"}, Annotations: map[string]string{"type": "ADDED"}},
			Data:       map[string]string{"resourceVersion": "17", "text": strings.Repeat("x", 200)},
		}
	}
	for _, rv := range []uint64{3, 18, 1000, 1 << 62} {
		was, is := selectableForms(t, "ADDED", object("17")), selectableForms(t, "DELETED", object(fmt.Sprint(rv)))
		for form, frame := range was {
			got, err := FormerFrame([]byte(frame), rv)
			if err != nil || string(got) != is[form] {
				t.Errorf("%s at %d: %v %s", form, rv, err, firstDifference(string(got), is[form]))
			}
			for n := range len(frame) {
				_, _ = FormerFrame([]byte(frame[:n]), rv)
			}
		}
	}
	for _, bad := range []string{"", "{}", `{"type":"ADDED"}`, `{"type":"ADDED","object":{"metadata":{}}}`, "\x00\x00\x00\x00"} {
		if got, err := FormerFrame([]byte(bad), 1); err == nil {
			t.Errorf("%q becomes %q", bad, got)
		}
	}
}

func TestRetypedFrame(t *testing.T) {
	cm := &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "a", ResourceVersion: "7"}, Data: map[string]string{"type": "ADDED"}}
	kinds := []string{"ADDED", "MODIFIED", "DELETED"}
	for _, from := range kinds {
		for _, to := range kinds {
			want := selectableForms(t, to, cm)
			for form, frame := range selectableForms(t, from, cm) {
				if got, err := RetypedFrame([]byte(frame), to); err != nil || string(got) != want[form] {
					t.Errorf("%s of %s: %v %s", to, form, err, firstDifference(string(got), want[form]))
				}
			}
		}
	}
}
