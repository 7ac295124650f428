package offers

import (
	"context"
	"errors"
	"slices"
	"sort"
	"strings"
	"sync"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
)

// maxChanges is how many changes a store remembers, for watches that start in the past.
const maxChanges = 1000

// ErrExpired says that a watch wants changes that are no longer remembered.
var ErrExpired = errors.New("too old resource version")

// Change is what became of one object. Old or New is nil when it was made or removed.
type Change struct {
	Version  uint64
	Old, New *Object
}

// Store holds the objects of one kind. Safe for concurrent use.
type Store struct {
	kind Kind

	// mu guards what follows.
	mu      sync.Mutex
	known   bool // an answer of the control cluster has come, if only that it has no such kind
	failed  error
	version uint64
	columns []byte
	names   []string
	objects map[string]*Object
	// changes are in order; since is the version before the first of them.
	changes []Change
	since   uint64
	// moved is closed and made anew when anything above changes.
	moved chan struct{}
}

func newStore(kind Kind) *Store {
	return &Store{kind: kind, objects: map[string]*Object{}, moved: make(chan struct{})}
}

// State is what there was at one moment.
type State struct {
	Version uint64
	// Columns are those of the control cluster's table, an array in JSON, and Names what they are called; nil if there was
	// never an answer.
	Columns []byte
	Names   []string
	// Objects are in the order of their names.
	Objects []*Object
}

// Err says why nothing is known, nil if something is.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known {
		return errors.Join(errors.New("the control cluster has not answered yet"), s.failed)
	}
	return s.failed
}

// State gives what there is.
func (s *Store) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state()
}

func (s *Store) state() State {
	out := State{Version: s.version, Columns: s.columns, Names: s.names, Objects: make([]*Object, 0, len(s.objects))}
	for _, o := range s.objects {
		out.Objects = append(out.Objects, o)
	}
	slices.SortFunc(out.Objects, func(a, b *Object) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Get gives one object, nil if there is none.
func (s *Store) Get(name string) *Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[name]
}

// Wait waits until the store has reached a version, or ctx is done.
func (s *Store) Wait(ctx context.Context, version uint64) error {
	for {
		s.mu.Lock()
		reached, moved := s.version >= version, s.moved
		s.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Watch gives the changes behind a version, the version that they lead to, and a channel that is closed when there is
// more. A version in the future gives nothing until it is reached.
func (s *Store) Watch(after uint64) (changes []Change, version uint64, more <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if after < s.since {
		return nil, 0, nil, ErrExpired
	}
	first := sort.Search(len(s.changes), func(i int) bool { return s.changes[i].Version > after })
	return slices.Clone(s.changes[first:]), max(s.version, after), s.moved, nil
}

// Wake tells whoever waits that something else has changed.
func (s *Store) Wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wake()
}

func (s *Store) wake() {
	close(s.moved)
	s.moved = make(chan struct{})
}

// fail notes why nothing can be known. Whether that is an answer, or the lack of one, is for the caller to say.
func (s *Store) fail(err error, answered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = err
	s.known = s.known || answered
	s.wake()
}

// replace takes over a list. What is different becomes a change, so that watches go on.
func (s *Store) replace(version uint64, columns *jsonwire.Value, list []*Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known || s.version == 0 {
		s.since = version
	}
	objects := make(map[string]*Object, len(list))
	var changes []Change
	for _, o := range list {
		objects[o.Name] = o
		if old := s.objects[o.Name]; old == nil || old.Version != o.Version {
			changes = append(changes, Change{Version: o.Version, Old: old, New: o})
		}
	}
	for name, old := range s.objects {
		if objects[name] == nil {
			changes = append(changes, Change{Version: version, Old: old})
		}
	}
	slices.SortStableFunc(changes, func(a, b Change) int { return compare(a.Version, b.Version) })
	if s.since != version {
		s.remember(changes...)
	}
	s.objects, s.known, s.failed = objects, true, nil
	s.version = max(s.version, version)
	if columns.Kind() == jsonwire.Array {
		s.columns = columns.Append(nil)
		s.names = nil
		for _, column := range columns.Elems() {
			s.names = append(s.names, column.Get("name").Text())
		}
	}
	s.wake()
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// put takes over one change: o is nil for a bookmark, gone tells that the object was removed at its version.
func (s *Store) put(version uint64, o *Object, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if version <= s.version && o == nil {
		return
	}
	if o != nil {
		old := s.objects[o.Name]
		change := Change{Version: version, Old: old, New: o}
		s.objects[o.Name] = o
		if gone {
			change.New = nil
			delete(s.objects, o.Name)
		}
		s.remember(change)
	}
	s.version = max(s.version, version)
	s.wake()
}

func (s *Store) remember(changes ...Change) {
	s.changes = append(s.changes, changes...)
	if over := len(s.changes) - maxChanges; over > 0 {
		s.since = s.changes[over-1].Version
		s.changes = slices.Clone(s.changes[over:])
	}
}
