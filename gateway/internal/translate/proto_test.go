package translate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"vivarium.io/vivarium/gateway/internal/translate/protowire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
	"vivarium.io/vivarium/internal/podsecurity"
)

func init() {
	// The scheme of the tests has every kind that a table is made for.
	if err := metricsv1beta1.AddToScheme(scheme.Scheme); err != nil {
		panic(err)
	}
}

var protoCodec = protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)

func decode(t testing.TB, doc []byte) runtime.Object {
	t.Helper()
	obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(doc, nil, nil)
	if err != nil {
		t.Fatalf("decode %.200q: %v", doc, err)
	}
	return obj
}

func toProto(t testing.TB, obj runtime.Object, gvk schema.GroupVersionKind) []byte {
	t.Helper()
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	var b bytes.Buffer
	if err := protoCodec.Encode(obj, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// clearType takes out what only JSON carries inside the object.
func clearType(obj runtime.Object) runtime.Object {
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return obj
}

func gvkOf(r rules.Root) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}
}

// TestProtobufAndJSONAgree translates every published object in both encodings: what is stored means the same, and what
// comes back is the tenant's own, in protobuf byte for byte.
func TestProtobufAndJSONAgree(t *testing.T) {
	fixtures(t, func(name string, root rules.Root, doc []byte) {
		if root.Op == rules.VirtualNode || root.Kind == "ControllerRevision" {
			return
		}
		t.Run(name, func(t *testing.T) {
			k := kindOf(root)
			namespace := ""
			if root.Namespaced {
				namespace = "ns1"
			}
			tenantJSON := acceptable(t, root, doc)
			tenant := toProto(t, decode(t, tenantJSON), gvkOf(root))
			control, media, err := view.BodyToControl(k, "update", typeProto, tenant, namespace, "")
			if err != nil || media != typeProto {
				t.Fatalf("to control: %q, %v", media, err)
			}
			controlJSON, _, err := view.BodyToControl(k, "update", typeJSON, tenantJSON, namespace, "")
			if err != nil {
				t.Fatal(err)
			}
			if a, b := decode(t, controlJSON), decode(t, control); !equality.Semantic.DeepEqual(clearType(a), clearType(b)) {
				t.Errorf("the encodings differ in control:\nJSON     %+v\nprotobuf %+v", a, b)
			}
			if !root.Namespaced && !root.Prefixed || root.Kind == "TokenReview" || root.Kind == "TokenRequest" {
				return
			}
			var back bytes.Buffer
			if err := view.ObjectToTenant(k, &back, bytes.NewReader(control)); err != nil {
				t.Fatalf("to tenant: %v", err)
			}
			if !bytes.Equal(back.Bytes(), tenant) {
				t.Errorf("comes back changed: %q", firstDifference(back.String(), string(tenant)))
			}
			if err := other.ObjectToTenant(k, io.Discard, bytes.NewReader(control)); err == nil {
				t.Error("another tenant can read it")
			}
		})
	})
}

func pod(tenant, name string) corev1.Pod {
	return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: tenant + "-default", Name: name}}
}

func TestProtobufLists(t *testing.T) {
	gvk := schema.GroupVersionKind{Version: "v1", Kind: "PodList"}
	two := int64(2)
	pages := map[string][]byte{
		"": toProto(t, &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "next", RemainingItemCount: &two},
			Items: []corev1.Pod{pod("zq7x9k", "a"), pod("zq7x9k", "b")}}, gvk),
		"next": toProto(t, &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "more"},
			Items: []corev1.Pod{pod("zq7x9k", "c"), pod("canary", "d"), pod("canary", "e")}}, gvk),
	}
	page := func(token string) (io.ReadCloser, error) {
		return io.NopCloser(&chunks{pages[token], 3}), nil
	}
	for name, tc := range map[string]struct {
		opts     ListOptions
		names    string
		token    string
		resource string
	}{
		"All":     {ListOptions{}, "a b c", "", "7"},
		"OnePage": {ListOptions{OnePage: true}, "a b", "opaque-txen", "7"},
		"Last":    {ListOptions{First: "next", OnePage: true}, "c", "", "7"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			counted := -1
			tc.opts.Counted = func(items, _ int) { counted = items }
			if err := view.ListToTenant(pods, &out, tc.opts, page); err != nil {
				t.Fatal(err)
			}
			list := decode(t, out.Bytes()).(*corev1.PodList)
			if counted != len(list.Items) {
				t.Errorf("counted %d items", counted)
			}
			var names []string
			for _, p := range list.Items {
				names = append(names, p.Name)
				if p.Namespace != "default" {
					t.Errorf("namespace %q", p.Namespace)
				}
			}
			if got := strings.Join(names, " "); got != tc.names || list.Continue != tc.token || list.ResourceVersion != tc.resource || list.RemainingItemCount != nil {
				t.Errorf("got %q, continue %q, remaining %v", got, list.Continue, list.RemainingItemCount)
			}
			if bytes.Contains(out.Bytes(), []byte("canary")) {
				t.Error("another tenant shows")
			}
		})
	}
	var out bytes.Buffer
	var f *ForeignError
	if err := view.ObjectToTenant(pods, &out, bytes.NewReader(pages["next"])); !errors.As(err, &f) || out.Len() > 0 {
		t.Errorf("a foreign item in a list: %v, %d bytes", err, out.Len())
	}
	if err := view.ObjectToTenant(pods, &out, bytes.NewReader(pages[""])); err != nil || decode(t, out.Bytes()).(*corev1.PodList).Continue != "opaque-txen" {
		t.Errorf("a list: %v", err)
	}
	// The last four bytes say that the content has no encoding of its own, which is what their absence says too.
	for n := 5; n < len(pages[""])-4; n += 3 {
		if err := view.ObjectToTenant(pods, io.Discard, bytes.NewReader(pages[""][:n])); err == nil {
			t.Fatalf("a list cut at %d passes", n)
		}
	}
}

