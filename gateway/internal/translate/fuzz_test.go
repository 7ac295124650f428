package translate

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	kjson "sigs.k8s.io/json"

	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// fuzzed are the kinds whose rules are more than a namespace and labels.
var fuzzed = []rules.Root{}

func init() {
	for _, k := range []struct{ group, kind string }{
		{"", "Pod"}, {"", "Namespace"}, {"", "ConfigMap"}, {"", "Event"}, {"", "ResourceQuota"}, {"", "PersistentVolumeClaim"}, {"", "Secret"},
		{"networking.k8s.io", "NetworkPolicy"}, {"networking.k8s.io", "Ingress"}, {"rbac.authorization.k8s.io", "ClusterRole"},
		{"rbac.authorization.k8s.io", "Role"}, {"rbac.authorization.k8s.io", "RoleBinding"}, {"authorization.k8s.io", "SubjectAccessReview"},
		{"authentication.k8s.io", "TokenReview"}, {"apps", "StatefulSet"},
	} {
		if root, ok := rules.For(k.group, "v1", k.kind); ok {
			fuzzed = append(fuzzed, root)
		}
	}
}

// read decodes as a stock API server does; an error if it would not take the document. strict is false where it would take
// it with a warning.
func read(root rules.Root, doc []byte) (obj runtime.Object, strict bool, err error) {
	gvk := gvkOf(root)
	obj, _, err = scheme.Codecs.UniversalDeserializer().Decode(doc, &gvk, nil)
	if err != nil || bytes.HasPrefix(doc, protoMagic) {
		return obj, true, err
	}
	into, err := scheme.Scheme.New(gvk)
	if err != nil {
		return nil, false, err
	}
	problems, err := kjson.UnmarshalStrict(doc, into)
	return obj, len(problems) == 0, err
}

// seeds are small objects with a rule in each, and documents that readers take differently.
func seeds(f *testing.F) {
	for _, body := range []string{
		`{"metadata":{"name":"a","namespace":"web","labels":{"a":"b"},"ownerReferences":[{"apiVersion":"v1","kind":"Namespace","name":"web"}]}}`,
		`{"spec":{"podSelector":{},"ingress":[{"from":[{"namespaceSelector":{"matchExpressions":[{"key":"kubernetes.io/metadata.name","operator":"Exists"}]}}]}]}}`,
		`{"rules":[{"verbs":["get"],"apiGroups":["","*"],"resources":["*","namespaces"],"resourceNames":["web"]}],"aggregationRule":{"clusterRoleSelectors":[{}]}}`,
		`{"roleRef":{"kind":"ClusterRole","name":"x"},"subjects":[{"kind":"Group","name":"system:serviceaccounts"},{"kind":"ServiceAccount","namespace":"web","name":"r"}]}`,
		`{"spec":{"hard":{"count/widgets.example.com":"1","gold.storageclass.storage.k8s.io/requests.storage":"1Gi"}}}`,
		`{"involvedObject":{"kind":"Namespace","name":"web"},"message":"zq7x9k-web"}`,
		`{"spec":{"resourceAttributes":{"resource":"namespaces","name":"web","fieldSelector":{"rawSelector":"metadata.name=web"}}}}`,
		`{"metadata":{"namespace":"web"},"metadata":{"namespace":"kube-system"}}`, `{"metadata":{"nameSpace":"x","Namespace":"kube-system"}}`,
		`{"metadata":{"name\u0073pace":"web"}}`, `{"metadata":{}} {}`, `{"metadata":{"namespace":null}}`, "\xef\xbb\xbf{}", `{"metadata":{"labels":null},"x":1e999}`,
		strings.Repeat(`{"a":`, 300) + "1" + strings.Repeat("}", 300),
	} {
		for kind := range fuzzed {
			f.Add(uint8(kind), []byte(body))
		}
	}
	for kind, root := range fuzzed {
		obj, err := scheme.Scheme.New(gvkOf(root))
		if err != nil {
			f.Fatal(err)
		}
		if err := json.Unmarshal([]byte(`{"metadata":{"name":"a","namespace":"web","labels":{"a":"b"}}}`), obj); err != nil {
			f.Fatal(err)
		}
		doc := toProto(f, obj, gvkOf(root))
		f.Add(uint8(kind), doc)
		// A message twice, and a length written longer than it need be.
		f.Add(uint8(kind), append(bytes.Clone(doc), doc[4:]...))
		f.Add(uint8(kind), bytes.Replace(doc, []byte("\x0a\x03web"), []byte("\x0a\x83\x00web"), 1))
	}
}

