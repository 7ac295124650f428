package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// watchRaw opens a watch and gives its frames, until the test ends.
func watchRaw(t *testing.T, config *rest.Config, path, accept string) <-chan map[string]any {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	res, err := httpClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		t.Fatalf("watch %s: %s", path, res.Status)
	}
	frames := make(chan map[string]any, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(frames)
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			var frame map[string]any
			if json.Unmarshal(lines.Bytes(), &frame) != nil {
				return
			}
			frames <- frame
		}
	}()
	t.Cleanup(func() { cancel(); _ = res.Body.Close(); <-done })
	return frames
}

// next waits for the next frame that is no bookmark and gives "TYPE name".
func next(t *testing.T, frames <-chan map[string]any) string {
	t.Helper()
	for {
		select {
		case frame, ok := <-frames:
			if !ok {
				return "END"
			}
			if frame["type"] == "BOOKMARK" {
				continue
			}
			object, _ := frame["object"].(map[string]any)
			if rows, ok := object["rows"].([]any); ok && len(rows) == 1 {
				row, _ := rows[0].(map[string]any)
				object, _ = row["object"].(map[string]any)
			}
			meta, _ := object["metadata"].(map[string]any)
			return fmt.Sprint(frame["type"], " ", meta["name"])
		case <-time.After(soon):
			t.Fatal("no frame comes")
		}
	}
}

