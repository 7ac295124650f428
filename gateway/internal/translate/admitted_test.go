package translate

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestAdmitted looks at what is about to be stored as a tenant's policies see it.
func TestAdmitted(t *testing.T) {
	v := View{Tenant: "abc123", Customs: nil}
	pods := Kind{Version: "v1", Resource: "pods", Kind: "Pod", Namespaced: true}
	bindings := pods
	bindings.Subresource = "binding"
	roles := Kind{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles", Kind: "ClusterRole"}
	custom := Kind{Group: "example.com", Version: "v1", Resource: "widgets", Kind: "Widget", Namespaced: true, Custom: true}
	for name, c := range map[string]struct {
		kind        Kind
		stored, own string
	}{
		"Whole":        {pods, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"abc123-web","labels":{"vivarium.io/x":"y","a":"b"}},"spec":{"nodeName":"n"}}`, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"web","labels":{"a":"b"}},"spec":{"nodeName":"n"}}`},
		"Unnamed":      {roles, `{"kind":"ClusterRole","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"generateName":"abc123-a-"}}`, `{"kind":"ClusterRole","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"generateName":"a-"}}`},
		"NobodysKind":  {bindings, `{"kind":"Binding","apiVersion":"v1","metadata":{"name":"a","namespace":"abc123-web"},"target":{"kind":"Node","name":"n"}}`, `{"kind":"Binding","apiVersion":"v1","metadata":{"name":"a","namespace":"web"},"target":{"kind":"Node","name":"n"}}`},
		"OptionsOfOne": {Kind{Version: "v1", Resource: "pods", Kind: "Pod", Namespaced: true, Subresource: "exec"}, `{"kind":"PodExecOptions","apiVersion":"v1","command":["abc123-x"]}`, `{"kind":"PodExecOptions","apiVersion":"v1","command":["abc123-x"]}`},
		"Custom":       {custom, `{"apiVersion":"abc123-example.com/v1","kind":"Widget","metadata":{"name":"a","namespace":"abc123-web"},"spec":"abc123-x"}`, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a","namespace":"web"},"spec":"abc123-x"}`},
	} {
		t.Run(name, func(t *testing.T) {
			own, err := v.AdmittedToTenant(c.kind, []byte(c.stored))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.own, string(own)); diff != "" {
				t.Error(diff)
			}
		})
	}
	for name, stored := range map[string]string{
		"Foreign":      `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"zzz999-web"}}`,
		"Platform":     `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"kube-system"}}`,
		"NobodysKind":  `{"kind":"Binding","apiVersion":"v1","metadata":{"name":"a","namespace":"zzz999-web"}}`,
		"NoObject":     `[]`,
		"NoJSON":       `{`,
		"TwoDocuments": `{"kind":"Pod"}{}`,
	} {
		if own, err := v.AdmittedToTenant(pods, []byte(stored)); err == nil {
			t.Errorf("%s: %s", name, own)
		}
	}
}

// TestMutations lets a tenant's policy do what the tenant may, by the verb by which the object is written.
func TestMutations(t *testing.T) {
	v := View{Tenant: "abc123"}
	pods := Kind{Version: "v1", Resource: "pods", Kind: "Pod", Namespaced: true}
	out, err := v.MutationToControl(pods, "create", []byte(`[{"op":"add","path":"/metadata/labels/team","value":"blue"},{"op":"add","path":"/spec/affinity","value":{"podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"a","namespaces":["web"]}]}}}]`), "web", "a")
	if err != nil || !strings.Contains(string(out), `"abc123-web"`) || !strings.Contains(string(out), `/metadata/labels/team`) {
		t.Errorf("%s, %v", out, err)
	}
	for name, patch := range map[string]string{
		"Node":     `[{"op":"add","path":"/spec/nodeName","value":"n"}]`,
		"Platform": `[{"op":"add","path":"/metadata/labels/vivarium.io~1tenant","value":"zzz999"}]`,
		"Whole":    `[{"op":"replace","path":"","value":{}}]`,
	} {
		var refused *Error
		if out, err := v.MutationToControl(pods, "create", []byte(patch), "web", "a"); !errors.As(err, &refused) {
			t.Errorf("%s: %s, %v", name, out, err)
		}
	}
	if out, err := v.MutationToControl(Kind{Group: "x", Resource: "y"}, "create", []byte(`[]`), "", ""); err == nil {
		t.Errorf("of a kind without rules: %s", out)
	}
}

