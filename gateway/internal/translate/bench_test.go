package translate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"syscall"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	k8sjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
)

// processorTime is what the process has used. On a machine that others use too it says more than a clock.
func processorTime() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// measure runs f over size bytes and reports, besides the usual, megabytes per second of processor time.
func measure(b *testing.B, size int, f func() error) {
	b.Helper()
	if err := f(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	runtime.GC()
	start, n := processorTime(), 0
	for b.Loop() {
		if err := f(); err != nil {
			b.Fatal(err)
		}
		n++
	}
	if used := processorTime() - start; used > 0 {
		b.ReportMetric(float64(n)*float64(size)/1e6/used, "cpuMB/s")
	}
}

// sample is a document in both encodings.
type sample struct {
	kind        Kind
	json, proto []byte
	object      k8sruntime.Object
}

var encodings = []string{"json", "proto"}

func (s sample) in(encoding string) []byte {
	if encoding == "json" {
		return s.json
	}
	return s.proto
}

// sampleOf encodes a typed list as the control cluster does.
func sampleOf(b testing.TB, k Kind, list k8sruntime.Object, gvk schema.GroupVersionKind) sample {
	b.Helper()
	list.GetObjectKind().SetGroupVersionKind(gvk)
	var text bytes.Buffer
	if err := k8sjson.NewSerializerWithOptions(k8sjson.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, k8sjson.SerializerOptions{}).Encode(list, &text); err != nil {
		b.Fatal(err)
	}
	return sample{kind: k, json: text.Bytes(), proto: toProto(b, list, gvk), object: list}
}

func samplePods(b testing.TB, count int) sample {
	var list corev1.PodList
	if _, _, err := scheme.Codecs.UniversalDeserializer().Decode([]byte(podList("zq7x9k", count)), nil, &list); err != nil {
		b.Fatal(err)
	}
	return sampleOf(b, pods, &list, schema.GroupVersionKind{Version: "v1", Kind: "PodList"})
}

func sampleDeployments(b testing.TB, count int) sample {
	var list appsv1.DeploymentList
	for i, pod := range samplePods(b, count).object.(*corev1.PodList).Items {
		d := appsv1.Deployment{ObjectMeta: pod.ObjectMeta}
		d.Name = fmt.Sprintf("web-%d", i)
		d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
		d.Spec.Template = corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels}, Spec: pod.Spec}
		d.Status.Conditions = []appsv1.DeploymentCondition{{Type: "Available", Status: "True", Reason: "MinimumReplicasAvailable", Message: "Deployment has minimum availability."}}
		list.Items = append(list.Items, d)
	}
	k := Kind{Group: "apps", Version: "v1", Resource: "deployments", Kind: "Deployment", Namespaced: true}
	return sampleOf(b, k, &list, schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "DeploymentList"})
}

func sampleConfigMaps(b testing.TB, count int) sample {
	var list corev1.ConfigMapList
	for i := range count {
		list.Items = append(list.Items, corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "zq7x9k-default", Name: fmt.Sprintf("settings-%d", i), Labels: map[string]string{"app": "web"}},
			Data:       map[string]string{"settings.yaml": strings.Repeat("key: \"value\"\nlist:\n- 1\n- 2\n", 100)},
		})
	}
	k := Kind{Version: "v1", Resource: "configmaps", Kind: "ConfigMap", Namespaced: true}
	return sampleOf(b, k, &list, schema.GroupVersionKind{Version: "v1", Kind: "ConfigMapList"})
}

func sampleSecrets(b testing.TB, count int) sample {
	var list corev1.SecretList
	for i := range count {
		list.Items = append(list.Items, corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "zq7x9k-default", Name: fmt.Sprintf("release-%d", i)},
			Data:       map[string][]byte{"release": bytes.Repeat([]byte("large \x00\x01\x02 value "), 10000)}, Type: "helm.sh/release.v1",
		})
	}
	k := Kind{Version: "v1", Resource: "secrets", Kind: "Secret", Namespaced: true}
	return sampleOf(b, k, &list, schema.GroupVersionKind{Version: "v1", Kind: "SecretList"})
}

