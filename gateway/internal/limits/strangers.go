package limits

import (
	"fmt"
	"net/netip"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// How often an address may have the control cluster asked about a token that is no good, before it has to wait. Clients
// behind one address share it, so it is more than one misconfigured client needs.
const (
	strangeRate   = 5
	strangeBurst  = 50
	maxStrangers  = 8192
	strangerDelay = time.Second
)

// Strangers bounds what addresses cost the control cluster that send bad tokens. Safe for concurrent use.
type Strangers struct {
	now     func() time.Time
	buckets *lru.Cache[netip.Addr, *rate.Limiter]
}

// NewStrangers makes a Strangers; now is time.Now unless a test says otherwise.
func NewStrangers(now func() time.Time) (*Strangers, error) {
	buckets, err := lru.New[netip.Addr, *rate.Limiter](maxStrangers)
	if err != nil {
		return nil, fmt.Errorf("make the buckets of strangers: %w", err)
	}
	return &Strangers{now: now, buckets: buckets}, nil
}

// Check refuses, with 429, an address that has sent too many bad tokens lately.
func (s *Strangers) Check(remote string) error {
	if b, ok := s.buckets.Get(address(remote)); ok && b.TokensAt(s.now()) < 1 {
		return tooMany("too many requests without a good credential from this address", strangerDelay)
	}
	return nil
}

// Failed counts a bad token that the control cluster was asked about.
func (s *Strangers) Failed(remote string) {
	key := address(remote)
	b, ok := s.buckets.Get(key)
	if !ok {
		b = rate.NewLimiter(strangeRate, strangeBurst)
		s.buckets.Add(key, b)
	}
	b.AllowN(s.now(), 1)
}

// address is what counts as one sender: an IPv4 address, or the /64 that an IPv6 host usually has to itself.
func address(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return addr
}
