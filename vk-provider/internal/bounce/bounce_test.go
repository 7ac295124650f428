package bounce

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
)

const after = 30 * time.Second

// clock is moved by hand.
type clock struct{ at time.Time }

func newClock() *clock                { return &clock{time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)} }
func (c *clock) now() time.Time       { return c.at }
func (c *clock) pass(d time.Duration) { c.at = c.at.Add(d) }

func TestAPodWaitsBeforeItGoes(t *testing.T) {
	c := newClock()
	b := NewBooks(c.now).Of("pool-a")
	if got := b.Judge("p", "owner", after); got != (Verdict{Wait: after}) {
		t.Errorf("at first: %+v", got)
	}
	c.pass(20 * time.Second)
	if got := b.Judge("p", "owner", after); got != (Verdict{Wait: 10 * time.Second}) {
		t.Errorf("later: %+v", got)
	}
	c.pass(10 * time.Second)
	if got := b.Judge("p", "owner", after); !got.Go {
		t.Errorf("in the end: %+v", got)
	}
	// A place that came and went begins the wait anew.
	b.Settled("p")
	if got := b.Judge("p", "owner", after); got != (Verdict{Wait: after}) {
		t.Errorf("after it had a place: %+v", got)
	}
}

func TestAPodThatNobodyReplacesStays(t *testing.T) {
	c := newClock()
	b := NewBooks(c.now).Of("pool-a")
	for range 3 {
		if got := b.Judge("p", "", after); got != (Verdict{}) {
			t.Errorf("a bare pod: %+v", got)
		}
		c.pass(time.Hour)
	}
	if !b.Waits("p") {
		t.Error("it is not known to wait")
	}
}

// TestReplacementsThatComeBackWaitLonger: pods that wait together go together, replacements that come back wait twice as
// long, and in the end they stay.
func TestReplacementsThatComeBackWaitLonger(t *testing.T) {
	c := newClock()
	b := NewBooks(c.now).Of("pool-a")
	need := after
	for round := range maxRounds {
		uids := []types.UID{types.UID(rune('a' + 2*round)), types.UID(rune('b' + 2*round))}
		for _, uid := range uids {
			if got := b.Judge(uid, "owner", after); got != (Verdict{Wait: need}) {
				t.Fatalf("round %d: %+v, want to wait %s", round, got, need)
			}
		}
		c.pass(need)
		for _, uid := range uids {
			if got := b.Judge(uid, "owner", after); !got.Go {
				t.Fatalf("round %d, pod %s: %+v", round, uid, got)
			}
			b.Left(uid, "owner")
			c.pass(time.Millisecond)
		}
		need *= 2
	}
	if got := b.Judge("z", "owner", after); got != (Verdict{}) {
		t.Errorf("after %d rounds: %+v", maxRounds, got)
	}
	if got := b.Judge("y", "another", after); got != (Verdict{Wait: after}) {
		t.Errorf("another owner's pod: %+v", got)
	}
	c.pass(forgetAfter + time.Second)
	b.Settled("z")
	if got := b.Judge("z", "owner", after); got != (Verdict{Wait: after}) {
		t.Errorf("long after: %+v", got)
	}
}

func TestThePaceIsBounded(t *testing.T) {
	c := newClock()
	b := NewBooks(c.now).Of("pool-a")
	uid := func(n int) types.UID { return types.UID(rune(1000 + n)) }
	for n := range 100 {
		b.Judge(uid(n), uid(-n), after)
	}
	c.pass(after)
	gone := 0
	for n := range 100 {
		if b.Judge(uid(n), uid(-n), after).Go {
			gone++
		}
	}
	if gone != burst {
		t.Errorf("%d of 100 go at once, want %d", gone, burst)
	}
}

