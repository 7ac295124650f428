package syncer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

func (w *world) makeTenant(t *testing.T, id names.TenantID) {
	t.Helper()
	if err := w.admin.Create(t.Context(), &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: string(id), Finalizers: []string{v1alpha1.FinalizerPools, "test.vivarium.io/watcher"}}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		live := &v1alpha1.Tenant{}
		if err := w.admin.Get(context.Background(), client.ObjectKey{Name: string(id)}, live); err == nil {
			live.Finalizers = nil
			_ = w.admin.Update(context.Background(), live)
			_ = w.admin.Delete(context.Background(), live)
		}
	})
}

func (w *world) getTenant(t *testing.T, id names.TenantID) *v1alpha1.Tenant {
	t.Helper()
	live := &v1alpha1.Tenant{}
	if err := w.admin.Get(t.Context(), client.ObjectKey{Name: string(id)}, live); err != nil {
		t.Fatal(err)
	}
	return live
}

func (w *world) hasNamespace(t *testing.T, pool, name string) bool {
	t.Helper()
	_, err := w.poolClient[pool].CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return err == nil
}

// TestTenantDeletion: a deleted tenant is let go only when nothing of it is left in any pool, and what is not ours stays.
func TestTenantDeletion(t *testing.T) {
	w := use(t)
	w.register(t, "pool-a")
	w.register(t, "pool-b")
	w.run(t, quick)
	id, neighbour := tenantID(), tenantID()
	w.makeTenant(t, id)
	w.tenant(t, id, "web", "db")
	w.tenant(t, neighbour, "web")
	w.pod(t, id.Prefix()+"web", "p", "pool-a", nil)
	w.pod(t, id.Prefix()+"db", "p", "pool-b", nil)
	w.pod(t, neighbour.Prefix()+"web", "p", "pool-a", nil)
	w.poolConfigMap(t, "pool-a", id.Prefix()+"web", names.RootCAConfigMap)
	w.poolConfigMap(t, "pool-b", id.Prefix()+"db", names.RootCAConfigMap)
	w.poolConfigMap(t, "pool-a", neighbour.Prefix()+"web", names.RootCAConfigMap)
	// Looks like the tenant's, and was made by another control cluster.
	foreign := id.Prefix() + "foreign"
	if _, err := w.poolClient["pool-a"].CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: foreign, Labels: map[string]string{names.LabelTenant: string(id), names.LabelControl: "another", names.LabelManagedBy: "vivarium"},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	if err := w.admin.Delete(t.Context(), &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: string(id)}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Tenant says what it waits for", func() error {
		c := meta.FindStatusCondition(w.getTenant(t, id).Status.Conditions, v1alpha1.TenantCleanedPools)
		if c == nil || c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, "control cluster") {
			return fmt.Errorf("condition %+v", c)
		}
		return nil
	})
	if !w.hasNamespace(t, "pool-a", id.Prefix()+"web") {
		t.Error("a pool namespace went before its control namespace")
	}
	for _, ns := range []string{"web", "db"} {
		if err := w.client.CoreV1().Namespaces().Delete(t.Context(), id.Prefix()+ns, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		// No kubelet ends these pods.
		_ = w.client.CoreV1().Pods(id.Prefix()+ns).Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
	}
	eventually(t, "the Tenant is let go", func() error {
		if tenant := w.getTenant(t, id); slices.Contains(tenant.Finalizers, v1alpha1.FinalizerPools) {
			return fmt.Errorf("conditions %+v", tenant.Status.Conditions)
		}
		return nil
	})
	if w.hasNamespace(t, "pool-a", id.Prefix()+"web") || w.hasNamespace(t, "pool-b", id.Prefix()+"db") {
		t.Error("let go while a pool still had a namespace")
	}
	if !w.hasNamespace(t, "pool-a", foreign) || !w.hasNamespace(t, "pool-a", neighbour.Prefix()+"web") {
		t.Error("a namespace that is not the tenant's was deleted")
	}
}

