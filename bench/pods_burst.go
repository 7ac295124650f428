package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/uuid"

	"vivarium.io/vivarium/internal/localcluster"
	"vivarium.io/vivarium/internal/names"
)

// The lanes of a burst.
const (
	lanePlain    = "plain client"
	laneProvider = "vk-provider"
)

// workersPerPool is how many pods the provider works on at once in each pool, and so does the plain client.
const workersPerPool = 32

// settleLimit is how long the pods of one turn may take to run.
const settleLimit = 30 * time.Minute

func burstNamespace(n int) string { return fmt.Sprintf("burst%d-default", n) }
func plainNamespace(n int) string { return fmt.Sprintf("plain%d-default", n) }

// lateNamespace is for pods that are looked at one by one.
const lateNamespace = "late00-default"

// burstPrefix begins the names of the bursts' namespaces, plainPrefix those of the plain client's.
const burstPrefix, plainPrefix = "burst", "plain"

// benchPod is a small pod. It has no token: no syncer runs here, and a pod waits for its token's Secret.
func benchPod(name string) *corev1.Pod {
	no, grace := false, int64(1)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "web", "tier": "front"}},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: &no, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "web", Image: "vivarium.test/web:v1", Args: []string{"--listen=:8080", "--log-level=info"},
				Env:       []corev1.EnvVar{{Name: "MODE", Value: "production"}, {Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}},
				Ports:     []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m")}},
				ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
					TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)},
				}},
			}},
		},
	}
}

// burst is both lanes' work: the same pods in the same pools, by the provider and by a plain client.
type burst struct {
	world *podsWorld
	// above is a bound control pod as the API server stores it, below what the provider makes of it.
	above, below *corev1.Pod
	made         int
}

// newBurst has the provider carry one pod, which is what all others are made after.
func newBurst(ctx context.Context, w *podsWorld, provider *instance) (*burst, error) {
	pod := benchPod("sample")
	pod.Spec.NodeName = w.nodes[0][0]
	above, err := w.control.kube.CoreV1().Pods(burstNamespace(0)).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	b := &burst{world: w, above: above}
	err = provider.Until(ctx, func(ctx context.Context) (err error) {
		b.below, err = w.pools[0].kube.CoreV1().Pods(burstNamespace(0)).Get(ctx, "sample", metav1.GetOptions{})
		return err
	})
	if err != nil {
		return nil, err
	}
	below := b.below
	below.UID, below.ResourceVersion, below.CreationTimestamp, below.ManagedFields, below.Generation = "", "", metav1.Time{}, nil, 0
	below.Status, below.Spec.NodeName = corev1.PodStatus{}, ""
	// A stranger's to the provider, and as long.
	below.Labels[names.LabelManagedBy] = "bench-plain"
	return b, nil
}

// lap is what one lane did in one round.
type lap struct {
	pods int
	// creating is until the last pod was created, settling until the last one ran as well.
	creating, settling time.Duration
	cpu                map[string]time.Duration
	writes             map[string]float64
}

// rate is pods created per second.
func (l lap) rate() float64 { return float64(l.pods) / l.creating.Seconds() }

// run does one turn of a lane.
func (b *burst) run(ctx context.Context, provider *instance, prefix string, pods int, create func(context.Context) error) (lap, error) {
	w := b.world
	had, err := w.stored(ctx, prefix)
	if err != nil {
		return lap{}, err
	}
	used, err := w.used(provider)
	if err != nil {
		return lap{}, err
	}
	written, err := w.writes(ctx)
	if err != nil {
		return lap{}, err
	}
	l := lap{pods: pods}
	begin := time.Now()
	creating := make(chan error, 1)
	go func() { creating <- create(ctx) }()
	for {
		has, err := w.stored(ctx, prefix)
		if err != nil {
			return l, err
		}
		if has >= had+pods {
			break
		}
		if time.Since(begin) > settleLimit {
			return l, fmt.Errorf("%d of %d pods were created in %s", has-had, pods, settleLimit)
		}
		select {
		case <-ctx.Done():
			return l, context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
	l.creating = time.Since(begin)
	if err := <-creating; err != nil {
		return l, err
	}
	if err := w.settle(ctx, provider != nil); err != nil {
		return l, err
	}
	l.settling = time.Since(begin)
	after, err := w.used(provider)
	if err != nil {
		return l, err
	}
	l.cpu = map[string]time.Duration{}
	for name, value := range after {
		l.cpu[name] = value - used[name]
	}
	now, err := w.writes(ctx)
	l.writes = map[string]float64{}
	for name, value := range now {
		l.writes[name] = value - written[name]
	}
	return l, err
}

// provided lets the provider carry pods that are bound all at once.
func (b *burst) provided(ctx context.Context, provider *instance, pods int) (lap, error) {
	return b.run(ctx, provider, burstPrefix, pods, func(ctx context.Context) error { return b.bind(ctx, pods) })
}

// bind puts bound pods where the control cluster's API server keeps them, as the scheduler would leave them.
func (b *burst) bind(ctx context.Context, pods int) error {
	first := b.made
	b.made += pods
	// Each has a version of its own: of several with one, a watch that begins between them misses some.
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workersPerPool)
	for n := first; n < first+pods; n++ {
		group.Go(func() error {
			return b.world.control.store.write(ctx, 1, func(int) (string, runtime.Object) {
				pod := b.above.DeepCopy()
				nodes := b.world.nodes[n%poolCount]
				pod.Namespace, pod.Name = burstNamespace(n/poolCount%burstTenants), fmt.Sprintf("web-5d8c7b9f4-%05d", n)
				pod.UID, pod.Spec.NodeName = uuid.NewUUID(), nodes[n/poolCount%len(nodes)]
				pod.ResourceVersion, pod.CreationTimestamp = "", metav1.Now()
				return "pods/" + pod.Namespace + "/" + pod.Name, pod
			})
		})
	}
	return group.Wait()
}

// plain creates the same pods directly, as many at once as the provider does, and nobody brings anything back.
func (b *burst) plain(ctx context.Context, pods int) (lap, error) {
	return b.run(ctx, nil, plainPrefix, pods, func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		for k, p := range b.world.pools {
			next := make(chan int)
			group.Go(func() error {
				defer close(next)
				for n := k; n < pods; n += poolCount {
					select {
					case next <- n:
					case <-ctx.Done():
						return nil
					}
				}
				return nil
			})
			for range workersPerPool {
				group.Go(func() error {
					for n := range next {
						pod := b.below.DeepCopy()
						pod.Namespace, pod.Name = plainNamespace(n/poolCount%burstTenants), fmt.Sprintf("web-5d8c7b9f4-%05d", n)
						pod.Labels[names.LabelControlUID] = string(uuid.NewUUID())
						tenant, _, _ := names.SplitNamespace(names.ControlNamespace(pod.Namespace))
						relabel(pod, tenant)
						if _, err := p.plain.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
							return fmt.Errorf("%s: %w", lanePlain, err)
						}
					}
					return nil
				})
			}
		}
		return group.Wait()
	})
}

