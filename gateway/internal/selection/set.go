package selection

import (
	"strings"
	"sync"

	"vivarium.io/vivarium/internal/names"
)

// Key is how an object is known: its namespace, empty for kinds without, a slash, and its name.
type Key string

// KeyOf makes one.
func KeyOf(namespace, name []byte) Key {
	key := make([]byte, 0, len(namespace)+1+len(name))
	return Key(append(append(append(key, namespace...), '/'), name...))
}

// Split is the inverse of [KeyOf].
func (k Key) Split() (namespace, name string) {
	namespace, name, _ = strings.Cut(string(k), "/")
	return namespace, name
}

// Turn is what a watch with a selector is told.
type Turn uint8

const (
	// Nothing: the event is not the watch's.
	Nothing Turn = iota
	// Added, Modified and Deleted: the event's object, told as such.
	Added
	Modified
	Deleted
	// Former: the object as it was before the event, told as deleted at the event's resource version.
	Former
)

// Type gives the type of the frame that a turn is told with; empty for [Nothing].
func (t Turn) Type() string {
	switch t {
	case Added:
		return "ADDED"
	case Modified:
		return "MODIFIED"
	case Deleted, Former:
		return "DELETED"
	case Nothing:
	}
	return ""
}

// Set are the objects that match at present. The zero value is an empty one without bounds. Not safe for concurrent use.
type Set struct {
	keys   map[Key]struct{}
	size   int
	budget *Budget
	tenant names.TenantID
	over   bool
}

// keyOverhead is about what a key takes besides its bytes.
const keyOverhead = 48

// Turn notes an event, of a watch without a selector: its type, its object, and whether that matches as the frame shows it.
// The frame of an object that has been deleted shows what it was.
func (s *Set) Turn(kind string, key Key, matches bool) Turn {
	_, matched := s.keys[key]
	switch {
	case kind == "DELETED" && matched:
		s.Remove(key)
		return Deleted
	case kind == "DELETED":
		return Nothing
	case matches && matched:
		return Modified
	case matches:
		s.Add(key)
		return Added
	case matched:
		s.Remove(key)
		return Former
	}
	return Nothing
}

// Add notes an object that matches.
func (s *Set) Add(key Key) {
	if _, ok := s.keys[key]; ok {
		return
	}
	if s.keys == nil {
		s.keys = map[Key]struct{}{}
	}
	s.keys[key] = struct{}{}
	s.grow(len(key) + keyOverhead)
}

// Remove notes an object that does not match any more.
func (s *Set) Remove(key Key) {
	if _, ok := s.keys[key]; ok {
		delete(s.keys, key)
		s.grow(-len(key) - keyOverhead)
	}
}

// Len is how many objects match.
func (s *Set) Len() int { return len(s.keys) }

// Over reports whether the set has ever been larger than its budget lets it be. It is exact all the same.
func (s *Set) Over() bool { return s.over }

// Clear forgets all objects.
func (s *Set) Clear() {
	s.keys = nil
	s.grow(-s.size)
}

func (s *Set) grow(by int) {
	s.size += by
	if s.budget != nil && !s.budget.grow(s.tenant, s.size, by) {
		s.over = true
	}
}

// Budget bounds what sets take. Safe for concurrent use.
type Budget struct {
	// Each bounds one set, Tenant those of one tenant, All all of them, in bytes.
	Each, Tenant, All int

	mu  sync.Mutex
	all int
	of  map[names.TenantID]int
}

// New makes an empty set within the budget. Whoever made it ends with [Set.Clear].
func (b *Budget) New(tenant names.TenantID) *Set { return &Set{budget: b, tenant: tenant} }

// grow notes that a set has grown to a size, and reports whether that is within the bounds.
func (b *Budget) grow(tenant names.TenantID, size, by int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.of == nil {
		b.of = map[names.TenantID]int{}
	}
	b.all += by
	b.of[tenant] += by
	own := b.of[tenant]
	if own == 0 {
		delete(b.of, tenant)
	}
	return by <= 0 || size <= b.Each && own <= b.Tenant && b.all <= b.All
}
