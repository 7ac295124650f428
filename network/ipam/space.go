package ipam

import (
	"container/heap"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
)

// blockSize is how many indexes one object holds: many pods of a burst share one write, and one write stays small.
const blockSize = 256

// Reasons why a pod gets no index.
var (
	// ErrExhausted says that no index is free.
	ErrExhausted = errors.New("the subnet has no free address")
	// ErrNotInSubnet says that the wanted index is not one that pods can have.
	ErrNotInSubnet = errors.New("the address is not one that pods of the subnet can have")
	// ErrTaken says that another pod has the wanted index, or had it a moment ago.
	ErrTaken = errors.New("the address is taken")
	// ErrPredecessor says that the index that is kept for the pod is still its predecessor's.
	ErrPredecessor = errors.New("the address is still the predecessor's")
)

// Request asks for an index.
type Request struct {
	Pod network.PodKey
	// Owner is the UID of the pod's StatefulSet: its pods of one name get one index, one after the other. Empty for other
	// pods.
	Owner types.UID
	// Pool is where the pod is.
	Pool string
	// Index is the wanted one; nil for any.
	Index *uint32
}

// space is one subnet's indexes, as far as they are known. It decides, and never writes: whoever changes it writes the
// blocks that are dirty, and tells it what came of that. Not safe for concurrent use.
type space struct {
	layout     *layout
	quarantine time.Duration

	blocks map[uint32]*block
	// order has the blocks' first indexes, and fresh is where the next block may begin.
	order []uint32
	fresh uint64
	// byPod has the indexes of pods that are not released. More than one only where two allocators worked at once.
	byPod map[types.UID][]uint32
	// kept has the indexes of StatefulSets' pods, released or not.
	kept map[keeper]uint32
	// cooling are the released indexes, the longest ago first. Some may have been given again since.
	cooling cooling
}

// keeper is whom an index is kept for.
type keeper struct {
	owner           types.UID
	namespace, name string
}

// block is a part of a space.
type block struct {
	// object is what the store has, as far as we know; nil when it has none.
	object *v1alpha1.IPBlock
	// free has a bit for each index that nobody has and pods can have; vacant counts them.
	free    [blockSize / 64]uint64
	vacant  int
	entries map[uint32]*v1alpha1.IPAllocation
	dirty   bool
}

func newSpace(l *layout, quarantine time.Duration) *space {
	return &space{layout: l, quarantine: quarantine, blocks: map[uint32]*block{}, byPod: map[types.UID][]uint32{}, kept: map[keeper]uint32{}}
}

// install takes what the store has of a block for the truth. What was decided and not written is forgotten.
func (s *space) install(object *v1alpha1.IPBlock) {
	first := object.Spec.First
	s.remove(first)
	b := s.add(first)
	b.object = object
	for i := range object.Status.Allocations {
		s.put(b, object.Status.Allocations[i])
	}
	b.dirty = false
}

// revert goes back to what the store had when it was last heard of.
func (s *space) revert(first uint32) {
	b := s.blocks[first]
	switch {
	case b == nil:
	case b.object == nil:
		s.remove(first)
	default:
		s.install(b.object)
	}
}

// lost says that the store has no such block. What was in it is remembered, and written anew: a block that somebody
// deleted must not make its pods' addresses free.
func (s *space) lost(first uint32) {
	if b := s.blocks[first]; b != nil && b.object != nil {
		s.revert(first)
		b = s.blocks[first]
		b.object, b.dirty = nil, len(b.entries) > 0
	} else {
		s.remove(first)
	}
}

func (s *space) add(first uint32) *block {
	b := &block{entries: map[uint32]*v1alpha1.IPAllocation{}}
	for i := s.layout.next(first); i < s.layout.size && i-first < blockSize; i = s.layout.next(i + 1) {
		b.mark(i-first, true)
	}
	s.blocks[first] = b
	at, _ := slices.BinarySearch(s.order, first)
	s.order = slices.Insert(s.order, at, first)
	return b
}

func (s *space) remove(first uint32) {
	b := s.blocks[first]
	if b == nil {
		return
	}
	for _, entry := range b.entries {
		s.unlink(entry)
	}
	delete(s.blocks, first)
	if at, found := slices.BinarySearch(s.order, first); found {
		s.order = slices.Delete(s.order, at, at+1)
	}
	s.fresh = min(s.fresh, uint64(first))
}

