package main

import (
	"flag"
	"maps"
	"slices"
	"time"
)

// Scale says how much is measured, and for how long.
type Scale struct {
	Name string `json:"name"`
	// Rounds is how often each lane gets its turn, Turn how long one lasts.
	Rounds int           `json:"rounds"`
	Turn   time.Duration `json:"turn"`
	// Pods is the length of a list, LongPods that of one that shows whether memory grows.
	Pods     int `json:"pods"`
	LongPods int `json:"longPods"`
	// Clients send at once where throughput is measured.
	Clients int `json:"clients"`
	// Neighbours is the number of other tenants, which hold NeighbourObjects objects together.
	Neighbours       int `json:"neighbours"`
	NeighbourObjects int `json:"neighbourObjects"`
	// Watches are open and idle.
	Watches int `json:"watches"`
	// PoolPods are carried over three pools in PoolRounds bursts, PoolSingles one by one; each pool has PoolNodes nodes.
	PoolPods    int `json:"poolPods,omitempty"`
	PoolRounds  int `json:"poolRounds,omitempty"`
	PoolSingles int `json:"poolSingles,omitempty"`
	PoolNodes   int `json:"poolNodes,omitempty"`
	// Packages says whether to run the benchmarks of the rewriters too.
	Packages bool `json:"packages"`
	// VPCs are on one node. Pods of VPCs talk in VPCRounds turns of VPCTurn, network plugins are called VPCPluginRounds times,
	// and the node is watched for VPCIdle while nothing happens. VPCPods are given places one by one, VPCBurst all at once.
	VPCs            int           `json:"vpcs,omitempty"`
	VPCRounds       int           `json:"vpcRounds,omitempty"`
	VPCTurn         time.Duration `json:"vpcTurn,omitempty"`
	VPCPluginRounds int           `json:"vpcPluginRounds,omitempty"`
	VPCIdle         time.Duration `json:"vpcIdle,omitempty"`
	VPCPods         int           `json:"vpcPods,omitempty"`
	VPCBurst        int           `json:"vpcBurst,omitempty"`
	// VPCContainers says whether real nodes are started.
	VPCContainers bool `json:"vpcContainers,omitempty"`
}

// vpc is what of a scale the parts about VPCs look at.
func (s Scale) vpc() Scale {
	return Scale{VPCs: s.VPCs, VPCRounds: s.VPCRounds, VPCTurn: s.VPCTurn, VPCPluginRounds: s.VPCPluginRounds, VPCIdle: s.VPCIdle, VPCPods: s.VPCPods, VPCBurst: s.VPCBurst}
}

// scales: smoke is for the test that keeps this program working and shows nothing.
var scales = map[string]Scale{
	"default": {Rounds: 7, Turn: 1200 * time.Millisecond, Pods: 300, LongPods: 30000, Clients: 8, Neighbours: 200, NeighbourObjects: 20000, Watches: 1000, Packages: true, PoolPods: 3000, PoolRounds: 5, PoolSingles: 200, PoolNodes: 10,
		VPCs: 200, VPCRounds: 9, VPCTurn: 500 * time.Millisecond, VPCPluginRounds: 30, VPCIdle: 65 * time.Second, VPCPods: 100, VPCBurst: 1600, VPCContainers: true},
	"full": {Rounds: 15, Turn: 2 * time.Second, Pods: 300, LongPods: 30000, Clients: 8, Neighbours: 1000, NeighbourObjects: 100000, Watches: 1000, Packages: true, PoolPods: 10000, PoolRounds: 1, PoolSingles: 500, PoolNodes: 20,
		VPCs: 200, VPCRounds: 25, VPCTurn: time.Second, VPCPluginRounds: 100, VPCIdle: 125 * time.Second, VPCPods: 300, VPCBurst: 2000, VPCContainers: true},
	"smoke": {Rounds: 1, Turn: 50 * time.Millisecond, Pods: 20, LongPods: 200, Clients: 2, Neighbours: 2, NeighbourObjects: 40, Watches: 8, PoolPods: 60, PoolRounds: 2, PoolSingles: 5, PoolNodes: 2,
		VPCs: 3, VPCRounds: 1, VPCTurn: 20 * time.Millisecond, VPCPluginRounds: 2, VPCPods: 4, VPCBurst: 10},
}

func scaleNames() []string { return slices.Sorted(maps.Keys(scales)) }

func (s *Scale) flags(f *flag.FlagSet) {
	// What they start from is set afterwards, from the scale.
	f.Func("rounds", "How often each lane gets its turn.", number(&s.Rounds))
	f.Func("turn", "How long a turn lasts.", duration(&s.Turn))
	f.Func("pods", "Length of the lists.", number(&s.Pods))
	f.Func("long-pods", "Length of the lists that show whether memory grows.", number(&s.LongPods))
	f.Func("clients", "Clients that send at once.", number(&s.Clients))
	f.Func("neighbours", "Other tenants.", number(&s.Neighbours))
	f.Func("neighbour-objects", "Objects that they hold together.", number(&s.NeighbourObjects))
	f.Func("watches", "Idle watches.", number(&s.Watches))
	f.Func("pool-pods", "Pods in bursts over pools.", number(&s.PoolPods))
	f.Func("pool-rounds", "Bursts in which they come.", number(&s.PoolRounds))
	f.Func("pool-singles", "Pods that come one by one.", number(&s.PoolSingles))
	f.Func("pool-nodes", "Simulated nodes of each pool.", number(&s.PoolNodes))
	f.Func("vpcs", "VPCs on one node.", number(&s.VPCs))
	f.Func("vpc-rounds", "How often pods of VPCs talk in each lane.", number(&s.VPCRounds))
	f.Func("vpc-turn", "How long they talk.", duration(&s.VPCTurn))
	f.Func("vpc-plugin-rounds", "How often each network plugin is called.", number(&s.VPCPluginRounds))
	f.Func("vpc-idle", "How long a node with VPCs is watched while nothing happens.", duration(&s.VPCIdle))
	f.Func("vpc-pods", "Pods that are given places in VPCs one by one.", number(&s.VPCPods))
	f.Func("vpc-burst", "Pods that are given places in VPCs all at once.", number(&s.VPCBurst))
	f.BoolFunc("packages", "Whether to run the benchmarks of the rewriters.", func(text string) error {
		s.Packages = text == "true"
		return nil
	})
}
