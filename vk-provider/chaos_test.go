package vkprovider_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"vivarium.io/vivarium/internal/kubetest"
)

// TestChaos kills the program in the middle of bursts, again and again, while something else breaks as well, and compares
// both sides by UID after each round: no pod is lost, doubled, orphaned or made anew. CHAOS_ROUNDS says how many rounds with
// a kill there are, CHAOS_ONLY which failures, by a regular expression, and CHAOS_SEED repeats a run's choices, though not
// how the machine times them.
func TestChaos(t *testing.T) {
	seed := number(t, "CHAOS_SEED", uint64(time.Now().UnixNano()))
	only := regexp.MustCompile(os.Getenv("CHAOS_ONLY"))
	failures := slices.DeleteFunc(slices.Clone(failures), func(f failure) bool { return !only.MatchString(f.name) })
	// Each failure has its turn before any has its next.
	rounds := number(t, "CHAOS_ROUNDS", 6)
	t.Logf("CHAOS_SEED=%d CHAOS_ROUNDS=%d CHAOS_ONLY=%q", seed, rounds, only)
	c := newChaos(t, seed)
	c.instances = []*running{c.w.start(t, orphansSoon)}
	c.w.ready(t, "pool-a", "pool-b")
	var order []int
	for round, killed := 0, uint64(0); killed < rounds; round++ {
		if len(order) == 0 {
			order = c.random.Perm(len(failures))
		}
		failure := failures[order[0]]
		order = order[1:]
		begin := time.Now()
		made, deleted, kills := c.round(t, failure)
		// What has lived through several failures is in another state than what has just begun: those rounds come besides.
		if kills > 0 {
			killed++
		}
		t.Logf("round %d (%d with kills), %s: %d made, %d deleted, %d kills, %d pods agree after %s",
			round+1, killed, failure.name, made, deleted, kills, len(c.alive), time.Since(begin).Round(time.Millisecond))
		if t.Failed() {
			return
		}
	}
}

// TestTwoAtOnce has two instances work on the same pods without an election, as two may for a moment in spite of one, and
// others come in their place.
func TestTwoAtOnce(t *testing.T) {
	c := newChaos(t, number(t, "CHAOS_SEED", 1))
	c.instances = []*running{c.w.start(t, orphansSoon), c.w.start(t, orphansSoon)}
	c.w.ready(t, "pool-a", "pool-b")
	for round, kills := range []int{0, 0, 2} {
		c.mostKills = kills
		made, deleted, killed := c.round(t, failures[0])
		t.Logf("round %d: %d made, %d deleted, %d kills, %d pods agree", round+1, made, deleted, killed, len(c.alive))
		if t.Failed() {
			return
		}
	}
	for _, namespace := range c.namespaces {
		events, err := c.w.controlClient.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events.Items {
			if e.InvolvedObject.Kind == "Pod" && e.Type == corev1.EventTypeWarning {
				t.Errorf("a tenant reads of %s: %s %s", e.InvolvedObject.Name, e.Reason, e.Message)
			}
		}
	}
}

// TestStandby kills the leader in the middle of a burst; the one that waited goes on.
func TestStandby(t *testing.T) {
	const elect = "--leader-elect=true"
	c := newChaos(t, 1)
	leader := c.w.start(t, orphansSoon, elect)
	c.w.ready(t, "pool-a", "pool-b")
	standby := c.w.start(t, orphansSoon, elect)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for n := range 40 {
		if n == 20 {
			leader.kill()
		}
		c.create(ctx, t, types.NamespacedName{Namespace: c.namespaces[n%len(c.namespaces)], Name: fmt.Sprintf("p%d", n)})
	}
	c.settle(t)
	// One that stops by itself hands over at once, and another one can be waiting by then.
	c.w.start(t, orphansSoon, elect)
	if err := standby.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	gone := c.condemn(10)
	for _, g := range gone {
		c.remove(ctx, t, g.uid, g.name, false)
	}
	c.settle(t)
}

// orphansSoon has what was left behind collected within a round.
const orphansSoon = "--orphan-grace=2s"

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// failure is what breaks in a round besides the program. The burst goes on while it lasts.
type failure struct {
	name string
	// strike breaks something, and repair puts it right again.
	strike, repair func(t *testing.T, c *chaos)
}

