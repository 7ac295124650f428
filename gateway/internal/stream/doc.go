// Package stream carries what does not end by itself: tunnels for exec, attach and port-forward, logs, and the
// registry by which all of them and every watch are cut when their tenant may no longer act.
//
// Bytes inside a tunnel are the client's and the kubelet's business and are never looked at. A connection that did not
// become a tunnel must never stay open towards the control cluster.
//
// Start at [Sessions] and [Tunnel].
package stream
