package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// VPCReport is what a run found out about tenants' VPCs, of one kind: sections may be of different runs.
type VPCReport struct {
	Name       string `json:"name"`
	Date       string `json:"date"`
	Seconds    int    `json:"seconds"`
	Scale      Scale  `json:"scale"`
	Cores      int    `json:"cores"`
	Processor  string `json:"processor"`
	Kubernetes string `json:"kubernetes"`
	Vivarium   string `json:"vivarium"`
	// Load is the machine's load average before and after.
	Load string `json:"load"`
	// Skipped says why nothing was measured.
	Skipped string `json:"skipped,omitempty"`

	Traffic []Traffic `json:"traffic,omitempty"`
	Figures []Figure  `json:"figures,omitempty"`
}

// Traffic is one way of talking in every lane.
type Traffic struct {
	Name  string        `json:"name"`
	What  string        `json:"what"`
	Unit  string        `json:"unit"`
	Lanes []TrafficLane `json:"lanes"`
	// Aim is for the ratio of the second lane; empty where there is none.
	Aim string `json:"aim,omitempty"`
	Met *bool  `json:"met,omitempty"`
}

// TrafficLane is how it went in one of them. P50 and P99, in microseconds, are those of questions.
type TrafficLane struct {
	Name string `json:"name"`
	// PerSecond is the median of rounds.
	PerSecond float64 `json:"perSecond"`
	P50       float64 `json:"p50,omitempty"`
	P99       float64 `json:"p99,omitempty"`
	// Ratio is that of PerSecond to the first lane's; of questions, that of the first lane's P50 to this one's.
	Ratio Spread `json:"ratio"`
}

const (
	laneStock = "stock bridge"
	laneVPC   = "VPC"
)

// vpcPart begins the names of the parts that measure VPCs.
const vpcPart = "vpc"

// vpcSections are the parts, in the order of the page.
var vpcSections = []struct {
	name, title string
	measure     func(context.Context, config, string, string, *VPCReport) error
}{
	{vpcPart + "-containers", "Containers", measureContainers},
	{vpcPart + "-node", "On a node", measureVPCNode},
	{vpcPart + "-places", "Places", measurePlaces},
	{vpcPart + "-addresses", "Addresses", measureAddresses},
}

// measureVPCs measures the wanted sections.
func measureVPCs(ctx context.Context, c config, dir, source string, only *regexp.Regexp) ([]*VPCReport, error) {
	var reports []*VPCReport
	for _, section := range vpcSections {
		if !only.MatchString(section.name) {
			continue
		}
		begin, load := time.Now(), loadAverage()
		r := &VPCReport{
			Name: section.name, Date: begin.UTC().Format(time.DateOnly), Scale: c.scale, Cores: runtime.NumCPU(), Processor: processor(),
			Kubernetes: c.binaries.Version(), Vivarium: c.gatewayVersion,
		}
		if err := c.progress.Step(section.name, func() error {
			return section.measure(ctx, c, filepath.Join(dir, section.name), source, r)
		}); err != nil {
			return reports, fmt.Errorf("%s: %w", section.name, err)
		}
		r.Seconds = int(time.Since(begin).Seconds())
		r.Load = load + " before, " + loadAverage() + " after" + priority()
		reports = append(reports, r)
	}
	return reports, nil
}

// loadAverage is how many processes wanted to run in the last minute, on average; unknown where nobody counts them.
func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(raw), " ")
	return first
}

// vpcNodeCommand makes this program the first process of a node.
const vpcNodeCommand = "vpc-node"

// vpcNodeConfig is what that process needs to know, as a file.
type vpcNodeConfig struct {
	Dir, Source, Programs, Plugins, Gauge, Result string
	VPCs, Rounds, PluginRounds                    int
	Turn, Idle                                    time.Duration
}

// gaugeLane is a pair of pods: run runs the gauge in the one that asks.
type gaugeLane struct {
	name, to string
	run      func(ctx context.Context, args ...string) ([]byte, error)
}

// buildGauge makes the program that measures from within pods.
func buildGauge(ctx context.Context, source, dir string) (string, error) {
	path := filepath.Join(dir, "gauge")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path, "./bench/gauge")
	cmd.Dir, cmd.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the gauge: %w\n%s", err, out)
	}
	return path, nil
}

// gaugeResult is what the gauge prints.
type gaugeResult struct {
	Bytes             int64
	Asks, Lost        int
	Seconds, P50, P99 float64
}

// talks are the ways in which pods talk.
var talks = []struct{ name, what, unit string }{
	{"stream", "one TCP connection, as fast as it goes", "MB/s"},
	{"ask", "questions and answers of 64 bytes over an open TCP connection, one after the other", "questions/s"},
	{"datagrams", "the same over UDP", "questions/s"},
}

// aimTraffic is how much of the stock bridge's rate a VPC shall have on a node.
const aimTraffic = .9

