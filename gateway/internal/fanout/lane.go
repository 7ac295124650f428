package fanout

import (
	"sort"
	"sync"
	"time"

	"vivarium.io/vivarium/gateway/internal/selection"
	"vivarium.io/vivarium/internal/names"
)

// Event is one frame of a watch.
type Event struct {
	seq uint64
	// rv is the resource version; events of one transaction may share it.
	rv   uint64
	kind kind
	at   time.Time
	size int
	lane *lane
	gone bool

	// once guards the change from the control cluster's frame to the tenant's.
	once  sync.Once
	frame []byte
	err   error

	// object is what the event is about, as [Event.Object] says it.
	object selection.Key
	selectable
	// head is the first frame of the watch that the event came with, and raw the control cluster's frame, where that is
	// needed to understand it: in watches of Tables, whose columns only the first frame names.
	head, raw []byte
}

// kind says for whom an event is.
type kind uint8

const (
	// change is an object's; it belongs to one tenant.
	change kind = iota
	// bookmark and failure are for everybody.
	bookmark
	failure
)

// Shared reports whether the event belongs to one tenant, so that every subscription of it is given the same.
func (e *Event) Shared() bool { return e.kind == change }

// Bookmark reports whether the event says no more than how far the watch has come.
func (e *Event) Bookmark() bool { return e.kind == bookmark }

// Table gives the control cluster's frame of a watch of Tables, and the first one, which names the columns.
func (e *Event) Table() (frame, head []byte) { return e.raw, e.head }

// Tenant gives the frame as its tenant sees it. The translation is asked once for all subscriptions of the tenant. The
// result must not be changed.
func (e *Event) Tenant(translate func(frame []byte) ([]byte, error)) ([]byte, error) {
	if e.kind != change {
		return translate(e.frame)
	}
	e.once.Do(func() {
		e.learn()
		frame, err := translate(e.frame)
		e.swapping.Lock()
		defer e.swapping.Unlock()
		e.frame, e.err = frame, err
	})
	return e.frame, e.err
}

// lane is what a feed knows of one tenant. The feed's mutex guards it.
type lane struct {
	tenant names.TenantID
	// events are in the order of their seq, those before first are gone.
	events []*Event
	first  int
	bytes  int
	// low is the resource version of the last event that is gone: only what is newer can be given.
	low uint64
	// lost is the seq of that event.
	lost uint64
	subs map[*Subscription]struct{}
}

func (l *lane) len() int { return len(l.events) - l.first }

func (l *lane) push(e *Event) {
	l.events = append(l.events, e)
	l.bytes += e.size
}

// pop lets go of the oldest event.
func (l *lane) pop() *Event {
	e := l.events[l.first]
	l.events[l.first] = nil
	l.first++
	l.bytes -= e.size
	l.low, l.lost = e.rv, e.seq
	e.gone = true
	if l.first > len(l.events)/2 {
		l.events = append(l.events[:0], l.events[l.first:]...)
		clear(l.events[len(l.events):cap(l.events)])
		l.first = 0
	}
	return e
}

// after gives the seq of the last event that is not newer than a resource version, or of what came before the lane's
// first.
func (l *lane) after(rv, last uint64) uint64 {
	held := l.events[l.first:]
	i := sort.Search(len(held), func(i int) bool { return held[i].rv > rv })
	if i == len(held) {
		return last
	}
	return held[i].seq - 1
}

// since gives the events behind a seq.
func (l *lane) since(seq uint64) []*Event {
	held := l.events[l.first:]
	return held[sort.Search(len(held), func(i int) bool { return held[i].seq > seq }):]
}
