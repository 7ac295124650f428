//go:build linux

package vxlan

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/drivertest"
	"vivarium.io/vivarium/network/vxlan/agent"
	"vivarium.io/vivarium/network/vxlan/internal/state"
)

// TestOnRealServer: what the chart ships for the driver, where a real API server holds everybody to it.
func TestOnRealServer(t *testing.T) {
	cluster := kubetest.ControlPlane(t, kubetest.WithAPIServerFlags("--allow-privileged=true"))
	cluster.Config.QPS = -1
	admin := kubernetes.NewForConfigOrDie(cluster.Config)
	namespaced := func(t *testing.T, namespaces ...network.Namespace) {
		for _, ns := range namespaces {
			_, err := admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
				Name: string(ns.Name), Labels: map[string]string{names.LabelTenant: string(ns.Tenant), names.LabelControl: "control", names.LabelManagedBy: "vivarium"},
			}}, metav1.CreateOptions{})
			if err != nil && !apierrors.IsAlreadyExists(err) {
				t.Fatal(err)
			}
			err = admin.NetworkingV1().NetworkPolicies(string(ns.Name)).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	platform := drivertest.Chart(t, cluster.Config, Name)
	t.Run("Contract", func(t *testing.T) {
		h := harness(Driver{})
		h.Pool = func(t *testing.T, namespaces ...network.Namespace) network.Pool {
			namespaced(t, namespaces...)
			return platform
		}
		// Without the versions, which what comes and goes leaves behind; here are more ConfigMaps than ours, too.
		h.Snapshot = func(t *testing.T, _ network.Driver, pool network.Pool) any {
			objects, err := pool.Client.CoreV1().ConfigMaps(state.Namespace).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			found := map[string]any{}
			for _, o := range objects.Items {
				found[o.Name] = []any{o.UID, o.Labels, o.Data}
			}
			for _, fence := range drivertest.Fences(t, pool) {
				found["fence of "+fence.Namespace] = fence.Spec
			}
			return found
		}
		drivertest.Run(t, h)
	})
	t.Run("Agent", func(t *testing.T) { testAgent(t, cluster.Config, platform) })
	t.Run("Multus", func(t *testing.T) {
		platform := drivertest.Chart(t, cluster.Config, v1alpha1.DriverMultus, Name)
		namespaced(t, network.Namespace{Name: "abc123-web", Tenant: "abc123"})
		testMultusPolicy(t, platform, admin)
	})
}

// testAgent: the API server takes the manifests of the agent, its flags are flags, and it may do what it does and no more.
func testAgent(t *testing.T, admin *rest.Config, platform network.Pool) {
	var daemons corev1.PodSpec
	for _, object := range drivertest.Manifest(t, "vxlan/agent.yaml") {
		resource := schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
		if object.GetKind() == "DaemonSet" {
			resource = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}
			template, _, _ := unstructured.NestedMap(object.Object, "spec", "template", "spec")
			raw, err := json.Marshal(template)
			if err == nil {
				err = json.Unmarshal(raw, &daemons)
			}
			if err != nil {
				t.Fatal(err)
			}
		} else if config, _, _ := unstructured.NestedString(object.Object, "data", "network.conflist"); !json.Valid([]byte(config)) {
			t.Errorf("the network configuration is no JSON: %s", config)
		}
		client := dynamic.NewForConfigOrDie(admin).Resource(resource).Namespace(object.GetNamespace())
		strict := metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict}
		if _, err := client.Create(t.Context(), object, strict); err != nil {
			t.Errorf("%s %s: %v", object.GetKind(), object.GetName(), err)
		}
	}
	if len(daemons.Containers) != 1 || daemons.ServiceAccountName != "vpc-agent" || !daemons.HostNetwork {
		t.Fatalf("pods of the agent: %+v", daemons)
	}
	var groups cliflag.NamedFlagSets
	options := agent.NewOptions()
	options.AddFlags(&groups)
	flags := pflag.NewFlagSet("vpc-agent", pflag.ContinueOnError)
	for _, group := range groups.FlagSets {
		flags.AddFlagSet(group)
	}
	flags.String("health-listen", "", "of every program")
	var args []string
	for _, arg := range daemons.Containers[0].Args {
		args = append(args, strings.ReplaceAll(arg, "$(NODE_ADDRESS)", "192.0.2.1"))
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	if problems := options.Validate(); len(problems) > 0 {
		t.Error(problems)
	}
	for path, why := range map[string]string{options.Dir: "state", options.Plugins: "plugins", "/run/netns": "pods"} {
		if !slices.ContainsFunc(daemons.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == path }) {
			t.Errorf("%s (%s) is not mounted", path, why)
		}
	}

	config := rest.CopyConfig(admin)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:vivarium-network:vpc-agent"}
	can := kubernetes.NewForConfigOrDie(config).CoreV1()
	mine, its := can.ConfigMaps(state.Namespace), metav1.ListOptions{LabelSelector: state.LabelVPC}
	if _, err := mine.List(t.Context(), its); err != nil {
		t.Errorf("list: %v", err)
	}
	if w, err := mine.Watch(t.Context(), its); err != nil {
		t.Errorf("watch: %v", err)
	} else {
		w.Stop()
	}
	for what, try := range map[string]func() error{
		"get": func() error { _, err := mine.Get(t.Context(), "x", metav1.GetOptions{}); return err },
		"create": func() error {
			_, err := mine.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
			return err
		},
		"delete":    func() error { return mine.Delete(t.Context(), "x", metav1.DeleteOptions{}) },
		"elsewhere": func() error { _, err := can.ConfigMaps("kube-system").List(t.Context(), its); return err },
		"list secrets": func() error {
			_, err := can.Secrets(state.Namespace).List(t.Context(), metav1.ListOptions{})
			return err
		},
		"list pods": func() error {
			_, err := can.Pods(metav1.NamespaceAll).List(t.Context(), metav1.ListOptions{})
			return err
		},
		"list nodes": func() error { _, err := can.Nodes().List(t.Context(), metav1.ListOptions{}); return err },
	} {
		if err := try(); !apierrors.IsForbidden(err) {
			t.Errorf("the agent, %s: %v; want it forbidden", what, err)
		}
	}
	// Nor does the platform reach what the agent is.
	_, err := platform.Client.AppsV1().DaemonSets(state.Namespace).List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("the platform lists DaemonSets: %v", err)
	}
}

