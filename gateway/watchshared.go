package gateway

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"vivarium.io/vivarium/gateway/internal/fanout"
	"vivarium.io/vivarium/gateway/internal/frames"
	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/internal/boot"
)

const (
	// minWatch is how long a shared watch stays open at least if its client does not say; at most twice as long, so that
	// not all end at once. A stock API server does the same.
	minWatch = 30 * time.Minute
	// batch is how much of a shared watch is written at once.
	batch = 64 << 10
)

// shared is a watch of a collection that holds objects of all tenants, served from the watch that they share. What that
// does not hold any more it reads from the control cluster as the tenant's user, until it has caught up.
type shared struct {
	*exchange
	keys []fanout.Key
	// from is the resource version behind which the client wants to see everything.
	from uint64
	// initial says that it wants to see first what there is; ending, that it wants to be told when it has.
	initial, ending bool
	bookmarks       bool
	includeObject   string
	timeout         time.Duration
	until           time.Time

	ctx    context.Context //nolint:containedctx // of the request, whose handler has gone on to stay
	header http.Header
	w      http.ResponseWriter
	out    *live
	lease  *fanout.Lease
	key    fanout.Key
	form   frames.Form
	table  *table // nil unless it is one of Tables
	// selected is what the watch selects; nil if everything.
	selected *selected
}

// share decides whether a watch can be served from the shared one. Whatever is not plainly of a known form goes to the
// control cluster, whose answer is the right one.
func (x *exchange) share(query url.Values, accept string) *shared {
	if x.kind.Custom != nil && !x.kind.Custom.Shared || x.kind.Kept {
		// All objects of a kind of the tenant's own are its own, and the control cluster has nothing of what is kept here.
		return nil
	}
	if !x.everywhere() {
		return nil
	}
	s := &shared{exchange: x, timeout: minWatch + rand.N(minWatch)} //nolint:gosec // spreads load, keeps no secret
	s.keys = x.keys(accept)
	if len(s.keys) == 0 {
		return nil
	}
	var ok bool
	if s.selected, ok = x.selects(query, &s.keys); !ok {
		return nil
	}
	for name, values := range query {
		value := values[0]
		switch name {
		case "watch", "timeout", "labelSelector", "fieldSelector":
		case "includeObject":
			s.includeObject = value
		case "allowWatchBookmarks":
			s.bookmarks = isTrue(value)
		case "timeoutSeconds":
			seconds, err := strconv.ParseInt(value, 10, 32)
			ok = ok && err == nil
			if seconds > 0 {
				s.timeout = time.Duration(seconds) * time.Second
			}
		case "resourceVersion":
			rv, err := strconv.ParseUint(value, 10, 64)
			ok = ok && (err == nil || value == "")
			s.from = rv
		case "resourceVersionMatch":
			ok = ok && value == "NotOlderThan" && isTrue(query.Get("sendInitialEvents"))
		case "sendInitialEvents":
			ok = ok && isTrue(value) && query.Get("resourceVersionMatch") == "NotOlderThan"
			s.initial, s.ending = true, true
		default:
			ok = false
		}
	}
	if s.from == 0 {
		s.initial = true
	}
	s.ending = s.ending && s.bookmarks
	if !ok {
		return nil
	}
	if isTable(s.keys[0]) {
		if s.initial || s.selected != nil {
			// Rows of a list are not rows of a watch; clients that want a Table have one when they watch.
			return nil
		}
		s.keys = s.keys[:1]
		s.keys[0].IncludeObject = s.includeObject
	}
	return s
}

func isTable(key fanout.Key) bool { return strings.Contains(key.Accept, ";as=Table;") }

func isTrue(value string) bool { return value == "true" || value == "1" }

// keys gives the feeds that would do for what a client accepts, best first; none if something that it likes better cannot
// be shared.
func (x *exchange) keys(accept string) []fanout.Key {
	type choice struct {
		mediaType string
		quality   float64
	}
	var choices []choice
	for one := range strings.SplitSeq(accept, ",") {
		mediaType, quality, _ := strings.Cut(one, ";q=")
		q, err := strconv.ParseFloat(quality, 64)
		if err != nil {
			q = 1
		}
		choices = append(choices, choice{mediaType, q})
	}
	slices.SortStableFunc(choices, func(a, b choice) int {
		switch {
		case a.quality > b.quality:
			return -1
		case a.quality < b.quality:
			return 1
		}
		return 0
	})
	var keys []fanout.Key
	for _, c := range choices {
		if _, as, ok := strings.Cut(c.mediaType, ";as="); ok && !strings.HasPrefix(as, "PartialObjectMetadata;") && !strings.HasPrefix(as, "Table;") {
			break
		}
		keys = append(keys, fanout.Key{
			Group: x.kind.Group, Version: x.facts.request.Version, Resource: x.kind.Resource,
			Accept: c.mediaType, Named: x.kind.Confined == kinds.ByName,
		})
	}
	return keys
}