func TestClasses(t *testing.T) {
	w := theWorld(t)
	goldConfig, plainConfig := w.tenant(t, "class0"), w.tenant(t, "class1")
	w.must(t, w.operator, "", "label", "tenant", "class0", "plan=gold")
	admin := clientset(t, w.cluster.Config)
	classes := admin.SchedulingV1().PriorityClasses()
	create := func(name string, value int32, exported bool, to string) {
		t.Helper()
		class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"site": "here"}, Annotations: map[string]string{}}, Value: value}
		if exported {
			class.Labels["vivarium.io/exported"] = "true"
		}
		if to != "" {
			class.Annotations["vivarium.io/exported-to"] = to
		}
		if _, err := classes.Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := classes.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		})
	}
	create("offered", 1000, true, "")
	create("for-gold", 2000, true, "plan=gold")
	create("hidden", 3000, false, "")
	create("to-nobody", 4000, true, "plan in gold")
	names := func(kubeconfig string, args ...string) string {
		out := w.must(t, kubeconfig, "", append([]string{"get", "-o", "name"}, args...)...)
		return strings.Join(strings.Fields(strings.ReplaceAll(out, "priorityclass.scheduling.k8s.io/", "")), " ")
	}
	eventually(t, "the classes of gold", func() bool { return names(goldConfig, "priorityclasses") == "for-gold offered" })
	eventually(t, "the classes of plain", func() bool { return names(plainConfig, "priorityclasses") == "offered" })
	gold, plain := clientset(t, client(t, goldConfig)), clientset(t, client(t, plainConfig))

	t.Run("Read", func(t *testing.T) {
		if got := names(goldConfig, "priorityclasses", "-l", "site=here", "--field-selector=metadata.name=offered"); got != "offered" {
			t.Errorf("selected %q", got)
		}
		out := w.must(t, goldConfig, "", "get", "priorityclasses", "--no-headers")
		if fields := strings.Fields(out); len(fields) != 10 || fields[0] != "for-gold" || fields[1] != "2000" {
			t.Errorf("table is %s", out)
		}
		for _, output := range []string{"yaml", "json", "wide"} {
			if out := w.must(t, goldConfig, "", "get", "pc", "offered", "-o", output); strings.Contains(out, "vivarium.io") {
				t.Errorf("shows the platform's marks: %s", out)
			}
		}
		w.must(t, goldConfig, "", "describe", "pc", "offered")
		protobuf := rest.CopyConfig(client(t, goldConfig))
		protobuf.ContentType, protobuf.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
		class, err := clientset(t, protobuf).SchedulingV1().PriorityClasses().Get(t.Context(), "offered", metav1.GetOptions{})
		if err != nil || class.Value != 1000 || class.Labels["site"] != "here" {
			t.Errorf("a client that prefers protobuf gets %+v %v", class, err)
		}
	})
	t.Run("NotTheirs", func(t *testing.T) {
		missing := w.fails(t, plainConfig, "", "get", "--raw", "/apis/scheduling.k8s.io/v1/priorityclasses/nothing")
		for _, name := range []string{"hidden", "for-gold", "to-nobody", "system-cluster-critical"} {
			if out := w.fails(t, plainConfig, "", "get", "--raw", "/apis/scheduling.k8s.io/v1/priorityclasses/"+name); out != strings.ReplaceAll(missing, "nothing", name) {
				t.Errorf("%s: %s, a missing one: %s", name, out, missing)
			}
		}
		for _, args := range [][]string{{"delete", "pc", "offered"}, {"label", "pc", "offered", "a=b"}, {"create", "priorityclass", "mine", "--value=5"}} {
			if out := w.fails(t, goldConfig, "", args...); !strings.Contains(out, "classes are the operator's") {
				t.Errorf("%v: %s", args, out)
			}
		}
		if out := w.fails(t, goldConfig, "", "--as=bob", "get", "pc"); !strings.Contains(out, `User "bob" cannot list resource "priorityclasses" in API group "scheduling.k8s.io" at the cluster scope`) {
			t.Error(out)
		}
	})
	t.Run("Use", func(t *testing.T) {
		for _, kubeconfig := range []string{goldConfig, plainConfig} {
			eventually(t, "the default ServiceAccount", func() bool {
				_, err := w.run(kubeconfig, "", "get", "sa", "default")
				return err == nil
			})
		}
		pod := func(class string) *corev1.Pod {
			return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "p-"}, Spec: corev1.PodSpec{
				PriorityClassName: class, Containers: []corev1.Container{{Name: "c", Image: "vivarium.test/echo:v1"}},
			}}
		}
		for _, tc := range []struct {
			who      *kubernetes.Clientset
			class    string
			priority int32
			says     string
		}{
			{gold, "offered", 1000, ""}, {plain, "offered", 1000, ""}, {gold, "for-gold", 2000, ""},
			{plain, "for-gold", 0, "no PriorityClass with name for-gold was found"},
			{gold, "hidden", 0, "no PriorityClass with name hidden was found"},
			{gold, "system-cluster-critical", 0, `the priority class "system-cluster-critical" is for the operator's own pods`},
		} {
			got, err := tc.who.CoreV1().Pods("default").Create(t.Context(), pod(tc.class), metav1.CreateOptions{})
			switch {
			case tc.says != "":
				if err == nil || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "class0") || strings.Contains(err.Error(), "class1") {
					t.Errorf("pod of class %s: %v, want %q", tc.class, err, tc.says)
				}
			case err != nil:
				t.Errorf("pod of class %s: %v", tc.class, err)
			case *got.Spec.Priority != tc.priority || got.Spec.PriorityClassName != tc.class:
				t.Errorf("pod of class %s has class %s, priority %d", tc.class, got.Spec.PriorityClassName, *got.Spec.Priority)
			}
		}
	})
	t.Run("Watch", func(t *testing.T) {
		const path = "/apis/scheduling.k8s.io/v1/priorityclasses?watch=true&allowWatchBookmarks=true"
		goldFrames, plainFrames := watchRaw(t, client(t, goldConfig), path, "application/json"), watchRaw(t, client(t, plainConfig), path, "application/json;as=Table;v=v1;g=meta.k8s.io")
		expect := func(frames <-chan map[string]any, want ...string) {
			t.Helper()
			var got []string
			for range want {
				got = append(got, next(t, frames))
			}
			if !slices.Equal(got, want) {
				t.Errorf("frames are %q, want %q", got, want)
			}
		}
		expect(goldFrames, "ADDED for-gold", "ADDED offered")
		expect(plainFrames, "ADDED offered")
		w.must(t, w.control, "", "annotate", "pc", "hidden", "x=y")
		w.must(t, w.control, "", "annotate", "pc", "offered", "kubernetes.io/description=new")
		expect(goldFrames, "MODIFIED offered")
		expect(plainFrames, "MODIFIED offered")
		w.must(t, w.control, "", "annotate", "pc", "offered", "vivarium.io/exported-to=plan=gold")
		expect(goldFrames, "MODIFIED offered")
		expect(plainFrames, "DELETED offered")
		w.must(t, w.control, "", "annotate", "pc", "offered", "vivarium.io/exported-to-")
		expect(goldFrames, "MODIFIED offered")
		expect(plainFrames, "ADDED offered")
		w.must(t, w.control, "", "label", "pc", "offered", "vivarium.io/exported-")
		expect(goldFrames, "DELETED offered")
		expect(plainFrames, "DELETED offered")
		w.must(t, w.control, "", "delete", "pc", "for-gold", "hidden")
		expect(goldFrames, "DELETED for-gold")
		w.must(t, w.control, "", "label", "pc", "offered", "vivarium.io/exported=true")
		expect(goldFrames, "ADDED offered")
		expect(plainFrames, "ADDED offered")
		// A tenant that is chosen otherwise has to look again.
		w.must(t, w.operator, "", "label", "tenant", "class1", "plan=silver")
		expect(plainFrames, "ERROR <nil>", "END")
	})
	t.Run("Informer", func(t *testing.T) {
		factory := informers.NewSharedInformerFactory(gold, 0)
		storage := factory.Storage().V1().StorageClasses().Informer()
		factory.Start(t.Context().Done())
		t.Cleanup(factory.Shutdown)
		eventually(t, "the informer", storage.HasSynced)
		class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "disk", Labels: map[string]string{"vivarium.io/exported": "true"},
			Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}}, Provisioner: "csi.test", Parameters: map[string]string{"pool": "fast"}}
		if _, err := admin.StorageV1().StorageClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = admin.StorageV1().StorageClasses().Delete(context.WithoutCancel(t.Context()), "disk", metav1.DeleteOptions{})
		})
		eventually(t, "the informer to see the class", func() bool { return len(storage.GetStore().List()) == 1 })
		if out := w.must(t, goldConfig, "", "get", "sc", "--no-headers"); !strings.HasPrefix(out, "disk (default)   csi.test") {
			t.Error(out)
		}
		// The default of the control cluster shows, and does not keep its claim from being changed.
		claim := `{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"c"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}`
		w.must(t, goldConfig, claim, "create", "-f", "-")
		if out := w.must(t, goldConfig, "", "get", "pvc", "c", "-o", "jsonpath={.spec.storageClassName}"); out != "disk" {
			t.Errorf("the claim has class %q", out)
		}
		w.must(t, goldConfig, "", "label", "pvc", "c", "a=b")
		w.must(t, goldConfig, "", "get", "pvc", "c", "-o", "wide")
	})
}