// TestTenantWaitsForSilentPool: a pool that cannot be asked holds a deleted tenant, and the Tenant says so; the other
// pools go on meanwhile.
func TestTenantWaitsForSilentPool(t *testing.T) {
	w := use(t)
	w.register(t, "pool-a")
	silent := w.hang(t, "pool-b")
	w.run(t, quick)
	id := tenantID()
	w.makeTenant(t, id)
	w.tenant(t, id, "web")
	// The silent pool has pods of its own to wait for.
	for i := range 20 {
		w.pod(t, id.Prefix()+"web", fmt.Sprintf("stuck-%d", i), "pool-b", nil)
	}
	w.poolConfigMap(t, "pool-b", id.Prefix()+"web", names.RootCAConfigMap)
	silent.hang()
	for i := range 20 {
		w.pod(t, id.Prefix()+"web", fmt.Sprintf("stuck-more-%d", i), "pool-b", nil)
	}
	pod := w.pod(t, id.Prefix()+"web", "p", "pool-a", nil)
	w.poolSecret(t, "pool-a", id.Prefix()+"web", names.TokenSecret(pod.UID))

	if err := w.admin.Delete(t.Context(), &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: string(id)}}); err != nil {
		t.Fatal(err)
	}
	if err := w.client.CoreV1().Namespaces().Delete(t.Context(), id.Prefix()+"web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := w.client.CoreV1().Pods(id.Prefix()+"web").DeleteCollection(t.Context(), metav1.DeleteOptions{GracePeriodSeconds: new(int64)}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pool that answers is cleaned", func() error {
		if w.hasNamespace(t, "pool-a", id.Prefix()+"web") {
			return errors.New("namespace is still there")
		}
		return nil
	})
	eventually(t, "the Tenant names the pool that does not", func() error {
		tenant := w.getTenant(t, id)
		c := meta.FindStatusCondition(tenant.Status.Conditions, v1alpha1.TenantCleanedPools)
		if c == nil || !strings.Contains(c.Message, "pool-b") || strings.Contains(c.Message, "pool-a") {
			return fmt.Errorf("condition %+v", c)
		}
		if !slices.Contains(tenant.Finalizers, v1alpha1.FinalizerPools) {
			t.Fatal("the Tenant was let go")
		}
		return nil
	})
	silent.answer()
	eventually(t, "the Tenant is let go when the pool is back", func() error {
		if tenant := w.getTenant(t, id); slices.Contains(tenant.Finalizers, v1alpha1.FinalizerPools) {
			return fmt.Errorf("conditions %+v", tenant.Status.Conditions)
		}
		return nil
	})
}

