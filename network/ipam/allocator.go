package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/network"
)

// Quarantine is how long an index rests between two pods: longer than anybody still sends to the one that is gone.
const Quarantine = 60 * time.Second

const (
	// writeTimeout bounds one call of the store.
	writeTimeout = 10 * time.Second
	// writesAtOnce is how many blocks of a subnet are written side by side.
	writesAtOnce = 4
	// mostRounds is how often a refused write is tried again at once.
	mostRounds = 8
)

// Store is where blocks are kept. Its errors are those of an API server.
type Store interface {
	// List gives the blocks of a subnet, as they are now.
	List(ctx context.Context, subnet types.UID) ([]v1alpha1.IPBlock, error)
	// Get reads a block as it is now.
	Get(ctx context.Context, name string) (*v1alpha1.IPBlock, error)
	// Create makes a block without allocations.
	Create(ctx context.Context, block *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error)
	// Write replaces the allocations of a block, and is a conflict when the block is not of the given version any more.
	Write(ctx context.Context, block *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error)
	// Delete removes a block for good.
	Delete(ctx context.Context, block *v1alpha1.IPBlock) error
}

// Subnet is what the allocator has to know of one.
type Subnet struct {
	network.Subnet
	// Reserved is the Subnet object's.
	Reserved []string
}

// Config is what an [Allocator] is made of. Store is required.
type Config struct {
	Store Store
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Quarantine is how long an index rests. Default [Quarantine].
	Quarantine time.Duration
}

// Allocator gives indexes of subnets to pods, for one term of leadership. Safe for concurrent use; requests that come
// while a write is under way share the next one.
type Allocator struct {
	config Config

	mu      sync.Mutex // guards subnets
	subnets map[types.UID]*subnet
}

// subnet is an open one.
type subnet struct {
	config Config
	spec   v1alpha1.IPBlockSpec

	mu    sync.Mutex // guards the rest; not held while the store is called
	space *space
	// stale are blocks of which nobody knows whether the last write was done.
	stale map[uint32]bool
	// waiting are the requests that no round has taken yet; working is true while somebody does rounds.
	waiting []*operation
	working bool
}

// operation is one thing that is asked for. decide runs under the lock, and may run again; it gives the blocks that must
// be written before what it decided is so.
type operation struct {
	decide func(*space, time.Time) (blocks []uint32, err error)
	done   chan error // has room for the answer
}

// New makes an Allocator that knows no subnet.
func New(config Config) *Allocator {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Quarantine == 0 {
		config.Quarantine = Quarantine
	}
	return &Allocator{config: config, subnets: map[types.UID]*subnet{}}
}

// Open reads a subnet's blocks. It does nothing for one that is open: what is reserved is then as it was.
func (a *Allocator) Open(ctx context.Context, s *Subnet) error {
	a.mu.Lock()
	_, open := a.subnets[s.UID]
	a.mu.Unlock()
	if open {
		return nil
	}
	l, err := newLayout(&s.Subnet, s.Reserved)
	if err != nil {
		return fmt.Errorf("%w: %w", network.ErrInvalid, err)
	}
	opened := &subnet{
		config: a.config, spec: v1alpha1.IPBlockSpec{Subnet: s.Name, SubnetUID: s.UID, VPCUID: s.VPC},
		space: newSpace(l, a.config.Quarantine), stale: map[uint32]bool{},
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	blocks, err := a.config.Store.List(ctx, s.UID)
	if err != nil {
		return fmt.Errorf("read the addresses of subnet %s: %w", s.Name, err)
	}
	for i := range blocks {
		opened.space.install(&blocks[i])
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.subnets[s.UID] == nil {
		a.subnets[s.UID] = opened
	}
	return nil
}

// Forget closes a subnet.
func (a *Allocator) Forget(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.subnets, uid)
}

func (a *Allocator) open(uid types.UID) (*subnet, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.subnets[uid]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("%w: subnet %s is not open", network.ErrNotReady, uid)
}

// Allocate gives a pod an index of a subnet, the same one however often it is asked. When it fails, the pod may have one
// all the same, which the next call finds.
func (a *Allocator) Allocate(ctx context.Context, uid types.UID, r Request) (uint32, error) {
	s, err := a.open(uid)
	if err != nil {
		return 0, err
	}
	var index uint32
	err = s.do(ctx, func(space *space, now time.Time) ([]uint32, error) {
		var err error
		index, err = space.allocate(r, now)
		return []uint32{index &^ (blockSize - 1)}, err
	})
	if err != nil {
		return 0, err
	}
	return index, nil
}

// Release puts what a pod has of a subnet in quarantine. The caller knows that no sandbox of the pod is left anywhere.
func (a *Allocator) Release(ctx context.Context, uid, pod types.UID) error {
	s, err := a.open(uid)
	if err != nil {
		return err
	}
	return s.do(ctx, func(space *space, now time.Time) ([]uint32, error) { return space.release(pod, now), nil })
}

// Remembers reports whether a subnet keeps an index for a pod, or has given it one.
func (a *Allocator) Remembers(uid types.UID, r Request) bool {
	s, err := a.open(uid)
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.space.byPod[r.Pod.UID]) > 0 {
		return true
	}
	_, kept := s.space.kept[keeper{r.Owner, string(r.Pod.Namespace), r.Pod.Name}]
	return kept && r.Owner != ""
}

