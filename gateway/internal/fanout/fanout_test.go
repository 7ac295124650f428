package fanout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vivarium.io/vivarium/gateway/internal/selection"
	"vivarium.io/vivarium/gateway/internal/translate"
	"vivarium.io/vivarium/internal/names"
)

// view spells an event for comparison.
func view(t *testing.T, e *Event) string {
	t.Helper()
	frame, err := e.Tenant(func(frame []byte) ([]byte, error) { return frame, nil })
	if err != nil {
		t.Fatal(err)
	}
	scope, err := translate.ScopeOfFrame(frame)
	if err != nil {
		t.Fatal(err)
	}
	if e.Shared() {
		return fmt.Sprintf("%s %s", scope.ResourceVersion, scope.Name)
	}
	return fmt.Sprintf("%s %s", scope.Type, scope.ResourceVersion)
}

// take waits for n events.
func take(t *testing.T, s *Subscription, n int) []string {
	t.Helper()
	var out []string
	timeout := time.After(soon)
	for len(out) < n {
		select {
		case <-s.Wake():
		case <-timeout:
			t.Fatalf("%d events, want %d: %q", len(out), n, out)
		}
		for more := true; more; {
			var events []*Event
			var err error
			if events, more, err = s.Take(nil, 1<<20); err != nil {
				t.Fatalf("%v behind %q", err, out)
			}
			for _, e := range events {
				out = append(out, view(t, e))
			}
		}
	}
	return out
}

// ends waits for the error that ends a subscription and gives what came before.
func ends(t *testing.T, s *Subscription, want error) []string {
	t.Helper()
	var out []string
	timeout := time.After(soon)
	for {
		events, more, err := s.Take(nil, 1<<20)
		for _, e := range events {
			out = append(out, view(t, e))
		}
		if err != nil {
			if !errors.Is(err, want) {
				t.Fatalf("ends with %v, want %v", err, want)
			}
			return out
		}
		if more {
			continue
		}
		select {
		case <-s.Wake():
		case <-timeout:
			t.Fatalf("does not end; %q", out)
		}
	}
}