// frameOf makes a watch frame as the API server does.
func frameOf(t testing.TB, kind string, obj runtime.Object, gvk schema.GroupVersionKind) []byte {
	t.Helper()
	event := metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: toProto(t, obj, gvk)}}
	body, err := event.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func TestProtobufWatch(t *testing.T) {
	gvk := schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	own, foreign := pod("zq7x9k", "a"), pod("canary", "b")
	bookmark := corev1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "9", Annotations: map[string]string{"k8s.io/initial-events-end": "true"}}}
	gone := &metav1.Status{Status: "Failure", Code: 410, Message: "too old in zq7x9k-default"}
	frames := bytes.Join([][]byte{
		frameOf(t, "ADDED", &foreign, gvk), frameOf(t, "ADDED", &own, gvk), frameOf(t, "BOOKMARK", &bookmark, gvk),
		frameOf(t, "ERROR", gone, schema.GroupVersionKind{Version: "v1", Kind: "Status"}),
	}, nil)
	for _, size := range []int{1, 3, 64, 4096} {
		var out bytes.Buffer
		if err := view.WatchToTenant(pods, &out, func() {}, &chunks{frames, size}, true); err != nil {
			t.Fatal(err)
		}
		var got []string
		for b := out.Bytes(); len(b) > 0; {
			n := binary.BigEndian.Uint32(b)
			var event metav1.WatchEvent
			if err := event.Unmarshal(b[4 : 4+n]); err != nil {
				t.Fatal(err)
			}
			b = b[4+n:]
			switch obj := decode(t, event.Object.Raw).(type) {
			case *corev1.Pod:
				got = append(got, event.Type+" "+obj.Namespace+"/"+obj.Name+obj.Annotations["k8s.io/initial-events-end"])
			case *metav1.Status:
				got = append(got, event.Type+" "+obj.Message)
			}
		}
		if diff := cmp.Diff([]string{"ADDED default/a", "BOOKMARK /true", "ERROR too old in default"}, got); diff != "" {
			t.Errorf("chunks of %d (-want +got):\n%s", size, diff)
		}
	}
	if err := view.WatchToTenant(pods, io.Discard, nil, bytes.NewReader(frames), false); err == nil {
		t.Error("a foreign frame passes unfiltered")
	}
	if err := view.WatchToTenant(pods, io.Discard, nil, bytes.NewReader(frames[:len(frames)-3]), true); err == nil {
		t.Error("a cut frame passes")
	}
}

