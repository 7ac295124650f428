package stream

import (
	"context"
	"errors"
	"sync"
	"time"

	"vivarium.io/vivarium/gateway/internal/identity"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
)

// recheckEvery is how often open sessions are asked about that nothing else tells of: a token that its tenant has
// revoked. The control cluster itself takes up to ten seconds to learn of it.
const recheckEvery = 20 * time.Second

// ErrCut is the cause of a session's end when its credential is no longer good.
var ErrCut = errors.New("the credential of this session is no longer good")

// ErrShutdown is the cause of a session's end when the gateway stops.
var ErrShutdown = errors.New("the gateway stops")

// Check asks whoever issued a credential whether it is still good. Only a definite no is an error: a session must not end
// because nobody could be asked.
type Check func(ctx context.Context) error

// Sessions are the requests that stay open. Safe for concurrent use.
type Sessions struct {
	// check asks about an identity from memory, without waiting.
	check func(*identity.Identity) error

	// mu guards what follows.
	mu     sync.Mutex
	closed bool
	open   map[names.TenantID]map[*session]struct{}
}

type session struct {
	id      *identity.Identity
	recheck Check
	cancel  context.CancelCauseFunc
}

// NewSessions makes a Sessions; check must answer from memory.
func NewSessions(check func(*identity.Identity) error) *Sessions {
	return &Sessions{check: check, open: map[names.TenantID]map[*session]struct{}{}}
}

// Open registers a session and gives the context that it must live under: it ends when the credential does, or when the
// tenant may no longer act. recheck, which may be nil, asks whoever issued the credential. The caller calls done when the
// session is over.
func (s *Sessions) Open(parent context.Context, id *identity.Identity, recheck Check) (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(parent)
	stop := func() {}
	if !id.NotAfter.IsZero() {
		// A timer takes half of what a context with a deadline takes, of which there is one for each idle watch.
		timer := time.AfterFunc(time.Until(id.NotAfter), func() { cancel(ErrCut) })
		stop = func() { timer.Stop() }
	}
	one := &session{id: id, recheck: recheck, cancel: cancel}
	s.mu.Lock()
	if s.open[id.Tenant] == nil {
		s.open[id.Tenant] = map[*session]struct{}{}
	}
	s.open[id.Tenant][one] = struct{}{}
	closed := s.closed
	s.mu.Unlock()
	switch {
	case closed:
		cancel(ErrShutdown)
	case s.check(id) != nil:
		// The tenant may have been suspended between the authentication and the registration.
		cancel(ErrCut)
	}
	return ctx, func() {
		stop()
		cancel(nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open[id.Tenant], one)
		if len(s.open[id.Tenant]) == 0 {
			delete(s.open, id.Tenant)
		}
	}
}

// Changed cuts what a tenant may no longer have open. It does not block.
func (s *Sessions) Changed(tenant names.TenantID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range s.open[tenant] {
		if s.check(one.id) != nil {
			one.cancel(ErrCut)
		}
	}
}

// Shutdown cuts everything: clients connect again, to another replica.
func (s *Sessions) Shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, sessions := range s.open {
		for one := range sessions {
			one.cancel(ErrShutdown)
		}
	}
}

// Run asks about open sessions from time to time until ctx is done.
func (s *Sessions) Run(ctx context.Context) error {
	tick := time.NewTicker(recheckEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.Recheck(ctx)
		}
	}
}

// Recheck asks about every open session with a token, once for each token. Run does so from time to time.
func (s *Sessions) Recheck(ctx context.Context) {
	byToken := map[identity.TokenDigest][]*session{}
	s.mu.Lock()
	for _, sessions := range s.open {
		for one := range sessions {
			if one.id.Token != nil && one.recheck != nil {
				byToken[*one.id.Token] = append(byToken[*one.id.Token], one)
			}
		}
	}
	s.mu.Unlock()
	for _, sessions := range byToken {
		if ctx.Err() != nil {
			return
		}
		if err := sessions[0].recheck(ctx); err != nil {
			boot.Logger(ctx).Info("Sessions are cut: their token is no longer good", "tenant", sessions[0].id.Tenant, "sessions", len(sessions))
			for _, one := range sessions {
				one.cancel(ErrCut)
			}
		}
	}
}