var failures = []failure{
	{"nothing else", func(*testing.T, *chaos) {}, func(*testing.T, *chaos) {}},
	{
		"a pool's API server is killed",
		func(t *testing.T, c *chaos) { c.pool().cluster.KillAPIServer(t) },
		func(t *testing.T, c *chaos) { c.pool().cluster.RestartAPIServer(t) },
	},
	{
		"the control cluster's API server is killed",
		func(t *testing.T, c *chaos) { c.w.control.KillAPIServer(t) },
		func(t *testing.T, c *chaos) { c.w.control.RestartAPIServer(t) },
	},
	{
		"the control cluster's etcd is killed",
		func(t *testing.T, c *chaos) { c.w.control.KillEtcd(t) },
		func(t *testing.T, c *chaos) { c.w.control.RestartAPIServer(t) },
	},
	{
		"a pool's etcd is killed",
		func(t *testing.T, c *chaos) { c.pool().cluster.KillEtcd(t) },
		func(t *testing.T, c *chaos) { c.pool().cluster.RestartAPIServer(t) },
	},
	{
		"a pool's API server hangs",
		func(t *testing.T, c *chaos) { c.pool().cluster.FreezeAPIServer(t, true) },
		func(t *testing.T, c *chaos) { c.pool().cluster.FreezeAPIServer(t, false) },
	},
	{
		"a pool is read-only",
		func(t *testing.T, c *chaos) { c.pool().cluster.Fill(t, true) },
		func(t *testing.T, c *chaos) { c.pool().cluster.Fill(t, false) },
	},
	{
		"the control cluster is read-only",
		func(t *testing.T, c *chaos) { c.w.control.Fill(t, true) },
		func(t *testing.T, c *chaos) { c.w.control.Fill(t, false) },
	},
	{
		// Started again by their supervision.
		"all schedulers are killed",
		func(t *testing.T, c *chaos) {
			c.w.control.KillScheduler(t)
			for _, p := range c.w.pools {
				p.cluster.KillScheduler(t)
			}
		},
		func(*testing.T, *chaos) {},
	},
	{
		"a pool is slow",
		func(_ *testing.T, c *chaos) { c.pool().line.delay.Store(int64(150 * time.Millisecond)) },
		func(_ *testing.T, c *chaos) { c.pool().line.delay.Store(0) },
	},
	{
		// An answer that breaks off leaves it open whether the pool has acted.
		"answers of a pool break off",
		func(_ *testing.T, c *chaos) {
			c.pool().line.breaks.Store(20_000)
			c.pool().line.setCut(true)
			c.pool().line.setCut(false)
		},
		func(_ *testing.T, c *chaos) { c.pool().line.breaks.Store(0) },
	},
	{
		"a pool's clock is wrong",
		func(t *testing.T, c *chaos) { c.pool().cluster.ShiftClock(t, c.wrong()) },
		func(t *testing.T, c *chaos) { c.pool().cluster.ShiftClock(t, 0) },
	},
	{
		"the control cluster's clock is wrong",
		func(t *testing.T, c *chaos) { c.w.control.ShiftClock(t, c.wrong()) },
		func(t *testing.T, c *chaos) { c.w.control.ShiftClock(t, 0) },
	},
	{
		// As if one replica after another took over, each with a clock of its own.
		"the program's clock is wrong",
		func(t *testing.T, c *chaos) {
			c.clock = c.wrong
			for _, r := range c.instances {
				r.shiftClock(c.clock())
			}
		},
		func(t *testing.T, c *chaos) {
			c.clock = right
			for _, r := range c.instances {
				r.shiftClock(0)
			}
		},
	},
	{
		// What happened meanwhile is compacted away, so that both sides have to be listed again: deletions are not seen.
		"both histories are compacted behind a cut line",
		func(t *testing.T, c *chaos) { c.pool().line.setCut(true) },
		func(t *testing.T, c *chaos) {
			for _, cluster := range []*kubetest.Cluster{c.pool().cluster, c.w.control} {
				cluster.KillAPIServer(t)
				compact(t, cluster)
				cluster.RestartAPIServer(t)
			}
			c.pool().line.setCut(false)
		},
	},
}

