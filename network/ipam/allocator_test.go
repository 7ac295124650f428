package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/network"
)

// clock is a clock that is set.
type clock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func testSubnet(cidrs ...string) *Subnet {
	s := &Subnet{Subnet: network.Subnet{Name: "abc123-web", UID: "s1", VPC: "v1", CIDRs: prefixes(cidrs...)}}
	for _, prefix := range s.CIDRs {
		s.Gateway = append(s.Gateway, prefix.Addr().Next())
	}
	return s
}

func pod(name string) Request {
	return Request{Pod: network.PodKey{Namespace: "abc123-web", Name: name, UID: types.UID("uid-" + name)}, Pool: "pool-a"}
}

// life is a pod of a StatefulSet, one of several of its name.
func life(name string, n int, owner types.UID) Request {
	r := pod(name)
	r.Pod.UID, r.Owner = types.UID(fmt.Sprintf("uid-%s-%d", name, n)), owner
	return r
}

func opened(t testing.TB, store Store, now func() time.Time, s *Subnet) *Allocator {
	t.Helper()
	a := New(Config{Store: store, Now: now})
	if err := a.Open(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *Allocator) mustAllocate(t testing.TB, r Request) uint32 {
	t.Helper()
	index, err := a.Allocate(context.Background(), "s1", r)
	if err != nil {
		t.Fatalf("allocate for %s: %v", r.Pod.Name, err)
	}
	return index
}

func (a *Allocator) mustRelease(t testing.TB, r Request) {
	t.Helper()
	if err := a.Release(context.Background(), "s1", r.Pod.UID); err != nil {
		t.Fatal(err)
	}
}

// TestFill gives out a whole subnet: every address once, the reserved ones never, and says when it is full.
func TestFill(t *testing.T) {
	for _, cidrs := range [][]string{{"10.0.0.0/28"}, {"10.0.0.0/23"}, {"10.0.4.0/24", "fd00:1::/64"}, {"fd00:1::/118"}} {
		s := testSubnet(cidrs...)
		s.Reserved = []string{s.At(5)[0].String()}
		c := newClock()
		a := opened(t, newMemory(), c.Now, s)
		total, _, _ := a.Usage("s1")
		seen := map[netip.Addr]bool{}
		indexes := make([]uint32, total)
		var all sync.WaitGroup
		for i := range indexes {
			all.Go(func() {
				var err error
				if indexes[i], err = a.Allocate(t.Context(), "s1", pod(fmt.Sprint(i))); err != nil {
					t.Errorf("%v: pod %d: %v", cidrs, i, err)
				}
			})
		}
		all.Wait()
		for _, index := range indexes {
			for _, ip := range s.At(index) {
				if seen[ip] || ip == s.Gateway[0] || index == 0 || index == 5 || s.CIDRs[0].Addr().Is4() && index == s.Size()-1 {
					t.Errorf("%v: %s is given out wrongly", cidrs, ip)
				}
				seen[ip] = true
			}
		}
		if _, err := a.Allocate(t.Context(), "s1", pod("more")); !errors.Is(err, ErrExhausted) {
			t.Errorf("%v: one too many: %v", cidrs, err)
		}
		if again := a.mustAllocate(t, pod("0")); again != indexes[0] {
			t.Errorf("%v: asked again, pod 0 has %d and not %d", cidrs, again, indexes[0])
		}
		if got, used, _ := a.Usage("s1"); got != used {
			t.Errorf("%v: %d of %d used", cidrs, used, got)
		}
	}
}

// TestQuarantine: an address rests, by the time that the object has, whoever looks.
func TestQuarantine(t *testing.T) {
	c, store, s := newClock(), newMemory(), testSubnet("10.0.0.0/28")
	a := opened(t, store, c.Now, s)
	for i := range 13 {
		a.mustAllocate(t, pod(fmt.Sprint(i)))
	}
	a.mustRelease(t, pod("4"))
	a.mustRelease(t, pod("4"))
	for _, wait := range []time.Duration{0, 30 * time.Second, 29 * time.Second} {
		c.pass(wait)
		if _, err := a.Allocate(t.Context(), "s1", pod("next")); !errors.Is(err, ErrExhausted) {
			t.Fatalf("in quarantine: %v", err)
		}
		a = opened(t, store, c.Now, s) // as after a restart
	}
	if _, used, resting := a.Usage("s1"); used != 12 || resting != 1 {
		t.Errorf("%d used and %d resting", used, resting)
	}
	c.pass(2 * time.Second)
	if index := a.mustAllocate(t, pod("next")); index != 6 {
		t.Errorf("got %d", index)
	}
}

// TestSticky: the pods of a StatefulSet keep their addresses, as long as nobody else needs them.
func TestSticky(t *testing.T) {
	c, store, s := newClock(), newMemory(), testSubnet("10.0.0.0/28")
	a := opened(t, store, c.Now, s)
	first := a.mustAllocate(t, life("db-0", 1, "set"))
	if _, err := a.Allocate(t.Context(), "s1", life("db-0", 2, "set")); !errors.Is(err, ErrPredecessor) {
		t.Errorf("while its predecessor is there: %v", err)
	}
	a.mustRelease(t, life("db-0", 1, "set"))
	if !a.Remembers("s1", life("db-0", 2, "set")) || a.Remembers("s1", life("db-0", 2, "another")) {
		t.Error("what is remembered is wrong")
	}
	if index := a.mustAllocate(t, life("db-0", 9, "another")); index == first {
		t.Error("another set's pod of the same name got the address")
	}
	if index := a.mustAllocate(t, life("db-0", 2, "set")); index != first {
		t.Errorf("the next one got %d, not %d", index, first)
	}
	a.mustRelease(t, life("db-0", 2, "set"))
	c.pass(24 * time.Hour)
	a = opened(t, store, c.Now, s)
	for i := range 11 {
		if index := a.mustAllocate(t, pod(fmt.Sprint(i))); index == first {
			t.Error("the address was given away though others were free")
		}
	}
	if index := a.mustAllocate(t, pod("last")); index != first {
		t.Errorf("the last free one is %d", index)
	}
	if _, err := a.Allocate(t.Context(), "s1", life("db-0", 3, "set")); !errors.Is(err, ErrExhausted) {
		t.Errorf("its address is another's now: %v", err)
	}
}

func TestWanted(t *testing.T) {
	c, store, s := newClock(), newMemory(), testSubnet("10.0.0.0/28", "fd00::/64")
	a := opened(t, store, c.Now, s)
	want := func(name, uid, ip string) Request {
		r := pod(name)
		r.Pod.UID = types.UID(uid)
		index, ok := s.IndexOf(netip.MustParseAddr(ip))
		if !ok {
			index = 4096
		}
		r.Index = &index
		return r
	}
	if index := a.mustAllocate(t, want("a", "a1", "fd00::9")); s.At(index)[0].String() != "10.0.0.9" {
		t.Errorf("got %v", s.At(index))
	}
	for ip, wanted := range map[string]error{
		"10.0.0.9": ErrTaken, "10.0.0.0": ErrNotInSubnet, "10.0.0.1": ErrNotInSubnet, "10.0.0.15": ErrNotInSubnet, "fd00::1": ErrNotInSubnet, "fd00::10": ErrNotInSubnet,
	} {
		if _, err := a.Allocate(t.Context(), "s1", want("b", "b1", ip)); !errors.Is(err, wanted) {
			t.Errorf("%s: %v, want %v", ip, err, wanted)
		}
	}
	a.mustRelease(t, want("a", "a1", "10.0.0.9"))
	if _, err := a.Allocate(t.Context(), "s1", want("b", "b1", "10.0.0.9")); !errors.Is(err, ErrTaken) {
		t.Errorf("in quarantine: %v", err)
	}
	if index := a.mustAllocate(t, want("a", "a2", "10.0.0.9")); index != 9 {
		t.Errorf("its successor got %d", index)
	}
	a.mustRelease(t, want("a", "a2", "10.0.0.9"))
	c.pass(2 * time.Minute)
	if index := a.mustAllocate(t, want("b", "b1", "10.0.0.9")); index != 9 {
		t.Errorf("after quarantine got %d", index)
	}
	// A pod that does not say which gets around what others said.
	for i := range 12 {
		if index := a.mustAllocate(t, pod(fmt.Sprint(i))); index == 9 {
			t.Error("given twice")
		}
	}
}

// TestDeletedBlock: a block that somebody removed is written anew with what it had.
func TestDeletedBlock(t *testing.T) {
	store, s := newMemory(), testSubnet("10.0.0.0/24")
	a := opened(t, store, newClock().Now, s)
	first := a.mustAllocate(t, pod("a"))
	if err := store.Delete(t.Context(), &v1alpha1.IPBlock{ObjectMeta: a.subnets["s1"].space.blocks[0].object.ObjectMeta}); err != nil {
		t.Fatal(err)
	}
	if second := a.mustAllocate(t, pod("b")); second == first {
		t.Error("the address was given again")
	}
	again := opened(t, store, newClock().Now, s)
	if index := again.mustAllocate(t, pod("a")); index != first {
		t.Errorf("after a restart the pod has %d, not %d", index, first)
	}
}

func TestDestroy(t *testing.T) {
	store, s := newMemory(), testSubnet("10.0.0.0/24")
	a := opened(t, store, newClock().Now, s)
	a.mustAllocate(t, pod("a"))
	if err := a.Destroy(t.Context(), "s1"); !errors.Is(err, network.ErrInUse) {
		t.Errorf("with a pod in it: %v", err)
	}
	a.mustRelease(t, pod("a"))
	if err := a.Destroy(t.Context(), "s1"); err != nil || len(store.blocks) > 0 {
		t.Errorf("%v, %d blocks left", err, len(store.blocks))
	}
	if _, err := a.Allocate(t.Context(), "s1", pod("b")); !errors.Is(err, network.ErrNotReady) {
		t.Errorf("afterwards: %v", err)
	}
}

// TestBatch: a burst takes as many writes as it fills blocks, not as it has pods.
func TestBatch(t *testing.T) {
	store := newMemory()
	entered, arrived := make(chan struct{}, 1), make(chan struct{})
	slow := trouble{store, func(method string) error {
		if method == "Create" {
			select {
			case entered <- struct{}{}:
			default:
			}
			<-arrived
		}
		return nil
	}, func(string) error { return nil }}
	a := opened(t, slow, newClock().Now, testSubnet("10.0.0.0/16"))
	var burst sync.WaitGroup
	const pods = 2000
	for i := range pods {
		burst.Go(func() { a.mustAllocate(t, pod(fmt.Sprint(i))) })
		if i == 0 {
			<-entered // its write is under way when the others come
		}
	}
	for waiting := 0; waiting < pods-1; time.Sleep(time.Millisecond) {
		s := a.subnets["s1"]
		s.mu.Lock()
		waiting = len(s.waiting)
		s.mu.Unlock()
	}
	close(arrived)
	burst.Wait()
	// Eight blocks are made and written; the first pod was alone in its write.
	if store.writes > 20 {
		t.Errorf("%d writes for %d pods", store.writes, pods)
	}
}