// gaugeAll lets lanes take turns with every way of talking. The first lane is what the others are compared with.
func gaugeAll(ctx context.Context, lanes []gaugeLane, rounds int, length time.Duration, judge bool) ([]Traffic, error) {
	var all []Traffic
	for _, talk := range talks {
		rates := make([][]float64, len(lanes))
		p50s, p99s := make([][]float64, len(lanes)), make([][]float64, len(lanes))
		// A turn before the first one warms up, and does not count.
		for round := -1; round < rounds; round++ {
			for k := range lanes {
				i := (max(round, 0) + k) % len(lanes)
				raw, err := lanes[i].run(ctx, talk.name, lanes[i].to, length.String())
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", talk.name, lanes[i].name, err)
				}
				var result gaugeResult
				if err := decode(raw, &result); err != nil {
					return nil, fmt.Errorf("%s, %s: %w", talk.name, lanes[i].name, err)
				}
				if round < 0 {
					continue
				}
				rate := float64(result.Asks) / result.Seconds
				if talk.name == "stream" {
					rate = float64(result.Bytes) / 1e6 / result.Seconds
				}
				rates[i] = append(rates[i], rate)
				p50s[i], p99s[i] = append(p50s[i], result.P50), append(p99s[i], result.P99)
			}
		}
		t := Traffic{Name: talk.name, What: talk.what, Unit: talk.unit}
		for i, lane := range lanes {
			var ratios []float64
			for round, rate := range rates[i] {
				ratio := rate / rates[0][round]
				// What else the machine does makes some questions a thousand times as long, and the rate a matter of luck.
				if p50s[i][round] > 0 {
					ratio = p50s[0][round] / p50s[i][round]
				}
				ratios = append(ratios, ratio)
			}
			t.Lanes = append(t.Lanes, TrafficLane{Name: lane.name, PerSecond: median(rates[i]), P50: median(p50s[i]), P99: median(p99s[i]), Ratio: spreadOf(ratios)})
		}
		if judge {
			t.Aim, t.Met = fmt.Sprintf(">= %.2f", aimTraffic), met(t.Lanes[1].Ratio.Median >= aimTraffic)
		}
		all = append(all, t)
	}
	return all, nil
}

// withVPCs gives sections, and those of another report that are not among them.
func withVPCs(mine, others []*VPCReport) []*VPCReport {
	var all []*VPCReport
	for _, section := range vpcSections {
		for _, list := range [][]*VPCReport{mine, others} {
			// What could not be measured does not take the place of what once was.
			if i := slices.IndexFunc(list, func(r *VPCReport) bool { return r.Name == section.name && r.Skipped == "" }); i >= 0 {
				all = append(all, list[i])
				break
			}
		}
	}
	return all
}

func (r *VPCReport) title() string {
	for _, section := range vpcSections {
		if section.name == r.Name {
			return section.title
		}
	}
	return r.Name
}

var trafficColumns = []string{"how", "lane", "per second", "p50 µs", "p99 µs", "speed, to the first"}

func (t Traffic) rows() [][]string {
	var rows [][]string
	for _, l := range t.Lanes {
		row := []string{t.What, l.Name, fmt.Sprintf("%.0f %s", l.PerSecond, strings.TrimSuffix(t.Unit, "/s")), "", "", l.Ratio.String()}
		if l.P50 > 0 {
			row[3], row[4] = fmt.Sprintf("%.0f", l.P50), fmt.Sprintf("%.0f", l.P99)
		}
		rows = append(rows, row)
	}
	return rows
}

func (t Traffic) verdict() string {
	return fmt.Sprintf("%s: speed in a VPC, to the stock bridge", t.What)
}

// text is the section for a terminal.
func (r *VPCReport) text() string {
	var out strings.Builder
	fmt.Fprintf(&out, "\n%s (VPCs, load %s)\n", r.title(), r.Load)
	if r.Skipped != "" {
		fmt.Fprintf(&out, "  NOT MEASURED: %s\n", r.Skipped)
		return out.String()
	}
	t := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, traffic := range r.Traffic {
		for _, row := range traffic.rows() {
			fmt.Fprintln(t, "  "+strings.Join(row, "\t"))
		}
	}
	_ = t.Flush()
	for _, traffic := range r.Traffic {
		if traffic.Met != nil {
			fmt.Fprintf(&out, "%s: %.2f, aim %s: %s\n", traffic.verdict(), traffic.Lanes[1].Ratio.Median, traffic.Aim, yes(*traffic.Met))
		}
	}
	for _, f := range r.Figures {
		fmt.Fprintln(&out, f.text())
	}
	return out.String()
}