// testMultusPolicy: a pod of a VPC comes only if it asks Multus for the platform's network as it is bound, and for no other.
func testMultusPolicy(t *testing.T, platform network.Pool, admin kubernetes.Interface) {
	in := drivertest.Binding(Multus{})
	mutation, err := Multus{}.BindPod(in)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := Multus{}.BindPod(network.PodBinding{Tenant: in.Tenant, Pod: in.Pod})
	if err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := admin.CoreV1().ServiceAccounts(string(in.Pod.Namespace)).Create(t.Context(), account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	pods := platform.Client.CoreV1().Pods(string(in.Pod.Namespace))
	pod := func(mutation network.PodMutation, spoil func(map[string]string)) *corev1.Pod {
		no := false
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p"},
			Spec:       corev1.PodSpec{AutomountServiceAccountToken: &no, Containers: []corev1.Container{{Name: "c", Image: "vivarium.test/pause"}}},
		}
		mutation.Apply(&p.ObjectMeta)
		spoil(p.Annotations)
		return p
	}
	for name, tc := range map[string]struct {
		mutation network.PodMutation
		spoil    func(map[string]string)
		says     string
	}{
		"AsksNothing": {mutation, func(a map[string]string) { delete(a, keyDefault) }, "must ask Multus"},
		"AsksOther":   {mutation, func(a map[string]string) { a[keyDefault] = `[{"name":"other","namespace":"vivarium-network"}]` }, "must ask Multus"},
		"AsksElsewhere": {mutation, func(a map[string]string) {
			a[keyDefault] = strings.Replace(a[keyDefault], string(in.Subnet.UID), "another", 1)
		}, "must ask Multus"},
		"Second":   {mutation, func(a map[string]string) { a["k8s.v1.cni.cncf.io/networks"] = "other" }, "has one network"},
		"FlatAsks": {bare, func(a map[string]string) { a[keyDefault] = mutation.Annotations[keyDefault] }, "pool's own network"},
	} {
		t.Run(name, func(t *testing.T) {
			drivertest.Refused(t, tc.says, func() error {
				_, err := pods.Create(t.Context(), pod(tc.mutation, tc.spoil), drivertest.DryRun)
				return err
			})
		})
	}
	none := func(map[string]string) {}
	if _, err := pods.Create(t.Context(), pod(bare, none), drivertest.DryRun); err != nil {
		t.Errorf("a pod without a VPC: %v", err)
	}
	there, err := pods.Create(t.Context(), pod(mutation, none), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	there.Annotations[keyDefault] = strings.Replace(there.Annotations[keyDefault], "10.20.0.9", "10.20.0.10", 1)
	drivertest.Refused(t, "cannot be changed", func() error {
		_, err := admin.CoreV1().Pods(there.Namespace).Update(t.Context(), there, metav1.UpdateOptions{})
		return err
	})
}

// TestAttachment: what Multus is told of is what pods ask for, and our plugin.
func TestAttachment(t *testing.T) {
	objects := drivertest.Manifest(t, "multus/network.yaml")
	if len(objects) != 1 || objects[0].GetName() != attachment || objects[0].GetNamespace() != state.Namespace {
		t.Fatalf("got %v", objects)
	}
	text, _, _ := unstructured.NestedString(objects[0].Object, "spec", "config")
	var config struct{ Type, Dir, Name string }
	if err := json.Unmarshal([]byte(text), &config); err != nil || config.Type != "vivarium-vpc" || config.Dir != agent.NewOptions().Dir || config.Name == "" {
		t.Errorf("%s: %+v, %v", text, config, err)
	}
}
