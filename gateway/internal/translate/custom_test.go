package translate

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// someCustoms knows a namespaced and a cluster-scoped kind of a tenant's own, and a cluster-scoped one that is shared.
type someCustoms struct{}

func (someCustoms) ScopeOfKind(group, kind string) (namespaced, known bool) {
	switch group + "/" + kind {
	case "example.com/Widget":
		return true, true
	case "example.com/Gauge", "shared.test/Disk":
		return false, true
	}
	return false, false
}

func (c someCustoms) ScopeOfResource(group, resource string) (namespaced, known bool) {
	kinds := map[string]string{"widgets": "Widget", "gauges": "Gauge", "disks": "Disk"}
	return c.ScopeOfKind(group, kinds[resource])
}

var (
	customView  = View{Tenant: "abc123", SharedGroups: []string{"shared.test"}, Customs: someCustoms{}, Continue: func(string) string { return "token" }}
	ownWidgets  = Kind{Group: "example.com", Version: "v1", Resource: "widgets", Kind: "Widget", Namespaced: true, Custom: true, ListKind: "Widgets", Columns: "Where"}
	gauges      = Kind{Group: "example.com", Version: "v1", Resource: "gauges", Kind: "Gauge", Custom: true, ListKind: "GaugeList"}
	disks       = Kind{Group: "shared.test", Version: "v1", Resource: "disks", Kind: "Disk", Custom: true, ListKind: "DiskList"}
	definitions = Kind{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions", Kind: "CustomResourceDefinition"}
)

// TestCustomAnswers gives what the control cluster writes of custom kinds, whose keys stand in alphabetical order.
func TestCustomAnswers(t *testing.T) {
	collection := func(k Kind) Kind {
		k.Collection = true
		return k
	}
	cases := map[string]struct {
		kind     Kind
		in, want string
	}{
		"Object": {
			ownWidgets,
			`{"apiVersion":"abc123-example.com/v1","data":{"items":["abc123-x"]},"items":[1],"kind":"Widget","metadata":{"labels":{"vivarium.io/x":"y","a":"abc123-b"},"managedFields":[{"apiVersion":"abc123-example.com/v1","fieldsV1":{"f:spec":{}},"manager":"m"}],"name":"a","namespace":"abc123-web","ownerReferences":[{"apiVersion":"abc123-example.com/v1","kind":"Gauge","name":"abc123-g","uid":"1"},{"apiVersion":"abc123-example.com/v1","kind":"Widget","name":"abc123-w","uid":"2"},{"apiVersion":"shared.test/v1","kind":"Disk","name":"operators","uid":"3"},{"apiVersion":"zzz999-example.com/v1","kind":"Widget","name":"w","uid":"4"}]},"spec":{"apiVersion":"abc123-example.com/v1"}}`,
			`{"apiVersion":"example.com/v1","data":{"items":["abc123-x"]},"items":[1],"kind":"Widget","metadata":{"labels":{"a":"abc123-b"},"managedFields":[{"apiVersion":"example.com/v1","fieldsV1":{"f:spec":{}},"manager":"m"}],"name":"a","namespace":"web","ownerReferences":[{"apiVersion":"example.com/v1","kind":"Gauge","name":"g","uid":"1"},{"apiVersion":"example.com/v1","kind":"Widget","name":"abc123-w","uid":"2"}]},"spec":{"apiVersion":"abc123-example.com/v1"}}`,
		},
		"EarlyMember": {
			ownWidgets,
			`{"accounts":1,"apiVersion":"abc123-example.com/v1","kind":"Widget","metadata":{"name":"a","namespace":"abc123-web"}}`,
			`{"accounts":1,"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a","namespace":"web"}}`,
		},
		"Cluster": {
			gauges,
			`{"apiVersion":"abc123-example.com/v1","kind":"Gauge","metadata":{"name":"abc123-a"}}`,
			`{"apiVersion":"example.com/v1","kind":"Gauge","metadata":{"name":"a"}}`,
		},
		"Shared": {
			disks,
			`{"apiVersion":"shared.test/v1","kind":"Disk","metadata":{"name":"abc123-a"}}`,
			`{"apiVersion":"shared.test/v1","kind":"Disk","metadata":{"name":"a"}}`,
		},
		"List": {
			collection(ownWidgets),
			`{"apiVersion":"abc123-example.com/v1","items":[{"apiVersion":"abc123-example.com/v1","kind":"Widget","metadata":{"name":"a","namespace":"abc123-web"}}],"kind":"Widgets","metadata":{"continue":"x","resourceVersion":"5"}}`,
			`{"apiVersion":"example.com/v1","items":[{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a","namespace":"web"}}],"kind":"Widgets","metadata":{"continue":"token","resourceVersion":"5"}}`,
		},
		"Table": {
			collection(gauges),
			`{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"5"},"columnDefinitions":[{"name":"Name"},{"name":"Size"}],"rows":[{"cells":["abc123-a","abc123-x"],"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"abc123-a"}}}]}`,
			`{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"5"},"columnDefinitions":[{"name":"Name"},{"name":"Size"}],"rows":[{"cells":["a","abc123-x"],"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"a"}}}]}`,
		},
		"TableOfObjects": {
			collection(ownWidgets),
			`{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{},"columnDefinitions":[{"name":"Name"},{"name":"Where"}],"rows":[{"cells":["a","abc123-web"],"object":{"apiVersion":"abc123-example.com/v1","data":1,"kind":"Widget","metadata":{"name":"a","namespace":"abc123-web"}}}]}`,
			`{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{},"columnDefinitions":[{"name":"Name"},{"name":"Where"}],"rows":[{"cells":["a","web"],"object":{"apiVersion":"example.com/v1","data":1,"kind":"Widget","metadata":{"name":"a","namespace":"web"}}}]}`,
		},
		"Deleted": {
			gauges,
			`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"abc123-a","group":"abc123-example.com","kind":"gauges","uid":"1"}}`,
			`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"a","group":"example.com","kind":"gauges","uid":"1"}}`,
		},
		"Definition": {
			definitions,
			`{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1","metadata":{"name":"widgets.abc123-example.com","labels":{"a":"b","vivarium.io/tenant":"abc123"},"managedFields":[{"manager":"m","fieldsV1":{"f:metadata":{"f:labels":{"f:a":{},"f:vivarium.io/tenant":{}}}}}]},"spec":{"group":"abc123-example.com","names":{"plural":"widgets"},"versions":[{"name":"v1","schema":{"openAPIV3Schema":{"description":"abc123-x"}}}]},"status":{"conditions":[{"type":"A","message":"widgets.abc123-example.com is in use"}]}}`,
			`{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1","metadata":{"name":"widgets.example.com","labels":{"a":"b"},"managedFields":[{"manager":"m","fieldsV1":{"f:metadata":{"f:labels":{"f:a":{}}}}}]},"spec":{"group":"example.com","names":{"plural":"widgets"},"versions":[{"name":"v1","schema":{"openAPIV3Schema":{"description":"abc123-x"}}}]},"status":{"conditions":[{"type":"A","message":"widgets.example.com is in use"}]}}`,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := customView.ObjectToTenant(tc.kind, &out, strings.NewReader(tc.in)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, strings.TrimSpace(out.String())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestForeignCustoms checks that nothing of another world passes.
func TestForeignCustoms(t *testing.T) {
	for name, tc := range map[string]struct {
		kind Kind
		in   string
	}{
		"Namespace":       {ownWidgets, `{"apiVersion":"abc123-example.com/v1","kind":"Widget","metadata":{"name":"a","namespace":"zzz999-web"}}`},
		"Group":           {ownWidgets, `{"apiVersion":"zzz999-example.com/v1","kind":"Widget","metadata":{"name":"a","namespace":"abc123-web"}}`},
		"BareGroup":       {ownWidgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a","namespace":"abc123-web"}}`},
		"Kind":            {ownWidgets, `{"apiVersion":"abc123-example.com/v1","kind":"Gadget","metadata":{"name":"a","namespace":"abc123-web"}}`},
		"Name":            {gauges, `{"apiVersion":"abc123-example.com/v1","kind":"Gauge","metadata":{"name":"a"}}`},
		"NoMetadata":      {gauges, `{"apiVersion":"abc123-example.com/v1","kind":"Gauge","spec":{}}`},
		"SharedName":      {disks, `{"apiVersion":"shared.test/v1","kind":"Disk","metadata":{"name":"operators"}}`},
		"Definition":      {definitions, `{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1","metadata":{"name":"widgets.zzz999-example.com"},"spec":{}}`},
		"DefinitionBare":  {definitions, `{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1","metadata":{"name":"widgets.example.com"},"spec":{}}`},
		"DefinitionFirst": {definitions, `{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1","metadata":{"name":"abc123-widgets.example.com"},"spec":{}}`},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := customView.ObjectToTenant(tc.kind, &out, strings.NewReader(tc.in)); err == nil {
				t.Errorf("passed as %s", out.String())
			}
		})
	}
}

// TestCustomPages checks that a list of all namespaces ends at the first foreign item and has its resource version, which
// stands behind the items.
func TestCustomPages(t *testing.T) {
	page := `{"apiVersion":"shared.test/v1","items":[{"apiVersion":"shared.test/v1","kind":"Disk","metadata":{"name":"abc123-a"}},{"apiVersion":"shared.test/v1","kind":"Disk","metadata":{"name":"zzz999-b"}},{"apiVersion":"shared.test/v1","kind":"Disk","metadata":{"name":"abc123-never"}}],"kind":"DiskList","metadata":{"continue":"more","resourceVersion":"7"}}`
	k := disks
	k.Collection = true
	var out bytes.Buffer
	err := customView.ListToTenant(k, &out, ListOptions{}, func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(page)), nil })
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Items    []struct{ Metadata metav1.ObjectMeta }
		Metadata metav1.ListMeta
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || len(got.Items) != 1 || got.Items[0].Metadata.Name != "a" || got.Metadata.ResourceVersion != "7" || got.Metadata.Continue != "" {
		t.Errorf("%v: %s", err, out.String())
	}
}

// TestCustomRequests gives what tenants send.
func TestCustomRequests(t *testing.T) {
	const mergePatch, jsonPatch, applyPatch = "application/merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml"
	definitionStatus := definitions
	definitionStatus.Subresource = "status"
	for name, tc := range map[string]struct {
		kind                       Kind
		verb, contentType, in, out string
		code                       int
	}{
		"Create":       {ownWidgets, "create", "", `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a","namespace":"web","ownerReferences":[{"apiVersion":"example.com/v1","kind":"Gauge","name":"g"},{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","name":"x.example.com"}]},"spec":{"ref":"example.com/v1"}}`, `{"apiVersion":"abc123-example.com/v1","kind":"Widget","metadata":{"name":"a","namespace":"abc123-web","ownerReferences":[{"apiVersion":"abc123-example.com/v1","kind":"Gauge","name":"abc123-g"},{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","name":"x.abc123-example.com"}]},"spec":{"ref":"example.com/v1"}}`, 0},
		"Prefixed":     {ownWidgets, "create", "", `{"apiVersion":"abc123-example.com/v1","kind":"Widget","metadata":{"name":"a"}}`, "", 400},
		"OtherKind":    {ownWidgets, "create", "", `{"apiVersion":"example.com/v1","kind":"Gauge","metadata":{"name":"a"}}`, "", 400},
		"Protobuf":     {ownWidgets, "create", "application/vnd.kubernetes.protobuf", "k8s\x00", "", 415},
		"Cluster":      {gauges, "create", "", `{"apiVersion":"example.com/v1","kind":"Gauge","metadata":{"generateName":"a-"}}`, `{"apiVersion":"abc123-example.com/v1","kind":"Gauge","metadata":{"generateName":"abc123-a-"}}`, 0},
		"Shared":       {disks, "create", "", `{"apiVersion":"shared.test/v1","kind":"Disk","metadata":{"name":"a"}}`, `{"apiVersion":"shared.test/v1","kind":"Disk","metadata":{"name":"abc123-a"}}`, 0},
		"Merge":        {ownWidgets, "patch", mergePatch, `{"apiVersion":"example.com/v1","spec":{"a":null}}`, `{"apiVersion":"abc123-example.com/v1","spec":{"a":null}}`, 0},
		"JSON":         {ownWidgets, "patch", jsonPatch, `[{"op":"test","path":"/apiVersion","value":"example.com/v1"},{"op":"add","path":"/spec/a","value":1}]`, `[{"op":"test","path":"/apiVersion","value":"abc123-example.com/v1"},{"op":"add","path":"/spec/a","value":1}]`, 0},
		"Apply":        {ownWidgets, "patch", applyPatch, "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: a}\n", `{"apiVersion":"abc123-example.com/v1","kind":"Widget","metadata":{"name":"a"}}`, 0},
		"Definition":   {definitions, "create", "", `{"metadata":{"name":"widgets.example.com"},"spec":{"group":"example.com","conversion":{"strategy":"None"}}}`, `{"metadata":{"name":"widgets.abc123-example.com","labels":{"vivarium.io/tenant":"abc123"}},"spec":{"group":"abc123-example.com","conversion":{"strategy":"None"}}}`, 0},
		"OfShared":     {definitions, "create", "", `{"metadata":{"name":"x.shared.test"},"spec":{"group":"shared.test"}}`, "", 403},
		"OfKubernetes": {definitions, "patch", mergePatch, `{"spec":{"group":"apps"}}`, "", 403},
		"Webhook":      {definitions, "patch", jsonPatch, `[{"op":"add","path":"/spec/conversion","value":{"strategy":"Webhook"}}]`, "", 403},
		"WebhookLeaf":  {definitions, "patch", jsonPatch, `[{"op":"replace","path":"/spec/conversion/strategy","value":"Webhook"}]`, "", 403},
		"StatusLabels": {definitionStatus, "update", "", `{"metadata":{"name":"widgets.example.com"},"status":{}}`, `{"metadata":{"name":"widgets.abc123-example.com","labels":{"vivarium.io/tenant":"abc123"}},"status":{}}`, 0},
		"Unlabel":      {definitions, "patch", mergePatch, `{"metadata":{"labels":null}}`, "", 422},
		"Relabel":      {definitions, "patch", mergePatch, `{"metadata":{"labels":{"a":"b"}}}`, `{"metadata":{"labels":{"a":"b"}}}`, 0},
		"TooLong":      {definitions, "create", "", `{"metadata":{"name":"widgets.` + strings.Repeat("a", 250) + `"}}`, "", 422},
	} {
		t.Run(name, func(t *testing.T) {
			namespace, object := "web", ""
			if !tc.kind.Namespaced {
				namespace = ""
			}
			out, _, err := customView.BodyToControl(tc.kind, tc.verb, tc.contentType, []byte(tc.in), namespace, object)
			code := 0
			if refused, ok := err.(*Error); ok { //nolint:errorlint // BodyToControl returns nothing else
				code = refused.Code
			}
			if code != tc.code || (code == 0 && string(out) != tc.out) {
				t.Errorf("%d %v\n%s\nwant %d\n%s", code, err, out, tc.code, tc.out)
			}
			if err != nil && strings.Contains(err.Error(), "abc123-") && tc.code != 400 {
				t.Errorf("the refusal shows the prefix: %v", err)
			}
		})
	}
}

// TestDefinitions takes a definition through protobuf, both ways.
func TestDefinitions(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := apiextensionsv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	codec := protobuf.NewSerializer(scheme, scheme)
	minimum := 1.5
	sent := &apiextensionsv1.CustomResourceDefinition{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"},
		ObjectMeta: metav1.ObjectMeta{Name: "widgets.example.com", Annotations: map[string]string{"a": "b"}},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com", Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "widgets", Kind: "Widget"},
			Conversion: &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.NoneConverter},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Schema: &apiextensionsv1.CustomResourceValidation{
				OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", Minimum: &minimum, Default: &apiextensionsv1.JSON{Raw: []byte(`{"a":1}`)}},
			}}},
		},
	}
	var body bytes.Buffer
	if err := codec.Encode(sent, &body); err != nil {
		t.Fatal(err)
	}
	control, _, err := customView.BodyToControl(definitions, "create", "application/vnd.kubernetes.protobuf", body.Bytes(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	stored := &apiextensionsv1.CustomResourceDefinition{}
	if _, _, err := codec.Decode(control, nil, stored); err != nil {
		t.Fatal(err)
	}
	// The control cluster takes the labels from the body of a status, too.
	statusOf := definitions
	statusOf.Subresource = "status"
	status, _, err := customView.BodyToControl(statusOf, "update", "application/vnd.kubernetes.protobuf", body.Bytes(), "", "widgets.example.com")
	if err != nil || !bytes.Equal(status, control) {
		t.Errorf("the body of a status: %v\n%q\nis not that of the object\n%q", err, status, control)
	}
	want := sent.DeepCopy()
	want.TypeMeta = stored.TypeMeta
	want.Name, want.Spec.Group, want.Labels = "widgets.abc123-example.com", "abc123-example.com", map[string]string{"vivarium.io/tenant": "abc123"}
	if diff := cmp.Diff(want, stored); diff != "" {
		t.Errorf("to control (-want +got):\n%s", diff)
	}
	var answer bytes.Buffer
	if err := customView.ObjectToTenant(definitions, &answer, bytes.NewReader(control)); err != nil {
		t.Fatal(err)
	}
	got := &apiextensionsv1.CustomResourceDefinition{}
	if _, _, err := codec.Decode(answer.Bytes(), nil, got); err != nil {
		t.Fatal(err)
	}
	sent.TypeMeta = got.TypeMeta
	if diff := cmp.Diff(sent, got); diff != "" {
		t.Errorf("to the tenant (-want +got):\n%s", diff)
	}
}

// TestCustomNames checks the names of custom kinds in rules, selectors and errors.
func TestCustomNames(t *testing.T) {
	query, err := customView.fieldSelectorToControl(gauges, "metadata.name=a")
	if err != nil || query != "metadata.name=abc123-a" {
		t.Errorf("%s %v", query, err)
	}
	if query, err = customView.fieldSelectorToControl(definitions, "metadata.name=widgets.example.com"); err != nil || query != "metadata.name=widgets.abc123-example.com" {
		t.Errorf("%s %v", query, err)
	}
	events := Kind{Version: "v1", Resource: "events", Kind: "Event", Namespaced: true}
	query, err = customView.fieldSelectorToControl(events, "involvedObject.kind=Gauge,involvedObject.apiVersion=example.com/v1,involvedObject.name=a")
	if err != nil || !strings.Contains(query, "involvedObject.name=abc123-a") || !strings.Contains(query, "involvedObject.apiVersion=abc123-example.com/v1") {
		t.Errorf("%s %v", query, err)
	}
	for resource, want := range map[string]string{"gauges": "abc123-a.b", "widgets": "a.b"} {
		if got := customView.ResourceName("example.com", resource, "a.b"); got != want {
			t.Errorf("%s: %s, want %s", resource, got, want)
		}
	}
	status := string(customView.StatusToTenant(definitions, 404, []byte(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"customresourcedefinitions.apiextensions.k8s.io \"widgets.abc123-example.com\" not found","reason":"NotFound","details":{"name":"widgets.abc123-example.com","group":"apiextensions.k8s.io","kind":"customresourcedefinitions"},"code":404}`)))
	if strings.Contains(status, "abc123") || strings.Count(status, "widgets.example.com") != 2 {
		t.Errorf("status: %s", status)
	}
	status = string(customView.StatusToTenant(gauges, 409, []byte(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"gauges.abc123-example.com \"abc123-a\" already exists","reason":"AlreadyExists","details":{"name":"abc123-a","group":"abc123-example.com","kind":"gauges"},"code":409}`)))
	if strings.Contains(status, "abc123") || !strings.Contains(status, `gauges.example.com \"a\"`) {
		t.Errorf("status: %s", status)
	}
}
