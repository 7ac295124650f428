package translate

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// TestReferences translates references in protobuf, of which most only lose the prefix of a namespace, and compares them
// with what goes through trees.
func TestReferences(t *testing.T) {
	k := Kind{Version: "v1", Resource: "events", Kind: "Event", Namespaced: true}
	for name, c := range map[string]struct{ ref, want corev1.ObjectReference }{
		"Pod": {
			corev1.ObjectReference{Kind: "Pod", Namespace: "zq7x9k-default", Name: "web", APIVersion: "v1", UID: "1", ResourceVersion: "2", FieldPath: "spec.containers{web}"},
			corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "web", APIVersion: "v1", UID: "1", ResourceVersion: "2", FieldPath: "spec.containers{web}"},
		},
		"NoVersion":      {corev1.ObjectReference{Kind: "Pod", Namespace: "zq7x9k-a", Name: "web"}, corev1.ObjectReference{Kind: "Pod", Namespace: "a", Name: "web"}},
		"NoNamespace":    {corev1.ObjectReference{Kind: "Pod", Name: "zq7x9k-web"}, corev1.ObjectReference{Kind: "Pod", Name: "zq7x9k-web"}},
		"BuiltIn":        {corev1.ObjectReference{Kind: "Job", Namespace: "zq7x9k-a", Name: "x", APIVersion: "batch/v1"}, corev1.ObjectReference{Kind: "Job", Namespace: "a", Name: "x", APIVersion: "batch/v1"}},
		"LongName":       {corev1.ObjectReference{Kind: "Pod", Namespace: "zq7x9k-a", Name: string(make([]byte, 200))}, corev1.ObjectReference{Kind: "Pod", Namespace: "a", Name: string(make([]byte, 200))}},
		"Prefix":         {corev1.ObjectReference{Kind: "Pod", Namespace: "zq7x9k-", Name: "web"}, corev1.ObjectReference{}},
		"Foreign":        {corev1.ObjectReference{Kind: "Pod", Namespace: "canary-a", Name: "web"}, corev1.ObjectReference{}},
		"ForeignCluster": {corev1.ObjectReference{Kind: "ClusterRole", Namespace: "zq7x9k-a", Name: "canary-x", APIVersion: "rbac.authorization.k8s.io/v1"}, corev1.ObjectReference{}},
		"ForeignGroup":   {corev1.ObjectReference{Kind: "Widget", Namespace: "zq7x9k-a", Name: "x", APIVersion: "canary-example.com/v1"}, corev1.ObjectReference{}},
		"OwnGroup": {
			corev1.ObjectReference{Kind: "Widget", Namespace: "zq7x9k-a", Name: "x", APIVersion: "zq7x9k-example.com/v1"},
			corev1.ObjectReference{Kind: "Widget", Namespace: "a", Name: "x", APIVersion: "example.com/v1"},
		},
		// About an object without a namespace, as the API server wants them stored.
		"Cluster": {
			corev1.ObjectReference{Kind: "ClusterRole", Namespace: "zq7x9k-a", Name: "zq7x9k-x", APIVersion: "rbac.authorization.k8s.io/v1"},
			corev1.ObjectReference{Kind: "ClusterRole", Name: "x", APIVersion: "rbac.authorization.k8s.io/v1"},
		},
		"Namespace": {corev1.ObjectReference{Kind: "Namespace", Namespace: "zq7x9k-a", Name: "zq7x9k-x", APIVersion: "v1"}, corev1.ObjectReference{Kind: "Namespace", Name: "x", APIVersion: "v1"}},
		"Node":      {corev1.ObjectReference{Kind: "Node", Namespace: "zq7x9k-a", Name: "pool-a-0", APIVersion: "v1"}, corev1.ObjectReference{Kind: "Node", Name: "pool-a-0", APIVersion: "v1"}},
	} {
		t.Run(name, func(t *testing.T) {
			event := corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "zq7x9k-default"}, InvolvedObject: c.ref, Message: "m"}
			raw, err := event.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			r, err := view.newResponse(k, io.Discard, nil, bufferSize)
			if err != nil {
				t.Fatal(err)
			}
			cut, err := r.wire(r.root.ToTenant, raw, nil)
			if err != nil {
				t.Fatal(err)
			}
			tree, err := r.rewriter().message(r.root.Place, raw, nil, "")
			if err != nil {
				t.Fatal(err)
			}
			if string(cut) != string(tree) {
				t.Errorf("cut %x\ntree %x", cut, tree)
			}
			text, err := json.Marshal(c.ref)
			if err != nil {
				t.Fatal(err)
			}
			var fast, slow bytes.Buffer
			r.Reuse(&fast, bytes.NewReader(text))
			if err := errors.Join(r.operate(rules.InvolvedObject), r.Cut(), r.Flush()); err != nil {
				t.Fatal(err)
			}
			about, err := jsonwire.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			r.involvedObjectToTenant(about)
			slow.Write(about.Append(nil))
			if fast.String() != slow.String() {
				t.Errorf("JSON %s, tree %s", &fast, &slow)
			}
			var got corev1.Event
			if err := got.Unmarshal(cut); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got.InvolvedObject); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestNothingButOwners: metadata in which neither the tenant's prefix nor the platform's domain is may still name another
