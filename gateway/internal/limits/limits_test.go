package limits

import (
	"errors"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"vivarium.io/vivarium/gateway/internal/tenants"
)

func tenant(limits tenants.Limits) tenants.Tenant {
	return tenants.Tenant{ID: "abc123", Limits: limits}
}

func retryAfter(t *testing.T, err error) int {
	t.Helper()
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Code != 429 {
		t.Fatalf("got %v, want 429", err)
	}
	return int(status.Status().Details.RetryAfterSeconds)
}

func TestRate(t *testing.T) {
	now := time.Unix(1000, 0)
	l := New(func() time.Time { return now })
	slow := tenant(tenants.Limits{RequestsPerSecond: 0.25, Burst: 2, MaxInFlight: 100, MaxWatches: 100, MaxStreams: 100})
	for range 2 {
		release, err := l.Acquire(slow, Request)
		if err != nil {
			t.Fatal(err)
		}
		release()
	}
	_, err := l.Acquire(slow, Watch)
	if got := retryAfter(t, err); got != 4 {
		t.Errorf("retry after %d s, want 4", got)
	}
	if _, err := l.Acquire(tenants.Tenant{ID: "zzz999", Limits: slow.Limits}, Request); err != nil {
		t.Errorf("another tenant: %v", err)
	}
	now = now.Add(4 * time.Second)
	if _, err := l.Acquire(slow, Request); err != nil {
		t.Errorf("after waiting: %v", err)
	}
	fast := tenant(tenants.Limits{RequestsPerSecond: 1000, Burst: 10, MaxInFlight: 100})
	_, _ = l.Acquire(fast, Request) // the new limit counts from here on
	now = now.Add(10 * time.Millisecond)
	if _, err := l.Acquire(fast, Request); err != nil {
		t.Errorf("with a new limit: %v", err)
	}
}

func TestUnderWay(t *testing.T) {
	l := New(time.Now)
	limits := tenant(tenants.Limits{RequestsPerSecond: 1e6, Burst: 1e6, MaxInFlight: 2, MaxWatches: 1, MaxStreams: 1})
	var releases []func()
	acquire := func(class Class) error {
		release, err := l.Acquire(limits, class)
		if err == nil {
			releases = append(releases, release)
		}
		return err
	}
	for _, class := range []Class{Request, Request, Watch, Stream} {
		if err := acquire(class); err != nil {
			t.Fatal(err)
		}
	}
	for _, class := range []Class{Request, Watch, Stream} {
		if got := retryAfter(t, acquire(class)); got != 1 {
			t.Errorf("%v: retry after %d s, want 1", class, got)
		}
	}
	if got := l.UnderWay(Request); got != 2 {
		t.Errorf("%d requests under way, want 2", got)
	}
	for _, release := range releases {
		release()
		release()
	}
	for _, class := range []Class{Request, Watch, Stream} {
		if got := l.UnderWay(class); got != 0 {
			t.Errorf("%d %v under way after all are over", got, class)
		}
		if err := acquire(class); err != nil {
			t.Errorf("%v: %v", class, err)
		}
	}
}

// TestForgotten checks that a tenant that comes back under the same name while an old request ends is not confused.
func TestForgotten(t *testing.T) {
	l := New(time.Now)
	limits := tenant(tenants.Limits{RequestsPerSecond: 1e6, Burst: 1e6, MaxInFlight: 1})
	old, err := l.Acquire(limits, Request)
	if err != nil {
		t.Fatal(err)
	}
	l.Forget("abc123")
	if _, err := l.Acquire(limits, Request); err != nil {
		t.Fatal(err)
	}
	old()
	_, err = l.Acquire(limits, Request)
	retryAfter(t, err)
}

func TestStrangers(t *testing.T) {
	now := time.Unix(1000, 0)
	s, err := NewStrangers(func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for range strangeBurst {
		if err := s.Check("192.0.2.1:1000"); err != nil {
			t.Fatal(err)
		}
		s.Failed("192.0.2.1:1000")
	}
	if got := retryAfter(t, s.Check("192.0.2.1:2000")); got != 1 {
		t.Errorf("retry after %d s", got)
	}
	retryAfter(t, s.Check("[::ffff:192.0.2.1]:2000"))
	if err := s.Check("192.0.2.2:1000"); err != nil {
		t.Errorf("another address: %v", err)
	}
	now = now.Add(time.Second)
	if err := s.Check("192.0.2.1:1000"); err != nil {
		t.Errorf("a second later: %v", err)
	}
}