// chaos is a world in which things break.
type chaos struct {
	w          *world
	random     *rand.Rand
	namespaces []string
	instances  []*running
	// mostKills is how often the program is killed in a round at most.
	mostKills int
	// victim is the pool that a failure is about.
	victim string
	// clock tells by how much the clock of the next run of the program is wrong.
	clock func() time.Duration

	mu sync.Mutex // guards the rest
	// alive has the control pods that nobody has asked to go, by UID; runs has the pool pods that were seen to run for
	// them, which must stay the same.
	alive map[types.UID]types.NamespacedName
	runs  map[types.UID]types.UID
	next  int
}

func newChaos(t *testing.T, seed uint64) *chaos {
	c := &chaos{
		w: newWorld(t, "pool-a", "pool-b"), random: rand.New(rand.NewPCG(seed, 1)), //nolint:gosec // to be repeated
		alive: map[types.UID]types.NamespacedName{}, runs: map[types.UID]types.UID{}, mostKills: 3, clock: right,
	}
	for n := range 3 {
		namespace := fmt.Sprintf("chaos%d-default", n)
		c.w.tenant(t, namespace)
		c.namespaces = append(c.namespaces, namespace)
	}
	return c
}

func (c *chaos) pool() *pool { return c.w.pools[c.victim] }

func right() time.Duration { return 0 }

// wrong is by how much a clock is wrong: five minutes, one way or the other.
func (c *chaos) wrong() time.Duration {
	return []time.Duration{-5 * time.Minute, 5 * time.Minute}[c.random.IntN(2)]
}

// start runs the program.
func (c *chaos) start(t *testing.T) *running {
	t.Helper()
	r := c.w.start(t, orphansSoon)
	if by := c.clock(); by != 0 {
		r.shiftClock(by)
	}
	return r
}

// steady is how many pods the rounds keep to.
const steady = 60

// round is a burst of creates, deletes or both, during which the failure strikes and the program is killed.
func (c *chaos) round(t *testing.T, f failure) (made, deleted, kills int) {
	t.Helper()
	c.victim = []string{"pool-a", "pool-b"}[c.random.IntN(2)]
	made, deleted = 10+c.random.IntN(30), c.random.IntN(1+len(c.alive)/2)
	switch kind := c.random.IntN(4); {
	case len(c.alive) > steady:
		made, deleted = made/3, len(c.alive)/2
	case kind == 0:
		deleted = 0
	case kind == 1 && len(c.alive) > steady/3:
		made = 0
	}
	kills = c.random.IntN(c.mostKills + 1)
	pauses := make([]time.Duration, 2*kills+2)
	for i := range pauses {
		pauses[i] = time.Duration(c.random.IntN(700)) * time.Millisecond
	}
	gone := c.condemn(deleted)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var acting sync.WaitGroup
	pace := func() time.Duration { return time.Duration(rand.IntN(40)) * time.Millisecond } //nolint:gosec // only a pace
	for range made {
		name := types.NamespacedName{Namespace: c.namespaces[c.random.IntN(len(c.namespaces))], Name: fmt.Sprintf("p%d", c.next)}
		c.next++
		begin := pace() * 20
		acting.Go(func() { time.Sleep(begin); c.create(ctx, t, name) })
	}
	for i, g := range gone {
		begin := pace() * 20
		force, again := i%3 == 1, i%4 == 2
		acting.Go(func() {
			time.Sleep(begin)
			c.remove(ctx, t, g.uid, g.name, force)
			if force && again {
				c.create(ctx, t, g.name)
			}
		})
	}
	time.Sleep(pauses[0])
	f.strike(t, c)
	for k := range kills {
		time.Sleep(pauses[1+2*k])
		for i, r := range c.instances {
			r.kill()
			if k < kills-1 {
				c.instances[i] = c.start(t)
			}
		}
	}
	time.Sleep(pauses[1+2*kills])
	f.repair(t, c)
	if kills > 0 {
		for i := range c.instances {
			c.instances[i] = c.start(t)
		}
	}
	acting.Wait()
	if t.Failed() {
		return made, deleted, kills
	}
	c.settle(t)
	return made, deleted, kills
}

func (c *chaos) settle(t *testing.T) {
	t.Helper()
	c.w.settle(t, c.instances, func() error { return c.agree(t) })
}

type condemned struct {
	uid  types.UID
	name types.NamespacedName
}

