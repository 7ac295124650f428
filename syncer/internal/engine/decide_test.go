package engine

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/syncer/internal/kind"
)

func TestDecide(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	timing := DefaultTiming()
	source := kind.Source{UID: "u1", Version: "u1/7"}
	good := func(change func(*Copy)) *Copy {
		c := &Copy{Hash: "h", ObjectMeta: metav1.ObjectMeta{
			Labels:      map[string]string{names.LabelControlUID: "u1"},
			Annotations: map[string]string{annotationSource: "u1/7", annotationHash: "h"},
		}}
		if change != nil {
			change(c)
		}
		return c
	}
	refresh := func(in time.Duration) func(*Copy) {
		return func(c *Copy) { c.Annotations[annotationRefresh] = now.Add(in).Format(time.RFC3339) }
	}
	wanted := State{Referenced: true, Exists: true, Source: source}
	with := func(s State, change func(*State)) State {
		change(&s)
		return s
	}
	cases := map[string]struct {
		reason string
		state  State
		want   Decision
	}{
		"Unheard":           {"nobody asks for what is not there", State{}, Decision{}},
		"New":               {"a pod waits", wanted, Decision{Act: Write}},
		"NoSource":          {"the pod waits for its tenant", State{Referenced: true}, Decision{}},
		"UpToDate":          {"", with(wanted, func(s *State) { s.Copy = good(nil) }), Decision{}},
		"SourceChanged":     {"", with(wanted, func(s *State) { s.Copy, s.Source.Version = good(nil), "u1/8" }), Decision{Act: Write}},
		"SourceReplaced":    {"same name, another object", with(wanted, func(s *State) { s.Copy, s.Source.UID = good(nil), "u2" }), Decision{Act: Write}},
		"EditedInPool":      {"somebody changed our object", with(wanted, func(s *State) { s.Copy = good(func(c *Copy) { c.Hash = "other" }) }), Decision{Act: Write}},
		"TooSoon":           {"a tenant that changes it all the time", with(wanted, func(s *State) { s.Copy, s.Source.Version, s.Written = good(nil), "u1/8", now.Add(-50*time.Millisecond) }), Decision{After: 200 * time.Millisecond}},
		"NewAtOnce":         {"a first write is never delayed", with(wanted, func(s *State) { s.Written = now }), Decision{Act: Write}},
		"RefreshLater":      {"a good token", with(wanted, func(s *State) { s.Copy = good(refresh(time.Hour)) }), Decision{After: time.Hour}},
		"RefreshNow":        {"a token near its end", with(wanted, func(s *State) { s.Copy = good(refresh(-time.Second)) }), Decision{Act: Write}},
		"RefreshSlowClock":  {"our clock is behind; a token ends by the control cluster's", with(wanted, func(s *State) { s.Copy, s.Control = good(refresh(4*time.Minute)), now.Add(5*time.Minute) }), Decision{Act: Write}},
		"RefreshFastClock":  {"our clock is ahead", with(wanted, func(s *State) { s.Copy, s.Control = good(refresh(-time.Minute)), now.Add(-5*time.Minute) }), Decision{After: 4 * time.Minute}},
		"RefreshUnreadable": {"somebody changed the annotation", with(wanted, func(s *State) { s.Copy = good(func(c *Copy) { c.Annotations[annotationRefresh] = "soon" }) }), Decision{Act: Write}},
		"JustUnreferenced":  {"the next pod may come", State{Exists: true, Source: source, Copy: good(nil)}, Decision{After: timing.Unreferenced}},
		"LongUnreferenced":  {"", State{Exists: true, Source: source, Copy: good(nil), UnreferencedSince: now.Add(-timing.Unreferenced)}, Decision{Act: Delete}},
		"Unreferenced":      {"a minute to go", State{Exists: true, Source: source, Copy: good(nil), UnreferencedSince: now.Add(-time.Minute)}, Decision{After: time.Minute}},
		"SourceJustGone":    {"it may be replaced", State{Referenced: true, Copy: good(nil)}, Decision{After: timing.SourceGone}},
		"SourceGone":        {"revoked, though a pod still refers to it", State{Referenced: true, Copy: good(nil), GoneSince: now.Add(-timing.SourceGone)}, Decision{Act: Delete}},
		"Refused":           {"found not to cross", with(wanted, func(s *State) { s.Refused = "u1/7" }), Decision{}},
		"RefusedBefore":     {"another version may cross", with(wanted, func(s *State) { s.Refused = "u1/6" }), Decision{Act: Write}},
		"NowRefused":        {"it crossed once and must not any more", with(wanted, func(s *State) { s.Copy, s.Refused, s.GoneSince = good(nil), "u1/7", now.Add(-timing.SourceGone) }), Decision{Act: Delete}},
		"BeingDeleted":      {"its end is an event", with(wanted, func(s *State) { s.Copy = good(func(c *Copy) { c.DeletionTimestamp = &metav1.Time{Time: now} }) }), Decision{}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			tc.state.Now, tc.state.Timing = now, timing
			if tc.state.Control.IsZero() {
				tc.state.Control = now
			}
			if diff := cmp.Diff(tc.want, Decide(tc.state)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestNewer(t *testing.T) {
	at := func(uid, version string, second int64) *Copy {
		return &Copy{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid), ResourceVersion: version, CreationTimestamp: metav1.Unix(second, 0)}}
	}
	old, recent, replaced := at("1", "99", 1), at("1", "100", 1), at("2", "50", 2)
	cases := map[string]struct{ a, b, want *Copy }{
		"OnlyA":      {old, nil, old},
		"OnlyB":      {nil, old, old},
		"Neither":    {nil, nil, nil},
		"CacheLags":  {old, recent, recent},
		"CacheAhead": {recent, old, recent},
		"Replaced":   {recent, replaced, replaced},
		"Same":       {recent, recent, recent},
	}
	for name, tc := range cases {
		if got := Newer(tc.a, tc.b); got != tc.want {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}