// Held gives what pods have of a subnet, as far as it is written.
func (a *Allocator) Held(uid types.UID) []v1alpha1.IPAllocation {
	s, err := a.open(uid)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []v1alpha1.IPAllocation
	for _, first := range s.space.order {
		if object := s.space.blocks[first].object; object != nil {
			for _, allocation := range object.Status.Allocations {
				if allocation.Released == nil {
					list = append(list, allocation)
				}
			}
		}
	}
	return list
}

// Place is what a pod has of a subnet.
type Place struct {
	Subnet, VPC types.UID
	SubnetName  string
	Index       uint32
	Pool        string
}

// Find gives what a pod has, in all open subnets.
func (a *Allocator) Find(pod types.UID) []Place {
	a.mu.Lock()
	all := slices.Collect(maps.Values(a.subnets))
	a.mu.Unlock()
	var list []Place
	for _, s := range all {
		s.mu.Lock()
		for _, index := range s.space.byPod[pod] {
			list = append(list, Place{s.spec.SubnetUID, s.spec.VPCUID, s.spec.Subnet, index, s.space.entry(index).Pool})
		}
		s.mu.Unlock()
	}
	return list
}

// IsOpen reports whether a subnet is.
func (a *Allocator) IsOpen(uid types.UID) bool {
	_, err := a.open(uid)
	return err == nil
}

// Usage says how many pods a subnet has room for, how many have an index, and how many indexes rest.
func (a *Allocator) Usage(uid types.UID) (total, used, resting int64) {
	s, err := a.open(uid)
	if err != nil {
		return 0, 0, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	used, resting = s.space.used(s.config.Now())
	return s.space.layout.total(), used, resting
}

// Destroy removes every block of a subnet that nobody has an index of. It is [network.ErrInUse] otherwise.
func (a *Allocator) Destroy(ctx context.Context, uid types.UID) error {
	if _, used, _ := a.Usage(uid); used > 0 {
		return fmt.Errorf("%w: %d pods have addresses of it", network.ErrInUse, used)
	}
	blocks, err := a.config.Store.List(ctx, uid)
	if err != nil {
		return fmt.Errorf("read the addresses of subnet %s: %w", uid, err)
	}
	for i := range blocks {
		for _, allocation := range blocks[i].Status.Allocations {
			if allocation.Released == nil {
				return fmt.Errorf("%w: pod %s/%s has an address of it", network.ErrInUse, allocation.Namespace, allocation.Name)
			}
		}
	}
	a.Forget(uid)
	for i := range blocks {
		if err := a.config.Store.Delete(ctx, &blocks[i]); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("remove %s: %w", blocks[i].Name, err)
		}
	}
	return nil
}