// mark says that an offset in the block is free or not.
func (b *block) mark(offset uint32, free bool) {
	word, bit := &b.free[offset/64], uint64(1)<<(offset%64)
	switch {
	case free && *word&bit == 0:
		*word |= bit
		b.vacant++
	case !free && *word&bit != 0:
		*word &^= bit
		b.vacant--
	}
}

func (b *block) firstFree() uint32 {
	for i, word := range b.free {
		if word != 0 {
			return uint32(i*64 + bits.TrailingZeros64(word))
		}
	}
	return blockSize
}

// put makes an entry the one of its index.
func (s *space) put(b *block, a v1alpha1.IPAllocation) {
	first := a.Index &^ (blockSize - 1)
	if old := b.entries[a.Index]; old != nil {
		s.unlink(old)
	}
	entry := &a
	b.entries[a.Index] = entry
	b.mark(a.Index-first, false)
	b.dirty = true
	if a.Owner != "" {
		s.kept[keeper{a.Owner, a.Namespace, a.Name}] = a.Index
	}
	if a.Released == nil {
		s.byPod[a.PodUID] = append(s.byPod[a.PodUID], a.Index)
		return
	}
	heap.Push(&s.cooling, cool{a.Released.Time, a.Index})
}

// unlink takes an entry out of the indexes by pod and keeper.
func (s *space) unlink(entry *v1alpha1.IPAllocation) {
	if k := (keeper{entry.Owner, entry.Namespace, entry.Name}); entry.Owner != "" && s.kept[k] == entry.Index {
		delete(s.kept, k)
	}
	if entry.Released == nil {
		rest := slices.DeleteFunc(s.byPod[entry.PodUID], func(i uint32) bool { return i == entry.Index })
		if len(rest) == 0 {
			delete(s.byPod, entry.PodUID)
		} else {
			s.byPod[entry.PodUID] = rest
		}
	}
}

func (s *space) entry(index uint32) *v1alpha1.IPAllocation {
	if b := s.blocks[index&^(blockSize-1)]; b != nil {
		return b.entries[index]
	}
	return nil
}

// expire frees what has been in quarantine for long enough. That needs no write: whoever reads the object sees the time.
// Indexes that are kept for somebody stay until they are needed.
func (s *space) expire(now time.Time) {
	for len(s.cooling) > 0 && !s.cooling[0].at.Add(s.quarantine).After(now) {
		c, _ := heap.Pop(&s.cooling).(cool)
		entry := s.entry(c.index)
		if entry == nil || entry.Released == nil || !entry.Released.Time.Equal(c.at) || entry.Owner != "" {
			continue
		}
		s.drop(c.index)
	}
}

func (s *space) drop(index uint32) {
	first := index &^ (blockSize - 1)
	b := s.blocks[first]
	s.unlink(b.entries[index])
	delete(b.entries, index)
	b.mark(index-first, s.layout.available(index))
}

// allocate decides about a pod's index. The entry is in the block that begins at first, and is the pod's only when that
// block has been written.
func (s *space) allocate(r Request, now time.Time) (index uint32, err error) {
	if has := s.byPod[r.Pod.UID]; len(has) > 0 {
		return slices.Min(has), nil
	}
	index, err = s.choose(r, now)
	if err != nil {
		return 0, err
	}
	first := index &^ (blockSize - 1)
	b := s.blocks[first]
	if b == nil {
		b = s.add(first)
	}
	s.put(b, v1alpha1.IPAllocation{
		Index: index, PodUID: r.Pod.UID, Namespace: string(r.Pod.Namespace), Name: r.Pod.Name, Owner: r.Owner, Pool: r.Pool,
	})
	return index, nil
}

func (s *space) choose(r Request, now time.Time) (uint32, error) {
	if r.Index != nil {
		return *r.Index, s.claim(r, now)
	}
	if index, ok := s.kept[keeper{r.Owner, string(r.Pod.Namespace), r.Pod.Name}]; ok && r.Owner != "" {
		if entry := s.entry(index); entry.Released == nil {
			return 0, fmt.Errorf("%w: pod with UID %s", ErrPredecessor, entry.PodUID)
		}
		return index, nil
	}
	for _, first := range s.order {
		if b := s.blocks[first]; b.vacant > 0 {
			return first + b.firstFree(), nil
		}
	}
	for s.fresh < uint64(s.layout.size) {
		index := s.layout.next(uint32(s.fresh))
		first := index &^ (blockSize - 1)
		if index < s.layout.size && s.blocks[first] == nil {
			return index, nil
		}
		s.fresh = uint64(first) + blockSize
	}
	return s.longestKept(now)
}

