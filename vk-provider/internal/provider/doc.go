// Package provider carries pods between the control cluster and the pools: what is bound to a virtual Node is created in
// its pool, what happens there comes back as status, and what is deleted above is deleted below and only then gone.
//
// Identity is the control pod's UID, which every pool pod of ours carries as a label; names repeat. Everything that has
// to be known is in the two clusters, so a process can be killed at any moment and another goes on:
//   - create only: a pool pod that exists is adopted when it carries the UID, and waited for when it carries another;
//   - delete only with the pool pod's UID as a precondition;
//   - the control pod goes after its pool pod is seen to be gone, never before;
//   - a pod that has existed below is never made again: if the pool ends it, it has ended (see podspec.Accepted).
//
// The package must never change what is not ours, act on a pool whose changes do not arrive, or take silence for absence.
// Start at [Provider] and [decide].
package provider
