package fanout

import (
	"errors"
	"io"

	"vivarium.io/vivarium/internal/names"
)

// Errors that end a subscription. After [io.EOF] and [ErrSlow] the client watches again from what it saw last.
var (
	// ErrMissed says that the feed does not hold all events behind a resource version. Nothing has been given of them.
	ErrMissed = errors.New("the feed does not go back that far")
	// ErrSlow says that events were let go of before they were taken.
	ErrSlow = errors.New("the subscription does not keep up")
)

// Subscription is given what one watch of a tenant is to see. Not safe for concurrent use, [Subscription.Nudge] apart.
type Subscription struct {
	feed      *feed
	lane      *lane
	bookmarks bool
	wake      chan struct{}

	// The feed's mutex guards what follows.

	// from is the resource version behind which the subscription starts.
	from uint64
	// seq is the last event that has been taken; marked is the last bookmark that has been looked at.
	seq, marked uint64
	missed      bool
	over        bool
	closed      bool
}

// Attach subscribes to what a tenant is to see behind a resource version, without gap and without repetition, or fails
// with [ErrMissed]. A resource version that the feed has not come to yet is waited for.
func (l *Lease) Attach(tenant names.TenantID, from uint64, bookmarks bool) (*Subscription, error) {
	f := l.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.holds(tenant, from) {
		f.hub.missed.Add(1)
		return nil, ErrMissed
	}
	on := f.laneOf(tenant)
	s := &Subscription{feed: f, lane: on, bookmarks: bookmarks, wake: make(chan struct{}, 1), from: from}
	s.seq = on.after(from, f.seq)
	if f.mark != nil && f.mark.rv <= from {
		s.marked = f.mark.seq
	}
	if on.subs == nil {
		on.subs = map[*Subscription]struct{}{}
	}
	on.subs[s] = struct{}{}
	f.hub.subscribers.Add(1)
	s.nudge()
	return s, nil
}

// Holds reports whether [Lease.Attach] would succeed.
func (l *Lease) Holds(tenant names.TenantID, from uint64) bool {
	l.feed.mu.Lock()
	defer l.feed.mu.Unlock()
	return l.feed.holds(tenant, from)
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	delete(s.lane.subs, s)
	s.feed.hub.subscribers.Add(-1)
}

// Wake tells that there is something to take, now or since the last time that it told.
func (s *Subscription) Wake() <-chan struct{} { return s.wake }

// Nudge makes Wake tell, so that whoever waits looks around.
func (s *Subscription) Nudge() { s.nudge() }

func (s *Subscription) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Take appends what has come since the last time to into, at most maxBytes of it but at least one event; more says that
// there is more. An error comes alone: the subscription is at its end, and all that came before has been taken.
func (s *Subscription) Take(into []*Event, maxBytes int) (events []*Event, more bool, err error) {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case s.missed:
		return into, false, ErrMissed
	case s.lane.lost > s.seq:
		f.hub.slow.Add(1)
		return into, false, ErrSlow
	}
	mark := f.mark
	if !s.bookmarks || mark == nil || mark.seq <= s.marked || mark.rv <= s.from {
		mark = nil
	}
	size := 0
	for _, e := range s.lane.since(s.seq) {
		if mark != nil && mark.seq < e.seq {
			into, mark = append(into, mark), nil
			s.marked = f.mark.seq
		}
		if size > 0 && size+e.size > maxBytes {
			return into, true, nil
		}
		s.seq = e.seq
		// The feed may not have come to where the subscription starts.
		if e.rv > s.from {
			into = append(into, e)
			size += e.size
		}
	}
	s.seq = f.seq
	if mark != nil {
		into = append(into, mark)
		s.marked = mark.seq
	}
	if len(into) > 0 {
		return into, f.over, nil
	}
	switch {
	case !f.over:
		return into, false, nil
	case f.last != nil && !s.over:
		s.over = true
		return append(into, f.last), true, nil
	}
	return into, false, io.EOF
}
