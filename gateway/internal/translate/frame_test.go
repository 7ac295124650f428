package translate

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var widgets = Kind{Group: "example.com", Version: "v1", Resource: "widgets", Kind: "Widget", ListKind: "WidgetList", Namespaced: true, Custom: true}

// widget is a custom resource as the control cluster writes it: keys in alphabetical order.
func widget(tenant, name string) string {
	return `{"apiVersion":"` + tenant + `-example.com/v1","data":{"apiVersion":"zq7x9k-example.com/v1"},"kind":"Widget","metadata":{"creationTimestamp":"2026-11-20T10:00:00Z","generation":1,"labels":{"app":"a"},"name":"` + name + `","namespace":"` + tenant + `-default","resourceVersion":"17","uid":"u"},"spec":{"items":[{"kind":"List"}],"size":3}}`
}

func widgetsTenant(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, `"namespace":"zq7x9k-default"`, `"namespace":"default"`), `{"apiVersion":"zq7x9k-example.com/v1","data"`, `{"apiVersion":"example.com/v1","data"`)
}

func TestCustomKinds(t *testing.T) {
	collection := widgets
	collection.Collection = true
	list := func(items ...string) string {
		return `{"apiVersion":"zq7x9k-example.com/v1","items":[` + strings.Join(items, ",") + `],"kind":"WidgetList","metadata":{"continue":"","resourceVersion":"9"}}` + "\n"
	}
	own := list(widget("zq7x9k", "a"), widget("zq7x9k", "b"))
	want := strings.Replace(widgetsTenant(own), `"zq7x9k-example.com/v1","items":[{"ap`, `"example.com/v1","items":[{"ap`, 1)
	for _, size := range []int{1, 3, 64, 4096} {
		var out bytes.Buffer
		if err := view.ObjectToTenant(widgets, &out, &chunks{[]byte(widget("zq7x9k", "a")), size}); err != nil || out.String() != widgetsTenant(widget("zq7x9k", "a")) {
			t.Fatalf("an object: %v %s", err, out.String())
		}
		out.Reset()
		if err := view.ObjectToTenant(collection, &out, &chunks{[]byte(own), size}); err != nil || out.String() != want {
			t.Fatalf("a list: %v %s", err, firstDifference(out.String(), want))
		}
		out.Reset()
		pages := [][]byte{
			[]byte(strings.Replace(list(widget("zq7x9k", "a")), `"continue":""`, `"continue":"more"`, 1)),
			[]byte(strings.Replace(list(widget("zq7x9k", "b"), widget("zzz999", "c"), widget("zzz999", "d")), `"continue":""`, `"continue":"again"`, 1)),
		}
		err := view.ListToTenant(collection, &out, ListOptions{}, func(string) (io.ReadCloser, error) {
			page := pages[0]
			pages = pages[1:]
			return io.NopCloser(&chunks{page, size}), nil
		})
		if wantPages := `{"kind":"WidgetList","apiVersion":"example.com/v1","items":[` + widgetsTenant(widget("zq7x9k", "a")+","+widget("zq7x9k", "b")) + `],"metadata":{"resourceVersion":"9"}}` + "\n"; err != nil || out.String() != wantPages {
			t.Fatalf("pages: %v %s", err, firstDifference(out.String(), wantPages))
		}
	}
	for name, doc := range map[string]string{
		"Foreign":      list(widget("zzz999", "a")),
		"OtherKind":    strings.Replace(own, "WidgetList", "GadgetList", 1),
		"OtherVersion": strings.Replace(own, "-example.com/v1", "-example.com/v2", 1),
	} {
		if err := view.ObjectToTenant(collection, io.Discard, strings.NewReader(doc)); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}

// frameForms are frames of one event in every form that a control cluster sends.
func frameForms(t testing.TB, tenant string) map[string][]byte {
	p := pod(tenant, "a")
	p.ResourceVersion, p.UID = "17", "u"
	row := `{"type":"ADDED","object":{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"17"},"columnDefinitions":[{"name":"Name","type":"string"}],"rows":[{"cells":["a"],"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"a","namespace":"` + tenant + `-default","uid":"u","resourceVersion":"17"}}}]}}` + "\n"
	return map[string][]byte{
		"json":     []byte(`{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"` + tenant + `-default","uid":"u","resourceVersion":"17","labels":{"a":"\"{"}},"spec":{"containers":[]},"status":{}}}` + "\n"),
		"metadata": []byte(`{"type":"ADDED","object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"a","namespace":"` + tenant + `-default","uid":"u","resourceVersion":"17"}}}` + "\n"),
		"table":    []byte(row),
		"custom":   []byte(`{"type":"ADDED","object":` + widget(tenant, "a") + "}\n"),
		"proto":    frameOf(t, "ADDED", &p, schema.GroupVersionKind{Version: "v1", Kind: "Pod"}),
	}
}

func TestFrames(t *testing.T) {
	for name, frame := range frameForms(t, "zq7x9k") {
		t.Run(name, func(t *testing.T) {
			s, err := ScopeOfFrame(frame)
			if err != nil || s.Type != "ADDED" || string(s.Namespace) != "zq7x9k-default" || string(s.Name) != "a" || string(s.ResourceVersion) != "17" {
				t.Fatalf("%v: %q %s %s %s", err, s.Type, s.Namespace, s.Name, s.ResourceVersion)
			}
			for n := range len(frame) / 2 {
				_, _ = ScopeOfFrame(frame[:n])
			}
			stream := bytes.Repeat(frame, 3)
			for _, size := range []int{1, 7, 4096, 1 << 20} {
				frames := NewFrames(&chunks{stream, size})
				for range 3 {
					if got, err := frames.Next(); err != nil || !bytes.Equal(got, frame) {
						t.Fatalf("%v: %q", err, got)
					}
				}
				if _, err := frames.Next(); !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				if _, err := NewFrames(&chunks{frame[:len(frame)-1], size}).Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("half a frame: %v", err)
				}
			}
			k := pods
			if name == "custom" {
				k = widgets
			}
			translated := func(v View, frame []byte) ([]byte, error) { return v.FrameToTenant(k, []byte("before"), frame) }
			if name == "table" {
				columns, err := ColumnsOfFrame(k, frame)
				if err != nil || columns == nil {
					t.Fatal(columns, err)
				}
				translated = func(v View, frame []byte) ([]byte, error) {
					return v.TableFrameToTenant(k, []byte("before"), frame, columns, true)
				}
				later, err := view.TableFrameToTenant(k, nil, frame, columns, false)
				if err != nil || !bytes.Contains(later, []byte(`"columnDefinitions":null`)) {
					t.Errorf("%v %s", err, later)
				}
			}
			got, err := translated(view, frame)
			var want bytes.Buffer
			want.WriteString("before")
			if err := errors.Join(err, view.WatchToTenant(k, &want, nil, bytes.NewReader(frame), false)); err != nil || !bytes.Equal(got, want.Bytes()) {
				t.Errorf("%v: %s", err, firstDifference(string(got), want.String()))
			}
			if got, err := translated(other, frame); !errors.Is(err, ErrForeignItem) && name != "custom" || err == nil || string(got) != "before" {
				t.Errorf("another tenant: %q, %v", got, err)
			}
			if _, err := translated(view, slices.Concat(frame, frame)); err == nil {
				t.Error("two frames pass as one")
			}
		})
	}
}

// TestCustomMetadataInProtobuf is the one form in which custom resources come in protobuf.
func TestCustomMetadataInProtobuf(t *testing.T) {
	list := metav1.PartialObjectMetadataList{Items: []metav1.PartialObjectMetadata{{ObjectMeta: metav1.ObjectMeta{
		Name: "a", Namespace: "zq7x9k-default", Labels: map[string]string{"vivarium.io/tenant": "zq7x9k", "b": "c"},
	}}}}
	doc := toProto(t, &list, schema.GroupVersionKind{Group: "meta.k8s.io", Version: "v1", Kind: "PartialObjectMetadataList"})
	var out bytes.Buffer
	if err := view.ObjectToTenant(widgets, &out, bytes.NewReader(doc)); err != nil {
		t.Fatal(err)
	}
	got := decodeList(t, out.Bytes()).(*metav1.PartialObjectMetadataList).Items[0]
	if got.Namespace != "default" || len(got.Labels) != 1 {
		t.Errorf("got %v", got)
	}
	if err := other.ObjectToTenant(widgets, io.Discard, bytes.NewReader(doc)); err == nil {
		t.Error("another tenant can read it")
	}
}
