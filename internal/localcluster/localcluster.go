// Package localcluster runs the real thing on one machine: control planes made of etcd and the Kubernetes programs, nodes
// that run containers, and on top of both the whole system of `vivarium up`. It builds the programs it needs from source
// and takes nothing from a registry.
//
// It runs the components as programs and must never import one. It must never touch what it did not make: a process is
// known by its PID and start time, everything else by a name that carries the instance. Whatever outlives the program is
// written down before it is made, so that a later one can take it away.
//
// Tests want a [ControlPlane] by way of internal/kubetest; `vivarium up` starts at [Instance].
package localcluster