func TestVolumes(t *testing.T) {
	w := theWorld(t)
	kubeconfig, other := w.tenant(t, "volum0"), w.tenant(t, "volum1")
	admin := clientset(t, w.cluster.Config)
	frames := watchRaw(t, client(t, kubeconfig), "/api/v1/persistentvolumes?watch=true", "application/json")
	otherFrames := watchRaw(t, client(t, other), "/api/v1/persistentvolumes?watch=true", "application/json")
	volume := func(name, namespace, claim string) {
		t.Helper()
		pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: "csi.test", VolumeHandle: "handle-of-the-operator", NodeStageSecretRef: &corev1.SecretReference{Name: "s", Namespace: "storage-secrets"},
			}},
		}}
		if namespace != "" {
			pv.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: namespace, Name: claim}
		}
		if _, err := admin.CoreV1().PersistentVolumes().Create(t.Context(), pv, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx := context.WithoutCancel(t.Context())
			_, _ = w.run(w.control, "", "patch", "pv", name, "-p", `{"metadata":{"finalizers":null}}`)
			_ = admin.CoreV1().PersistentVolumes().Delete(ctx, name, metav1.DeleteOptions{})
		})
	}
	volume("spare", "", "")
	volume("pvc-1", "volum0-default", "data")
	volume("pvc-2", "volum1-default", "data")
	w.must(t, kubeconfig, `{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"data"},"spec":{"storageClassName":"","accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}`, "create", "-f", "-")
	eventually(t, "the claim to be bound", func() bool {
		out, err := w.run(kubeconfig, "", "get", "pvc", "data", "-o", "jsonpath={.status.phase} {.spec.volumeName}")
		return err == nil && out == "Bound pvc-1"
	})
	if got := next(t, frames); got != "ADDED pvc-1" {
		t.Errorf("the first frame is %s", got)
	}
	if got := next(t, otherFrames); got != "ADDED pvc-2" {
		t.Errorf("the first frame of the other tenant is %s", got)
	}
	eventually(t, "the volume to be bound", func() bool {
		return strings.Contains(w.must(t, kubeconfig, "", "get", "pv", "--no-headers"), "Bound")
	})
	if out := strings.Fields(w.must(t, kubeconfig, "", "get", "pv", "--no-headers")); out[0] != "pvc-1" || !slices.Contains(out, "default/data") || len(out) > 10 {
		t.Errorf("table is %q", out)
	}
	for _, output := range []string{"yaml", "wide", "name"} {
		out := w.must(t, kubeconfig, "", "get", "pv", "pvc-1", "-o", output)
		for _, never := range []string{"volum0", "volum1", "handle-of-the-operator", "storage-secrets", "spare"} {
			if strings.Contains(out, never) {
				t.Errorf("shows %q: %s", never, out)
			}
		}
	}
	w.must(t, kubeconfig, "", "describe", "pv", "pvc-1")
	missing := w.fails(t, kubeconfig, "", "get", "--raw", "/api/v1/persistentvolumes/nothing")
	for _, name := range []string{"pvc-2", "spare"} {
		if out := w.fails(t, kubeconfig, "", "get", "--raw", "/api/v1/persistentvolumes/"+name); out != strings.ReplaceAll(missing, "nothing", name) {
			t.Errorf("%s: %s, a missing one: %s", name, out, missing)
		}
	}
	if out := w.fails(t, kubeconfig, "", "delete", "pv", "pvc-1"); !strings.Contains(out, "volumes are the platform's") {
		t.Error(out)
	}
	w.must(t, kubeconfig, "", "delete", "pvc", "data")
	eventually(t, "the volume that the claim left", func() bool {
		out, err := w.run(kubeconfig, "", "get", "pv", "pvc-1", "-o", "jsonpath={.status.phase}")
		return err == nil && out == "Released"
	})
}
