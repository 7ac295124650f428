package fanout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"vivarium.io/vivarium/gateway/internal/frames"
	"vivarium.io/vivarium/gateway/internal/selection"
	"vivarium.io/vivarium/gateway/internal/translate"
	"vivarium.io/vivarium/internal/names"
)

const (
	// firstTimeout bounds how long those who wait for a new feed wait for the control cluster.
	firstTimeout = 10 * time.Second
	// maxList bounds the answer that tells the resource version of now.
	maxList = 8 << 20
	// minBackoff and maxBackoff are between two tries to go on.
	minBackoff, maxBackoff = 50 * time.Millisecond, 5 * time.Second
	// eventOverhead is about what an event takes besides its frame.
	eventOverhead = 320
)

// feed is one watch of the control cluster.
type feed struct {
	hub    *Hub
	key    Key
	ctx    context.Context //nolint:containedctx // the feed's own life
	cancel context.CancelFunc

	// leases and idle are guarded by the hub's mutex.
	leases int
	idle   *time.Timer

	// ready is closed when the feed has begun, or when it cannot; err and header are set before.
	ready  chan struct{}
	begun  bool // used by run alone
	err    error
	header http.Header

	// mu guards what follows.
	mu sync.Mutex
	// start is the resource version that the feed began behind; progress is the one that it has come to.
	start, progress uint64
	// seq counts events.
	seq   uint64
	lanes map[names.TenantID]*lane
	// past holds the events of all lanes in their order, with some that are gone already.
	past         []*Event
	count, bytes int
	mark         *Event // the last bookmark
	last         *Event // the error that ended the feed, if the control cluster sent one
	over         bool
	current      context.CancelFunc // ends the present watch
	table        bool               // the watch is one of Tables
	columns      []byte             // its first frame, since it was begun last
	// alike are the objects whose events have the resource version progress: a transaction may change several.
	alike []selection.Key
}

func newFeed(h *Hub, key Key) *feed {
	f := &feed{hub: h, key: key, ready: make(chan struct{}), lanes: map[names.TenantID]*lane{}, table: strings.Contains(key.Accept, ";as=Table;")}
	f.ctx, f.cancel = context.WithCancel(h.ctx)
	return f
}

// begin lets those who wait for the feed go on.
func (f *feed) begin(err error) {
	if !f.begun {
		f.begun, f.err = true, err
		close(f.ready)
	}
}

// run feeds until the feed is over.
func (f *feed) run(from uint64) {
	defer f.cancel()
	err := f.watch(from)
	var refused *refusedError
	if f.begun || !errors.As(err, &refused) {
		refused = nil
	}
	if err != nil && f.ctx.Err() == nil {
		f.hub.log(f, "A shared watch ends", "error", err.Error())
	}
	if refused != nil && refused.lasting() || errors.Is(err, errMalformed) {
		f.hub.remove(f, err)
	} else {
		f.hub.remove(f, nil)
	}
	if err == nil {
		err = errors.New("the gateway stops")
	}
	f.begin(err)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	f.nudgeAll()
}

var (
	errMalformed = errors.New("the control cluster sends frames that cannot be read")
	// errExpired says that the control cluster no longer has what would come next.
	errExpired = errors.New("the resource version is too old")
)

