package h2

import (
	"time"

	"golang.org/x/net/http2"
)

// kept is what [conn.keep] remembers from one look to the next.
type kept struct {
	heardAt   time.Time
	pingedAt  time.Time // zero: not since it was heard
	writes    uint64
	writesAt  time.Time
	idleSince time.Time
}

// keep ends a connection that is idle, dead or stuck. One goroutine at a time calls it, now and then.
func (c *conn) keep(now time.Time) {
	s, k := c.server, &c.kept
	if c.heard.Swap(false) || k.heardAt.IsZero() {
		k.heardAt, k.pingedAt = now, time.Time{}
	}
	if writes := c.writes.Load(); writes != k.writes || writes%2 == 0 {
		k.writes, k.writesAt = writes, now
	}
	c.mu.Lock()
	busy := len(c.streams) > 0 || c.handlers > 0
	gone := c.leaving && !busy && !c.leftAt.IsZero() && now.Sub(c.leftAt) >= linger
	c.mu.Unlock()
	if busy || k.idleSince.IsZero() {
		k.idleSince = now
	}
	switch {
	case gone:
		c.close()
	case s.WriteTimeout > 0 && now.Sub(k.writesAt) >= s.WriteTimeout:
		s.Log.Debug("A client of HTTP/2 does not read", "client", c.remote)
		c.close()
	case !k.pingedAt.IsZero() && now.Sub(k.pingedAt) >= s.PingTimeout:
		s.Log.Debug("A client of HTTP/2 does not answer", "client", c.remote)
		c.close()
	case k.pingedAt.IsZero() && s.PingAfter > 0 && now.Sub(k.heardAt) >= s.PingAfter:
		k.pingedAt = now
		_ = c.say(func(b []byte) []byte { return appendPing(b, false, [8]byte{'a', 'n', 'y', 'b', 'o', 'd', 'y', '?'}) })
	case s.IdleTimeout > 0 && now.Sub(k.idleSince) >= s.IdleTimeout:
		c.leave()
	}
}

// leave takes no new streams, tells the peer so, and ends the connection with its last stream.
func (c *conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving {
		return
	}
	c.leaving = true
	_ = c.sayLocked(func(b []byte) []byte { return appendGoAway(b, c.lastID, http2.ErrCodeNo) })
	c.restLocked()
}

// restLocked notes when a connection that is to end has nothing more to do: it is closed a moment later, when its peer has
// heard everything. mu is held.
func (c *conn) restLocked() {
	if c.leaving && c.leftAt.IsZero() && len(c.streams) == 0 && c.handlers == 0 {
		c.leftAt = time.Now()
	}
}
