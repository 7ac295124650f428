// Package limits keeps one tenant from taking what belongs to all: a token bucket for its requests and a cap on those
// that are under way, on its watches and on its streams; and a small bucket for whoever has not proved to be a tenant.
//
// Every credential of a tenant counts against the same limits. They hold for one gateway replica. The package must never
// let a request wait: beyond a limit it is refused at once with the time after which to try again.
//
// Start at [Limiter.Acquire].
package limits
