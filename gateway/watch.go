package gateway

import (
	"bytes"
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

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/fanout"
	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/gateway/internal/paging"
	"vivarium.io/vivarium/gateway/internal/translate"
	"vivarium.io/vivarium/internal/boot"
)

const (
	// minWatch is how long a shared watch stays open at least if its client does not say; at most twice as long, so that
	// not all end at once. A stock API server does the same.
	minWatch = 30 * time.Minute
	// batch is how much of a shared watch is written at once.
	batch = 64 << 10
)

// watch passes changes on as they come.
func (x *exchange) watch(w http.ResponseWriter, r *http.Request) error {
	accept, err := control.Accept(r.Header.Values("Accept"), control.Object)
	if err != nil {
		return err
	}
	query, err := x.query("watch")
	if err != nil {
		return err
	}
	if s := x.share(query, accept); s != nil {
		if done, err := s.serve(w, r); done {
			return err
		}
	}
	return x.watchAlone(w, r, query, accept)
}

// watchAlone watches as the tenant's user. Of a collection that holds objects of all tenants, those of others are left
// out.
func (x *exchange) watchAlone(w http.ResponseWriter, r *http.Request, query url.Values, accept string) error {
	res, err := x.open(r.Context(), r.Header, query, accept)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	x.copyHeaders(w.Header(), res)
	w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
	w.WriteHeader(http.StatusOK)
	out := newLive(w)
	if out.Flush() != nil {
		return nil
	}
	return x.withhold(r.Context(), x.view.WatchToTenant(x.translated, out, func() { _ = out.Flush() }, res.Body, x.everywhere()))
}

// open begins a watch of the control cluster as the tenant's user.
func (x *exchange) open(ctx context.Context, header http.Header, query url.Values, accept string) (*http.Response, error) {
	call, err := x.callWith(http.MethodGet, header, control.Streaming, accept, "")
	if err != nil {
		return nil, err
	}
	call.Query = query
	res, err := x.front.control.Do(ctx, call)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		return nil, x.readError(ctx, res)
	}
	if err := checkType(res); err != nil {
		_ = res.Body.Close()
		return nil, err
	}
	return res, nil
}

// withhold breaks a watch off that cannot be translated. Whatever else ended one, frames were passed whole: clients watch
// again from the last one.
func (x *exchange) withhold(ctx context.Context, err error) error {
	var foreign *translate.ForeignError
	if !errors.As(err, &foreign) {
		return nil
	}
	x.front.metrics.foreign.Inc()
	boot.Logger(ctx).Error("A watch of the control cluster is withheld", "error", err,
		"tenant", x.facts.tenant.ID, "resource", x.facts.request.Resource)
	return x.front.finish(err)
}

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
	form   fanout.Form
	table  *table // nil unless it is one of Tables
}