// watch begins the feed and goes on for as long as that is possible without loss.
func (f *feed) watch(from uint64) error {
	first, cancel := context.WithTimeout(f.ctx, firstTimeout)
	now, err := f.revision(first)
	cancel()
	if err != nil {
		return err
	}
	if from == 0 || from > now {
		from = now
	}
	f.start, f.progress = from, from
	backoff, malformed := minBackoff, 0
	var forbidden time.Time // since when
	for {
		before := f.progressed()
		err := f.once()
		var refused *refusedError
		switch {
		case f.ctx.Err() != nil:
			return nil
		case errors.Is(err, errExpired) && f.seq == 0 && f.start < now && f.mark == nil:
			// Where it was to begin is too far back: it begins now, and whoever is to start there watches without it.
			f.rebase(now)
			continue
		case errors.Is(err, errExpired):
			return err
		case errors.As(err, &refused) && refused.code == http.StatusForbidden && f.begun:
			// An API server that has just started does not know its roles yet.
			if forbidden.IsZero() {
				forbidden = time.Now()
			}
			if time.Since(forbidden) > f.hub.config.Patience {
				return err
			}
		case errors.As(err, &refused) && refused.lasting():
			return err
		case err != nil && !f.begun:
			return err
		case errors.Is(err, errMalformed):
			if malformed++; malformed > 5 {
				return err
			}
		}
		if err == nil {
			forbidden = time.Time{}
		}
		f.hub.restarts.Add(1)
		if f.progressed() > before {
			backoff, malformed = minBackoff, 0
		}
		select {
		case <-f.ctx.Done():
			return nil
		case <-time.After(backoff/2 + rand.N(backoff)): //nolint:gosec // spreads load, keeps no secret
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// revision asks for the resource version of now.
func (f *feed) revision(ctx context.Context) (uint64, error) {
	// With any resource version the limit would be ignored.
	res, err := f.hub.config.Get(ctx, f.key.Path(), url.Values{"limit": {"1"}}, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return 0, &refusedError{f.key.Path(), res.StatusCode}
	}
	var list struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxList)).Decode(&list); err != nil {
		return 0, fmt.Errorf("read a list of %s: %w", f.key.Path(), err)
	}
	rv, err := strconv.ParseUint(list.Metadata.ResourceVersion, 10, 64)
	if err != nil || rv == 0 {
		return 0, fmt.Errorf("a list of %s has the resource version %q", f.key.Path(), list.Metadata.ResourceVersion)
	}
	return rv, nil
}

func (f *feed) progressed() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.progress
}

// breakOff ends the present watch; the feed goes on with another.
func (f *feed) breakOff() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.current != nil {
		f.current()
	}
}

// once watches from where the feed is until the watch ends. The error is nil if it ended as watches do.
func (f *feed) once() error {
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	f.mu.Lock()
	f.current = cancel
	from := f.progress
	if len(f.alike) > 0 {
		// The watch may have ended in the middle of a transaction.
		from--
	}
	f.mu.Unlock()
	query := url.Values{"watch": {"true"}, "allowWatchBookmarks": {"true"}, "resourceVersion": {strconv.FormatUint(from, 10)}}
	if f.key.IncludeObject != "" {
		query.Set("includeObject", f.key.IncludeObject)
	}
	// Headers come at once; frames take their time.
	timer := time.AfterFunc(firstTimeout, cancel)
	res, err := f.open(ctx, query)
	timer.Stop()
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if !f.begun {
		f.header = res.Header
		f.begin(nil)
	}
	return f.read(res.Body)
}

func (f *feed) open(ctx context.Context, query url.Values) (*http.Response, error) {
	res, err := f.hub.config.Get(ctx, f.key.Path(), query, f.key.Accept)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	_ = res.Body.Close()
	if res.StatusCode == http.StatusGone {
		return nil, errExpired
	}
	return nil, &refusedError{f.key.Path(), res.StatusCode}
}

// read takes frames until the watch ends.
func (f *feed) read(body io.Reader) error {
	in := translate.NewFrames(body)
	for first := true; ; first = false {
		frame, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if first && f.table {
			f.columns = slices.Clone(frame)
		}
		scope, err := translate.ScopeOfFrame(frame)
		if err != nil {
			return fmt.Errorf("%w: %w", errMalformed, err)
		}
		if scope.Type == "ERROR" {
			return f.failed(frame)
		}
		rv, err := strconv.ParseUint(string(scope.ResourceVersion), 10, 64)
		if err != nil {
			return fmt.Errorf("%w: %s with the resource version %q", errMalformed, scope.Type, scope.ResourceVersion)
		}
		if scope.Type == "BOOKMARK" {
			f.bookmark(rv, frame)
			continue
		}
		var id names.TenantID
		if f.key.Named {
			id, _, _ = names.SplitNamespace(names.ControlNamespace(scope.Name))
		} else {
			id, _, _ = names.SplitNamespace(names.ControlNamespace(scope.Namespace))
		}
		if err := f.push(id, rv, selection.KeyOf(scope.Namespace, scope.Name), frame); err != nil {
			return err
		}
	}
}

// event keeps a frame.
func (f *feed) event(is kind, rv uint64, frame []byte) *Event {
	e := &Event{kind: is, seq: f.seq, rv: rv, frame: slices.Clone(frame)}
	if f.table {
		e.raw, e.head = e.frame, f.columns
	}
	return e
}