// claim says whether a pod can have the index that it wants.
func (s *space) claim(r Request, now time.Time) error {
	index := *r.Index
	if !s.layout.available(index) {
		return ErrNotInSubnet
	}
	entry := s.entry(index)
	switch {
	case entry == nil:
		return nil
	case entry.Released == nil:
		return fmt.Errorf("%w by pod %s/%s", ErrTaken, entry.Namespace, entry.Name)
	case entry.Namespace == string(r.Pod.Namespace) && entry.Name == r.Pod.Name:
		return nil // its successor
	case !entry.Released.Time.Add(s.quarantine).After(now):
		return nil // kept for somebody who does not need it now
	default:
		return fmt.Errorf("%w: pod %s/%s had it a moment ago", ErrTaken, entry.Namespace, entry.Name)
	}
}

// longestKept gives the index that has waited longest for its StatefulSet's next pod.
func (s *space) longestKept(now time.Time) (uint32, error) {
	var best *v1alpha1.IPAllocation
	for _, index := range s.kept {
		entry := s.entry(index)
		if entry.Released == nil || entry.Released.Time.Add(s.quarantine).After(now) {
			continue
		}
		if best == nil || entry.Released.Time.Before(best.Released.Time) || entry.Released.Time.Equal(best.Released.Time) && entry.Index < best.Index {
			best = entry
		}
	}
	if best == nil {
		return 0, ErrExhausted
	}
	return best.Index, nil
}

// release puts a pod's indexes in quarantine. It gives the first indexes of the blocks that have to be written.
func (s *space) release(pod types.UID, now time.Time) []uint32 {
	blocks := map[uint32]bool{}
	for _, index := range slices.Clone(s.byPod[pod]) {
		first := index &^ (blockSize - 1)
		b := s.blocks[first]
		a := *b.entries[index]
		at := metav1.NewTime(now.UTC().Truncate(time.Second).Add(time.Second)) // as the object has it, and never too early
		a.Released = &at
		s.put(b, a)
		blocks[first] = true
	}
	return slices.Sorted(maps.Keys(blocks))
}

// desired gives a block as it should be, a copy. Its version is that of what is known.
func (s *space) desired(first uint32, spec v1alpha1.IPBlockSpec) *v1alpha1.IPBlock {
	b := s.blocks[first]
	object := &v1alpha1.IPBlock{
		ObjectMeta: metav1.ObjectMeta{
			Name: v1alpha1.IPBlockName(spec.SubnetUID, first), Finalizers: []string{v1alpha1.FinalizerNetwork},
			Labels: map[string]string{names.LabelSubnetUID: string(spec.SubnetUID)},
		},
		Spec: spec,
	}
	if b.object != nil {
		object.ObjectMeta = *b.object.ObjectMeta.DeepCopy()
	}
	object.Spec.First, object.Spec.Size = first, min(blockSize, s.layout.size-first)
	object.Status.Allocations = make([]v1alpha1.IPAllocation, 0, len(b.entries))
	for _, index := range slices.Sorted(maps.Keys(b.entries)) {
		object.Status.Allocations = append(object.Status.Allocations, *b.entries[index])
	}
	return object
}

// used is how many indexes are pods', and how many are in quarantine.
func (s *space) used(now time.Time) (pods, cooling int64) {
	for _, b := range s.blocks {
		for _, entry := range b.entries {
			switch {
			case entry.Released == nil:
				pods++
			case entry.Released.Time.Add(s.quarantine).After(now):
				cooling++
			}
		}
	}
	return pods, cooling
}

// cool is a released index; cooling is a heap of them.
type cool struct {
	at    time.Time
	index uint32
}

type cooling []cool

func (c cooling) Len() int           { return len(c) }
func (c cooling) Less(i, j int) bool { return c[i].at.Before(c[j].at) }
func (c cooling) Swap(i, j int)      { c[i], c[j] = c[j], c[i] }
func (c *cooling) Push(x any)        { *c = append(*c, x.(cool)) }
func (c *cooling) Pop() any {
	old := *c
	last := old[len(old)-1]
	*c = old[:len(old)-1]
	return last
}