// do has something decided and written, together with what others ask for meanwhile.
func (s *subnet) do(ctx context.Context, decide func(*space, time.Time) ([]uint32, error)) error {
	op := &operation{decide: decide, done: make(chan error, 1)}
	s.mu.Lock()
	s.waiting = append(s.waiting, op)
	lead := !s.working
	s.working = true
	s.mu.Unlock()
	if lead {
		// Whoever comes first works for all who come while it does; its own end must not end theirs.
		go s.work(context.WithoutCancel(ctx))
	}
	select {
	case err := <-op.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// work does rounds until nobody waits.
func (s *subnet) work(ctx context.Context) {
	for {
		s.mu.Lock()
		batch := s.waiting
		s.waiting = nil
		s.working = len(batch) > 0
		s.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for n := 1; len(batch) > 0; n++ {
			batch = s.round(ctx, batch, n >= mostRounds)
		}
	}
}

// round decides about a batch, writes the blocks that this takes and answers. What a refused write was part of is given
// back, to be decided anew; unless it is the last round, which answers with the refusal.
func (s *subnet) round(ctx context.Context, batch []*operation, last bool) (again []*operation) {
	if err := s.refresh(ctx); err != nil {
		for _, op := range batch {
			op.done <- err
		}
		return nil
	}
	s.mu.Lock()
	now := s.config.Now()
	s.space.expire(now)
	needs := map[*operation]int{}
	writes := map[uint32][]*operation{}
	for _, op := range batch {
		blocks, err := op.decide(s.space, now)
		if err != nil {
			op.done <- err
			continue
		}
		for _, first := range blocks {
			if s.space.blocks[first].dirty {
				writes[first] = append(writes[first], op)
				needs[op]++
			}
		}
		if needs[op] == 0 {
			op.done <- nil
		}
	}
	objects := map[uint32]*v1alpha1.IPBlock{}
	for first := range writes {
		objects[first] = s.space.desired(first, s.spec)
	}
	s.mu.Unlock()

	failed := s.write(ctx, objects)
	failures := map[*operation]error{}
	for first, ops := range writes {
		for _, op := range ops {
			if err := failed[first]; err != nil {
				failures[op] = err
			}
		}
	}
	for op := range needs {
		switch err := failures[op]; {
		case err == nil:
			op.done <- nil
		case last || !isRefused(err):
			op.done <- err
		default:
			again = append(again, op)
		}
	}
	return again
}

// errRefused says that a block is not what we took it for, and that we know better now.
var errRefused = errors.New("the record changed meanwhile")

func isRefused(err error) bool { return errors.Is(err, errRefused) }

// write puts blocks in the store and takes what the store has afterwards for the truth. It gives the errors of those that
// are not as wanted.
func (s *subnet) write(ctx context.Context, objects map[uint32]*v1alpha1.IPBlock) map[uint32]error {
	var (
		mu     sync.Mutex // guards failed
		failed = map[uint32]error{}
		group  sync.WaitGroup
		slots  = make(chan struct{}, writesAtOnce)
	)
	for first, object := range objects {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			call, cancel := context.WithTimeout(ctx, writeTimeout)
			defer cancel()
			if err := s.writeOne(call, first, object); err != nil {
				mu.Lock()
				failed[first] = err
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return failed
}

func (s *subnet) writeOne(ctx context.Context, first uint32, object *v1alpha1.IPBlock) error {
	written, err := s.send(ctx, object)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.space.install(written)
		return nil
	}
	// Refused, or nobody knows whether it was done: what the store has now decides.
	if readErr := s.reload(ctx, first); readErr != nil {
		return fmt.Errorf("write %s: %w", object.Name, err)
	}
	return fmt.Errorf("write %s: %w: %w", object.Name, errRefused, err)
}

// reload reads a block as it is now. Until it can, nothing is decided in the subnet.
func (s *subnet) reload(ctx context.Context, first uint32) error {
	current, err := s.config.Store.Get(ctx, v1alpha1.IPBlockName(s.spec.SubnetUID, first))
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.stale, first)
	switch {
	case err == nil:
		s.space.install(current)
	case apierrors.IsNotFound(err):
		s.space.lost(first)
	default:
		s.space.revert(first)
		s.stale[first] = true
		return fmt.Errorf("read the addresses of subnet %s: %w", s.spec.Subnet, err)
	}
	return nil
}

// refresh reads the blocks that are stale.
func (s *subnet) refresh(ctx context.Context) error {
	s.mu.Lock()
	stale := slices.Sorted(maps.Keys(s.stale))
	s.mu.Unlock()
	for _, first := range stale {
		call, cancel := context.WithTimeout(ctx, writeTimeout)
		err := s.reload(call, first)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *subnet) send(ctx context.Context, object *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	if object.ResourceVersion == "" {
		made, err := s.config.Store.Create(ctx, object)
		if err != nil {
			return nil, err
		}
		made.Status = object.Status
		object = made
	}
	return s.config.Store.Write(ctx, object)
}
