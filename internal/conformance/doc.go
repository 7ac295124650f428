// Package conformance runs Kubernetes' own end-to-end suite through a tenant and turns what came out into a page that
// people read. The suite is the unmodified one; only where it looks for images is set.
//
// The package must never make a result look better than it was: every failure is on the page, with the reason that the
// file of reasons has for it or as one that nobody has explained, and what was not run is counted.
// Start at [Run] and [Parse].
package conformance
