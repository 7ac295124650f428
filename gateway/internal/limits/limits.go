package limits

import (
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"vivarium.io/vivarium/gateway/internal/tenants"
	"vivarium.io/vivarium/internal/names"
)

// Class is what a request counts as while it is under way.
type Class int

// The classes.
const (
	// Request is answered and over.
	Request Class = iota
	// Watch stays open and is mostly idle.
	Watch
	// Stream is exec, attach, port-forward or a log.
	Stream
	classes
)

func (c Class) String() string {
	return [classes]string{"requests", "watches", "streams"}[c]
}

// Limiter holds the limits of all tenants. Safe for concurrent use.
type Limiter struct {
	now func() time.Time

	// mu guards what follows.
	mu      sync.Mutex
	tenants map[names.TenantID]*usage
	under   [classes]int
}

type usage struct {
	bucket *rate.Limiter
	under  [classes]int
}

// New makes a Limiter; now is time.Now unless a test says otherwise.
func New(now func() time.Time) *Limiter {
	return &Limiter{now: now, tenants: map[names.TenantID]*usage{}}
}

// Acquire lets a request of a tenant in, or refuses it with an API error: 429 and when to try again. The caller calls
// release, once, when the request is over.
func (l *Limiter) Acquire(t tenants.Tenant, class Class) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.usage(t)
	if limit := maxUnder(t.Limits, class); u.under[class] >= limit {
		return nil, tooMany(fmt.Sprintf("this tenant has %d %s open, which is as many as it may", u.under[class], class), time.Second)
	}
	now := l.now()
	if !u.bucket.AllowN(now, 1) {
		missing := 1 - u.bucket.TokensAt(now)
		wait := time.Duration(missing / float64(u.bucket.Limit()) * float64(time.Second))
		return nil, tooMany(fmt.Sprintf("this tenant sends more than %v requests per second", u.bucket.Limit()), wait)
	}
	u.under[class]++
	l.under[class]++
	over := false
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if over {
			return
		}
		over = true
		u.under[class]--
		l.under[class]--
	}, nil
}

// usage finds a tenant's state and follows changes of its limits.
func (l *Limiter) usage(t tenants.Tenant) *usage {
	u, ok := l.tenants[t.ID]
	if !ok {
		u = &usage{bucket: rate.NewLimiter(rate.Limit(t.Limits.RequestsPerSecond), t.Limits.Burst)}
		l.tenants[t.ID] = u
	}
	if u.bucket.Limit() != rate.Limit(t.Limits.RequestsPerSecond) {
		u.bucket.SetLimitAt(l.now(), rate.Limit(t.Limits.RequestsPerSecond))
	}
	if u.bucket.Burst() != t.Limits.Burst {
		u.bucket.SetBurstAt(l.now(), t.Limits.Burst)
	}
	return u
}

// Forget drops what is known of a tenant that is gone.
func (l *Limiter) Forget(id names.TenantID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.tenants, id)
}

// UnderWay gives how many of each class are under way, of all tenants together.
func (l *Limiter) UnderWay(class Class) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.under[class]
}

func maxUnder(limits tenants.Limits, class Class) int {
	switch class {
	case Watch:
		return limits.MaxWatches
	case Stream:
		return limits.MaxStreams
	}
	return limits.MaxInFlight
}

func tooMany(message string, wait time.Duration) error {
	return apierrors.NewTooManyRequests(message, int(max(1, math.Ceil(wait.Seconds()))))
}