func attach(t *testing.T, lease *Lease, tenant names.TenantID, from uint64, bookmarks bool) *Subscription {
	t.Helper()
	s, err := lease.Attach(tenant, from, bookmarks)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestSubscription(t *testing.T) {
	t.Run("EachGetsItsOwn", func(t *testing.T) {
		s := newStore()
		h := newHub(t, s, nil)
		lease := acquire(t, h, 0)
		a, b := attach(t, lease, "aaaaaa", 100, false), attach(t, lease, "bbbbbb", 100, true)
		s.write("aaaaaa-x/1")
		s.write("kube-system/2")
		s.write("bbbbbb-x/3")
		s.write("aaaaaab-x/4")
		s.write("aaaaaa-y/5")
		s.mark()
		if diff := cmp.Diff([]string{"101 1", "105 5"}, take(t, a, 2)); diff != "" {
			t.Errorf("a (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"103 3", "BOOKMARK 105"}, take(t, b, 2)); diff != "" {
			t.Errorf("b (-want +got):\n%s", diff)
		}
		// Who comes later is given what there was.
		if diff := cmp.Diff([]string{"105 5"}, take(t, attach(t, lease, "aaaaaa", 103, false), 1)); diff != "" {
			t.Errorf("later (-want +got):\n%s", diff)
		}
	})
	t.Run("AheadOfTheFeed", func(t *testing.T) {
		s := newStore()
		lease := acquire(t, newHub(t, s, nil), 0)
		sub := attach(t, lease, "aaaaaa", 102, true)
		for i := range 4 {
			s.write(fmt.Sprintf("aaaaaa-x/%d", i))
			s.mark()
		}
		got := slices.DeleteFunc(take(t, sub, 3), func(one string) bool { return one == "BOOKMARK 103" || one == "BOOKMARK 104" })
		if diff := cmp.Diff([]string{"103 2", "104 3"}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("WithinATransaction", func(t *testing.T) {
		s := newStore()
		h := newHub(t, s, nil)
		lease := acquire(t, h, 0)
		sub := attach(t, lease, "aaaaaa", 100, false)
		s.write("aaaaaa-x/1")
		take(t, sub, 1)
		// The watch breaks when half of what has happened at once has come.
		s.mu.Lock()
		half := s.history[0]
		half.rv, half.name, half.frame = 102, "2", strings.ReplaceAll(strings.ReplaceAll(half.frame, `"1"`, `"2"`), "101", "102")
		s.rv++
		s.history = append(s.history, half)
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
		take(t, sub, 1)
		s.cut()
		s.mu.Lock()
		rest := half
		rest.name, rest.frame = "3", strings.ReplaceAll(half.frame, `"2"`, `"3"`)
		s.history = append(s.history, rest)
		s.mu.Unlock()
		if diff := cmp.Diff([]string{"102 3"}, take(t, sub, 1)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("BeginsWhereAsked", func(t *testing.T) {
		s := newStore()
		s.write("aaaaaa-x/1")
		s.write("aaaaaa-x/2")
		lease := acquire(t, newHub(t, s, nil), 101)
		if diff := cmp.Diff([]string{"102 2"}, take(t, attach(t, lease, "aaaaaa", 101, false), 1)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if _, err := lease.Attach("aaaaaa", 100, false); !errors.Is(err, ErrMissed) {
			t.Errorf("before the feed: %v", err)
		}
	})
	t.Run("BeginsTooFarBack", func(t *testing.T) {
		s := newStore()
		s.write("aaaaaa-x/1")
		s.write("aaaaaa-x/2")
		s.forget(102)
		h := newHub(t, s, nil)
		lease := acquire(t, h, 101)
		if sub, err := lease.Attach("aaaaaa", 101, false); err == nil {
			ends(t, sub, ErrMissed)
			sub.Close()
		}
		sub := attach(t, lease, "aaaaaa", 102, false)
		s.write("aaaaaa-x/3")
		if diff := cmp.Diff([]string{"103 3"}, take(t, sub, 1)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("InTheFuture", func(t *testing.T) {
		s := newStore()
		lease := acquire(t, newHub(t, s, nil), 1<<40)
		sub := attach(t, lease, "aaaaaa", 100, false)
		s.write("aaaaaa-x/1")
		if diff := cmp.Diff([]string{"101 1"}, take(t, sub, 1)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("ThePastIsGone", func(t *testing.T) {
		s := newStore()
		h := newHub(t, s, nil)
		lease := acquire(t, h, 0)
		sub := attach(t, lease, "aaaaaa", 100, false)
		s.write("aaaaaa-x/1")
		take(t, sub, 1)
		s.forget(1 << 40)
		s.cut()
		if diff := cmp.Diff([]string{"ERROR "}, ends(t, sub, io.EOF)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if !lease.Over() || lease.Holds("aaaaaa", 1<<50) {
			t.Error("the feed is not over")
		}
		s.forget(0)
		again := acquire(t, h, 0)
		sub = attach(t, again, "aaaaaa", 101, false)
		s.write("aaaaaa-x/2")
		take(t, sub, 1)
	})
	t.Run("Slow", func(t *testing.T) {
		s := newStore()
		h := newHub(t, s, func(c *Config) { c.MaxEvents = 64 })
		lease := acquire(t, h, 0)
		slow, quick, quiet := attach(t, lease, "aaaaaa", 100, false), attach(t, lease, "aaaaaa", 100, false), attach(t, lease, "bbbbbb", 100, false)
		s.write("bbbbbb-x/first")
		for i := range 1000 {
			s.write(fmt.Sprintf("aaaaaa-x/%d", i))
			take(t, quick, 1)
		}
		ends(t, slow, ErrSlow)
		if f := lease.feed; f.count > 64 || len(f.past) > 3*64+64 {
			t.Errorf("%d events are held, %d known", f.count, len(f.past))
		}
		// A neighbour that writes much takes nothing from one that does not.
		if diff := cmp.Diff([]string{"101 first"}, take(t, quiet, 1)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if !lease.Holds("bbbbbb", 100) || lease.Holds("aaaaaa", 100) {
			t.Error("what is held is not what was written last")
		}
	})
	t.Run("Bytes", func(t *testing.T) {
		s := newStore()
		h := newHub(t, s, func(c *Config) { c.MaxBytes = 16 << 10 })
		lease := acquire(t, h, 0)
		for i := range 1000 {
			s.write(fmt.Sprintf("%06d-x/%d", i, i))
		}
		eventually(t, "all is read", func() bool { return lease.Progress() == 1100 })
		lease.feed.mu.Lock()
		defer lease.feed.mu.Unlock()
		sum := 0
		for _, l := range lease.feed.lanes {
			sum += l.bytes
		}
		if lease.feed.bytes > 16<<10 || sum != lease.feed.bytes {
			t.Errorf("%d bytes are held, %d in lanes", lease.feed.bytes, sum)
		}
	})
	t.Run("Old", func(t *testing.T) {
		s := newStore()
		h := newHub(t, s, func(c *Config) { c.MaxAge = time.Nanosecond })
		lease := acquire(t, h, 0)
		s.write("aaaaaa-x/1")
		s.mark()
		eventually(t, "it is forgotten", func() bool { return !lease.Holds("aaaaaa", 100) })
		if !lease.Holds("bbbbbb", 100) {
			t.Error("another lane lost something")
		}
	})
}

func TestRefused(t *testing.T) {
	for _, code := range []int{http.StatusForbidden, http.StatusNotAcceptable, http.StatusServiceUnavailable} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			s := newStore()
			s.answer(code)
			h := newHub(t, s, nil)
			for range 2 {
				if _, err := h.Acquire(t.Context(), configMaps, 0); err == nil || !strings.Contains(err.Error(), fmt.Sprint(code)) {
					t.Errorf("%v", err)
				}
			}
			want := 1
			if code >= 500 {
				// It may be back at once.
				want = 2
			}
			if len(s.requests) != want {
				t.Errorf("asked %q", s.requests)
			}
			if h.Stats().Feeds != 0 {
				eventually(t, "no feed is left", func() bool { return h.Stats().Feeds == 0 })
			}
		})
	}
	t.Run("Later", func(t *testing.T) {
		// The kind is no longer served: its watches end, as a stock API server's do.
		s := newStore()
		h := newHub(t, s, nil)
		sub := attach(t, acquire(t, h, 0), "aaaaaa", 100, false)
		s.answer(http.StatusNotFound)
		s.cut()
		ends(t, sub, io.EOF)
	})
}

func TestLinger(t *testing.T) {
	s := newStore()
	h := newHub(t, s, func(c *Config) { c.Linger = 50 * time.Millisecond })
	first := acquire(t, h, 0)
	s.write("aaaaaa-x/1")
	first.Release()
	second := acquire(t, h, 0)
	if first.feed != second.feed {
		t.Error("another feed")
	}
	time.Sleep(200 * time.Millisecond)
	if second.Over() {
		t.Error("the feed ended although it is used")
	}
	second.Release()
	second.Release()
	eventually(t, "the feed ends", func() bool { return second.Over() && h.Stats().Feeds == 0 })
}

func TestAway(t *testing.T) {
	// An API server that has just started knows no roles: it forbids everything for a moment.
	for _, code := range []int{http.StatusServiceUnavailable, http.StatusForbidden} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			s := newStore()
			h := newHub(t, s, nil)
			sub := attach(t, acquire(t, h, 0), "aaaaaa", 100, false)
			s.answer(code)
			s.cut()
			eventually(t, "the feed tries", func() bool { return h.Stats().Restarts > 2 })
			s.write("aaaaaa-x/1")
			s.answer(0)
			if diff := cmp.Diff([]string{"101 1"}, take(t, sub, 1)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("ForGood", func(t *testing.T) {
		s := newStore()
		h := newHub(t, s, func(c *Config) { c.Patience = 100 * time.Millisecond })
		sub := attach(t, acquire(t, h, 0), "aaaaaa", 100, false)
		s.answer(http.StatusForbidden)
		s.cut()
		ends(t, sub, io.EOF)
	})
}

// client is a watch that reconnects at random from what it saw last, as clients do, and goes around the feed where that
// does not reach.
type client struct {
	tenant names.TenantID
	from   uint64 // where it began
	last   uint64
	marked uint64
	got    []string
	around int
	// selects says that the client wants only what is on; matching is what was when it saw last.
	selects  bool
	matching *selection.Set
}

// run watches until it has seen a resource version.
func (c *client) run(ctx context.Context, t *testing.T, h *Hub, s *store, until uint64, random *rand.Rand) {
	for c.last < until && ctx.Err() == nil {
		lease, err := h.Acquire(ctx, configMaps, c.last)
		if err != nil {
			continue
		}
		sub, err := lease.Attach(c.tenant, c.last, true)
		if errors.Is(err, ErrMissed) {
			c.goAround(s, lease)
			lease.Release()
			continue
		}
		c.matching = s.matching(string(c.tenant), c.last)
		stop := time.After(time.Duration(random.IntN(20)) * time.Millisecond)
	watch:
		for {
			select {
			case <-ctx.Done():
				break watch
			case <-stop:
				break watch
			case <-sub.Wake():
			}
			for more := true; more; {
				var events []*Event
				if events, more, err = sub.Take(nil, 1+random.IntN(500)); err != nil {
					break watch
				}
				whole := random.IntN(10) > 0
				for i, e := range events {
					// A connection may break between any two frames.
					if !whole && i > 0 {
						break watch
					}
					c.see(t, s, sub, e)
				}
			}
		}
		sub.Close()
		lease.Release()
	}
}

func (c *client) see(t *testing.T, s *store, sub *Subscription, e *Event) {
	if e.rv < c.last {
		t.Errorf("%s: %d behind %d", c.tenant, e.rv, c.last)
	}
	c.last = e.rv
	if e.Bookmark() {
		if e.rv < c.marked {
			t.Errorf("%s: bookmark %d behind %d", c.tenant, e.rv, c.marked)
		}
		c.marked = e.rv
		return
	}
	if !c.selects {
		c.got = append(c.got, view(t, e))
		return
	}
	object, err := e.Object()
	if err != nil {
		t.Error(err)
		return
	}
	_, name := object.Key.Split()
	switch turn := c.matching.Turn(object.Type, object.Key, object.Labels.Get("is") == "on"); turn {
	case selection.Nothing:
	case selection.Former:
		former, err := sub.Former(e, func(o *Object) ([]byte, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			ns, name := o.Key.Split()
			return fmt.Append(nil, s.before(ns, name, o.ResourceVersion).rv), nil
		})
		if err != nil {
			t.Error(err)
		}
		c.got = append(c.got, fmt.Sprintf("%d %s DELETED as of %s", e.rv, name, former))
	case selection.Added, selection.Modified, selection.Deleted:
		c.got = append(c.got, fmt.Sprintf("%d %s %s", e.rv, name, turn.Type()))
	}
}

// goAround reads from the store itself until the feed holds what comes next.
func (c *client) goAround(s *store, lease *Lease) {
	c.around++
	begin := c.last
	defer func() {
		if c.selects {
			c.got = append(c.got, s.selected(string(c.tenant), begin, c.last)...)
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.history {
		if one.rv <= c.last && len(c.got) > 0 || one.rv <= c.from || one.rv <= c.last {
			continue
		}
		if lease.Holds(c.tenant, one.rv-1) {
			c.last = max(c.last, one.rv-1)
			return
		}
		if strings.HasPrefix(one.ns, string(c.tenant)+"-") && !c.selects {
			c.got = append(c.got, fmt.Sprintf("%d %s", one.rv, one.name))
		}
	}
	c.last = max(c.last, s.rv)
}

// TestModel lets clients of several tenants watch, some with a selector, and reconnect at random, while objects are written at random, one by one
// and several at once, the control cluster's watches break, the feed lets go of what it cannot hold, and feeds end and
// begin: each client must see exactly what happened to its tenant, in order.
func TestModel(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		seed := uint64(round) + uint64(time.Now().UnixNano()) //nolint:gosec // any seed will do
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newStore()
			h := newHub(t, s, func(c *Config) { c.MaxEvents = 40 + 100*(round%3); c.Linger = time.Millisecond })
			ids := []string{"aaaaaa", "bbbbbb", "cccccc", "000000", "kube-s"}
			const writes = 1500
			var clients []*client
			var group sync.WaitGroup
			ctx, cancel := context.WithTimeout(t.Context(), 2*soon)
			defer cancel()
			for i := range 12 {
				c := &client{tenant: names.TenantID(ids[i%4]), from: 100, last: 100, selects: i%3 == 1}
				clients = append(clients, c)
				random := rand.New(rand.NewPCG(seed, uint64(i))) //nolint:gosec // a test
				group.Go(func() { c.run(ctx, t, h, s, 100+writes, random) })
			}
			random := rand.New(rand.NewPCG(seed, 1000)) //nolint:gosec // a test
			for i := range writes {
				first := random.IntN(len(ids))
				state := func() string { return []string{"on", "on", "off", "gone"}[random.IntN(4)] }
				objects := []string{fmt.Sprintf("%s-x/%d=%s", ids[first], i%7, state())}
				for len(objects) < len(ids) && random.IntN(10) == 0 {
					// One object of a tenant at most: a client that is cut off within a transaction of its own loses the rest
					// at a stock API server as well.
					objects = append(objects, fmt.Sprintf("%s-x/%d=%s", ids[(first+len(objects))%len(ids)], i%7, state()))
				}
				s.write(objects...)
				switch random.IntN(60) {
				case 0:
					s.cut()
				case 1:
					h.Restart()
				case 2, 3:
					s.mark()
				case 4, 5, 6:
					time.Sleep(time.Millisecond)
				}
			}
			s.mark()
			done := make(chan struct{})
			go func() { group.Wait(); close(done) }()
			for over := false; !over; {
				select {
				case <-done:
					over = true
				case <-time.After(10 * time.Millisecond):
					// Whoever came late needs another one.
					s.mark()
				}
			}
			around := 0
			for i, c := range clients {
				around += c.around
				want := s.truth(string(c.tenant), c.from, 100+writes)
				if c.selects {
					want = s.selected(string(c.tenant), c.from, 100+writes)
				}
				if diff := cmp.Diff(want, c.got); diff != "" {
					t.Errorf("client %d of %s (-want +got):\n%s", i, c.tenant, diff)
				}
			}
			t.Logf("%+v, %d times around the feed", h.Stats(), around)
		})
	}
}

// TestOneTranslation checks that an event is translated once for all subscriptions of its tenant.
func TestOneTranslation(t *testing.T) {
	s := newStore()
	lease := acquire(t, newHub(t, s, nil), 0)
	subs := []*Subscription{attach(t, lease, "aaaaaa", 100, false), attach(t, lease, "aaaaaa", 100, false)}
	s.write("aaaaaa-x/1")
	var seen [][]byte
	for _, sub := range subs {
		<-sub.Wake()
		var events []*Event
		eventually(t, "an event", func() bool {
			events, _, _ = sub.Take(nil, 1<<20)
			return len(events) > 0
		})
		frame, err := events[0].Tenant(func(frame []byte) ([]byte, error) { return slices.Concat([]byte("tenant's "), frame), nil })
		if err != nil || !strings.HasPrefix(string(frame), "tenant's {") {
			t.Fatalf("%s %v", frame, err)
		}
		seen = append(seen, frame)
	}
	if &seen[0][0] != &seen[1][0] {
		t.Error("translated twice")
	}
}
