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
}

// scales: smoke is for the test that keeps this program working and shows nothing.
var scales = map[string]Scale{
	"default": {Rounds: 7, Turn: 1200 * time.Millisecond, Pods: 300, LongPods: 30000, Clients: 8, Neighbours: 200, NeighbourObjects: 20000, Watches: 1000, Packages: true, PoolPods: 3000, PoolRounds: 5, PoolSingles: 200, PoolNodes: 10},
	"full":    {Rounds: 15, Turn: 2 * time.Second, Pods: 300, LongPods: 30000, Clients: 8, Neighbours: 1000, NeighbourObjects: 100000, Watches: 1000, Packages: true, PoolPods: 10000, PoolRounds: 1, PoolSingles: 500, PoolNodes: 20},
	"smoke":   {Rounds: 1, Turn: 50 * time.Millisecond, Pods: 20, LongPods: 200, Clients: 2, Neighbours: 2, NeighbourObjects: 40, Watches: 8, PoolPods: 60, PoolRounds: 2, PoolSingles: 5, PoolNodes: 2},
}

func scaleNames() []string { return slices.Sorted(maps.Keys(scales)) }

func (s *Scale) flags(f *flag.FlagSet) {
	// What they start from is set afterwards, from the scale.
	f.Func("rounds", "How often each lane gets its turn.", number(&s.Rounds))
	f.Func("turn", "How long a turn lasts.", func(text string) (err error) {
		s.Turn, err = time.ParseDuration(text)
		return err
	})
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
	f.BoolFunc("packages", "Whether to run the benchmarks of the rewriters.", func(text string) error {
		s.Packages = text == "true"
		return nil
	})
}