// vpcMarkdown is the part of the page about VPCs.
func vpcMarkdown(reports []*VPCReport, say func(string, ...any), head, row func(...string)) {
	if len(reports) == 0 {
		return
	}
	say("\n## VPCs\n")
	say("What a network of its own costs a tenant, measured by `BENCH_ONLY=%s make bench`. A ratio is taken within a round, in which both", vpcPart)
	say("took their turns, and given as the median of rounds with the middle half of them in parentheses. The speed of questions is one")
	say("by p50.")
	for _, r := range reports {
		say("\n### %s\n", r.title())
		say("    %s\n", vpcMadeBy(r))
		say("on %s: %d cores (%s), Kubernetes %s, vivarium %s, in %d seconds. The machine's load average was %s.\n", r.Date, r.Cores, r.Processor, r.Kubernetes, r.Vivarium, r.Seconds, r.Load)
		if r.Skipped != "" {
			say("**Not measured**: %s.", r.Skipped)
			continue
		}
		if about := vpcAbout[r.Name]; about != "" {
			say("%s\n", strings.TrimSpace(about))
		}
		head("what", "measured", "aim", "")
		for _, t := range r.Traffic {
			if t.Met != nil {
				row(t.verdict(), fmt.Sprintf("%.2f", t.Lanes[1].Ratio.Median), t.Aim, yes(*t.Met))
			}
		}
		for _, f := range r.Figures {
			aim, verdict := "", ""
			if f.Met != nil {
				aim, verdict = f.Aim, yes(*f.Met)
			}
			row(f.What, f.value(), aim, verdict)
		}
		if len(r.Traffic) > 0 {
			say("")
			head(trafficColumns...)
			for _, t := range r.Traffic {
				for _, cells := range t.rows() {
					row(cells...)
				}
			}
		}
	}
}

// vpcAbout says how each section comes about.
var vpcAbout = map[string]string{
	vpcPart + "-node": `
A node of network, mount and PID namespaces of its own, with a real API server as its pool, the built agent and the built network
plugin in it. VPCs are written there by the driver, each with ten pods said to be on another node. Plugins are called as a
container runtime calls them, with a network namespace for a pod and **no container in it**; the stock plugin is bridge with
host-local, in a network namespace without a rule of ours. Pods that talk are programs in such namespaces.`,
	vpcPart + "-containers": `
A whole system with two pools of one real node each, both with the driver vxlan. A tenant with a VPC and one without have the same
three containers: one that asks, one that serves on the same node, and one that serves in the other pool. Those of the tenant
without a VPC are on the stock bridge plugin's bridge.`,
	vpcPart + "-places": `
A control cluster and two pools with real API servers, the built network controller and vk-provider with the rights that are
shipped; **the pools' nodes are simulated**. One pool has the driver vxlan, and pods of a tenant with a VPC; the other has the
driver flat, and the same pods of a tenant without one. They are bound in turns: one by one, each when the one before is in its
pool, and in bursts by 32 clients at once. A binding, a place and a pool pod are there when they are in etcd.`,
	vpcPart + "-addresses": `
The allocator gives out 10,000 addresses of one subnet to 256 callers at once, and writes every block in the form that the admin
API takes it; the store itself is in memory.`,
}

// vpcMadeBy is the command that measures a section alone at a scale.
func vpcMadeBy(r *VPCReport) string {
	base, s := withName(scales[r.Scale.Name], r.Scale.Name), r.Scale
	if s.vpc() == base.vpc() {
		return "BENCH_SCALE=" + s.Name + " BENCH_ONLY=" + r.Name + " make bench"
	}
	return fmt.Sprintf("make build && go build -o bin/ ./bench && bin/bench -scale %s -only %s -vpcs %d -vpc-rounds %d -vpc-turn %s -vpc-plugin-rounds %d -vpc-idle %s -vpc-pods %d -vpc-burst %d",
		s.Name, r.Name, s.VPCs, s.VPCRounds, s.VPCTurn, s.VPCPluginRounds, s.VPCIdle, s.VPCPods, s.VPCBurst)
}

// measureAddresses runs the allocator's own benchmark, which needs no cluster.
func measureAddresses(ctx context.Context, c config, _, source string, r *VPCReport) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkAllocate$", "-benchtime", fmt.Sprintf("%dx", max(1, c.scale.VPCRounds)), "./network/ipam")
	cmd.Dir = source
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("the allocator's benchmark: %w\n%s", err, out)
	}
	values := map[string]float64{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		for i := 2; i+1 < len(fields) && strings.HasPrefix(fields[0], "Benchmark"); i += 2 {
			var value float64
			if _, err := fmt.Sscan(fields[i], &value); err == nil {
				values[fields[i+1]] = value
			}
		}
	}
	rate := values["addresses/cpu-s"]
	if rate == 0 {
		return errors.New("the allocator's benchmark tells no rate:\n" + string(out))
	}
	r.Figures = []Figure{
		{Name: "addresses", What: "addresses of one subnet given out per second of processor time", Value: rate, Aim: ">= 10000", Met: met(rate >= 10_000)},
		{Name: "writes", What: "writes for 10,000 of them", Value: values["writes/op"]},
	}
	return nil
}