// TestNamespaceDeletion: a tenant that deletes a namespace has nothing of it left in the pools.
func TestNamespaceDeletion(t *testing.T) {
	w := use(t)
	w.register(t, "pool-a")
	w.run(t, quick)
	id := tenantID()
	w.tenant(t, id, "web", "stays")
	w.pod(t, id.Prefix()+"web", "p", "pool-a", nil)
	w.pod(t, id.Prefix()+"stays", "p", "pool-a", nil)
	w.poolConfigMap(t, "pool-a", id.Prefix()+"web", names.RootCAConfigMap)
	w.poolConfigMap(t, "pool-a", id.Prefix()+"stays", names.RootCAConfigMap)
	if err := w.client.CoreV1().Namespaces().Delete(t.Context(), id.Prefix()+"web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	_ = w.client.CoreV1().Pods(id.Prefix()+"web").Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
	eventually(t, "the pool namespace goes", func() error {
		if w.hasNamespace(t, "pool-a", id.Prefix()+"web") {
			return errors.New("still there")
		}
		return nil
	})
	if !w.hasNamespace(t, "pool-a", id.Prefix()+"stays") {
		t.Error("the other namespace went too")
	}
}

// TestPoolGivenBack: a deleted ResourcePool keeps the syncer's finalizer until the pool is empty of ours, and the pods go
// first.
func TestPoolGivenBack(t *testing.T) {
	w := use(t)
	w.register(t, "pool-b")
	w.run(t, quick)
	id := tenantID()
	ns := id.Prefix() + "web"
	w.tenant(t, id, "web")
	pod := w.pod(t, ns, "p", "pool-b", nil)
	w.poolConfigMap(t, "pool-b", ns, names.RootCAConfigMap)
	key := client.ObjectKey{Name: "pool-b"}
	live := &v1alpha1.ResourcePool{}
	eventually(t, "the finalizer is set", func() error {
		if err := w.admin.Get(t.Context(), key, live); err != nil {
			return err
		}
		if !slices.Contains(live.Finalizers, v1alpha1.FinalizerPoolContent) {
			return errors.New("not set")
		}
		return nil
	})
	// A pod of ours that vk-provider has not removed yet.
	poolPod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: ns, Labels: map[string]string{names.LabelControl: string(w.controlUID), names.LabelManagedBy: "vk-provider"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "vivarium.test/shell:v1"}}, TerminationGracePeriodSeconds: new(int64)},
	}
	eventually(t, "the pool takes a pod", func() error {
		_, err := w.poolClient["pool-b"].CoreV1().Pods(ns).Create(t.Context(), poolPod, metav1.CreateOptions{})
		return err
	})
	if err := w.admin.Delete(t.Context(), live); err != nil {
		t.Fatal(err)
	}
	if err := w.client.CoreV1().Pods(ns).Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the ResourcePool is on its way out", func() error {
		if err := w.admin.Get(t.Context(), key, live); err != nil {
			return err
		}
		if live.DeletionTimestamp == nil {
			return errors.New("not yet")
		}
		return nil
	})
	if !w.hasNamespace(t, "pool-b", ns) {
		t.Error("the namespace went before its pods")
	}
	if err := w.poolClient["pool-b"].CoreV1().Pods(ns).Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the ResourcePool is gone", func() error { return gone(w.admin.Get(t.Context(), key, live)) })
	if w.hasNamespace(t, "pool-b", ns) {
		t.Error("the pool was let go with our namespace in it")
	}
}

// hanging stands before a pool's API server and stops answering on request, without closing a connection.
type hanging struct{ hang, answer func() }

// hang registers a pool that can be made to hang.
func (w *world) hang(t *testing.T, pool string) hanging {
	t.Helper()
	w.register(t, pool)
	secrets := w.client.CoreV1().Secrets(names.SystemNamespace)
	secret, err := secrets.Get(t.Context(), "pool-"+pool, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	server, gate := newProxy(t, strings.TrimPrefix(w.pools[pool].Config.Host, "https://"))
	config, err := clientcmd.Load(secret.Data["kubeconfig"])
	if err != nil {
		t.Fatal(err)
	}
	for _, cluster := range config.Clusters {
		cluster.Server = "https://" + server
	}
	raw, err := clientcmd.Write(*config)
	if err != nil {
		t.Fatal(err)
	}
	secret.Data["kubeconfig"] = raw
	if _, err := secrets.Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	return gate
}

// newProxy passes bytes to target until it is told to hang.
func newProxy(t *testing.T, target string) (address string, gate hanging) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.RWMutex // held for writing while the proxy hangs
	var hung sync.Once
	pass := func(to, from net.Conn) {
		defer to.Close()
		defer from.Close()
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			open.RLock()
			open.RUnlock() //nolint:staticcheck // passing the gate is the point
			if n > 0 {
				if _, err := to.Write(buffer[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				in.Close()
				continue
			}
			go pass(out, in)
			go pass(in, out)
		}
	}()
	answer := func() { hung.Do(open.Unlock) }
	t.Cleanup(func() {
		listener.Close()
		if open.TryLock() {
			open.Unlock()
			return
		}
		answer()
	})
	return listener.Addr().String(), hanging{hang: open.Lock, answer: answer}
}