func sampleMetadata(b testing.TB, count int) sample {
	list := metav1.PartialObjectMetadataList{}
	for _, pod := range samplePods(b, count).object.(*corev1.PodList).Items {
		list.Items = append(list.Items, metav1.PartialObjectMetadata{ObjectMeta: pod.ObjectMeta})
	}
	return sampleOf(b, pods, &list, schema.GroupVersionKind{Group: "meta.k8s.io", Version: "v1", Kind: "PartialObjectMetadataList"})
}

// BenchmarkToTenant is the whole way of an answer: from the control cluster's bytes in memory to nowhere. The references
// beside it are what the same bytes cost otherwise, so that ratios can be read in one run.
func BenchmarkToTenant(b *testing.B) {
	for _, c := range []struct {
		name   string
		sample func() sample
	}{
		{"300pods", func() sample { return samplePods(b, 300) }}, {"10000pods", func() sample { return samplePods(b, 10000) }},
		{"deployments", func() sample { return sampleDeployments(b, 200) }}, {"configmaps", func() sample { return sampleConfigMaps(b, 300) }},
		{"secrets", func() sample { return sampleSecrets(b, 20) }}, {"metadata", func() sample { return sampleMetadata(b, 300) }},
		{"services", func() sample { return sampleServices(b, 300) }}, {"events", func() sample { return sampleEvents(b, 300) }},
		{"endpointslices", func() sample { return sampleSlices(b, 200) }}, {"namespaces", func() sample { return sampleNamespaces(b, 300) }},
		{"nodes", func() sample { return sampleNodes(b, 100) }},
	} {
		for _, encoding := range encodings {
			b.Run(encoding+"/"+c.name, func(b *testing.B) {
				made := c.sample()
				kind, doc := made.kind, made.in(encoding)
				// What made them would only be something for the garbage collector to look through.
				made = sample{}
				src := bytes.NewReader(nil)
				measure(b, len(doc), func() error {
					src.Reset(doc)
					return view.ObjectToTenant(kind, io.Discard, src)
				})
			})
		}
	}
}

// BenchmarkObjectToTenant is one pod.
func BenchmarkObjectToTenant(b *testing.B) {
	p := samplePods(b, 1).object.(*corev1.PodList).Items[0]
	one := sampleOf(b, pods, &p, schema.GroupVersionKind{Version: "v1", Kind: "Pod"})
	for _, encoding := range encodings {
		doc := one.in(encoding)
		b.Run(encoding+"/pod", func(b *testing.B) {
			src := bytes.NewReader(nil)
			measure(b, len(doc), func() error {
				src.Reset(doc)
				return view.ObjectToTenant(pods, io.Discard, src)
			})
		})
	}
}

// BenchmarkPagesToTenant is a list over all namespaces: pages of which the last ends in another tenant's objects.
func BenchmarkPagesToTenant(b *testing.B) {
	foreign := samplePods(b, 300)
	list := foreign.object.(*corev1.PodList)
	list.Items = append(list.Items, *list.Items[0].DeepCopy())
	list.Items[300].Namespace = "zzz999-default"
	foreign = sampleOf(b, pods, list, schema.GroupVersionKind{Version: "v1", Kind: "PodList"})
	for _, encoding := range encodings {
		doc := foreign.in(encoding)
		b.Run(encoding+"/300pods", func(b *testing.B) {
			measure(b, len(doc), func() error {
				return view.ListToTenant(pods, io.Discard, ListOptions{}, func(string) (io.ReadCloser, error) {
					return io.NopCloser(bytes.NewReader(doc)), nil
				})
			})
		})
	}
}

