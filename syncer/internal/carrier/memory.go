package carrier

import (
	"sync"
	"time"

	"vivarium.io/vivarium/syncer/internal/engine"
	"vivarium.io/vivarium/syncer/internal/kind"
)

// memory is what one process remembers of one key beyond what the caches hold. Losing it costs a delay, never an object.
type memory struct {
	unreferencedSince, goneSince time.Time
	// refused is the version of the source that must not cross.
	refused string
	written time.Time
	// last is what our latest write returned: the cache learns of it a moment later.
	last *engine.Copy
	// told and toldAt are the last event about the key.
	told   string
	toldAt time.Time
	// queued is when the key was first queued since it was last worked on; zero when it is not.
	queued time.Time
}

// memories holds the memory of every key that has one.
type memories struct {
	mu    sync.Mutex // guards byKey and what it holds
	byKey map[kind.Key]*memory
}

// with runs do on a key's memory, made when there is none.
func (m *memories) with(key kind.Key, do func(*memory)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byKey == nil {
		m.byKey = map[kind.Key]*memory{}
	}
	entry := m.byKey[key]
	if entry == nil {
		entry = &memory{}
		m.byKey[key] = entry
	}
	do(entry)
}

// has reports whether a key has a memory.
func (m *memories) has(key kind.Key) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byKey[key] != nil
}

// forget drops the memory of a key that is neither needed nor there, unless it was queued again meanwhile.
func (m *memories) forget(key kind.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if entry := m.byKey[key]; entry != nil && entry.queued.IsZero() {
		delete(m.byKey, key)
	}
}

// since keeps the first moment of a state that still lasts.
func since(holds bool, first, now time.Time) time.Time {
	switch {
	case !holds:
		return time.Time{}
	case first.IsZero():
		return now
	default:
		return first
	}
}
