package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/localcluster"
	"vivarium.io/vivarium/internal/localcluster/process"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network/flat"
	"vivarium.io/vivarium/network/vxlan"
)

// vpcNamespace is a namespace of the tenant with a VPC.
const vpcNamespace = "vpcs00-default"

// placeNodes are the simulated nodes of each pool.
const placeNodes = 4

// aimPlace is what a network of its own may add to the time from a pod's binding.
const aimPlace = 50

// The places of the lanes are those of their pools.
var placeLanes = []struct{ driver, namespace string }{{flat.Name, lateNamespace}, {vxlan.Name, vpcNamespace}}

// measurePlaces measures the time from a binding to a place in a VPC, and to the pod in its pool.
func measurePlaces(ctx context.Context, c config, dir, source string, r *VPCReport) error {
	controller := filepath.Join(c.programs, "network")
	if _, err := os.Stat(controller); err != nil {
		return fmt.Errorf("-programs: %w; run `make build` first", err)
	}
	pods := c.scale.VPCPods + c.scale.VPCBurst
	w, err := newPodsWorld(ctx, c, dir, source, []string{placeLanes[0].driver, placeLanes[1].driver}, placeNodes, pods+50)
	if w != nil {
		defer w.stop()
	}
	if err != nil {
		return err
	}
	provider, err := w.alone(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = provider.Stop(0) }()
	if err := w.startNetwork(ctx, controller); err != nil {
		return err
	}
	if err := w.makeVPC(ctx); err != nil {
		return err
	}
	p, err := w.watchPlaces(ctx)
	if err != nil {
		return err
	}
	var idle placeTimes
	bursts := make([]placeTimes, burstRounds)
	if err := p.bind(ctx, "idle", []int{0, 1}, c.scale.VPCPods, 1, &idle); err != nil {
		return fmt.Errorf("one by one: %w", err)
	}
	for round := range burstRounds {
		for k := range placeLanes {
			lane := (round + k) % len(placeLanes)
			if err := p.bind(ctx, fmt.Sprintf("burst-%d", round), []int{lane}, c.scale.VPCBurst/burstRounds, bindersAtOnce, &bursts[round]); err != nil {
				return fmt.Errorf("in a burst: %w", err)
			}
		}
	}
	r.judgePlaces("idle", "pods that come one by one", idle)
	r.judgePlaces("burst", fmt.Sprintf("%d bursts of %d pods", burstRounds, c.scale.VPCBurst/burstRounds), bursts...)
	return nil
}

// bindersAtOnce is how many bind at once in a burst, of which there are burstRounds.
const bindersAtOnce, burstRounds = 32, 8

// startNetwork starts the network controller with the rights that it has in an installation.
func (w *podsWorld) startNetwork(_ context.Context, program string) error {
	raw, err := w.control.plane.Kubeconfig("network", "vivarium-network")
	if err != nil {
		return err
	}
	file := filepath.Join(w.dir, "network.kubeconfig")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return err
	}
	ports, err := localcluster.FreePorts()
	if err != nil {
		return err
	}
	_, _, err = w.processes.Ensure(process.Spec{Name: "network", Path: program, Log: filepath.Join(w.dir, "logs", "network.log"), Args: []string{
		"--control-kubeconfig=" + file, "--admin-kubeconfig=" + filepath.Join(w.dir, "provider-admin.kubeconfig"), "--leader-elect=false",
		"--health-listen=" + address(ports.EtcdClient),
	}})
	return err
}

