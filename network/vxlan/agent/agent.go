//go:build linux

// Package agent keeps one node of a pool as the driver vxlan says: it reads the ConfigMaps that the driver writes into the
// pool, and makes the VPCs that have pods on the node what they say.
//
// Pods keep their network while it does not run, and while it cannot reach its pool: it must never remove anything because
// it knows nothing, and never unguard a node. It writes nothing in the pool. Start at [Agent.Run].
package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/ranges"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/vxlan/internal/plane"
	"vivarium.io/vivarium/network/vxlan/internal/state"
)

// resync is how often the agent looks whether somebody changed what it made.
const resync = 30 * time.Second

// Agent is the program of one node. Make one with [New].
type Agent struct {
	options *Options
	node    *plane.Node
	client  kubernetes.Interface
	objects corev1listers.ConfigMapNamespaceLister
	queue   workqueue.TypedRateLimitingInterface[types.UID]
	// guard is what the node's own rules were last made for, and read what each object of the pool adds to that: with many VPCs
	// nearly all are as they were when one of them changes. Only the worker uses both.
	guard string
	read  map[*corev1.ConfigMap]needs
	// served is what VPCs' pods were served by last; looks counts how often everything was to be looked at again. Only the
	// worker uses the former.
	served map[types.UID]serving
	looks  atomic.Int64
	names  *names
}

// New opens the node and reads the kubeconfig. Nothing is dialled before Run.
func New(options *Options) (*Agent, error) {
	config, err := clientcmd.BuildConfigFromFlags("", options.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	config.UserAgent = "vivarium-vpc-agent"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	tunnel, err := netip.ParseAddr(options.TunnelAddress)
	if err != nil {
		return nil, fmt.Errorf("--tunnel-address: %w", err)
	}
	protected, err := ranges.ParsePrefixes(options.Protected)
	if err != nil {
		return nil, fmt.Errorf("--protected: %w", err)
	}
	allowed, err := ranges.ParsePrefixes(options.Allowed)
	if err != nil {
		return nil, fmt.Errorf("--allowed: %w", err)
	}
	node, err := plane.New(plane.Config{Dir: options.Dir, Tunnel: tunnel, Plugins: options.Plugins, Protected: protected, Allowed: allowed})
	if err != nil {
		return nil, err
	}
	upstream, err := options.upstream()
	if err != nil {
		return nil, fmt.Errorf("--dns-upstream: %w", err)
	}
	return &Agent{
		options: options, node: node, client: client, names: newNames(node, upstream),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](100*time.Millisecond, 30*time.Second)),
	}, nil
}

// Run works until ctx is done. What is on the node stays.
func (a *Agent) Run(ctx context.Context, health *boot.Health) error {
	defer a.node.Close()
	// What was known last is guarded first: that needs nobody else.
	if err := a.guardStored(); err != nil {
		return err
	}
	if err := a.node.Publish(); err != nil {
		return err
	}
	defer a.names.close()
	following, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	group.Go(func() {
		if err := a.names.follow(following); err != nil {
			boot.Logger(ctx).Error("pods that come are not seen at once", "error", err)
		}
	})
	if err := a.install(); err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(a.client, 0, informers.WithNamespace(state.Namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = state.LabelVPC }))
	informer := factory.Core().V1().ConfigMaps()
	a.objects = informer.Lister().ConfigMaps(state.Namespace)
	changed := func(object any) {
		if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = tombstone.Obj
		}
		if c, ok := object.(*corev1.ConfigMap); ok {
			a.queue.Add(types.UID(c.Labels[state.LabelVPC]))
		}
	}
	registration, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: changed, UpdateFunc: func(_, after any) { changed(after) }, DeleteFunc: changed,
	})
	if err != nil {
		return fmt.Errorf("watch the pool: %w", err)
	}
	health.SetReady(func() error {
		if !registration.HasSynced() {
			return errors.New("the pool's VPCs are not known yet")
		}
		return nil
	})
	factory.StartWithContext(ctx)
	defer factory.Shutdown()
	// Without a list of what there is, nothing is known to be gone.
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return nil
	}
	go a.lookAround(ctx)
	context.AfterFunc(ctx, a.queue.ShutDown)
	for a.next(ctx) {
	}
	return nil
}

