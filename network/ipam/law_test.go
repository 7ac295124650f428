package ipam

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/api/v1alpha1"
)

// book is what pods were told, by whichever allocator. It is the law: an index is one pod's until that pod has been
// released and the quarantine is over.
type book struct {
	t     testing.TB
	now   func() time.Time
	mu    sync.Mutex // guards the rest
	owner map[uint32]Request
	freed map[uint32]time.Time
	gone  map[types.UID]bool
	// history tells what happened, for whoever reads a failure.
	history []string
}

func newBook(t testing.TB, now func() time.Time) *book {
	return &book{t: t, now: now, owner: map[uint32]Request{}, freed: map[uint32]time.Time{}, gone: map[types.UID]bool{}}
}

func (b *book) told(who string, r Request, index uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.history = append(b.history, fmt.Sprintf("%s: %s has %d", who, r.Pod.UID, index))
	if b.gone[r.Pod.UID] {
		return // one that was cut off speaks of a pod that nobody makes any more
	}
	if other, taken := b.owner[index]; taken && other.Pod.UID != r.Pod.UID {
		freed, released := b.freed[index]
		successor := r.Owner != "" && r.Owner == other.Owner && r.Pod.Name == other.Pod.Name
		if !released || !successor && b.now().Sub(freed) < Quarantine {
			b.t.Errorf("%s and %s both have %d: %v", other.Pod.UID, r.Pod.UID, index, b.history)
		}
	}
	b.owner[index] = r
	delete(b.freed, index)
}

// released is called before the release is asked for: from then on nobody counts on the index.
func (b *book) released(who string, r Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.history = append(b.history, fmt.Sprintf("%s: %s is gone", who, r.Pod.UID))
	b.gone[r.Pod.UID] = true
	for index, owner := range b.owner {
		if owner.Pod.UID == r.Pod.UID {
			if _, before := b.freed[index]; !before {
				b.freed[index] = b.now()
			}
		}
	}
}

// check compares with the store: what a pod was told stays its own there.
func (b *book) check(store *memory) {
	b.mu.Lock()
	defer b.mu.Unlock()
	blocks, err := store.List(context.Background(), "s1")
	if err != nil {
		b.t.Fatal(err)
	}
	there := map[uint32]v1alpha1.IPAllocation{}
	for i := range blocks {
		for _, a := range blocks[i].Status.Allocations {
			if _, twice := there[a.Index]; twice {
				b.t.Errorf("%d is in the store twice", a.Index)
			}
			there[a.Index] = a
		}
	}
	for index, owner := range b.owner {
		uid := owner.Pod.UID
		if _, freed := b.freed[index]; !freed && (there[index].PodUID != uid || there[index].Released != nil) {
			b.t.Errorf("%s was told %d, and the store says %+v: %v", uid, index, there[index], b.history)
		}
	}
}

// explorer runs two allocators against one store, and chooses at each call of the store which of them goes on and what
// becomes of the call. It takes every way there is, one after the other: path has the choices of this run, and limit how
// many there were to choose from.
type explorer struct {
	path, limit []int
	depth       int
}

func (e *explorer) choose(n int) int {
	if e.depth == len(e.path) {
		e.path, e.limit = append(e.path, 0), append(e.limit, n)
	}
	e.limit[e.depth] = n
	e.depth++
	return e.path[e.depth-1]
}

// advance goes to the next way; false when there is none.
func (e *explorer) advance() bool {
	e.depth = 0
	for len(e.path) > 0 {
		last := len(e.path) - 1
		if e.path[last]++; e.path[last] < e.limit[last] {
			return true
		}
		e.path, e.limit = e.path[:last], e.limit[:last]
	}
	return false
}

// turn is an actor that waits to be let on: at a call of the store, or at its end.
type turn struct {
	actor int
	done  bool
	goOn  chan int
}

// What may become of a call.
const (
	fine = iota
	undone
	unanswered
	fates
)

// TestEveryInterleaving: two allocators, both sure to be the only one, in every order of their calls and with one or
// two faults, each at any call. One is opened before the other has written anything: it is an old leader that was cut off.
func TestEveryInterleaving(t *testing.T) {
	scripts := map[string]script{
		"OnePodEach":    {[2][]string{{"+a"}, {"+b"}}, 2},
		"SameSubnet":    {[2][]string{{"+a", "+b"}, {"+c", "+d"}}, 1},
		"ReleaseMeets":  {[2][]string{{"+a", "-a"}, {"+b", "+c"}}, 1},
		"SamePod":       {[2][]string{{"+a", "+b"}, {"+a", "-a"}}, 1},
		"ReleasedTwice": {[2][]string{{"+a", "-a"}, {"-a", "+b"}}, 1},
	}
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			e, ways := &explorer{}, 0
			for more := true; more && !t.Failed(); more = e.advance() {
				ways++
				play(t, e, script)
			}
			t.Logf("%d ways", ways)
		})
	}
}

