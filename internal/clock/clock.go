// Package clock tells the time of a cluster. Where a time is written into a cluster, to be compared later by whoever comes
// next, two machines' own clocks must not be compared: minutes between them would end waits early or let tokens run out.
// The API server's clock is the one that all who write there share, and it tells it with each answer.
//
// It is for times that are kept in objects, to the second. It must never measure how long something takes: what it tells may
// jump. Start at [Clock].
package clock

import (
	"net/http"
	"sync/atomic"
	"time"
)

// agreed is how far two clocks may be apart and count as one. Answers tell whole seconds, and take a while to arrive.
const agreed = 3 * time.Second

// Clock is a cluster's. The zero value tells this machine's time until the cluster has answered once. Safe for concurrent use.
type Clock struct {
	// ahead is how far the cluster's clock is ahead of ours.
	ahead atomic.Int64
}

// Now is the time in the cluster, without a reading of the clock that only counts.
func (c *Clock) Now() time.Time {
	return time.Now().Round(0).Add(time.Duration(c.ahead.Load()))
}

// Since is how long ago something was by the cluster's clock; what has yet to come was just now.
func (c *Clock) Since(at time.Time) time.Duration { return max(0, c.Now().Sub(at)) }

// Wrap has the clock read what the cluster answers to a client's calls; it is for [k8s.io/client-go/rest.Config.Wrap].
func (c *Clock) Wrap(next http.RoundTripper) http.RoundTripper { return &reader{next, c} }

type reader struct {
	next  http.RoundTripper
	clock *Clock
}

// WrappedRoundTripper lets client-go find what is inside.
func (r *reader) WrappedRoundTripper() http.RoundTripper { return r.next }

func (r *reader) RoundTrip(request *http.Request) (*http.Response, error) {
	begin := time.Now()
	response, err := r.next.RoundTrip(request)
	if err == nil {
		r.clock.read(response.Header.Get("Date"), begin, time.Now())
	}
	return response, err
}

// read takes what an answer says to a call that began and ended at these times. Between them it was written.
func (c *Clock) read(date string, begin, end time.Time) {
	at, err := http.ParseTime(date)
	if err != nil || end.Sub(begin) > agreed {
		return
	}
	ahead := at.Sub(begin.Round(0))
	if ahead.Abs() <= agreed {
		ahead = 0
	}
	// Seconds come and go by rounding; what is kept in objects should not move with that.
	if was := time.Duration(c.ahead.Load()); (ahead-was).Abs() > agreed || ahead == 0 {
		c.ahead.Store(int64(ahead))
	}
}