// lookAround has everything looked at again, now and then.
func (a *Agent) lookAround(ctx context.Context) {
	for {
		known, err := a.node.Known()
		if err != nil {
			boot.Logger(ctx).Error("what is on the node is not known", "error", err)
		}
		a.looks.Add(1)
		for _, vpc := range known {
			a.queue.Add(vpc)
		}
		a.queue.Add("")
		select {
		case <-ctx.Done():
			return
		case <-time.After(resync):
		}
	}
}

func (a *Agent) next(ctx context.Context) bool {
	vpc, shutdown := a.queue.Get()
	if shutdown {
		return false
	}
	defer a.queue.Done(vpc)
	if err := a.bring(vpc); err != nil {
		boot.Logger(ctx).Info("not as it should be, tried again", "vpc", string(vpc), "error", err)
		a.queue.AddRateLimited(vpc)
		return true
	}
	a.queue.Forget(vpc)
	return true
}

// bring makes one VPC what the pool says, or the node itself where vpc is empty.
func (a *Agent) bring(vpc types.UID) error {
	if vpc == "" {
		a.guard = ""
		return errors.Join(a.guardKnown(), a.node.Replug())
	}
	desired, err := a.desired(vpc)
	if err != nil {
		return err
	}
	if desired == nil {
		delete(a.served, vpc)
		return errors.Join(a.node.Remove(vpc), a.names.look(vpc))
	}
	if err := a.names.release(vpc); err != nil {
		return err
	}
	// Peers first: a packet from a node that is new is for an endpoint that is new.
	if err := a.guardKnown(); err != nil {
		return err
	}
	if _, err := a.node.Store(desired); err != nil {
		return err
	}
	return errors.Join(a.node.Ensure(vpc, false), a.serve(vpc), a.names.look(vpc))
}

// serving are the pool's objects that say which Services a VPC has, and after how many looks its pods were served by them.
type serving struct {
	parts []*corev1.ConfigMap
	looks int64
}

// serve makes a VPC's Services what the pool says. Those that cannot be read, or are refused, change nothing of what was, and
// hold up nothing else of the VPC. Pods come and go far more often than Services change, and who plugs one in serves it: what
// is as it was is gone through once a look.
func (a *Agent) serve(vpc types.UID) error {
	looks := a.looks.Load()
	parts, err := a.parts(vpc)
	if err != nil {
		return err
	}
	parts = slices.DeleteFunc(parts, func(part *corev1.ConfigMap) bool { return !state.IsServiceShard(vpc, part.Name) })
	slices.SortFunc(parts, func(a, b *corev1.ConfigMap) int { return strings.Compare(a.Name, b.Name) })
	if was, ok := a.served[vpc]; ok && was.looks == looks && slices.Equal(was.parts, parts) {
		return nil
	}
	services, err := servicesIn(parts)
	if err == nil {
		err = a.node.StoreServices(vpc, services)
	}
	if err = errors.Join(err, a.node.Serve(vpc)); err != nil {
		delete(a.served, vpc)
		return err
	}
	if a.served == nil {
		a.served = map[types.UID]serving{}
	}
	a.served[vpc] = serving{parts, looks}
	return nil
}

// servicesIn reads Services from the parts that say which there are.
func servicesIn(parts []*corev1.ConfigMap) ([]network.Service, error) {
	var services []network.Service
	for _, part := range parts {
		some, err := state.ReadServiceShard(part.Data)
		if err != nil {
			return nil, fmt.Errorf("ConfigMap %s: %w", part.Name, err)
		}
		services = append(services, some...)
	}
	return services, nil
}

// parts lists what the pool has of a VPC.
func (a *Agent) parts(vpc types.UID) ([]*corev1.ConfigMap, error) {
	parts, err := a.objects.List(labels.SelectorFromSet(labels.Set{state.LabelVPC: string(vpc)}))
	if err != nil {
		return nil, fmt.Errorf("list what there is of VPC %s: %w", vpc, err)
	}
	return parts, nil
}

