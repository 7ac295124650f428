package vkprovider_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

// impatient is a pod that is evicted soon after its node is lost.
func impatient(pod *corev1.Pod) *corev1.Pod {
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
			Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](1),
		})
	}
	return pod
}

func (w *world) nodeReason(t *testing.T, name, reason string) {
	t.Helper()
	eventually(t, "node "+name+" is "+reason, func() error {
		node, err := w.controlClient.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Reason == reason {
				return nil
			}
		}
		return fmt.Errorf("conditions %v", node.Status.Conditions)
	})
}

func (w *world) resource(t *testing.T, pool string) *v1alpha1.ResourcePool {
	t.Helper()
	r := &v1alpha1.ResourcePool{}
	if err := w.admin.Get(t.Context(), types.NamespacedName{Name: pool}, r); err != nil {
		t.Fatal(err)
	}
	return r
}

// one waits for exactly one living pod that is as wanted.
func one(t *testing.T, what string, pods func() map[types.UID]*corev1.Pod, check func(*corev1.Pod) error) *corev1.Pod {
	t.Helper()
	var found *corev1.Pod
	eventually(t, what, func() error {
		var err error
		for _, pod := range pods() {
			if err = check(pod); err == nil {
				found = pod
				return nil
			}
		}
		return fmt.Errorf("%d pods, %w", len(pods()), err)
	})
	return found
}

func runsOn(node string) func(*corev1.Pod) error {
	return func(pod *corev1.Pod) error {
		if pod.Spec.NodeName != node || pod.DeletionTimestamp != nil {
			return fmt.Errorf("it is on %s, deleted %v", pod.Spec.NodeName, pod.DeletionTimestamp)
		}
		return isReady(pod)
	}
}

