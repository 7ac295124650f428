package gateway

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/frames"
	"vivarium.io/vivarium/gateway/internal/paging"
	"vivarium.io/vivarium/gateway/internal/translate"
)

// catchUp watches as the tenant's user, from where the feed does not reach, until the feed holds everything that comes
// next, and if it selects it is known what matches; again is true then. Otherwise the watch is over.
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
	s.selected.narrow(query)
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
	in := translate.NewFrames(res.Body)
	var out []byte
	for first := true; ; first = false {
		frame, err := in.Next()
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
		if !isError && rv > s.from && s.selected.exact() && s.caughtUp(ctx, s.from) {
			return s.send(out) == nil, nil
		}
		own := !isError && !isBookmark && s.owns(scope)
		if own {
			s.note(scope)
		}
		if isError || isBookmark && s.bookmarks || own {
			if out, err = s.appendTenant(out, frame); err != nil {
				_ = s.send(out)
				return false, s.withhold(ctx, err)
			}
		}
		s.from = max(s.from, rv)
		last := isError || isBookmark && !s.selected.alone() && s.caughtUp(ctx, rv) && s.learnLate()
		if last || !in.Buffered() || len(out) >= batch {
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
	call, err := s.callWith(http.MethodGet, s.header, control.Unary, listAccept(s.key.Accept), "")
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
			return frames.ErrEnough
		}
		s.note(scope)
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
	source := s.pagesOfAll(call, paging.Latest)
	defer source.close()
	for token, more := source.first(), true; more && !ended; {
		list, err := s.page(source, s.form, token, each)
		if err != nil {
			return err
		}
		s.from = list.ResourceVersion
		token, more = source.next(token, list.Continue)
	}
	s.selected.begin()
	if err := s.begin(s.lease.Header()); err != nil {
		return err
	}
	if s.ending {
		if out, err = s.appendTenant(out, s.form.Bookmark(s.from, true)); err != nil {
			return err
		}
	}
	return s.send(out)
}

// errNotYet says that the feed has not come to the resource version that a client asks for, which may not exist.
var errNotYet = errors.New("the resource version is not there yet")

// page reads one page of what there is, in some form.
func (s *shared) page(source pages, form frames.Form, token string, each func(frame []byte) error) (frames.List, error) {
	res, err := source.page(token)
	if res, err = s.document(s.ctx, res, err); err != nil {
		return frames.List{}, err
	}
	defer res.Body.Close()
	list, err := form.Added(res.Body, each)
	if err == nil && list.Remaining > 0 {
		s.learnBehind(pageSize + list.Remaining)
	}
	return list, err
}

// pages are those of a list over all namespaces.
type pages interface {
	// first is the token of the first page, next that of the one behind a page that was asked for by read and ends with
	// token.
	first() string
	next(read, token string) (next string, more bool)
	page(token string) (*http.Response, error)
	close()
}

// pagesOfAll gives what the watch is about and is there for the tenant, at a revision, in the way that costs the control
// cluster least.
func (s *shared) pagesOfAll(call control.Call, revision int64) pages {
	query := url.Values{}
	s.selected.narrow(query)
	if pages := s.newSpread(s.ctx, call, query, pageSize, revision); pages != nil {
		return pages
	}
	return &whole{s, call, query, revision}
}

// whole reads a list from the tenant's first key on.
type whole struct {
	*shared
	call     control.Call
	query    url.Values
	revision int64
}

func (p *whole) first() string { return paging.Start(p.facts.tenant.ID, p.revision) }

func (*whole) next(_, token string) (string, bool) { return token, token != "" }

func (p *whole) page(token string) (*http.Response, error) {
	one := p.call
	one.Header = p.call.Header.Clone()
	one.Query = maps.Clone(p.query)
	one.Query.Set("limit", strconv.Itoa(pageSize))
	one.Query.Set("continue", token)
	return p.front.control.Do(p.ctx, one)
}

func (*whole) close() {}
