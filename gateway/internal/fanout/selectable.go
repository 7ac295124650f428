package fanout

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/labels"

	"vivarium.io/vivarium/gateway/internal/selection"
	"vivarium.io/vivarium/gateway/internal/translate"
)

// selectable is what subscriptions with a selector need of an event, found out once for all of them.
type selectable struct {
	reading sync.Once
	is      Object
	wrong   error

	// swapping guards the change of the event's frame where [Event.Fields] may look at it, and fields.
	swapping sync.Mutex
	fields   []string

	// telling guards former, and untold: why the last try to fetch it failed, of which tried counts those that did.
	telling sync.Mutex
	former  []byte
	untold  error
	tried   atomic.Uint32
}

// Object is what an event about an object says of it, in the control cluster's words.
type Object struct {
	// Type is ADDED, MODIFIED or DELETED.
	Type string
	Key  selection.Key
	// Labels are those that the object has, or, if it was deleted, had.
	Labels labels.Labels
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
		var found translate.Labels
		e.is.Type, found, e.wrong = translate.SelectableOfFrame(e.frame)
		e.is.Labels = found
	})
}

// Object gives what the event is about, if it is [Event.Shared] and of no watch of Tables.
func (e *Event) Object() (*Object, error) {
	e.learn()
	return &e.is, e.wrong
}

// Fields gives fields of the event's object: always the same ones, for they are read once. They are read out of the control
// cluster's frame or the tenant's, whichever there is. A frame that tells the tenant nothing has none.
func (e *Event) Fields(wanted []translate.Field) (_ []string, err error) {
	e.swapping.Lock()
	defer e.swapping.Unlock()
	if e.fields == nil && len(e.frame) > 0 {
		e.fields, err = translate.FieldsOfFrame(e.frame, wanted)
	}
	return e.fields, err
}

// ResourceVersion is that of the event; several may have the same.
func (e *Event) ResourceVersion() uint64 { return e.rv }

// Former gives the frame that tells of the event's object as deleted, in the state before the event. It is fetched once for
// all subscriptions of the tenant, save after an error, which those share that have waited for it. The result must not be changed.
func (s *Subscription) Former(e *Event, fetch func(*Object) ([]byte, error)) ([]byte, error) {
	tried := e.tried.Load()
	e.telling.Lock()
	defer e.telling.Unlock()
	switch {
	case e.former != nil:
		return e.former, nil
	case e.tried.Load() != tried:
		return nil, e.untold
	}
	is, err := e.Object()
	if err != nil {
		return nil, err
	}
	former, err := fetch(is)
	if err != nil {
		// That one client has gone is no failure of the others.
		if !errors.Is(err, context.Canceled) {
			e.untold = err
			e.tried.Add(1)
		}
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