func TestProtobufRefusals(t *testing.T) {
	encode := func(obj runtime.Object, kind string) []byte {
		return toProto(t, obj, schema.GroupVersionKind{Version: "v1", Kind: kind})
	}
	twice := func() []byte {
		// metadata twice: readers merge the two.
		raw := protowire.AppendBytes(nil, 1, protowire.AppendString(nil, 1, "a"))
		raw = protowire.AppendBytes(raw, 1, protowire.AppendString(nil, 3, "kube-system"))
		out, _ := appendEnvelope(nil, "v1", "Pod", 0, func(b []byte) ([]byte, error) { return append(b, raw...), nil })
		return out
	}
	cases := map[string]struct {
		kind Kind
		body []byte
		code int
		says string
	}{
		"PlatformLabel": {pods, encode(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"vivarium.io/tenant": "x"}}}, "Pod"), 403, "vivarium.io/tenant"},
		"NodeName":      {pods, encode(&corev1.Pod{Spec: corev1.PodSpec{NodeName: "n"}}, "Pod"), 403, "spec.nodeName"},
		"Namespace":     {pods, encode(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system"}}, "Pod"), 400, "does not match"},
		"Twice":         {pods, twice(), 400, "twice"},
		"WrongKind":     {pods, encode(&corev1.Secret{}, "Secret"), 400, "Secret"},
		"TokenSecret":   {secrets, encode(&corev1.Secret{Type: corev1.SecretTypeServiceAccountToken}, "Secret"), 403, "token"},
		"PodSecurity":   {namespaces, encode(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "none"}}}, "Namespace"), 422, "must be one of"},
		"Group":         {pods, []byte("k8s\x00\x0b\x0c"), 400, "protobuf"},
		"Trailing":      {pods, append(encode(&corev1.Pod{}, "Pod"), 0), 400, "protobuf"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			namespace := ""
			if tc.kind.Namespaced {
				namespace = "default"
			}
			_, _, err := view.BodyToControl(tc.kind, "create", typeProto, tc.body, namespace, "")
			var refusal *Error
			if !errors.As(err, &refusal) || refusal.Code != tc.code || !strings.Contains(refusal.Error(), tc.says) {
				t.Errorf("got %v, want %d and %q", err, tc.code, tc.says)
			}
		})
	}
}

func TestProtobufNamespaceIsLabelled(t *testing.T) {
	for name, labels := range map[string]map[string]string{"None": nil, "Own": {"a": "b"}, "Privileged": {podsecurity.Enforce: "privileged"}} {
		t.Run(name, func(t *testing.T) {
			body := toProto(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: labels}}, schema.GroupVersionKind{Version: "v1", Kind: "Namespace"})
			control, _, err := view.BodyToControl(namespaces, "create", typeProto, body, "", "")
			if err != nil {
				t.Fatal(err)
			}
			ns := decode(t, control).(*corev1.Namespace)
			if ns.Name != "zq7x9k-web" || ns.Labels["vivarium.io/tenant"] != "zq7x9k" || ns.Labels[podsecurity.Enforce] != "baseline" || ns.Labels["a"] != labels["a"] || ns.Labels[podsecurity.TenantEnforce] != labels[podsecurity.Enforce] {
				t.Errorf("got %v", ns.ObjectMeta)
			}
		})
	}
}

func TestProtobufStatusAndNode(t *testing.T) {
	status := toProto(t, &metav1.Status{Status: "Failure", Code: 404, Message: `namespaces "zq7x9k-web" not found`,
		Details: &metav1.StatusDetails{Kind: "namespaces", Name: "zq7x9k-web"}}, schema.GroupVersionKind{Version: "v1", Kind: "Status"})
	got := decode(t, view.StatusToTenant(namespaces, 404, status)).(*metav1.Status)
	if got.Message != `namespaces "web" not found` || got.Details.Name != "web" || got.Code != 404 {
		t.Errorf("got %v", got)
	}
	if got := decode(t, view.StatusToTenant(namespaces, 404, []byte("k8s\x00rubbish"))).(*metav1.Status); got.Code != 404 {
		t.Errorf("got %v", got)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "pool-a-0", CreationTimestamp: metav1.Unix(5, 0), Labels: map[string]string{"vivarium.io/pool": "pool-a", "type": "virtual-kubelet"}, Annotations: map[string]string{"a": "b"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: "InternalIP", Address: "10.0.0.9"}}, Capacity: corev1.ResourceList{"cpu": {}}, NodeInfo: corev1.NodeSystemInfo{KubeletVersion: "v1.36.3"}}}
	var out bytes.Buffer
	if err := view.ObjectToTenant(nodes, &out, bytes.NewReader(toProto(t, node, schema.GroupVersionKind{Version: "v1", Kind: "Node"}))); err != nil {
		t.Fatal(err)
	}
	n := decode(t, out.Bytes()).(*corev1.Node)
	if n.Name != "pool-a-0" || len(n.Status.Addresses) > 0 || len(n.Annotations) > 0 || n.Labels["vivarium.io/pool"] != "" || n.Labels["type"] == "" || len(n.Status.Capacity) != 1 || n.Status.NodeInfo.KubeletVersion == "" || n.CreationTimestamp.IsZero() {
		t.Errorf("got %v", n)
	}
}