// makeVPC makes the tenant with a VPC, and waits until its subnet is ready.
func (w *podsWorld) makeVPC(ctx context.Context) error {
	id, _, _ := names.SplitNamespace(vpcNamespace)
	tenant := &v1alpha1.Tenant{ObjectMeta: metav1.ObjectMeta{Name: string(id)}, Spec: v1alpha1.TenantSpec{
		Network: v1alpha1.TenantNetwork{Mode: v1alpha1.NetworkVPC, VPC: string(id) + "-main"},
	}}
	finalizers := []string{v1alpha1.FinalizerNetwork}
	vpc := &v1alpha1.VPC{ObjectMeta: metav1.ObjectMeta{Name: string(id) + "-main", Finalizers: finalizers}, Spec: v1alpha1.VPCSpec{Tenant: string(id), CIDRs: []string{"10.0.0.0/16"}}}
	subnet := &v1alpha1.Subnet{ObjectMeta: metav1.ObjectMeta{Name: string(id) + "-web", Finalizers: finalizers}, Spec: v1alpha1.SubnetSpec{
		VPC: vpc.Name, CIDRs: []string{"10.0.0.0/18"}, Pools: []string{w.pools[1].name},
	}}
	if err := errors.Join(w.admin.Create(ctx, vpc), w.admin.Create(ctx, subnet), w.admin.Create(ctx, tenant)); err != nil {
		return err
	}
	if err := w.tenant(ctx, vpcNamespace); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	return w.processes.Get("network").Until(ctx, func(ctx context.Context) error {
		var now v1alpha1.Subnet
		if err := w.admin.Get(ctx, types.NamespacedName{Name: subnet.Name}, &now); err != nil {
			return err
		}
		for _, c := range now.Status.Conditions {
			if c.Type == v1alpha1.SubnetReady && c.Status == metav1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("subnet %s is not ready: %+v", subnet.Name, now.Status)
	})
}

// places sees places and pool pods come.
type places struct {
	world *podsWorld

	mu   sync.Mutex // guards the rest
	seen map[types.UID]*placed
	err  error
	// news has room for one word that something came.
	news chan struct{}
}

// placed is when things about one pod were first there.
type placed struct {
	vpc bool
	// asked is when its binding was asked for, bound when it was.
	asked, bound, place, poolPod time.Time
}

func (w *podsWorld) watchPlaces(ctx context.Context) (*places, error) {
	p := &places{world: w, seen: map[types.UID]*placed{}, news: make(chan struct{}, 1)}
	decoder := scheme.Codecs.UniversalDeserializer()
	see := func(c *cluster, prefix string, each func(value []byte, now time.Time) error) error {
		stream := c.store.etcd.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithPrefix(), clientv3.WithFilterDelete(), clientv3.WithCreatedNotify())
		if begun := <-stream; begun.Err() != nil || !begun.Created {
			return errors.Join(fmt.Errorf("watch %s of %s: it does not begin", prefix, c.name), begun.Err(), context.Cause(ctx))
		}
		go func() {
			for response := range stream {
				now := time.Now()
				err := response.Err()
				p.mu.Lock()
				for _, event := range response.Events {
					err = errors.Join(err, each(event.Kv.Value, now))
				}
				p.err = errors.Join(p.err, err)
				p.mu.Unlock()
				select {
				case p.news <- struct{}{}:
				default:
				}
			}
		}()
		return nil
	}
	// The watchers run under the lock.
	blocks := func(value []byte, now time.Time) error {
		var block v1alpha1.IPBlock
		if err := json.Unmarshal(value, &block); err != nil {
			return err
		}
		for _, a := range block.Status.Allocations {
			if s := p.of(a.PodUID); s.place.IsZero() {
				s.place = now
			}
		}
		return nil
	}
	errs := []error{see(w.control, "/registry/"+v1alpha1.GroupVersion.Group+"/ipblocks/", blocks)}
	for i, lane := range placeLanes {
		prefix := "/registry/pods/" + lane.namespace + "/"
		errs = append(errs, see(w.control, prefix, func(value []byte, now time.Time) error {
			pod := &corev1.Pod{}
			if _, _, err := decoder.Decode(value, nil, pod); err != nil {
				return err
			}
			if s := p.of(pod.UID); pod.Spec.NodeName != "" && s.bound.IsZero() {
				s.bound = now
			}
			return nil
		}), see(w.pools[i].cluster, prefix, func(value []byte, now time.Time) error {
			pod := &corev1.Pod{}
			if _, _, err := decoder.Decode(value, nil, pod); err != nil {
				return err
			}
			if s := p.of(types.UID(pod.Labels[names.LabelControlUID])); s.poolPod.IsZero() {
				s.poolPod = now
			}
			return nil
		}))
	}
	return p, errors.Join(errs...)
}

// of gives what was seen of a pod; called under mu.
func (p *places) of(uid types.UID) *placed {
	if p.seen[uid] == nil {
		p.seen[uid] = &placed{}
	}
	return p.seen[uid]
}

// placeTimes are those of pods, in the order of the lanes; toPlace are the VPC's.
type placeTimes struct {
	toPlace []time.Duration
	toPool  [2][]time.Duration
}

