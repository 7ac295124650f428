package translate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"vivarium.io/vivarium/gateway/internal/translate/protowire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// chunkSizes cut streams everywhere.
var chunkSizes = []int{1, 2, 3, 7, 13, 64, 1000, 4096, 65536}

// TestStreamedListsAreWhatTypesSay translates lists that are too long for their true length to be known in time, in pieces
// of every size. The output never depends on the pieces, client-go reads it, and its items are what the typed oracle makes
// of them.
func TestStreamedListsAreWhatTypesSay(t *testing.T) {
	for name, s := range map[string]sample{
		"pods": samplePods(t, 60), "deployments": sampleDeployments(t, 40), "configmaps": sampleConfigMaps(t, 40), "secrets": sampleSecrets(t, 1), "metadata": sampleMetadata(t, 60),
	} {
		for encoding, doc := range map[string][]byte{"json": s.json, "proto": s.proto} {
			t.Run(encoding+"/"+name, func(t *testing.T) {
				var first []byte
				for _, size := range chunkSizes {
					var out bytes.Buffer
					if err := view.ObjectToTenant(s.kind, &out, &chunks{doc, size}); err != nil {
						t.Fatalf("in pieces of %d: %v", size, err)
					}
					if first == nil {
						first = out.Bytes()
					} else if !bytes.Equal(out.Bytes(), first) {
						t.Fatalf("in pieces of %d: %s", size, firstDifference(out.String(), string(first)))
					}
				}
				got, want := decodeList(t, first), s.object.DeepCopyObject()
				root, _ := bodyRoot(s.kind)
				err := meta.EachListItem(want, func(item k8sruntime.Object) error {
					o := oracleOf(root, false)
					if p, partial := item.(*metav1.PartialObjectMetadata); partial {
						o.rootMeta(&p.ObjectMeta)
						return o.foreign
					}
					o.object(item)
					return o.foreign
				})
				if err != nil {
					t.Fatal(err)
				}
				if !equality.Semantic.DeepEqual(clearType(got), clearType(want)) {
					t.Fatalf("the types say otherwise: %s", cmp.Diff(want, got))
				}
				if encoding == "json" {
					return
				}
				if !bytes.Contains(first, protowire.AppendTag(nil, padNumber, protowire.Bytes)) {
					t.Error("the list keeps no length")
				}
				var again bytes.Buffer
				got.GetObjectKind().SetGroupVersionKind(s.object.GetObjectKind().GroupVersionKind())
				if err := protoCodec.Encode(got, &again); err != nil || again.Len() >= len(first) || bytes.Contains(again.Bytes(), protowire.AppendTag(nil, padNumber, protowire.Bytes)) {
					t.Errorf("what makes up for the length does not go: %d of %d bytes, %v", again.Len(), len(first), err)
				}
			})
		}
	}
}

// decodeList is decode, also for lists of metadata, which no scheme of client-go has.
func decodeList(t testing.TB, doc []byte) k8sruntime.Object {
	t.Helper()
	var list metav1.PartialObjectMetadataList
	e, err := openEnvelope(doc, &rules.Root{})
	switch {
	case bytes.HasPrefix(doc, []byte(`{"kind":"PartialObjectMetadataList"`)):
		if err := json.Unmarshal(doc, &list); err != nil {
			t.Fatal(err)
		}
	case err == nil && e.kind == "PartialObjectMetadataList":
		if err := list.Unmarshal(e.raw); err != nil {
			t.Fatal(err)
		}
	default:
		return decode(t, doc)
	}
	return &list
}

// rawList is a list in protobuf of the same item many times, as a stream.
func rawList(t testing.TB, count int, next string, items ...*corev1.Pod) io.Reader {
	t.Helper()
	listMeta := metav1.ListMeta{ResourceVersion: "7", Continue: next}
	raw, err := listMeta.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	head := protowire.AppendBytes(nil, 1, raw)
	var text []byte
	for _, item := range items {
		if raw, err = item.Marshal(); err != nil {
			t.Fatal(err)
		}
		text = protowire.AppendBytes(text, 2, raw)
	}
	r := response{view: view}
	start := r.appendHead(nil, envelope{apiVersion: "v1", kind: "PodList"}, uint64(len(head)+count*len(text)))
	return io.MultiReader(bytes.NewReader(append(start, head...)), &repeat{text: string(text), left: count}, bytes.NewReader(protoTail))
}