func list(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func TestWhatIsLearntKeepsThePodsOfThatSizeAway(t *testing.T) {
	c := newClock()
	told := 0
	books := NewBooks(c.now)
	books.OnChange(func(pool string) {
		if pool == "pool-a" {
			told++
		}
	})
	b := books.Of("pool-a")
	node := list("cpu", "64", "memory", "64Gi", "pods", "100")
	// A pod of 20 processors fits nowhere.
	if b.Learn("", list("cpu", "20", "memory", "1Gi", "pods", "1"), node) || told != 1 {
		t.Errorf("nobody was told: %d", told)
	}
	version, below := b.Version(), b.Limits("pool-a-0")
	if diff := cmp.Diff(list("cpu", "20"), below); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	b.Shown(version)
	if !b.Learn("", list("cpu", "20", "memory", "1Gi", "pods", "1"), node) || told != 1 {
		t.Error("what is shown already is told again")
	}
	offered := Within(node, list("cpu", "10", "pods", "5"), below)
	if diff := cmp.Diff(list("cpu", "29999m", "memory", "64Gi", "pods", "100"), offered); diff != "" {
		t.Errorf("offered (-want +got):\n%s", diff)
	}
	// It is over after a while, and lasts longer when it was over too early.
	c.pass(FirstHold + time.Second)
	if below := b.Limits("pool-a-0"); len(below) > 0 {
		t.Errorf("still: %v", below)
	}
	b.Learn("", list("cpu", "20", "pods", "1"), node)
	c.pass(FirstHold + time.Second)
	if below := b.Limits("pool-a-0"); len(below) == 0 {
		t.Error("the second time lasts no longer than the first")
	}
	c.pass(time.Hour)
	b.Learn("", list("cpu", "20", "pods", "1"), node)
	c.pass(FirstHold + time.Second)
	if below := b.Limits("pool-a-0"); len(below) > 0 {
		t.Error("an old story is not forgotten")
	}
	// A Node that mirrors one is full alone.
	b.Learn("pool-a-x", list("memory", "60Gi", "cpu", "1", "pods", "1"), node)
	if below := b.Limits("pool-a-x"); !cmp.Equal(below, list("memory", "60Gi")) {
		t.Errorf("the mirrored node: %v", below)
	}
	if below := b.Limits("pool-a-y"); len(below) > 0 {
		t.Errorf("its neighbour: %v", below)
	}
}

// TestWhoLeftHoldsNothing: until its end is known a pod that was given back must not make its Node offer more.
func TestWhoLeftHoldsNothing(t *testing.T) {
	c := newClock()
	b := NewBooks(c.now).Of("pool-a")
	b.Judge("p", "owner", after)
	b.Left("p", "owner")
	if !b.Waits("p") {
		t.Error("it seems to hold what it asked for")
	}
	b.Settled("p")
	if b.Waits("p") {
		t.Error("it is remembered for ever")
	}
}

// TestAnotherProcessGoesOn with the waits and rounds that it finds, and telling it twice changes nothing.
func TestAnotherProcessGoesOn(t *testing.T) {
	c := newClock()
	first, books := NewBooks(c.now).Of("pool-a"), NewBooks(c.now)
	type left struct {
		uid       types.UID
		since, at time.Time
	}
	var history []left
	need := after
	for round := range 2 {
		for _, uid := range []types.UID{types.UID(rune('a' + 2*round)), types.UID(rune('b' + 2*round))} {
			first.Judge(uid, "owner", after)
			history = append(history, left{uid: uid, since: c.at})
		}
		c.pass(need)
		for n := 2 * round; n < 2*round+2; n++ {
			first.Left(history[n].uid, "owner")
			history[n].at = c.at
			c.pass(time.Millisecond)
		}
		need *= 2
	}
	waiting := c.at
	first.Judge("z", "owner", after)
	c.pass(10 * time.Second)
	second := books.Of("pool-a")
	for range 2 {
		second.Waited("z", waiting)
		for _, l := range history {
			second.Recall(l.uid, "owner", l.since, l.at)
		}
	}
	want := first.Judge("z", "owner", after)
	if got := second.Judge("z", "owner", after); got != want || want.Wait != 4*after-10*time.Second {
		t.Errorf("the next process: %+v, the first one: %+v", got, want)
	}
}