// condemn chooses pods that are to go.
func (c *chaos) condemn(count int) []condemned {
	uids := slices.Sorted(maps.Keys(c.alive))
	c.random.Shuffle(len(uids), func(i, j int) { uids[i], uids[j] = uids[j], uids[i] })
	var gone []condemned
	for _, uid := range uids[:count] {
		gone = append(gone, condemned{uid, c.alive[uid]})
		delete(c.alive, uid)
		delete(c.runs, uid)
	}
	return gone
}

// create makes a pod, whatever it takes.
func (c *chaos) create(ctx context.Context, t *testing.T, name types.NamespacedName) {
	pods := c.w.controlClient.CoreV1().Pods(name.Namespace)
	for {
		made, err := pods.Create(ctx, echoPod(name.Name), metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			// An earlier attempt arrived although its answer did not.
			made, err = pods.Get(ctx, name.Name, metav1.GetOptions{})
		}
		if err == nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.alive[made.UID] = name
			return
		}
		if !again(ctx, t, "create", name, err) {
			return
		}
	}
}

func (c *chaos) remove(ctx context.Context, t *testing.T, uid types.UID, name types.NamespacedName, force bool) {
	options := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(uid))}
	if force {
		options.GracePeriodSeconds = ptr.To[int64](0)
	}
	for {
		err := c.w.controlClient.CoreV1().Pods(name.Namespace).Delete(ctx, name.Name, options)
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || !again(ctx, t, "delete", name, err) {
			return
		}
	}
}

func again(ctx context.Context, t *testing.T, what string, name types.NamespacedName, err error) bool {
	select {
	case <-ctx.Done():
		t.Errorf("%s pod %s: %v", what, name, err)
		return false
	case <-time.After(100 * time.Millisecond):
		return true
	}
}

// agree compares both sides by UID. What cannot be put right by waiting ends the test.
func (c *chaos) agree(t *testing.T) error {
	t.Helper()
	above := map[types.UID]*corev1.Pod{}
	for _, namespace := range c.namespaces {
		list, err := c.w.controlClient.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range list.Items {
			above[list.Items[i].UID] = &list.Items[i]
		}
	}
	below := map[types.UID]types.UID{}
	for name, p := range c.w.pools {
		pods, err := p.ask(t)
		if err != nil {
			return err
		}
		for uid, pod := range pods {
			if _, twice := below[uid]; twice {
				t.Fatalf("DOUBLED: control pod %s has pods in two pools, one of them %s", uid, name)
			}
			below[uid] = pod.UID
		}
	}
	for uid, name := range c.alive {
		pod := above[uid]
		switch {
		case pod == nil:
			t.Fatalf("LOST: control pod %s, which nobody deleted", name)
		case pod.Status.Phase == corev1.PodFailed:
			t.Fatalf("LOST: control pod %s has failed: %s %s", name, pod.Status.Reason, pod.Status.Message)
		case c.runs[uid] != "" && below[uid] != c.runs[uid]:
			t.Fatalf("MADE ANEW: pod %s, pool pod %q was %q", name, below[uid], c.runs[uid])
		case pod.Spec.NodeName == "":
			return fmt.Errorf("the scheduler has not bound pod %s yet", name)
		case below[uid] == "":
			return fmt.Errorf("pod %s, bound to %s, is not in a pool yet", name, pod.Spec.NodeName)
		}
		if err := isReady(pod); err != nil {
			return fmt.Errorf("pod %s: %w", name, err)
		}
	}
	for uid, pod := range above {
		if _, alive := c.alive[uid]; !alive {
			return fmt.Errorf("pod %s/%s is still there", pod.Namespace, pod.Name)
		}
	}
	for uid := range below {
		if above[uid] == nil {
			return fmt.Errorf("ORPHANED: the pool pod of %s", uid)
		}
	}
	c.runs = below
	return nil
}

// compact forgets what an etcd has seen.
func compact(t *testing.T, cluster *kubetest.Cluster) {
	t.Helper()
	etcd := cluster.EtcdClient(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	now, err := etcd.Get(ctx, "/registry/health")
	if err == nil {
		_, err = etcd.Compact(ctx, now.Header.Revision)
	}
	if err != nil {
		t.Fatalf("compact: %v", err)
	}
}
