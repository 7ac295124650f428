package fanout

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"vivarium.io/vivarium/internal/boot"
)

// Key says what a feed is about.
type Key struct {
	Group, Version, Resource string
	// Accept is one media type, which the feed's events are in.
	Accept string
	// Named says that a tenant's objects are known by their names; otherwise by their namespaces.
	Named bool
	// IncludeObject is what the rows of a table carry; empty for anything else.
	IncludeObject string
}

// Path is where the control cluster serves the resource.
func (k Key) Path() string { return k.PathIn("") }

// PathIn is where it serves the resource in a namespace; empty for all of them, and for kinds without.
func (k Key) PathIn(namespace string) string {
	path := "/api/" + url.PathEscape(k.Version)
	if k.Group != "" {
		path = "/apis/" + url.PathEscape(k.Group) + "/" + url.PathEscape(k.Version)
	}
	if namespace != "" {
		path += "/namespaces/" + url.PathEscape(namespace)
	}
	return path + "/" + url.PathEscape(k.Resource)
}

// Get asks the control cluster as the gateway itself. The answer may go on for as long as ctx lives.
type Get func(ctx context.Context, path string, query url.Values, accept string) (*http.Response, error)

// Config is what a Hub is made of. Zero values of what is not said to be required become the defaults.
type Config struct {
	// Get is required.
	Get Get
	// MaxEvents and MaxBytes bound what a feed holds of the past; one tenant may take up a quarter of it. AllBytes bounds
	// all feeds together.
	MaxEvents, MaxBytes, AllBytes int
	// MaxAge is how long an event is held.
	MaxAge time.Duration
	// Linger is how long a feed goes on without anybody who uses it.
	Linger time.Duration
	// Retry is how long a key whose feed could not be started is left alone.
	Retry time.Duration
	// Patience is how long a feed that has begun bears being told that the gateway may not watch.
	Patience time.Duration
}

// Hub holds the feeds of a gateway. Safe for concurrent use.
type Hub struct {
	config Config
	ctx    context.Context //nolint:containedctx // feeds outlive the requests that start them
	cancel context.CancelFunc
	group  sync.WaitGroup

	alive, subscribers, missed, slow, restarts, events, formers atomic.Int64

	// mu guards what follows. It is taken before a feed's.
	mu    sync.Mutex
	feeds map[Key]*feed
	// refused are keys that the control cluster does not serve the gateway, and when to ask again.
	refused map[Key]refusal
}

type refusal struct {
	until time.Time
	err   error
}

// New makes a Hub; [Hub.Close] ends it.
func New(c Config) (*Hub, error) {
	if c.Get == nil {
		return nil, errors.New("fanout: Get is required")
	}
	for _, field := range []struct {
		value   *int
		initial int
	}{{&c.MaxEvents, 8192}, {&c.MaxBytes, 16 << 20}, {&c.AllBytes, 256 << 20}} {
		if *field.value == 0 {
			*field.value = field.initial
		}
	}
	for _, field := range []struct {
		value   *time.Duration
		initial time.Duration
	}{{&c.MaxAge, 5 * time.Minute}, {&c.Linger, 2 * time.Minute}, {&c.Retry, 30 * time.Second}, {&c.Patience, time.Minute}} {
		if *field.value == 0 {
			*field.value = field.initial
		}
	}
	h := &Hub{config: c, feeds: map[Key]*feed{}, refused: map[Key]refusal{}}
	h.ctx, h.cancel = context.WithCancel(context.Background()) //nolint:forbidigo // ended by Close
	return h, nil
}

// Close ends all feeds and waits for them.
func (h *Hub) Close() {
	h.cancel()
	h.group.Wait()
}

// Stats are what a hub tells of itself.
type Stats struct {
	// Feeds and Subscribers are those that there are.
	Feeds, Subscribers int
	// Missed counts subscriptions that a feed could not serve from its memory, Slow those that did not keep up, Restarts
	// the times that a feed went on after its watch had ended, Events what feeds have been given for tenants, Formers the
	// former states of objects that were fetched for watches whose selectors they ceased to match.
	Missed, Slow, Restarts, Events, Formers int64
}

