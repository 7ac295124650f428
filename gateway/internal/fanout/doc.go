// Package fanout lets all tenants of a gateway share one watch of the control cluster per resource and representation.
//
// A [Hub] holds one feed for each [Key]. A feed watches a resource over all tenants, as the gateway itself, and puts each
// event into the lane of the tenant whose namespace, or name, it is about; what is nobody's goes nowhere. A lane keeps
// recent events within bounds, so that a subscription that starts at an earlier resource version is given what it missed.
// Events are given exactly once and in the order of the control cluster: a subscription has one cursor in its lane, and
// what was missed and what comes are read in the same way. Nothing is copied for a subscription and nothing queued: one
// that does not keep up falls out of its lane and ends.
//
// The package knows nothing of what a tenant may see. Whoever subscribes has asked the control cluster whether the user
// may, and passes each event through the translation before it leaves.
//
// A feed never guesses: whatever it cannot continue exactly ends, and so do its subscriptions, whose clients know the last
// resource version that they were given and watch again from there.
//
// Start at [Hub.Acquire].
package fanout