// BenchmarkReference is what others do with the bytes of BenchmarkToTenant: copy them, check them, read and write them
// with the types of the API.
func BenchmarkReference(b *testing.B) {
	c := samplePods(b, 300)
	for _, encoding := range encodings {
		doc := c.in(encoding)
		b.Run("copy/"+encoding+"/300pods", func(b *testing.B) {
			src, buf := bytes.NewReader(nil), make([]byte, 64<<10)
			measure(b, len(doc), func() error {
				src.Reset(doc)
				_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{src}, buf)
				return err
			})
		})
		b.Run("typed/"+encoding+"/300pods", func(b *testing.B) {
			measure(b, len(doc), func() error {
				obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(doc, nil, nil)
				if err != nil {
					return err
				}
				for i := range obj.(*corev1.PodList).Items {
					p := &obj.(*corev1.PodList).Items[i]
					p.Namespace = strings.TrimPrefix(p.Namespace, "zq7x9k-")
				}
				if encoding == "proto" {
					return protoCodec.Encode(obj, io.Discard)
				}
				return json.NewEncoder(io.Discard).Encode(obj)
			})
		})
	}
	b.Run("valid/json/300pods", func(b *testing.B) {
		measure(b, len(c.json), func() error {
			if !json.Valid(c.json) {
				return jsonwire.ErrMalformed
			}
			return nil
		})
	})
	// The scanner without any rule is the ceiling of what rules can cost.
	b.Run("skip/json/300pods", func(b *testing.B) {
		s, src := jsonwire.NewScanner(io.Discard, nil, bufferSize), bytes.NewReader(nil)
		measure(b, len(c.json), func() error {
			src.Reset(c.json)
			s.Reuse(io.Discard, src)
			s.LookFor([]byte("zq7x9k-"), domain)
			return s.Skip()
		})
	})
}

// BenchmarkWatchToTenant is a stream of frames for one tenant, BenchmarkFrameToTenant one frame of a watch that many share.
func BenchmarkWatchToTenant(b *testing.B) {
	for _, encoding := range encodings {
		frame := podFrames(b)[encoding]
		b.Run(encoding+"/pod", func(b *testing.B) {
			frames := bytes.Repeat(frame, 100)
			measure(b, len(frames), func() error {
				return view.WatchToTenant(pods, io.Discard, nil, bytes.NewReader(frames), true)
			})
		})
	}
}

// BenchmarkFrameToTenant is one frame of a watch that many share.
func BenchmarkFrameToTenant(b *testing.B) {
	for _, encoding := range encodings {
		frame := podFrames(b)[encoding]
		b.Run(encoding+"/pod", func(b *testing.B) {
			var out []byte
			measure(b, len(frame), func() (err error) {
				out, err = view.FrameToTenant(pods, out[:0], frame)
				return err
			})
		})
	}
}

// BenchmarkScopeOfFrame is how long it takes to see whose a frame is.
func BenchmarkScopeOfFrame(b *testing.B) {
	for _, encoding := range encodings {
		frame := podFrames(b)[encoding]
		b.Run(encoding+"/pod", func(b *testing.B) {
			measure(b, len(frame), func() error {
				_, err := ScopeOfFrame(frame)
				return err
			})
		})
	}
}

func podFrames(b testing.TB) map[string][]byte {
	p := samplePods(b, 1).object.(*corev1.PodList).Items[0]
	gvk := schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	one := sampleOf(b, pods, &p, gvk)
	return map[string][]byte{
		"json":  append(append([]byte(`{"type":"MODIFIED","object":`), bytes.TrimSpace(one.json)...), "}\n"...),
		"proto": frameOf(b, "MODIFIED", &p, gvk),
	}
}

// BenchmarkToControl is the way of a request, which is read strictly.
func BenchmarkToControl(b *testing.B) {
	pod := strings.ReplaceAll(`{"kind":"Pod","apiVersion":"v1",`+podJSON("zq7x9k", "default", "web", 1)[1:], "zq7x9k-", "")
	pod = strings.Replace(pod, `"nodeName":"pool-a-0",`, "", 1)
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "large"}, Data: map[string]string{"settings": strings.Repeat("key: \"value\"\n", 80000)}}
	large := sampleOf(b, Kind{Version: "v1", Resource: "configmaps", Kind: "ConfigMap", Namespaced: true}, cm, schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"})
	for _, c := range []struct {
		name, media string
		kind        Kind
		body        []byte
	}{
		{"json/pod", typeJSON, pods, []byte(pod)}, {"json/configmap1MB", typeJSON, large.kind, large.json}, {"proto/configmap1MB", typeProto, large.kind, large.proto},
	} {
		b.Run(c.name, func(b *testing.B) {
			measure(b, len(c.body), func() error {
				_, _, err := view.BodyToControl(c.kind, "create", c.media, c.body, "default", "")
				return err
			})
		})
	}
}