// desired puts a VPC together, nil where the pool has none such.
func (a *Agent) desired(vpc types.UID) (*state.Desired, error) {
	object, err := a.objects.Get(state.VPCName(vpc))
	if err != nil {
		return nil, nil //nolint:nilerr // A lister finds it or it is not there.
	}
	v, err := state.ReadVPC(object.Data)
	if err != nil {
		return nil, err
	}
	if v.UID != vpc || object.Labels[state.LabelVPC] != string(vpc) {
		return nil, fmt.Errorf("ConfigMap %s says that it is VPC %s", object.Name, v.UID)
	}
	desired := &state.Desired{VPC: *v}
	parts, err := a.parts(vpc)
	if err != nil {
		return nil, err
	}
	for _, part := range parts {
		if !state.IsShard(vpc, part.Name) {
			continue
		}
		endpoints, err := state.ReadShard(part.Data)
		if err != nil {
			return nil, fmt.Errorf("ConfigMap %s: %w", part.Name, err)
		}
		desired.Endpoints = append(desired.Endpoints, endpoints...)
	}
	desired.Sort()
	return desired, nil
}

// needs are what a node's own rules depend on: the nodes that pods are on, and where tenants' APIs are.
type needs struct {
	peers []netip.Addr
	apis  []netip.AddrPort
}

func (n *needs) add(d *state.Desired) {
	if d.API.IsValid() {
		n.apis = append(n.apis, d.API)
	}
	for _, e := range d.Endpoints {
		n.peers = append(n.peers, e.Node)
	}
	n.peers, n.apis = plane.Distinct(n.peers, netip.Addr.Compare), plane.Distinct(n.apis, netip.AddrPort.Compare)
}

// needsOf reads what one object of the pool adds. One that cannot be read is not worth everybody's guard; it is complained
// of where it is built.
func needsOf(object *corev1.ConfigMap) needs {
	var n needs
	vpc := types.UID(object.Labels[state.LabelVPC])
	if state.IsServiceShard(vpc, object.Name) {
		return n
	}
	if state.IsShard(vpc, object.Name) {
		if endpoints, err := state.ReadShard(object.Data); err == nil {
			n.add(&state.Desired{Endpoints: endpoints})
		}
	} else if v, err := state.ReadVPC(object.Data); err == nil {
		n.add(&state.Desired{VPC: *v})
	}
	return n
}

// guardKnown guards the node for what the pool says of all VPCs.
func (a *Agent) guardKnown() error {
	objects, err := a.objects.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list VPCs: %w", err)
	}
	var all needs
	read := make(map[*corev1.ConfigMap]needs, len(objects))
	for _, object := range objects {
		n, known := a.read[object]
		if !known {
			n = needsOf(object)
		}
		read[object] = n
		all.peers, all.apis = append(all.peers, n.peers...), append(all.apis, n.apis...)
	}
	a.read = read
	return a.guardFor(all)
}

// guardStored guards the node for what was last known of all VPCs.
func (a *Agent) guardStored() error {
	known, err := a.node.Known()
	if err != nil {
		return err
	}
	var all needs
	for _, vpc := range known {
		if desired, err := a.node.Stored(vpc); err == nil {
			all.add(desired)
		}
	}
	return a.guardFor(all)
}

func (a *Agent) guardFor(all needs) error {
	peers, apis := plane.Distinct(all.peers, netip.Addr.Compare), plane.Distinct(all.apis, netip.AddrPort.Compare)
	// Asking the kernel each time would cost more than all the rest.
	guard := fmt.Sprint(peers, apis)
	if guard == a.guard {
		return nil
	}
	if err := a.node.Guard(peers, apis); err != nil {
		return err
	}
	a.guard = guard
	return nil
}

// install puts the runtime's configuration in place: a node whose agent has not guarded it takes no pods.
func (a *Agent) install() error {
	if a.options.ConfigFrom == "" {
		return nil
	}
	raw, err := os.ReadFile(a.options.ConfigFrom)
	if err != nil {
		return fmt.Errorf("read the network configuration: %w", err)
	}
	if now, err := os.ReadFile(a.options.ConfigTo); err == nil && string(now) == string(raw) {
		return nil
	}
	unfinished := filepath.Join(filepath.Dir(a.options.ConfigTo), ".unfinished")
	if err := errors.Join(os.WriteFile(unfinished, raw, 0o600), os.Rename(unfinished, a.options.ConfigTo)); err != nil {
		return fmt.Errorf("put the network configuration in place: %w", err)
	}
	return nil
}
