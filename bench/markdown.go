package main

import (
	"fmt"
	"strings"
)

// markdown is the report as a page of the documentation.
func (r *Report) markdown() string {
	var out strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	row := func(cells ...string) { say("| %s |", strings.Join(cells, " | ")) }
	head := func(cells ...string) {
		row(cells...)
		row(strings.Split(strings.Repeat("--- ", len(cells)-1)+"---", " ")...)
	}
	say("<!-- Written by `make bench-page` from benchmarks.json. Do not edit. -->")
	say("# Benchmarks\n")
	say("What the gateway costs, measured by")
	say("\n    %s\n", madeBy(r.Scale))
	say("on %s: %d cores (%s, %s), Kubernetes %s, Go %s, vivarium %s, in %d seconds. The run's report is",
		r.Date, r.Cores, r.Processor, r.System, r.Kubernetes, r.Go, r.Vivarium, r.Seconds)
	say("[benchmarks.json](benchmarks.json); `make bench` leaves a new one in `_artifacts/bench.json`, and")
	say("`make bench-page` makes this page of it.\n")
	say("## How\n")
	say("One run starts a real etcd and kube-apiserver, the built gateway and a plain reverse proxy, each in a process of its own, and")
	say("sends the same requests down three lanes:\n")
	say("- **direct** to kube-apiserver, as an administrator by RBAC (not system:masters, which is spared authorization);")
	say("- **plain proxy**: Go's `httputil.ReverseProxy` with its defaults over TLS and HTTP/2, as the same administrator by a client")
	say("  certificate. It translates nothing and asks nobody for permission: the floor of a gateway written in Go;")
	say("- **gateway**, as a tenant's administrator.\n")
	say("The lanes take turns of %s in %d rounds, in another order each round, so that what else the machine does falls on all of", r.Scale.Turn, r.Scale.Rounds)
	say("them. One client makes all requests: TLS, HTTP/2, a connection per client, %d requests to warm up, answers read to the end", warmUp)
	say("and not compressed unless said. Client, lanes and control cluster share the machine's cores. GOGC of every process is")
	say("%s; GOMAXPROCS is %s. etcd does not sync to disk.\n", r.GOGC, r.GOMAXPROCS)
	say("A ratio is taken within a round, and given as the median of rounds, with the middle half of them in parentheses: it is what")
	say("counts, for times belong to the machine. p50 and p99 are over all rounds. CPU is what the lane's own process used per")
	say("request, from `/proc/PID/stat`; kube-apiserver's is given for every lane, since a proxy costs it something too. Peak memory")
	say("is the process's `VmHWM` while the operation lasted. The tenant's limits and its weight are beyond what is measured.\n")
	say("## Aims\n")
	head("what", "measured", "aim", "")
	for _, op := range r.Operations {
		for _, v := range op.Aims {
			row(op.title()+": "+v.What, fmt.Sprintf("%.2f", v.Value), v.Aim, yes(v.Met))
		}
	}
	for _, f := range r.Figures {
		if f.Met != nil {
			row(f.What, fmt.Sprintf("%.1f %s", f.Value, f.Unit), f.Aim+" "+f.Unit, yes(*f.Met))
		}
	}
	say("\n## Lanes")
	for _, op := range r.Operations {
		say("\n### %s\n", op.title())
		head(columns...)
		for _, l := range op.Lanes {
			row(l.cells()...)
		}
	}
	say("\n## Memory\n")
	head("what", "value")
	for _, f := range r.Figures {
		row(f.What, fmt.Sprintf("%.2f %s", f.Value, f.Unit))
	}
	if len(r.Benchmarks) > 0 {
		say("\n## Rewriters\n")
		say("The benchmarks of the packages that translate, on one core, without a network.\n")
		head("benchmark", "MB/s", "ns", "bytes allocated", "allocations")
		for _, b := range r.Benchmarks {
			row(b.cells()...)
		}
	}
	if r.Pods != nil {
		r.Pods.markdown(say, head, row)
	}
	vpcMarkdown(r.VPCs, say, head, row)
	return out.String()
}

// madeBy is the command that measures at a scale: that of make, or the program itself where flags made it another.
func madeBy(s Scale) string {
	if s == withName(scales[s.Name], s.Name) {
		return "BENCH_SCALE=" + s.Name + " make bench"
	}
	return fmt.Sprintf("make build && go build -o bin/ ./bench && bin/bench -scale %s -rounds %d -turn %s -pods %d -long-pods %d -clients %d -neighbours %d -neighbour-objects %d -watches %d -packages=%t -gateway bin/gateway -json _artifacts/bench.json",
		s.Name, s.Rounds, s.Turn, s.Pods, s.LongPods, s.Clients, s.Neighbours, s.NeighbourObjects, s.Watches, s.Packages)
}

func withName(s Scale, name string) Scale {
	s.Name = name
	return s
}