// serve serves the watch; done is false if nothing has been answered and the control cluster has to be asked.
func (s *shared) serve(w http.ResponseWriter, r *http.Request) (done bool, err error) {
	allowed, err := s.front.access.everywhere(r.Context(), &s.facts.identity, "watch", s.kind.Group, s.facts.request.Version, s.kind.Resource)
	if err != nil || !allowed {
		// The control cluster says no, or what is wrong, in its own words.
		return false, nil
	}
	s.w, s.ctx, s.header = w, r.Context(), r.Header
	s.until = time.Now().Add(s.timeout)
	if !s.acquire(s.ctx) {
		s.front.metrics.unshared.Inc()
		return false, nil
	}
	s.facts.atEnd(func() { s.lease.Release() })
	if s.selected != nil {
		s.facts.atEnd(s.selected.set.Clear)
	}
	switch err := s.prepare(); {
	case err != nil && s.out == nil:
		// Nothing has been sent: whatever is wrong, the control cluster says it better.
		s.lease.Release()
		if s.selected != nil {
			s.selected.set.Clear()
		}
		return false, nil
	case err != nil:
		return true, s.withhold(s.ctx, err)
	}
	// What an idle watch holds there are thousands of.
	s.facts.request.Query = nil
	s.facts.stay = s.stay
	return true, nil
}

// prepare sends what there is first, or finds out what matches where the watch begins.
func (s *shared) prepare() error {
	if s.initial {
		return s.sendInitial()
	}
	return s.learn()
}

// stay follows the feed until the watch is over.
func (s *shared) stay() error {
	for {
		err := fanout.ErrMissed
		if s.selected.exact() {
			var sub *fanout.Subscription
			if sub, err = s.lease.Attach(s.facts.tenant.ID, s.from, s.bookmarks); err == nil {
				err = s.follow(sub)
				sub.Close()
			}
		}
		if !errors.Is(err, fanout.ErrMissed) {
			return s.withhold(s.ctx, err)
		}
		if again, err := s.catchUp(); !again {
			return err
		}
	}
}

// acquire gets a feed in the best form that the control cluster has.
func (s *shared) acquire(ctx context.Context) bool {
	from := s.from
	if s.initial {
		from = 0
	}
	for _, key := range s.keys {
		lease, err := s.front.fanout.Acquire(ctx, key, from)
		if err != nil {
			continue
		}
		s.lease, s.key, s.keys = lease, key, []fanout.Key{key}
		s.form = frames.Form{Proto: strings.Contains(key.Accept, "protobuf"), APIVersion: s.groupVersion(), Kind: s.kind.Kind}
		switch {
		case isTable(key):
			s.table = new(table)
		case strings.Contains(key.Accept, ";as="):
			s.form.APIVersion, s.form.Kind = "meta.k8s.io/v1", "PartialObjectMetadata"
		}
		return true
	}
	return false
}

// follow passes on what comes until the watch is over. The error is [fanout.ErrMissed] if what is behind s.from has to be
// had in another way.
func (s *shared) follow(sub *fanout.Subscription) error {
	if err := s.begin(s.lease.Header()); err != nil {
		return nil
	}
	defer time.AfterFunc(time.Until(s.until), sub.Nudge).Stop()
	for {
		select {
		case <-s.ctx.Done():
			return nil
		case <-sub.Wake():
		}
		if !time.Now().Before(s.until) {
			return nil
		}
		if err := s.drain(sub); err != nil {
			return err
		}
	}
}

// scratch is what a subscription that is being written needs, and an idle one does not.
type scratch struct {
	events []*fanout.Event
	bytes  []byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// drain writes what there is, as much as possible at once.
func (s *shared) drain(sub *fanout.Subscription) error {
	b, _ := scratches.Get().(*scratch)
	defer func() {
		clear(b.events)
		if cap(b.bytes) <= 4*batch {
			scratches.Put(b)
		}
	}()
	for more := true; more && s.ctx.Err() == nil; {
		var err error
		clear(b.events)
		if b.events, more, err = sub.Take(b.events[:0], batch); err != nil {
			if errors.Is(err, fanout.ErrSlow) {
				boot.Logger(s.ctx).Info("A watch is ended: its client does not keep up", "tenant", s.facts.tenant.ID, "resource", s.facts.request.Resource)
			}
			return err
		}
		if err := s.write(sub, b); err != nil {
			return err
		}
	}
	return nil
}

// write sends events with one write and one flush.
func (s *shared) write(sub *fanout.Subscription, b *scratch) error {
	var out []byte
	b.bytes = b.bytes[:0]
	for _, event := range b.events {
		frame, err := s.frameOf(sub, event)
		if err != nil {
			// What was whole goes out first.
			_ = s.send(b.bytes)
			return err
		}
		if len(b.events) == 1 {
			out = frame
			break
		}
		b.bytes = append(b.bytes, frame...)
		out = b.bytes
	}
	return s.send(out)
}

// send writes and flushes; the error is [io.EOF] if nobody is there to read.
func (s *shared) send(frames []byte) error {
	if len(frames) == 0 {
		return nil
	}
	if _, err := s.out.Write(frames); err != nil {
		return io.EOF
	}
	if s.out.Flush() != nil {
		return io.EOF
	}
	return nil
}