// failed is what becomes of a watch that ends with an error: if that says that the past is gone, the subscriptions are
// told so, as the control cluster would tell each of them.
func (f *feed) failed(frame []byte) error {
	code, err := frames.Code(frame)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errMalformed, err)
	case code != http.StatusGone:
		return fmt.Errorf("the control cluster ends the watch with an error %d", code)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = f.event(failure, f.progress, frame)
	return errExpired
}

// rebase begins the feed at another resource version; nothing has been given yet.
func (f *feed) rebase(to uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = nil
	f.start, f.progress = to, to
	for _, l := range f.lanes {
		for s := range l.subs {
			if s.from < to {
				s.missed = true
				s.nudge()
			}
		}
	}
}

// bookmark notes how far the watch has come.
func (f *feed) bookmark(rv uint64, frame []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if rv < f.progress {
		return
	}
	// It comes behind all events of its resource version.
	f.progress, f.alike = rv, f.alike[:0]
	f.seq++
	f.mark = f.event(bookmark, rv, frame)
	f.expire()
	f.nudgeAll()
}

// push puts an event into its tenant's lane; one without a tenant only moves the feed on.
func (f *feed) push(id names.TenantID, rv uint64, object selection.Key, frame []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case rv < f.progress:
		return fmt.Errorf("%w: resource version %d behind %d", errMalformed, rv, f.progress)
	case rv == f.progress && (len(f.alike) == 0 || slices.Contains(f.alike, object)):
		// Seen before the watch was begun anew.
		return nil
	case rv > f.progress:
		f.progress, f.alike = rv, f.alike[:0]
	}
	f.alike = append(f.alike, object)
	f.seq++
	if id == "" {
		return nil
	}
	f.hub.events.Add(1)
	on := f.laneOf(id)
	e := f.event(change, rv, frame)
	e.object, e.at, e.size, e.lane = object, time.Now(), len(frame)+eventOverhead, on
	on.push(e)
	if len(f.past) > 2*f.count+64 {
		f.past = slices.DeleteFunc(f.past, func(e *Event) bool { return e.gone })
	}
	f.past = append(f.past, e)
	f.count++
	f.bytes += e.size
	f.shrink(on)
	for s := range on.subs {
		s.nudge()
	}
	return nil
}

// shrink lets go of the oldest events beyond the bounds: of the lane itself if that takes up much, then of all. The event
// that has just come stays.
func (f *feed) shrink(on *lane) {
	c := &f.hub.config
	maxBytes := f.maxBytes()
	for on.len() > 1 && (on.len() > c.MaxEvents/4 || on.bytes > maxBytes/4) {
		f.drop(on)
	}
	for f.count > 1 && (f.count > c.MaxEvents || f.bytes > maxBytes) {
		f.drop(f.oldest().lane)
	}
	f.expire()
}

// maxBytes is the feed's share of what all feeds may hold.
func (f *feed) maxBytes() int {
	feeds := int(f.hub.alive.Load())
	return min(f.hub.config.MaxBytes, f.hub.config.AllBytes/max(1, feeds))
}

// expire lets go of what is old.
func (f *feed) expire() {
	if f.count == 0 {
		return
	}
	horizon := time.Now().Add(-f.hub.config.MaxAge)
	for f.count > 0 && f.oldest().at.Before(horizon) {
		f.drop(f.oldest().lane)
	}
}

// oldest gives the oldest event that is held; there must be one.
func (f *feed) oldest() *Event {
	for f.past[0].gone {
		f.past[0] = nil
		f.past = f.past[1:]
	}
	return f.past[0]
}

func (f *feed) drop(on *lane) {
	e := on.pop()
	f.count--
	f.bytes -= e.size
}

// holds reports whether everything of a tenant behind a resource version is there.
func (f *feed) holds(id names.TenantID, from uint64) bool {
	low := f.start
	if on, ok := f.lanes[id]; ok {
		low = max(low, on.low)
	}
	return !f.over && from >= low
}

// laneOf finds a tenant's lane. Lanes stay for as long as the feed: a few words each.
func (f *feed) laneOf(id names.TenantID) *lane {
	on, ok := f.lanes[id]
	if !ok {
		on = &lane{tenant: id}
		f.lanes[id] = on
	}
	return on
}

func (f *feed) nudgeAll() {
	for _, l := range f.lanes {
		for s := range l.subs {
			s.nudge()
		}
	}
}