// TestFailurePolicies cuts the line to a pool under each policy.
func TestFailurePolicies(t *testing.T) {
	w := newWorld(t, "pool-a", "pool-b")
	a := w.pools["pool-a"]
	w.change(t, "pool-a", `{"failure":{"policy":"Fence"}}`)
	w.start(t)
	w.ready(t, "pool-a", "pool-b")
	w.tenant(t, "abc123-default")
	w.cordon(t, "pool-b", true)
	web := w.replicas(t, "abc123-default", "web", 1, impatient(echoPod("web")))
	db := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "db"}}, Spec: impatient(echoPod("db")).Spec},
		},
	}
	if _, err := w.controlClient.AppsV1().StatefulSets("abc123-default").Create(t.Context(), db, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	webFirst := one(t, "web runs", web, runsOn("pool-a-0"))
	dbFirst := w.waitPod(t, "abc123-default", "db-0", runsOn("pool-a-0"))
	w.cordon(t, "pool-b", false)

	// Fence: nothing ends before the operator's word, and everything does after it.
	a.line.setCut(true)
	w.nodeReason(t, "pool-a-0", "PoolHeld")
	w.waitPod(t, "abc123-default", "db-0", func(pod *corev1.Pod) error {
		if isReady(pod) == nil {
			return errors.New("nobody can see it, and it is ready")
		}
		return nil
	})
	node, err := w.controlClient.CoreV1().Nodes().Get(t.Context(), "pool-a-0", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, taint := range node.Spec.Taints {
		if taint.Effect == corev1.TaintEffectNoExecute {
			t.Errorf("a held Node evicts: %v", taint)
		}
	}
	if !node.Spec.Unschedulable {
		t.Error("a held Node takes new pods")
	}
	for uid, pod := range web() {
		if uid != webFirst.UID || pod.DeletionTimestamp != nil {
			t.Errorf("a held pod: %+v", pod.ObjectMeta)
		}
	}
	fence := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"vivarium.io/fenced":"yes"}}}`))
	if err := w.admin.Patch(t.Context(), w.resource(t, "pool-a"), fence); err != nil {
		t.Fatal(err)
	}
	one(t, "web runs elsewhere", web, runsOn("pool-b-0"))
	dbSecond := w.waitPod(t, "abc123-default", "db-0", runsOn("pool-b-0"))
	if dbSecond.UID == dbFirst.UID {
		t.Fatal("the same pod runs in two pools")
	}
	if a.below(t)[dbFirst.UID] == nil {
		t.Fatal("the test is broken: the first one has left the pool that was cut off")
	}
	a.line.setCut(false)
	w.ready(t, "pool-a")
	eventually(t, "what ran in the fenced pool goes when it is back", func() error {
		if left := a.below(t); len(left) > 0 {
			return fmt.Errorf("%d pods", len(left))
		}
		return nil
	})
	eventually(t, "the word is taken back", func() error {
		if r := w.resource(t, "pool-a"); len(r.Annotations) > 0 {
			return fmt.Errorf("annotations %v", r.Annotations)
		}
		return nil
	})
	if pod := w.waitPod(t, "abc123-default", "db-0", runsOn("pool-b-0")); pod.UID != dbSecond.UID {
		t.Error("the return of the old pool disturbed the new pod")
	}

	// Evict: what may run twice is replaced after its time, a StatefulSet waits.
	w.change(t, "pool-a", `{"failure":{"policy":"Evict"}}`)
	w.cordon(t, "pool-b", true)
	if err := w.controlClient.CoreV1().Pods("abc123-default").DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	one(t, "web is back", web, runsOn("pool-a-0"))
	dbThird := w.waitPod(t, "abc123-default", "db-0", runsOn("pool-a-0"))
	w.cordon(t, "pool-b", false)
	a.line.setCut(true)
	one(t, "web is replaced", web, runsOn("pool-b-0"))
	w.waitPod(t, "abc123-default", "db-0", func(pod *corev1.Pod) error {
		if pod.UID != dbThird.UID {
			t.Fatal("a StatefulSet has two pods of one name")
		}
		if pod.DeletionTimestamp == nil {
			return errors.New("not evicted yet")
		}
		return nil
	})
	a.line.setCut(false)
	eventually(t, "what was evicted goes when the pool is back", func() error {
		if a.below(t)[dbThird.UID] != nil {
			return errors.New("it is there")
		}
		return nil
	})
	w.waitPod(t, "abc123-default", "db-0", isReady)
}

// TestCredentials: what is wrong with our credentials ends nobody's pods, and what is right works without a restart.
func TestCredentials(t *testing.T) {
	w := newWorld(t, "pool-a", "pool-b")
	a, b := w.pools["pool-a"], w.pools["pool-b"]
	w.start(t)
	w.ready(t, "pool-a", "pool-b")
	w.tenant(t, "abc123-default")
	w.cordon(t, "pool-b", true)
	pods := w.replicas(t, "abc123-default", "web", 1, impatient(echoPod("web")))
	first := one(t, "web runs", pods, runsOn("pool-a-0"))
	w.cordon(t, "pool-b", false)

	good := w.secret(t, "pool-a")
	condition := func(kind, reason string) {
		t.Helper()
		eventually(t, kind+" is "+reason, func() error {
			c := meta.FindStatusCondition(w.resource(t, "pool-a").Status.Conditions, kind)
			if c == nil || c.Reason != reason {
				return fmt.Errorf("condition %+v", c)
			}
			if strings.Contains(c.Message, "not-a-token") {
				t.Fatalf("the credentials are in a condition: %s", c.Message)
			}
			return nil
		})
	}
	undisturbed := func() {
		t.Helper()
		w.nodeReason(t, "pool-a-0", "PoolHeld")
		for uid, pod := range pods() {
			if uid != first.UID || pod.DeletionTimestamp != nil {
				t.Errorf("a pod was ended: %+v", pod.ObjectMeta)
			}
		}
		if below := a.below(t)[first.UID]; below == nil || below.DeletionTimestamp != nil {
			t.Error("its pool pod was ended")
		}
	}
	withToken := func(token string) []byte {
		host, ca := "https://"+a.line.address, a.cluster.Config.CAData
		return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],
"clusters":[{"name":"c","cluster":{"server":%q,"certificate-authority-data":%q}}],"users":[{"name":"u","user":{"token":%q}}]}`, host, base64.StdEncoding.EncodeToString(ca), token)
	}

	w.setSecret(t, "pool-a", withToken("not-a-token"))
	condition(v1alpha1.PoolReachable, "CredentialsRefused")
	undisturbed()
	w.setSecret(t, "pool-a", bytes.ReplaceAll(good, []byte(a.line.address), []byte("127.0.0.1:1")))
	condition(v1alpha1.PoolReachable, "NewCredentialsFail")
	undisturbed()
	w.setSecret(t, "pool-a", []byte("{"))
	condition(v1alpha1.PoolReachable, "KubeconfigRefused")
	undisturbed()
	// Another cluster: nothing is written there, and nothing is concluded from what it does not have.
	w.setSecret(t, "pool-a", w.secret(t, "pool-b"))
	condition(v1alpha1.PoolIdentified, "OtherCluster")
	undisturbed()
	if b.below(t)[first.UID] != nil {
		t.Error("a pod was made in another cluster")
	}

	// A new identity: picked up while running, and the pod goes on as it was.
	w.setSecret(t, "pool-a", good)
	w.ready(t, "pool-a")
	other, err := os.ReadFile(a.cluster.Kubeconfig(t, "vivarium-2"))
	if err != nil {
		t.Fatal(err)
	}
	create(t, a.cluster, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: vivarium-pool-2}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: vivarium-pool}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: vivarium-2}]
`)
	w.setSecret(t, "pool-a", bytes.ReplaceAll(other, []byte(a.cluster.Config.Host), []byte("https://"+a.line.address)))
	if err := a.client.RbacV1().ClusterRoleBindings().Delete(t.Context(), "vivarium-pool", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.cordon(t, "pool-b", true)
	w.makePod(t, "abc123-default", echoPod("after"))
	w.waitPod(t, "abc123-default", "after", runsOn("pool-a-0"))
	if pod := one(t, "web runs on", pods, runsOn("pool-a-0")); pod.UID != first.UID {
		t.Error("the pod was replaced by a change of credentials")
	}
}

func (w *world) secret(t *testing.T, name string) []byte {
	t.Helper()
	secret, err := w.controlClient.CoreV1().Secrets(names.SystemNamespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return secret.Data["kubeconfig"]
}

func (w *world) setSecret(t *testing.T, name string, kubeconfig []byte) {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{"kubeconfig": kubeconfig}}
	if _, err := w.controlClient.CoreV1().Secrets(names.SystemNamespace).Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}