// bind binds pods of lanes in turns, so many at once, and waits until all are in their pools. One at a time, each waits for
// the one before.
func (p *places) bind(ctx context.Context, name string, lanes []int, count, atOnce int, into *placeTimes) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit+time.Duration(count)*time.Second, errors.New("the pods take too long"))
	defer cancel()
	kube := p.world.control.kube.CoreV1()
	var uids [2][]types.UID
	for _, lane := range lanes {
		for n := range count {
			pod, err := kube.Pods(placeLanes[lane].namespace).Create(ctx, benchPod(fmt.Sprintf("%s-%d", name, n)), metav1.CreateOptions{})
			if err != nil {
				return err
			}
			uids[lane] = append(uids[lane], pod.UID)
		}
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for n := range count {
		for k := range lanes {
			lane := lanes[(n+k)%len(lanes)]
			group.Go(func() error {
				nodes := p.world.nodes[lane]
				pod := fmt.Sprintf("%s-%d", name, n)
				binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pod}, Target: corev1.ObjectReference{Kind: "Node", Name: nodes[n%len(nodes)]}}
				p.mu.Lock()
				s := p.of(uids[lane][n])
				s.asked, s.vpc = time.Now(), lane == 1
				p.mu.Unlock()
				if err := kube.Pods(placeLanes[lane].namespace).Bind(groupCtx, binding, metav1.CreateOptions{}); err != nil {
					return err
				}
				if atOnce > 1 {
					return nil
				}
				return p.await(groupCtx, uids[lane][n:n+1])
			})
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, lane := range lanes {
		if err := p.await(ctx, uids[lane]); err != nil {
			return err
		}
	}
	// What is brought back of these pods must not fall on those that come next.
	if err := p.world.settle(ctx, true); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, lane := range lanes {
		for _, uid := range uids[lane] {
			s := p.seen[uid]
			into.toPool[lane] = append(into.toPool[lane], s.poolPod.Sub(s.asked))
			if s.vpc {
				into.toPlace = append(into.toPlace, s.place.Sub(s.bound))
			}
		}
	}
	return nil
}

// await waits until pods are in their pools.
func (p *places) await(ctx context.Context, uids []types.UID) error {
	for {
		p.mu.Lock()
		missing := 0
		for _, uid := range uids {
			if s := p.of(uid); s.bound.IsZero() || s.poolPod.IsZero() || s.vpc && s.place.IsZero() {
				missing++
			}
		}
		err := p.err
		p.mu.Unlock()
		if err != nil || missing == 0 {
			return err
		}
		select {
		case <-p.news:
		case <-time.After(time.Second):
		case <-ctx.Done():
			return fmt.Errorf("%d pods are not in their pool: %w", missing, context.Cause(ctx))
		}
	}
}

// judgePlaces says what rounds told, in each of which both lanes took their turns. What a VPC adds is taken within a round:
// whatever else the machine did in one of them falls on no other.
func (r *VPCReport) judgePlaces(name, what string, rounds ...placeTimes) {
	ms := func(durations []time.Duration, q float64) float64 { return micros(quantile(durations, q)) / 1000 }
	var t placeTimes
	var differences []float64
	for _, round := range rounds {
		t.toPlace = append(t.toPlace, round.toPlace...)
		for lane := range t.toPool {
			t.toPool[lane] = append(t.toPool[lane], round.toPool[lane]...)
		}
		differences = append(differences, ms(round.toPool[1], .5)-ms(round.toPool[0], .5))
	}
	added := spreadOf(differences)
	place := ms(t.toPlace, .5)
	plain, own := ms(t.toPool[0], .5), ms(t.toPool[1], .5)
	aim := fmt.Sprintf("< %d", aimPlace)
	r.Figures = append(r.Figures,
		Figure{Name: name + "-place-p50", What: what + ": from the binding to the place in the VPC, p50", Value: place, Unit: "ms", Aim: aim, Met: met(place < aimPlace)},
		Figure{Name: name + "-place-p99", What: what + ": the same, p99", Value: ms(t.toPlace, .99), Unit: "ms"},
		Figure{Name: name + "-plain-p50", What: what + ": from the binding's request to the pool pod, flat, p50", Value: plain, Unit: "ms"},
		Figure{Name: name + "-own-p50", What: what + ": from the binding's request to the pool pod, in a VPC, p50", Value: own, Unit: "ms"},
		Figure{
			Name: name + "-added-p50", What: fmt.Sprintf("%s: what the VPC adds to that, p50 to p50, median of rounds, middle half %.0f-%.0f", what, added.Low, added.High),
			Value: added.Median, Unit: "ms", Aim: aim, Met: met(added.Median < aimPlace),
		},
	)
}