// script is what two actors do, and how many faults there may be.
type script struct {
	steps  [2][]string
	faults int
}

func play(t *testing.T, e *explorer, script script) {
	t.Helper()
	c, store, s := newClock(), newMemory(), testSubnet("10.0.0.0/28")
	b := newBook(t, c.Now)
	turns := make(chan turn)
	var fate [2]int
	for actor := range script.steps {
		ask := func(string) error {
			here := turn{actor: actor, goOn: make(chan int)}
			turns <- here
			fate[actor] = <-here.goOn
			if fate[actor] == undone {
				return errNoAnswer
			}
			return nil
		}
		a := opened(t, store, c.Now, s) // before anybody has written
		a.subnets["s1"].config.Store = trouble{store, ask, func(string) error {
			if fate[actor] == unanswered {
				return errNoAnswer
			}
			return nil
		}}
		go func() {
			for _, step := range script.steps[actor] {
				r := pod(step[1:])
				for range 3 { // a controller asks again
					var err error
					if step[0] == '+' {
						var index uint32
						if index, err = a.Allocate(context.Background(), "s1", r); err == nil {
							b.told(fmt.Sprint(actor), r, index)
						}
					} else {
						b.released(fmt.Sprint(actor), r)
						err = a.Release(context.Background(), "s1", r.Pod.UID)
					}
					if err == nil {
						break
					}
				}
			}
			turns <- turn{actor: actor, done: true}
		}()
	}
	waiting, faults := map[int]turn{}, script.faults
	for alive := 2; alive > 0; {
		for len(waiting) < alive {
			if next := <-turns; next.done {
				alive--
			} else {
				waiting[next.actor] = next
			}
		}
		if alive == 0 {
			break
		}
		var ready []int
		for actor := range 2 {
			if _, ok := waiting[actor]; ok {
				ready = append(ready, actor)
			}
		}
		actor := ready[e.choose(len(ready))]
		what := fine
		if faults > 0 {
			if what = e.choose(fates); what != fine {
				faults--
			}
		}
		next := waiting[actor]
		delete(waiting, actor)
		next.goOn <- what
	}
	b.check(store)
}

// TestRandom: allocators that come and go, are cut off and come back with what they knew, against one store that fails at
// random, with pods that come and go and a clock that moves.
func TestRandom(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 30
	}
	for seed := range rounds {
		random := rand.New(rand.NewPCG(uint64(seed), 5))
		c, store, s := newClock(), newMemory(), testSubnet("10.0.0.0/27")
		if seed%2 == 1 {
			s = testSubnet("10.0.0.0/22")
		}
		b := newBook(t, c.Now)
		var mu sync.Mutex // guards random
		chance := func(percent int) func(string) error {
			return func(string) error {
				mu.Lock()
				defer mu.Unlock()
				if random.IntN(100) < percent {
					return errNoAnswer
				}
				return nil
			}
		}
		start := func() *Allocator {
			a := opened(t, store, c.Now, s)
			a.subnets["s1"].config.Store = trouble{store, chance(5), chance(5)}
			return a
		}
		leaders := []*Allocator{start(), start()}
		alive := map[int]bool{}
		for step := range 40 {
			mu.Lock()
			who, kind, n := random.IntN(len(leaders)), random.IntN(10), random.IntN(60)
			mu.Unlock()
			switch kind {
			case 0: // killed: what it knew is gone, what it had begun may have been done
				leaders[who] = start()
			case 1:
				c.pass(time.Duration(n) * time.Second)
			default:
				var group sync.WaitGroup
				for i := range 1 + n%7 {
					mu.Lock()
					p, leader := random.IntN(120), leaders[random.IntN(len(leaders))]
					mu.Unlock()
					r := pod(fmt.Sprintf("p%d-%d", p, step/10))
					if p%3 == 0 {
						r.Owner = "set"
						r.Pod.Name = fmt.Sprintf("p%d", p)
					}
					if kind < 6 {
						alive[p] = true
						group.Go(func() {
							if index, err := leader.Allocate(context.Background(), "s1", r); err == nil {
								b.told(fmt.Sprint(i), r, index)
							}
						})
					} else if alive[p] {
						delete(alive, p)
						b.released(fmt.Sprint(i), r)
						group.Go(func() { _ = leader.Release(context.Background(), "s1", r.Pod.UID) })
					}
				}
				group.Wait()
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		b.check(store)
	}
}

// TestBookNotices pins that the law's book would notice a store without versions.
func TestBookNotices(t *testing.T) {
	quiet := &recorder{TB: t}
	b := newBook(quiet, newClock().Now)
	b.told("1", pod("a"), 4)
	b.told("2", pod("b"), 4)
	if quiet.failures != 1 {
		t.Error("two pods with one address went unnoticed")
	}
}

type recorder struct {
	testing.TB
	failures int
}

func (r *recorder) Errorf(string, ...any) { r.failures++ }
