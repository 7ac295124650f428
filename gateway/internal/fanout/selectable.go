package fanout

import (
	"sync"

	"vivarium.io/vivarium/gateway/internal/selection"
	"vivarium.io/vivarium/gateway/internal/translate"
)

// selectable is what subscriptions with a selector need of an event, found out once for all of them.
type selectable struct {
	reading sync.Once
	is      Object
	wrong   error

	// telling guards former.
	telling sync.Mutex
	former  []byte
}

// Object is what an event about an object says of it, in the control cluster's words.
type Object struct {
	// Type is ADDED, MODIFIED or DELETED.
	Type string
	Key  selection.Key
	// Labels are those that the object has, or, if it was deleted, had.
	Labels translate.Labels
	// ResourceVersion is the event's.
	ResourceVersion uint64
}

// learn reads what the object can be selected by, while the control cluster's frame is there.
func (e *Event) learn() {
	e.reading.Do(func() {
		if e.kind != change || e.raw != nil {
			return
		}
		e.is = Object{Key: e.object, ResourceVersion: e.rv}
		e.is.Type, e.is.Labels, e.wrong = translate.SelectableOfFrame(e.frame)
	})
}

// Object gives what the event is about, if it is [Event.Shared] and of no watch of Tables.
func (e *Event) Object() (*Object, error) {
	e.learn()
	return &e.is, e.wrong
}

// ResourceVersion is that of the event; several may have the same.
func (e *Event) ResourceVersion() uint64 { return e.rv }

// Former gives the frame that tells of the event's object as deleted, in the state before the event. It is fetched once for
// all subscriptions of the tenant, save after an error. The result must not be changed.
func (s *Subscription) Former(e *Event, fetch func(*Object) ([]byte, error)) ([]byte, error) {
	e.telling.Lock()
	defer e.telling.Unlock()
	if e.former != nil {
		return e.former, nil
	}
	is, err := e.Object()
	if err != nil {
		return nil, err
	}
	former, err := fetch(is)
	if err != nil {
		return nil, err
	}
	if e.former = former; e.former == nil {
		e.former = []byte{}
	}
	s.feed.hub.formers.Add(1)
	s.feed.grown(e, len(former))
	return e.former, nil
}

// grown notes that an event takes more than its frame.
func (f *feed) grown(e *Event, by int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.gone {
		return
	}
	e.size += by
	e.lane.bytes += by
	f.bytes += by
	f.shrink(e.lane)
}