// encodingOf says how the API server would be told to read a document.
func encodingOf(doc []byte) string {
	if bytes.HasPrefix(doc, protoMagic) {
		return typeProto
	}
	return typeJSON
}

// FuzzRequest holds the law of requests for any bytes: whatever is taken, the control cluster reads from what is sent
// exactly what the oracle makes of what a stock API server would have read from the tenant. So nobody reads it differently.
func FuzzRequest(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		root := fuzzed[int(kind)%len(fuzzed)]
		o := oracleOf(root, true)
		o.create = true
		sent, media, err := view.BodyToControl(kindOf(root), "create", encodingOf(body), body, o.namespace, "")
		if err != nil {
			return
		}
		if media != encodingOf(body) {
			t.Fatalf("sent as %s", media)
		}
		got, strict, err := read(root, sent)
		want, wasStrict, wantErr := read(root, body)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q\nis read with %v, what is sent of it with %v:\n%q", body, wantErr, err, sent)
		}
		if err != nil {
			return
		}
		if strict != wasStrict {
			t.Fatalf("%q\nis strict %v, what is sent of it %v:\n%q", body, wasStrict, strict, sent)
		}
		o.object(want)
		if o.refused != nil {
			t.Fatalf("%q is taken, the oracle says %v", body, o.refused)
		}
		for _, obj := range []runtime.Object{got, want} {
			if role, ok := obj.(*rbacv1.ClusterRole); ok {
				delete(role.Labels, "vivarium.io/split-rules")
				role.Rules = atoms(role.Rules)
			}
			// An Event about nothing, which no API server stores.
			if event, ok := obj.(*corev1.Event); ok && event.InvolvedObject == (corev1.ObjectReference{Namespace: "zq7x9k-web"}) {
				event.InvolvedObject.Namespace = ""
			}
		}
		if diff := cmp.Diff(canon(t, clearType(want)), canon(t, clearType(got))); diff != "" {
			t.Fatalf("%q (-oracle +wire):\n%s", body, diff)
		}
	})
}

// FuzzAnswer holds the law of answers for any bytes: it never panics, and what is passed is what the oracle makes of it; an
// object of another world is not passed.
func FuzzAnswer(f *testing.F) {
	seeds(f)
	for kind, root := range fuzzed {
		f.Add(uint8(kind), []byte(`{"kind":"`+root.Kind+`","apiVersion":"`+gvkOf(root).GroupVersion().String()+`","metadata":{"name":"zq7x9k-a","namespace":"zq7x9k-web","labels":{"vivarium.io/tenant":"zq7x9k"},"ownerReferences":[{"apiVersion":"canary-example.com/v1","kind":"Widget","name":"w","uid":"u"}]}}`))
	}
	f.Fuzz(func(t *testing.T, kind uint8, answer []byte) {
		root := fuzzed[int(kind)%len(fuzzed)]
		var out bytes.Buffer
		if err := view.ObjectToTenant(kindOf(root), &out, bytes.NewReader(answer)); err != nil {
			return
		}
		want, strict, err := read(root, answer)
		if err != nil || !strict || want.GetObjectKind().GroupVersionKind() != gvkOf(root) {
			return // no encoder's work, or another form of the kind
		}
		o := oracleOf(root, false)
		o.object(want)
		if o.foreign != nil {
			t.Fatalf("%q is passed as %q, the oracle says %v", answer, out.Bytes(), o.foreign)
		}
		got, _, err := read(root, out.Bytes())
		if err != nil {
			t.Fatalf("%q is passed as %q: %v", answer, out.Bytes(), err)
		}
		if canon(t, got.DeepCopyObject()) != canon(t, want) {
			t.Fatalf("%q (-oracle +wire):\n%s", answer, cmp.Diff(canon(t, want), canon(t, got)))
		}
	})
}
