// Package vkprovider is the component that makes pools look like nodes: it registers virtual Nodes for each ResourcePool
// in the control cluster, runs the pods that are bound to them in the pools, brings their status back, and serves the
// kubelet API for logs, exec, attach and port-forward.
//
// One process serves any number of pools and virtual Nodes. Replicas elect a leader that writes; every replica streams.
// All state is in the clusters, so a process may be killed at any moment.
//
// From virtual-kubelet it takes the streaming handlers. Its pod controller keys pods by name, lets the first ten in a
// second through, force-deletes on a timer and cannot be told otherwise; ours is in internal/provider, shared by all
// Nodes and keyed by UID.
//
// The package must never decide about a pod's content (internal/podspec does, purely), about capacity
// (internal/capacity) or about a network (package network does). Start at [New].
package vkprovider
