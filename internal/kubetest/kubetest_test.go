package kubetest_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"vivarium.io/vivarium/internal/kubetest"
)

func TestControlPlane(t *testing.T) {
	t.Parallel()
	cluster := kubetest.ControlPlane(t, kubetest.WithControllerManager(), kubetest.WithScheduler())
	admin := kubernetes.NewForConfigOrDie(cluster.Config)

	version, err := admin.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if version.GitVersion == "v0.0.0" || version.Major != "1" {
		t.Errorf("the programs carry no version: %+v", version)
	}

	// The controllers make this one, the admission of pods wants it, and the scheduler binds them.
	waitFor(t, func() error {
		_, err := admin.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}
	if _, err = admin.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// A patch, because the controllers write to the Node meanwhile.
	ready := `{"status":{"allocatable":{"pods":"10"},"conditions":[{"type":"Ready","status":"True"}]}}`
	if _, err := admin.CoreV1().Nodes().Patch(t.Context(), "node", types.StrategicMergePatchType, []byte(ready), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	// Whatever ends is started again.
	cluster.KillScheduler(t)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pod"}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "c", Image: "vivarium.test/pause:v1"}},
	}}
	if _, err := admin.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() error {
		pod, err := admin.CoreV1().Pods("default").Get(t.Context(), "pod", metav1.GetOptions{})
		if err == nil && pod.Spec.NodeName != "node" {
			return errors.New("not scheduled")
		}
		return err
	})
	if revived := cluster.Revived(); len(revived) != 1 || !strings.Contains(revived[0].Error(), "kube-scheduler") {
		t.Errorf("started again: %v", revived)
	}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	cluster := kubetest.ControlPlane(t)
	admin := kubernetes.NewForConfigOrDie(cluster.Config)
	config, err := clientcmd.BuildConfigFromFlags("", cluster.Kubeconfig(t, "jane", "readers"))
	if err != nil {
		t.Fatal(err)
	}
	jane := kubernetes.NewForConfigOrDie(config)
	if _, err := jane.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("without rights: %v, want forbidden", err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "readers"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "readers"}},
	}
	if _, err := admin.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() error {
		_, err := jane.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
		return err
	})
}

// waitFor polls until check returns nil.
func waitFor(t *testing.T, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
