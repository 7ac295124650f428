// Command bench measures what the gateway and the vk-provider cost.
//
// For the gateway it starts a real control cluster, the built gateway and a plain Go TLS
// reverse proxy on this machine and sends the same requests down three lanes, in turns within one run: direct to
// kube-apiserver, through the plain proxy, through the gateway. What counts is the ratio to direct; times alone belong to
// the machine.
//
// For the vk-provider it starts a control cluster and pools, whose nodes are simulated and said to be, and has bursts of pods
// carried by the built vk-provider and by a plain client that creates them in the pools directly, in turns; see
// [measurePods].
//
// It must never favour a lane: one client, with the same settings, makes the requests of all three, and each round gives
// every lane its turn in another order. It leaves nothing behind but the report.
//
// Start at [run]; `make bench` runs it and docs/benchmarks.md is written from its report.
package main
