package engine

import (
	"time"

	"vivarium.io/vivarium/syncer/internal/kind"
)

// Timing says how long things last. They start anew with the process, so a restart only ever delays a removal.
type Timing struct {
	// Unreferenced is how long an object stays that no pod of the pool refers to: the next pod of a rollout or a CronJob
	// finds it.
	Unreferenced time.Duration
	// SourceGone is how long an object stays whose source is gone: replacing an object is deleting and creating it.
	SourceGone time.Duration
	// BetweenWrites is how often one object is written at most: a tenant that changes a ConfigMap a thousand times a
	// second gets the last one across, not each.
	BetweenWrites time.Duration
}

// DefaultTiming is the timing outside tests.
func DefaultTiming() Timing {
	return Timing{Unreferenced: 2 * time.Minute, SourceGone: 10 * time.Second, BetweenWrites: 250 * time.Millisecond}
}

// State is what is known about one key in one pool at one moment.
type State struct {
	Now time.Time
	// Control is what the clock of the control cluster shows: that is what copies have their times by.
	Control time.Time
	Timing  Timing
	// Referenced is true when a pod in the pool refers to the key.
	Referenced bool
	// Exists is true when the key has a source in the control cluster, which is then Source.
	Exists bool
	Source kind.Source
	// Copy is our object in the pool; nil for none.
	Copy *Copy
	// UnreferencedSince and GoneSince are when the key was first seen without a reference, and without a source, and
	// since then always so; zero when it has one.
	UnreferencedSince, GoneSince time.Time
	// Refused is the version of the source that was found not to cross; empty for none.
	Refused string
	// Written is when the key was last written by this process.
	Written time.Time
}

// Act is what to do about a key.
type Act int

// The acts.
const (
	// Nothing is to be done.
	Nothing Act = iota
	// Write reads the source and makes the pool object agree.
	Write
	// Delete removes the pool object.
	Delete
)

// Decision is an act, and when to decide again although nothing happened; zero for never.
type Decision struct {
	Act   Act
	After time.Duration
}

// Decide says what to do about a key. It is pure.
func Decide(s State) Decision {
	switch {
	case !s.Exists || s.Refused != "" && s.Refused == s.Source.Version:
		if s.Copy == nil {
			return Decision{}
		}
		return expire(s.Now, s.GoneSince, s.Timing.SourceGone)
	case !s.Referenced:
		if s.Copy == nil {
			return Decision{}
		}
		return expire(s.Now, s.UnreferencedSince, s.Timing.Unreferenced)
	case s.Copy != nil && s.Copy.DeletionTimestamp != nil:
		// Somebody holds it with a finalizer; its end is an event.
		return Decision{}
	case s.Copy == nil:
		return Decision{Act: Write}
	}
	refresh := s.Copy.refreshAfter()
	if s.Copy.fresh(s.Source) && (refresh.IsZero() || s.Control.Before(refresh)) {
		if refresh.IsZero() {
			return Decision{}
		}
		return Decision{After: refresh.Sub(s.Control)}
	}
	if wait := s.Written.Add(s.Timing.BetweenWrites).Sub(s.Now); wait > 0 {
		return Decision{After: wait}
	}
	return Decision{Act: Write}
}

func expire(now, since time.Time, grace time.Duration) Decision {
	if since.IsZero() {
		return Decision{After: grace}
	}
	if wait := since.Add(grace).Sub(now); wait > 0 {
		return Decision{After: wait}
	}
	return Decision{Act: Delete}
}