// Stats gives them.
func (h *Hub) Stats() Stats {
	return Stats{
		Feeds: int(h.alive.Load()), Subscribers: int(h.subscribers.Load()), Missed: h.missed.Load(), Slow: h.slow.Load(),
		Restarts: h.restarts.Load(), Events: h.events.Load(), Formers: h.formers.Load(),
	}
}

// Lease keeps a feed going. Its methods are safe for concurrent use.
type Lease struct {
	feed *feed
	once sync.Once
}

// Acquire starts the feed of a key, or joins it, and waits until it has begun. A feed that has to be started begins at
// the resource version from, if that is not in the future; 0 for now. The error says why there is none; whoever gets one
// watches without.
func (h *Hub) Acquire(ctx context.Context, key Key, from uint64) (*Lease, error) {
	h.mu.Lock()
	if r, ok := h.refused[key]; ok {
		if time.Now().Before(r.until) {
			h.mu.Unlock()
			return nil, r.err
		}
		delete(h.refused, key)
	}
	f, ok := h.feeds[key]
	if !ok {
		if h.ctx.Err() != nil {
			h.mu.Unlock()
			return nil, h.ctx.Err()
		}
		f = newFeed(h, key)
		h.feeds[key] = f
		h.alive.Add(1)
		h.group.Go(func() {
			defer h.alive.Add(-1)
			f.run(from)
		})
	}
	f.leases++
	if f.idle != nil {
		f.idle.Stop()
		f.idle = nil
	}
	h.mu.Unlock()
	lease := &Lease{feed: f}
	select {
	case <-f.ready:
	case <-ctx.Done():
		lease.Release()
		return nil, context.Cause(ctx)
	}
	if f.err != nil {
		lease.Release()
		return nil, f.err
	}
	return lease, nil
}

// Header gives the headers with which the control cluster answered the feed. They must not be changed.
func (l *Lease) Header() http.Header { return l.feed.header }

// Progress is the resource version that the feed has come to.
func (l *Lease) Progress() uint64 {
	l.feed.mu.Lock()
	defer l.feed.mu.Unlock()
	return l.feed.progress
}

// Over reports whether the feed has ended, so that another must be acquired.
func (l *Lease) Over() bool {
	l.feed.mu.Lock()
	defer l.feed.mu.Unlock()
	return l.feed.over
}

// Release lets go of the feed.
func (l *Lease) Release() {
	l.once.Do(func() {
		h, f := l.feed.hub, l.feed
		h.mu.Lock()
		defer h.mu.Unlock()
		if f.leases--; f.leases > 0 || h.feeds[f.key] != f {
			return
		}
		f.idle = time.AfterFunc(h.config.Linger, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			if f.leases == 0 && h.feeds[f.key] == f {
				delete(h.feeds, f.key)
				f.cancel()
			}
		})
	})
}

// remove forgets a feed that is over, so that the next one who asks starts another; why keeps everybody from that for a
// while.
func (h *Hub) remove(f *feed, why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.feeds[f.key] == f {
		delete(h.feeds, f.key)
		if f.idle != nil {
			f.idle.Stop()
		}
	}
	if why != nil {
		h.refused[f.key] = refusal{time.Now().Add(h.config.Retry), why}
	}
}

// Restart breaks the watch of every feed off, which goes on from where it was: for tests.
func (h *Hub) Restart() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.feeds {
		f.breakOff()
	}
}

func (h *Hub) log(f *feed, message string, args ...any) {
	boot.Logger(h.ctx).Info(message, append([]any{"group", f.key.Group, "version", f.key.Version, "resource", f.key.Resource, "accept", f.key.Accept}, args...)...)
}

// refusedError says that the control cluster does not serve a feed.
type refusedError struct {
	path string
	code int
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("watch %s as the gateway: the control cluster answers %d", e.path, e.code)
}

// lasting reports whether asking again soon would be answered likewise.
func (e *refusedError) lasting() bool {
	return e.code >= 400 && e.code < 500 && e.code != http.StatusUnauthorized && e.code != http.StatusTooManyRequests
}
