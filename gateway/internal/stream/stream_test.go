package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vivarium.io/vivarium/gateway/internal/identity"
	"vivarium.io/vivarium/internal/names"
)

func TestIsUpgrade(t *testing.T) {
	cases := map[string]struct {
		major  int
		header http.Header
		want   bool
	}{
		"SPDY":            {1, http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}}, true},
		"WebSocket":       {1, http.Header{"Connection": {"keep-alive, upgrade"}, "Upgrade": {"WebSocket"}}, true},
		"TwoHeaders":      {1, http.Header{"Connection": {"keep-alive", "Upgrade"}, "Upgrade": {"websocket"}}, true},
		"HTTP2":           {2, http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}}, false},
		"NoConnection":    {1, http.Header{"Upgrade": {"SPDY/3.1"}}, false},
		"NoUpgrade":       {1, http.Header{"Connection": {"Upgrade"}}, false},
		"AnotherProtocol": {1, http.Header{"Connection": {"Upgrade"}, "Upgrade": {"h2c"}}, false},
		"TwoProtocols":    {1, http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket", "h2c"}}, false},
		"ListOfProtocols": {1, http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket, h2c"}}, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := IsUpgrade(&http.Request{ProtoMajor: tc.major, Header: tc.header}); got != tc.want {
				t.Errorf("IsUpgrade = %v", got)
			}
		})
	}
}

func TestSameOrigin(t *testing.T) {
	for origin, want := range map[string]bool{
		"": true, "https://gateway.test": true, "http://GATEWAY.test": true, "https://evil.test": false, "null": false,
		"http://localhost": true, "https://LOCALHOST:8001": true, "http://127.0.0.1:8001": true, "http://[::1]": true, "http://127.8.9.1": true,
		"http://localhost.evil.test": false, "http://localhost@evil.test": false, "http://127.0.0.1.evil.test": false, "http://10.0.0.1": false, "localhost": false,
		"https://gateway.test.evil.test": false, "https://gateway.test:1": false, "gateway.test": false, "%": false,
	} {
		r := &http.Request{Host: "gateway.test", Header: http.Header{}}
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		if got := SameOrigin(r); got != want {
			t.Errorf("SameOrigin with %q = %v", origin, got)
		}
	}
	if SameOrigin(&http.Request{Host: "a", Header: http.Header{"Origin": {"https://a", "https://b"}}}) {
		t.Error("two origins are one")
	}
}

func TestCopyFlushing(t *testing.T) {
	var out bytes.Buffer
	flushed := 0
	text := strings.Repeat("x", 3*chunk+1)
	if err := CopyFlushing(&out, func() error { flushed++; return nil }, strings.NewReader(text)); err != nil || out.String() != text || flushed < 4 {
		t.Errorf("%d bytes, %d flushes, %v", out.Len(), flushed, err)
	}
	broken := errors.New("broken")
	if err := CopyFlushing(&out, func() error { return broken }, strings.NewReader(text)); !errors.Is(err, broken) {
		t.Errorf("a flush that fails: %v", err)
	}
	if err := CopyFlushing(&out, func() error { return nil }, io.MultiReader(strings.NewReader("a"), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("a read that fails: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestSessions(t *testing.T) {
	bad := map[names.TenantID]error{}
	s := NewSessions(func(id *identity.Identity) error { return bad[id.Tenant] })
	open := func(tenant names.TenantID) (context.Context, func()) {
		return s.Open(t.Context(), &identity.Identity{Tenant: tenant}, nil)
	}
	a, doneA := open("abc123")
	b, doneB := open("zzz999")
	defer doneB()
	bad["abc123"] = errors.New("suspended")
	s.Changed("abc123")
	s.Changed("zzz999")
	if !errors.Is(context.Cause(a), ErrCut) || b.Err() != nil {
		t.Errorf("a ended by %v, b by %v", context.Cause(a), b.Err())
	}
	doneA()
	late, done := open("abc123")
	defer done()
	if !errors.Is(context.Cause(late), ErrCut) {
		t.Errorf("opened too late, ended by %v", context.Cause(late))
	}
	s.Shutdown()
	if !errors.Is(context.Cause(b), ErrShutdown) {
		t.Errorf("b ended by %v", context.Cause(b))
	}
	after, doneAfter := open("zzz999")
	defer doneAfter()
	if !errors.Is(context.Cause(after), ErrShutdown) {
		t.Errorf("opened after the end, ended by %v", context.Cause(after))
	}
}

func TestSessionsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s := NewSessions(func(*identity.Identity) error { return nil })
		ended := make(chan struct{})
		go func() { defer close(ended); _ = s.Run(ctx) }()

		short, doneShort := s.Open(ctx, &identity.Identity{Tenant: "abc123", NotAfter: time.Now().Add(time.Minute)}, nil)
		defer doneShort()
		var asked atomic.Int32
		var revoked atomic.Bool
		recheck := func(context.Context) error {
			asked.Add(1)
			if revoked.Load() {
				return errors.New("revoked")
			}
			return nil
		}
		token := &identity.TokenDigest{1}
		var withToken []context.Context
		for range 3 {
			one, done := s.Open(ctx, &identity.Identity{Tenant: "abc123", Token: token}, recheck)
			defer done()
			withToken = append(withToken, one)
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if short.Err() != nil || withToken[0].Err() != nil || asked.Load() == 0 || asked.Load() > 3 {
			t.Errorf("after 59 s: %v, %v, asked %d times", short.Err(), withToken[0].Err(), asked.Load())
		}
		revoked.Store(true)
		time.Sleep(recheckEvery + time.Second)
		synctest.Wait()
		if !errors.Is(context.Cause(short), ErrCut) {
			t.Errorf("an expired certificate: %v", context.Cause(short))
		}
		for _, one := range withToken {
			if !errors.Is(context.Cause(one), ErrCut) {
				t.Errorf("a revoked token: %v", context.Cause(one))
			}
		}
		stop()
		<-ended
	})
}