// TestMemoryDoesNotGrowWithLists reads lists that nobody could hold, and counts what is allocated for them.
func TestMemoryDoesNotGrowWithLists(t *testing.T) {
	count := 200_000
	if testing.Short() {
		count = 10_000
	}
	one := samplePods(t, 1).object.(*corev1.PodList).Items[0]
	item := podJSON("zq7x9k", "default", "web", 1)
	for name, src := range map[string]func() io.Reader{
		"json": func() io.Reader {
			return io.MultiReader(strings.NewReader(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[`),
				&repeat{text: item + ",", left: count - 1}, strings.NewReader(item+"]}"))
		},
		"proto": func() io.Reader { return rawList(t, count, "", &one) },
	} {
		t.Run(name, func(t *testing.T) {
			pr, pw := io.Pipe()
			in := src()
			go func() {
				// In pieces such as a connection gives.
				_, err := io.CopyBuffer(struct{ io.Writer }{pw}, in, make([]byte, 16<<10))
				pw.CloseWithError(err)
			}()
			w := &watermark{}
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := view.ObjectToTenant(pods, w, pr); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 2<<20 {
				t.Errorf("%d bytes were allocated for %d items", grown, count)
			}
			if w.largest > 256<<10 {
				t.Errorf("one write of %d bytes", w.largest)
			}
		})
	}
}

// TestLongListsOfPages joins pages whose sum is more than is held: the rest is asked for again.
func TestLongListsOfPages(t *testing.T) {
	own, foreign := samplePods(t, 1).object.(*corev1.PodList).Items[0], pod("canary", "other")
	perPage := holdPages / own.Size()
	asked := map[string]int{}
	pages := func(token string) (io.ReadCloser, error) {
		asked[token]++
		switch token {
		case "", "a":
			return io.NopCloser(rawList(t, perPage/2, map[string]string{"": "a", "a": "b"}[token], &own)), nil
		case "b":
			return io.NopCloser(rawList(t, perPage, "c", &own)), nil
		}
		return io.NopCloser(rawList(t, 1, "d", &own, &foreign, &foreign)), nil
	}
	var out bytes.Buffer
	if err := view.ListToTenant(pods, &out, ListOptions{}, pages); err != nil {
		t.Fatal(err)
	}
	list := decode(t, out.Bytes()).(*corev1.PodList)
	if want := 2*(perPage/2) + perPage + 1; len(list.Items) != want || list.Continue != "" || list.ResourceVersion != "7" {
		t.Errorf("%d items of %d, continue %q", len(list.Items), want, list.Continue)
	}
	for i := range list.Items {
		if p := &list.Items[i]; p.Namespace != "default" || p.Name != own.Name {
			t.Fatalf("item %d is %s/%s", i, p.Namespace, p.Name)
		}
	}
	if asked[""] != 1 || asked["a"] != 1 || asked["b"] != 2 || asked["c"] != 2 || asked["d"] != 0 {
		t.Errorf("asked %v", asked)
	}
	// The second time the control cluster says something else.
	clear(asked)
	err := view.ListToTenant(pods, io.Discard, ListOptions{}, func(token string) (io.ReadCloser, error) {
		if asked[token] == 1 && token == "c" {
			return io.NopCloser(rawList(t, 2, "d", &own)), nil
		}
		return pages(token)
	})
	if !errors.Is(err, errLongList) {
		t.Errorf("another list the second time: %v", err)
	}
}

// TestListsMayGrow translates ConfigMaps that are longer for the tenant than for the control cluster.
func TestListsMayGrow(t *testing.T) {
	longer := view
	longer.RootCA = strings.Repeat("GATEWAY CA\n", 2000)
	var list corev1.ConfigMapList
	list.Items = append(list.Items, corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "zq7x9k-default", Name: rootCAConfigMap}, Data: map[string]string{"ca.crt": "short"}})
	for i := range 40 {
		list.Items = append(list.Items, corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "zq7x9k-default", Name: fmt.Sprint("c", i)}, Data: map[string]string{"a": strings.Repeat("x", 3000)}})
	}
	doc := toProto(t, &list, schema.GroupVersionKind{Version: "v1", Kind: "ConfigMapList"})
	for _, size := range chunkSizes {
		var out bytes.Buffer
		if err := longer.ObjectToTenant(configMaps, &out, &chunks{doc, size}); err != nil {
			t.Fatal(err)
		}
		got := decode(t, out.Bytes()).(*corev1.ConfigMapList)
		if len(got.Items) != len(list.Items) || got.Items[0].Data["ca.crt"] != longer.RootCA || got.Items[40].Data["a"] != list.Items[40].Data["a"] {
			t.Fatal("the list is not what it was")
		}
	}
	// More than is declared cannot be said any more: the answer breaks.
	list.Items = append(list.Items, list.Items[0], list.Items[0])
	doc = toProto(t, &list, schema.GroupVersionKind{Version: "v1", Kind: "ConfigMapList"})
	if err := longer.ObjectToTenant(configMaps, io.Discard, bytes.NewReader(doc)); err == nil {
		t.Error("a list that says too little of its length passes")
	}
}

// TestCutListsAreErrors ends streamed lists everywhere.
func TestCutListsAreErrors(t *testing.T) {
	doc := samplePods(t, 60).proto
	for n := 1; n < len(doc)-len(protoTail); n += 997 {
		if err := view.ObjectToTenant(pods, io.Discard, bytes.NewReader(doc[:n])); err == nil {
			t.Fatalf("a list cut at %d passes", n)
		}
	}
	if err := view.ObjectToTenant(pods, io.Discard, bytes.NewReader(append(bytes.Clone(doc), doc...))); err == nil {
		t.Error("two lists pass as one")
	}
	if err := view.ObjectToTenant(pods, io.Discard, bytes.NewReader(doc[:len(doc)-2])); err != nil {
		t.Errorf("a list without its last empty field: %v", err)
	}
}

func TestPadding(t *testing.T) {
	for _, n := range []uint64{3, 4, 129, 130, 131, 132, 133, 200, 16384, 16387, 16388, 16389, 16390, 70000, 1 << 21, 1<<21 + 5} {
		var w bytes.Buffer
		rest, err := writePadding(&w, nil, n)
		if err != nil {
			t.Fatal(err)
		}
		pad := append(w.Bytes(), rest...)
		f, after, err := protowire.Next(pad)
		if err != nil || f.Number != padNumber || len(after) > 0 || uint64(len(pad)) != n {
			t.Errorf("%d: %d bytes, field %d, %d left, %v", n, len(pad), f.Number, len(after), err)
		}
	}
}

// FuzzWire compares what is cut in place with what goes through trees.
func FuzzWire(f *testing.F) {
	for _, p := range samplePods(f, 2).object.(*corev1.PodList).Items {
		raw, err := p.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var before corev1.Pod
		if before.Unmarshal(raw) != nil {
			// The control cluster's encoder writes what its types read.
			return
		}
		fast, err := view.newResponse(pods, io.Discard, nil, bufferSize)
		if err != nil {
			t.Fatal(err)
		}
		slow, err := view.newResponse(pods, io.Discard, nil, 64)
		if err != nil {
			t.Fatal(err)
		}
		cut, fastErr := fast.wire(fast.root.ToTenant, raw, nil)
		tree, slowErr := slow.rewriter().message(slow.root.Place, raw, nil, "")
		if errors.Is(fastErr, errForeignItem) != errors.Is(slowErr, errForeignItem) || fastErr == nil && slowErr == nil && fast.owned != slow.owned {
			t.Fatalf("whose it is: %v, %t and %v, %t", fastErr, fast.owned, slowErr, slow.owned)
		}
		if fastErr != nil || slowErr != nil {
			// Only the trees look at what is passed.
			if fastErr != nil && slowErr == nil {
				t.Fatalf("only the cuts fail: %v", fastErr)
			}
			return
		}
		var a, b corev1.Pod
		if err := errors.Join(a.Unmarshal(cut), b.Unmarshal(tree)); err != nil {
			t.Fatal(err)
		}
		if !equality.Semantic.DeepEqual(a, b) {
			t.Fatalf("the cuts say otherwise: %s", cmp.Diff(b, a))
		}
		fast.done()
	})
}
