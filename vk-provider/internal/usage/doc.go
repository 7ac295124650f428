// Package usage tells the control cluster what pods and virtual Nodes use: it serves the group metrics.k8s.io, as an
// extension of the control cluster's API server, out of the pools' own metrics.k8s.io. So `kubectl top` and the stock
// HorizontalPodAutoscaler work, and nothing measures twice.
//
// It must never tell a figure of a pod that it has not matched by UID, since names repeat; never keep a request waiting for
// a pool that does not answer; and never make a figure up: what a pool does not tell is missing. It must serve nobody but
// the control cluster's API server, which has decided by then who may ask.
//
// [Source] reads and keeps the pools' figures, [New] makes the server.
package usage