// removePlain takes the plain client's pods away where the API servers keep them: deleting is not what is measured.
func (w *podsWorld) removePlain(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range w.pools {
		group.Go(func() error {
			// One after the other, for the reason that bind has.
			all, err := p.store.etcd.Get(ctx, "/registry/pods/"+plainPrefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
			if err != nil {
				return err
			}
			for _, kv := range all.Kvs {
				if _, err := p.store.etcd.Delete(ctx, string(kv.Key)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// stored counts the pool pods in the namespaces that begin so, without the API servers noticing.
func (w *podsWorld) stored(ctx context.Context, prefix string) (int, error) {
	var mu sync.Mutex // guards total
	total := 0
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range w.pools {
		group.Go(func() error {
			got, err := p.store.etcd.Get(ctx, "/registry/pods/"+prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
			if err != nil {
				return fmt.Errorf("count the pods of %s: %w", p.name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			total += int(got.Count)
			return nil
		})
	}
	return total, group.Wait()
}

// settle waits until every pod runs: in the pools and, where there is a provider, above.
func (w *podsWorld) settle(ctx context.Context, above bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleLimit, errors.New("the pods take too long"))
	defer cancel()
	where := []*cluster{w.control}
	if !above {
		where = nil
		for _, p := range w.pools {
			where = append(where, p.cluster)
		}
	}
	for _, c := range where {
		for {
			list, err := c.kube.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Pending", Limit: 1})
			if err != nil {
				return err
			}
			if len(list.Items) == 0 {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("pod %s of %s does not run: %w", list.Items[0].Name, c.name, context.Cause(ctx))
			case <-time.After(250 * time.Millisecond):
			}
		}
	}
	return nil
}

// used is the CPU time of everybody so far, by what they are.
func (w *podsWorld) used(provider *instance) (map[string]time.Duration, error) {
	used := map[string]time.Duration{}
	add := func(kind string, pid int) error {
		t, err := cpu(pid)
		used[kind] += t
		return err
	}
	var errs []error
	if provider != nil {
		errs = append(errs, add(laneProvider, provider.pid()))
	}
	for _, p := range w.processes.All() {
		kind := "pools"
		switch {
		case strings.HasPrefix(p.Name(), "control"):
			kind = "control"
		case strings.HasSuffix(p.Name(), localcluster.Kwok):
			kind = "KWOK"
		}
		errs = append(errs, add(kind, p.ID().PID))
	}
	return used, errors.Join(errs...)
}

// writes is what the provider's users have written so far, by what it was about.
func (w *podsWorld) writes(ctx context.Context) (map[string]float64, error) {
	total := map[string]float64{}
	for _, c := range w.clusters() {
		raw, err := c.kube.CoreV1().RESTClient().Get().AbsPath("/metrics").SetHeader("Accept", "text/plain").DoRaw(ctx)
		if err != nil {
			return nil, fmt.Errorf("read the metrics of %s: %w", c.name, err)
		}
		for key, value := range scrape(raw) {
			for _, about := range []string{writesOfPods, writesOfEvents, writesOfNodes} {
				if strings.HasPrefix(key, "apiserver_flowcontrol_dispatched_requests_total{") && strings.Contains(key, `flow_schema="`+about+`"`) {
					total[about] += value
				}
			}
		}
	}
	return total, nil
}

// relabel gives the plain client's pod its own tenant, which a pool's admission looks at.
func relabel(pod *corev1.Pod, tenant names.TenantID) {
	was := pod.Labels[names.LabelTenant]
	pod.Labels[names.LabelTenant] = string(tenant)
	for key, value := range pod.Annotations {
		pod.Annotations[key] = strings.ReplaceAll(value, "tenant="+was+",", "tenant="+string(tenant)+",")
	}
}