// TestUnknownProtobufFieldsSurvive adds fields that no library knows.
func TestUnknownProtobufFieldsSurvive(t *testing.T) {
	p := pod("zq7x9k", "a")
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Namespace", Name: "zq7x9k-web"}}
	raw, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	raw = protowire.AppendString(raw, 2047, "from the future")
	doc, err := appendEnvelope(nil, "v1", "Pod", len(raw), func(b []byte) ([]byte, error) { return append(b, raw...), nil })
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := view.ObjectToTenant(pods, &out, bytes.NewReader(doc)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(out.Bytes(), []byte("from the future")) {
		t.Error("an unknown field is gone")
	}
	if got := decode(t, out.Bytes()).(*corev1.Pod); got.OwnerReferences[0].Name != "web" || got.Namespace != "default" {
		t.Errorf("got %v", got.ObjectMeta)
	}
}

func FuzzProtobuf(f *testing.F) {
	p := pod("zq7x9k", "a")
	raw, err := p.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	doc, err := appendEnvelope(nil, "v1", "Pod", len(raw), func(b []byte) ([]byte, error) { return append(b, raw...), nil })
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		_ = view.WatchToTenant(pods, io.Discard, nil, bytes.NewReader(data), true)
		_ = view.StatusToTenant(pods, 500, data)
		_ = view.ListToTenant(pods, io.Discard, ListOptions{OnePage: true}, func(string) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		})
		_ = view.ObjectToTenant(pods, &out, bytes.NewReader(data))
		control, _, err := view.BodyToControl(pods, "update", typeProto, data, "default", "")
		if err != nil {
			return
		}
		// What was taken, the API server reads as we did: in the tenant's namespace or in none.
		obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(control, &schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, nil)
		if err != nil {
			return
		}
		if p, ok := obj.(*corev1.Pod); !ok || p.Namespace != "" && p.Namespace != "zq7x9k-default" {
			t.Fatalf("the API server reads %v from %x", obj, data)
		}
	})
}

// TestOrdinaryOwners tells owners that keep their names from those that must be looked at, however they are written.
func TestOrdinaryOwners(t *testing.T) {
	field := func(number int32, s string) string {
		return string(protowire.AppendString(nil, number, s))
	}
	usual := field(1, "ReplicaSet") + field(3, "web") + field(4, "uid") + field(5, "apps/v1") + "\x30\x01\x38\x01"
	for name, c := range map[string]struct {
		owner string
		want  bool
	}{
		"Usual":        {usual, true},
		"Job":          {strings.Replace(usual, "\x07apps/v1", "\x08batch/v1", 1), true},
		"Other":        {strings.Replace(usual, "apps", "away", 1), false},
		"None":         {field(1, "ReplicaSet") + "\x30\x01", false},
		"FlagsFirst":   {"\x30\x01\x38\x00" + field(5, "apps/v1"), true},
		"Core":         {field(1, "Service") + field(3, "web") + field(5, "v1"), true},
		"Cluster":      {field(1, "Node") + field(3, "web") + field(5, "v1"), false},
		"LastCounts":   {usual + field(5, "example.com/v1"), false},
		"LongName":     {field(3, strings.Repeat("a", 200)) + field(5, "apps/v1"), true},
		"LongFlag":     {field(5, "apps/v1") + "\x30\x81\x01" + field(5, "a/v1"), false},
		"NoString":     {"\x28\x07apps/v1", false},
		"Fixed":        {field(5, "apps/v1") + "\x31\x01\x02\x03\x04\x05\x06\x07\x08" + field(5, "a/v1"), false},
		"CutShort":     {usual[:len(usual)-1], false},
		"CutInAString": {field(5, "apps/v1") + "\x0a\x05ab", false},
		"Nothing":      {"", false},
	} {
		if got := ordinaryWireOwner([]byte(c.owner)); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestOrdinaryOwnersInJSON does the same in JSON, where only a single owner is.
func TestOrdinaryOwnersInJSON(t *testing.T) {
	for owners, want := range map[string]bool{
		`[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"a","uid":"1"}]`:                                                     true,
		`[{"apiVersion":"v1","kind":"Service","name":"a","uid":"1"}]`:                                                             true,
		`[{"apiVersion":"v1","kind":"Node","name":"a","uid":"1"}]`:                                                                false,
		`[{"apiVersion":"v1","kind":"N\u006fde","name":"a","uid":"1"}]`:                                                           false,
		`[{"apiVersion":"v1","kind":"Service","name":"a","uid":"1"},{"apiVersion":"v1","kind":"Namespace","name":"a","uid":"1"}]`: false,
		`[{"apiVersion":"example.com/v1","kind":"Service","name":"a","uid":"1"}]`:                                                 false,
	} {
		if got := ordinaryOwner([]byte(owners)); got != want {
			t.Errorf("%s: %t", owners, got)
		}
	}
}