func TestWriters(t *testing.T) {
	v := View{Tenant: "abc123"}
	for name, c := range map[string]struct {
		control, own authenticationv1.UserInfo
		writer       Writer
	}{
		"Own": {
			authenticationv1.UserInfo{Username: "abc123-alice", UID: "u", Groups: []string{"abc123-dev", "abc123-system:authenticated", "system:authenticated"}},
			authenticationv1.UserInfo{Username: "alice", UID: "u", Groups: []string{"dev", "system:authenticated"}}, User,
		},
		"Account": {
			authenticationv1.UserInfo{Username: "system:serviceaccount:abc123-web:robot", Groups: []string{"system:serviceaccounts:abc123-web"}},
			authenticationv1.UserInfo{Username: "system:serviceaccount:web:robot", Groups: []string{"system:serviceaccounts:web"}}, User,
		},
		"Controller": {
			authenticationv1.UserInfo{Username: "system:serviceaccount:kube-system:replicaset-controller", Groups: []string{"system:serviceaccounts", "operators"}},
			authenticationv1.UserInfo{Username: "system:serviceaccount:kube-system:replicaset-controller", Groups: []string{"system:serviceaccounts"}}, StockPart,
		},
		"Scheduler": {authenticationv1.UserInfo{Username: "system:kube-scheduler"}, authenticationv1.UserInfo{Username: "system:kube-scheduler"}, StockPart},
		"Platform": {
			authenticationv1.UserInfo{Username: "vivarium-gateway", UID: "u", Groups: []string{"system:masters"}, Extra: map[string]authenticationv1.ExtraValue{"a": {"b"}}},
			authenticationv1.UserInfo{}, Platform,
		},
		"Neighbour": {
			authenticationv1.UserInfo{Username: "zzz999-bob", Groups: []string{"zzz999-dev"}},
			authenticationv1.UserInfo{}, Platform,
		},
		"NeighboursAccount": {
			authenticationv1.UserInfo{Username: "system:serviceaccount:zzz999-web:robot"},
			authenticationv1.UserInfo{}, Platform,
		},
	} {
		own, writer := v.WriterToTenant(c.control)
		if diff := cmp.Diff(c.own, own); diff != "" || writer != c.writer {
			t.Errorf("%s: writer %d, want %d: %s", name, writer, c.writer, diff)
		}
	}
}

// TestWebhookInText keeps from a tenant how the platform is asked about its policies.
func TestWebhookInText(t *testing.T) {
	v := View{Tenant: "abc123"}
	events := Kind{Version: "v1", Resource: "events", Kind: "Event", Namespaced: true}
	for name, c := range map[string]struct{ said, told string }{
		"Denied": {
			`Error creating: admission webhook "policies.vivarium.io" denied the request: pods "a" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no`,
			`Error creating: pods "a" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no`,
		},
		"Unreachable": {
			`Internal error occurred: failed calling webhook "policies.vivarium.io": failed to call webhook: Post "https://10.0.0.1:6443/vivarium-admission/5ec4e7/validate?timeout=10s": dial tcp 10.0.0.1:6443: connect: connection refused`,
			`Internal error occurred: the admission policies cannot be applied at the moment`,
		},
		"DeniedOfAll": {
			`Error creating: admission webhook "all.policies.vivarium.io" denied the request: pods "a" is forbidden: no`, `Error creating: pods "a" is forbidden: no`,
		},
		"UnreachableOfAll": {
			`Internal error occurred: failed calling webhook "all.policies.vivarium.io": failed to call webhook: Post "https://10.0.0.1:6443/vivarium-admission/5ec4e7/validate?timeout=10s": dial tcp 10.0.0.1:6443: connect: connection refused`,
			`Internal error occurred: the admission policies cannot be applied at the moment`,
		},
		"Others": {`admission webhook "mine.example.com" denied the request: no`, `admission webhook "mine.example.com" denied the request: no`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := v.TextToTenant(c.said); got != c.told {
				t.Errorf("text: %s", got)
			}
			var out strings.Builder
			doc := `{"kind":"Event","apiVersion":"v1","metadata":{"name":"a","namespace":"abc123-web"},"involvedObject":{"kind":"ReplicaSet","namespace":"abc123-web","name":"a"},"message":` + quoted(c.said) + `}`
			if err := v.ObjectToTenant(events, &out, strings.NewReader(doc)); err != nil || !strings.Contains(out.String(), quoted(c.told)) {
				t.Errorf("an event: %s, %v", out.String(), err)
			}
			out.Reset()
			wire := toProto(t, &corev1.Event{
				ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "abc123-web"}, Message: c.said,
				InvolvedObject: corev1.ObjectReference{Kind: "ReplicaSet", Namespace: "abc123-web", Name: "a"},
			}, corev1.SchemeGroupVersion.WithKind("Event"))
			if err := v.ObjectToTenant(events, &out, bytes.NewReader(wire)); err != nil || !strings.Contains(out.String(), c.told) || c.said != c.told && strings.Contains(out.String(), "webhook") {
				t.Errorf("an event in protobuf: %q, %v", out.String(), err)
			}
			status := v.StatusToTenant(events, 500, []byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","code":500,"details":{"causes":[{"message":`+quoted(c.said)+`}]},"message":`+quoted(c.said)+`}`))
			if strings.Count(string(status), quoted(c.told)) != 2 {
				t.Errorf("a Status: %s", status)
			}
		})
	}
}

func quoted(s string) string { return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"` }