// world, and record fields whose keys a tenant knows by another name.
func TestNothingButOwners(t *testing.T) {
	labels := map[string]string{"app": "web"}
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: "web", Namespace: "zq7x9k-default", Labels: labels,
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRole", Name: "canary-x"}, {APIVersion: "v1", Kind: "Pod", Name: "other"}},
	}}
	namespace := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "zq7x9k-a", Annotations: labels,
		ManagedFields: []metav1.ManagedFieldsEntry{{FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:metadata":{"f:labels":{"f:pod-security.kubernetes.io/enforce":{}}}}`)}}},
	}}
	for _, c := range []struct {
		kind Kind
		obj  interface{ Marshal() ([]byte, error) }
	}{{pods, &pod}, {Kind{Version: "v1", Resource: "namespaces", Kind: "Namespace"}, &namespace}} {
		raw, err := c.obj.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		r, err := view.newResponse(c.kind, io.Discard, nil, bufferSize)
		if err != nil {
			t.Fatal(err)
		}
		cut, err := r.wire(r.root.ToTenant, raw, nil)
		if err != nil {
			t.Fatal(err)
		}
		tree, err := r.rewriter().message(r.root.Place, raw, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		if string(cut) != string(tree) || bytes.Contains(cut, []byte("canary")) || bytes.Contains(cut, []byte("enforce")) {
			t.Errorf("%s: cut %q\ntree %q", c.kind.Kind, cut, tree)
		}
	}
}

// TestReferencesHaveOneForm: references are read by the numbers of their fields.
func TestReferencesHaveOneForm(t *testing.T) {
	found := 0
	var check func(p *rules.Place, deep int)
	check = func(p *rules.Place, deep int) {
		if p == nil || deep == 0 {
			return
		}
		if p.Op == rules.ObjectReference || p.Op == rules.InvolvedObject {
			found++
			for number, field := range map[int32]string{referenceKind: "kind", referenceNamespace: "namespace", 3: "name", referenceVersion: "apiVersion"} {
				if f := p.Message.Field(number); f == nil || f.JSON != field || f.Kind != rules.WireString {
					t.Errorf("field %d of a reference is %v, not %s", number, f, field)
				}
			}
		}
		check(p.Elem, deep-1)
		for _, f := range p.Wire {
			check(f.Place, deep-1)
		}
	}
	for _, root := range rules.All() {
		check(root.Place, 8)
	}
	if found == 0 {
		t.Error("no reference is in the table")
	}
}

// TestOtherReferences are none that could be cut, whoever would write them.
func TestOtherReferences(t *testing.T) {
	r, err := view.newResponse(pods, io.Discard, nil, bufferSize)
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range []string{
		`{"namespace":"canary-b","namespace":"zq7x9k-a","kind":"Pod"}`, `{"kind":"Node","kind":"Pod","namespace":"zq7x9k-a"}`,
		`{"kind":"Pod","namespace":"zq7x9k-a","name":5}`, `{"kind":5,"namespace":"zq7x9k-a"}`, `{"kind":"Pod","namespace":"zq7x9k-a","name":{"a":"b"}}`,
		`{"kind":"N\u006fde","namespace":"zq7x9k-a"}`, `{ "kind":"Pod","namespace":"zq7x9k-a"}`, `{"kind":"Pod","namespace":"zq7x9k-a"} `, `{}`, `null`, `"a"`, ``,
	} {
		if at := r.ordinaryReference([]byte(raw)); at != 0 {
			t.Errorf("%s: %d", raw, at)
		}
	}
	if raw := `{"kind":"Pod","namespace":"zq7x9k-a"}`; r.ordinaryReference([]byte(raw)) != 27 {
		t.Errorf("%s is none", raw)
	}
}