// share decides whether a watch can be served from the shared one. Whatever is not plainly of a known form goes to the
// control cluster, whose answer is the right one.
func (x *exchange) share(query url.Values, accept string) *shared {
	// Custom kinds have no shared watch: most are one tenant's, and the gateway itself may not read them.
	if x.kind.Custom != nil || !x.everywhere() || query.Get("labelSelector") != "" || query.Get("fieldSelector") != "" {
		// What a selector leaves out only the control cluster can tell: an object that no longer matches is gone.
		return nil
	}
	s := &shared{exchange: x, timeout: minWatch + rand.N(minWatch)} //nolint:gosec // spreads load, keeps no secret
	ok := true
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
	s.keys = x.keys(accept)
	if !ok || len(s.keys) == 0 {
		return nil
	}
	if isTable(s.keys[0]) {
		if s.initial {
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
	allowed, err := s.front.access.mayWatch(r.Context(), &s.facts.identity, s.kind.Group, s.facts.request.Version, s.kind.Resource)
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
	if s.initial {
		switch err := s.sendInitial(); {
		case err != nil && s.out == nil:
			// Nothing has been sent: whatever is wrong, the control cluster says it better.
			return false, nil
		case err != nil:
			return true, s.withhold(s.ctx, err)
		}
	}
	// What an idle watch holds there are thousands of.
	s.facts.request.Query = nil
	s.facts.stay = s.stay
	return true, nil
}

// stay follows the feed until the watch is over.
func (s *shared) stay() error {
	for {
		sub, err := s.lease.Attach(s.facts.tenant.ID, s.from, s.bookmarks)
		if err == nil {
			err = s.follow(sub)
			sub.Close()
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
		s.form = fanout.Form{Proto: strings.Contains(key.Accept, "protobuf"), APIVersion: s.groupVersion(), Kind: s.kind.Kind}
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

// begin sends the headers, once: those with which the control cluster answered.
func (s *shared) begin(h http.Header) error {
	if s.out != nil {
		return nil
	}
	h = h.Clone()
	// It is another request's.
	h.Del("Audit-Id")
	s.copyHeaders(s.w.Header(), &http.Response{Header: h})
	s.w.Header().Set("Content-Type", h.Get("Content-Type"))
	s.w.WriteHeader(http.StatusOK)
	s.out = newLive(s.w)
	return s.out.Flush()
}

// toTenant translates a frame for this tenant; what is not the tenant's becomes nothing.
func (s *shared) toTenant(frame []byte) ([]byte, error) {
	return s.appendTenant(make([]byte, 0, len(frame)), frame)
}

func (s *shared) appendTenant(dst, frame []byte) (out []byte, err error) {
	if s.table == nil || s.table.columns == nil {
		// An error may come before any Table; a Table without columns is refused.
		out, err = s.view.FrameToTenant(s.translated, dst, frame)
	} else {
		out, err = s.view.TableFrameToTenant(s.translated, dst, frame, s.table.columns, !s.table.defined)
		s.table.defined = s.table.defined || err == nil
	}
	if errors.Is(err, translate.ErrForeignItem) {
		return dst, nil
	}
	return out, err
}

// table is what a watch of Tables has to remember.
type table struct {
	// head is the frame that names the columns.
	head    []byte
	columns *translate.Columns
	// defined says that the client has been told.
	defined bool
}

// read remembers the columns that a frame names.
func (t *table) read(kind translate.Kind, head []byte) (err error) {
	if len(t.head) == len(head) && len(head) > 0 && &t.head[0] == &head[0] {
		return nil
	}
	t.head = head
	t.columns, err = translate.ColumnsOfFrame(kind, head)
	return err
}

// frame translates an event; all clients of the tenant share what comes of it, save for the first frame of a Table.
func (s *shared) frame(event *fanout.Event) ([]byte, error) {
	if s.table == nil {
		return event.Tenant(s.toTenant)
	}
	raw, head := event.Table()
	if err := s.table.read(s.translated, head); err != nil {
		return nil, err
	}
	if !s.table.defined {
		return s.toTenant(raw)
	}
	return event.Tenant(s.toTenant)
}

// follow passes on what comes until the watch is over. The error is [fanout.ErrMissed] if nothing of it could be had.
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
		if err := s.write(b); err != nil {
			return err
		}
	}
	return nil
}

// write sends events with one write and one flush.
func (s *shared) write(b *scratch) error {
	var out []byte
	b.bytes = b.bytes[:0]
	for _, event := range b.events {
		frame, err := s.frame(event)
		if err != nil {
			// What was whole goes out first.
			_, _ = s.out.Write(b.bytes)
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

// catchUp watches as the tenant's user, from where the feed does not reach, until the feed holds everything that comes
// next; again is true then. Otherwise the watch is over.
func (s *shared) catchUp() (again bool, err error) {
	ctx, cancel := context.WithDeadline(s.ctx, s.until)
	defer cancel()
	query := url.Values{
		"watch": {"true"}, "resourceVersion": {strconv.FormatUint(s.from, 10)}, "allowWatchBookmarks": {"true"},
		"timeoutSeconds": {strconv.Itoa(max(1, int(time.Until(s.until).Seconds())))},
	}
	if s.key.IncludeObject != "" {
		query.Set("includeObject", s.key.IncludeObject)
	}
	res, err := s.open(ctx, s.header, query, s.key.Accept)
	if err != nil {
		if s.out != nil {
			// The client has an answer; it watches again and is told then.
			return false, nil
		}
		return false, err
	}
	defer res.Body.Close()
	if s.begin(res.Header) != nil {
		return false, nil
	}
	frames := translate.NewFrames(res.Body)
	var out []byte
	for first := true; ; first = false {
		frame, err := frames.Next()
		if err == nil && first && s.table != nil {
			err = s.table.read(s.translated, bytes.Clone(frame))
		}
		if err != nil {
			return false, s.withhold(ctx, errors.Join(s.send(out), err))
		}
		scope, err := translate.ScopeOfFrame(frame)
		if err != nil {
			_ = s.send(out)
			return false, s.withhold(ctx, err)
		}
		rv, err := strconv.ParseUint(string(scope.ResourceVersion), 10, 64)
		isError, isBookmark := scope.Type == "ERROR", scope.Type == "BOOKMARK"
		if err != nil && !isError {
			_ = s.send(out)
			return false, nil
		}
		// Several events may have one resource version: all of them are here when a later one comes, or a bookmark.
		if !isError && rv > s.from && s.caughtUp(ctx, s.from) {
			return s.send(out) == nil, nil
		}
		if isError || isBookmark && s.bookmarks || !isBookmark && s.owns(scope) {
			if out, err = s.appendTenant(out, frame); err != nil {
				_ = s.send(out)
				return false, s.withhold(ctx, err)
			}
		}
		s.from = max(s.from, rv)
		last := isError || isBookmark && s.caughtUp(ctx, rv)
		if last || !frames.Buffered() || len(out) >= batch {
			if s.send(out) != nil {
				return false, nil
			}
			out = out[:0]
			if cap(out) > 4*batch {
				out = nil
			}
		}
		if last {
			return !isError, nil
		}
	}
}

// owns reports whether an object has this tenant's prefix.
func (s *shared) owns(scope translate.FrameScope) bool {
	owner := scope.Namespace
	if s.key.Named {
		owner = scope.Name
	}
	return s.facts.tenant.ID.Owns(string(owner))
}

// caughtUp reports whether the feed holds everything behind a resource version. A feed that is over is begun anew.
func (s *shared) caughtUp(ctx context.Context, rv uint64) bool {
	if s.lease.Over() {
		lease, err := s.front.fanout.Acquire(ctx, s.key, rv)
		if err != nil {
			return false
		}
		s.lease.Release()
		s.lease = lease
	}
	return s.lease.Holds(s.facts.tenant.ID, rv)
}

// sendInitial sends what there is as if it had just been added: read as a list, at the cost of this tenant's own objects,
// and as the tenant's user.
func (s *shared) sendInitial() error {
	if s.from > s.lease.Progress() {
		return errNotYet
	}
	accept := strings.Replace(s.key.Accept, "as=PartialObjectMetadata;", "as=PartialObjectMetadataList;", 1)
	call, err := s.callWith(http.MethodGet, s.header, control.Unary, accept, "")
	if err != nil {
		return err
	}
	var out []byte
	ended := false
	each := func(frame []byte) error {
		scope, err := translate.ScopeOfFrame(frame)
		if err != nil {
			return err
		}
		if !s.owns(scope) {
			// The tenant's objects come first; what follows is the next one's.
			ended = true
			return fanout.ErrEnough
		}
		if out, err = s.appendTenant(out, frame); err != nil || len(out) < batch {
			return err
		}
		if err := s.begin(s.lease.Header()); err != nil {
			return err
		}
		_, err = s.out.Write(out)
		out = out[:0]
		return err
	}
	for token := paging.Start(s.facts.tenant.ID, paging.Latest); token != "" && !ended; {
		one := call
		one.Header = call.Header.Clone()
		one.Query = url.Values{"limit": {strconv.Itoa(pageSize)}, "continue": {token}}
		list, err := s.page(one, each)
		if err != nil {
			return err
		}
		s.from, token = list.ResourceVersion, list.Continue
	}
	if err := s.begin(s.lease.Header()); err != nil {
		return err
	}
	if s.ending {
		if out, err = s.appendTenant(out, s.form.InitialEventsEnd(s.from)); err != nil {
			return err
		}
	}
	return s.send(out)
}

// errNotYet says that the feed has not come to the resource version that a client asks for, which may not exist.
var errNotYet = errors.New("the resource version is not there yet")

// page reads one page of what there is.
func (s *shared) page(call control.Call, each func(frame []byte) error) (fanout.List, error) {
	res, err := s.front.control.Do(s.ctx, call)
	if err != nil {
		return fanout.List{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fanout.List{}, s.readError(s.ctx, res)
	}
	return s.form.Added(res.Body, each)
}
