package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// Report is everything that a run found out. docs/benchmarks.json is one.
type Report struct {
	Date       string `json:"date"`
	Seconds    int    `json:"seconds"`
	Scale      Scale  `json:"scale"`
	Cores      int    `json:"cores"`
	Processor  string `json:"processor"`
	System     string `json:"system"`
	Go         string `json:"go"`
	Kubernetes string `json:"kubernetes"`
	Vivarium   string `json:"vivarium"`
	GOGC       string `json:"gogc"`
	GOMAXPROCS string `json:"gomaxprocs"`

	Operations []Operation `json:"operations"`
	Figures    []Figure    `json:"figures"`
	Benchmarks []Benchmark `json:"benchmarks"`

	// Pods is nil where the vk-provider was not measured.
	Pods *PodsReport `json:"pods,omitempty"`
	// VPCs are the sections about tenants' VPCs that were measured.
	VPCs []*VPCReport `json:"vpcs,omitempty"`
}

// with gives the report with what it lacks from another one: a run of some parts alone leaves the
// others as they were.
func (r *Report) with(other *Report) *Report {
	if len(r.Operations) == 0 && len(r.Figures) == 0 && len(r.Benchmarks) == 0 {
		whole := *other
		if r.Pods != nil {
			whole.Pods = r.Pods
		}
		whole.VPCs = withVPCs(r.VPCs, other.VPCs)
		return &whole
	}
	if r.Pods == nil {
		r.Pods = other.Pods
	}
	r.VPCs = withVPCs(r.VPCs, other.VPCs)
	return r
}

// Operation is something that was done in every lane.
type Operation struct {
	Name    string    `json:"name"`
	What    string    `json:"what"`
	Clients int       `json:"clients"`
	Lanes   []Lane    `json:"lanes"`
	Aims    []Verdict `json:"aims"`
}

// Lane is how it went in one of them. Times are in microseconds, memory is in bytes.
type Lane struct {
	Name     string  `json:"name"`
	Requests int     `json:"requests"`
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
	// PerSecond is the median of rounds.
	PerSecond float64 `json:"perSecond"`
	// CPU is what the lane's process used per request, ControlCPU what kube-apiserver did.
	CPU        float64 `json:"cpu"`
	ControlCPU float64 `json:"controlCPU"`
	// PeakMemory is the lane's process's, while its turns lasted.
	PeakMemory int64 `json:"peakMemory"`
	// Ratio is that of p50 to the first lane's, RateRatio that of requests per second.
	Ratio     Spread `json:"ratio"`
	RateRatio Spread `json:"rateRatio"`
}

// Spread is the median of a ratio over rounds, with the quarters on both sides of it.
type Spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

func spreadOf(values []float64) Spread {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return Spread{Median: median(values), Low: sorted[n/4], High: sorted[n-1-n/4]}
}

func (s Spread) String() string { return fmt.Sprintf("%.2f (%.2f-%.2f)", s.Median, s.Low, s.High) }

// Figure is a single number.
type Figure struct {
	Name  string  `json:"name"`
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Aim is empty where there is none.
	Aim string `json:"aim,omitempty"`
	Met *bool  `json:"met,omitempty"`
}

func met(is bool) *bool { return &is }

// Benchmark is one of a package's.
type Benchmark struct {
	Name        string  `json:"name"`
	Nanoseconds float64 `json:"nanoseconds"`
	MBPerSecond float64 `json:"mbPerSecond"`
	Bytes       int64   `json:"bytes"`
	Allocations int64   `json:"allocations"`
}

// aim is what a lane's ratio shall be.
type aim struct {
	// lane is the place of the lane; the gateway's is the third.
	lane  int
	what  string
	limit float64
	// rate says that the ratio is of requests per second and shall be at least limit.
	rate bool
}

func p50AtMost(limit float64) aim { return aim{lane: 2, what: "p50, to direct", limit: limit} }
func rateAtLeast(limit float64) aim {
	return aim{lane: 2, what: "requests/s, to direct", limit: limit, rate: true}
}

// Verdict is what became of an aim.
type Verdict struct {
	What  string  `json:"what"`
	Aim   string  `json:"aim"`
	Value float64 `json:"value"`
	Met   bool    `json:"met"`
}

func (r *Report) add(op Operation, aims []aim, err error) {
	if err != nil {
		return
	}
	for _, a := range aims {
		l := op.Lanes[a.lane]
		v := Verdict{What: a.what, Aim: fmt.Sprintf("<= %.2f", a.limit), Value: l.Ratio.Median, Met: l.Ratio.Median <= a.limit}
		if a.rate {
			v = Verdict{What: a.what, Aim: fmt.Sprintf(">= %.2f", a.limit), Value: l.RateRatio.Median, Met: l.RateRatio.Median >= a.limit}
		}
		op.Aims = append(op.Aims, v)
	}
	r.Operations = append(r.Operations, op)
}

func yes(is bool) string {
	if is {
		return "met"
	}
	return "MISSED"
}

func (o Operation) title() string {
	if o.Clients > 1 {
		return fmt.Sprintf("%s, %d clients", o.What, o.Clients)
	}
	return o.What
}

var columns = []string{"lane", "p50 µs", "p99 µs", "requests/s", "p50 to direct", "requests/s to direct", "CPU µs/request", "kube-apiserver CPU µs/request", "peak MiB"}

func (l Lane) cells() []string {
	return []string{
		l.Name, fmt.Sprintf("%.0f", l.P50), fmt.Sprintf("%.0f", l.P99), fmt.Sprintf("%.0f", l.PerSecond), l.Ratio.String(), l.RateRatio.String(),
		fmt.Sprintf("%.0f", l.CPU), fmt.Sprintf("%.0f", l.ControlCPU), fmt.Sprintf("%.0f", mebibytes(l.PeakMemory)),
	}
}

// text is the report for a terminal.
func (r *Report) text() string {
	var out strings.Builder
	table := func(rows ...[]string) {
		t := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
		for _, row := range rows {
			fmt.Fprintln(t, "  "+strings.Join(row, "\t"))
		}
		_ = t.Flush()
	}
	for _, op := range r.Operations {
		fmt.Fprintf(&out, "\n%s\n", op.title())
		rows := [][]string{columns}
		for _, l := range op.Lanes {
			rows = append(rows, l.cells())
		}
		table(rows...)
		for _, v := range op.Aims {
			fmt.Fprintf(&out, "  %s: %.2f, aim %s: %s\n", v.What, v.Value, v.Aim, yes(v.Met))
		}
	}
	if len(r.Figures) > 0 {
		fmt.Fprintln(&out)
	}
	for _, f := range r.Figures {
		fmt.Fprintf(&out, "%s: %.2f %s", f.What, f.Value, f.Unit)
		if f.Met != nil {
			fmt.Fprintf(&out, ", aim %s: %s", f.Aim, yes(*f.Met))
		}
		fmt.Fprintln(&out)
	}
	if len(r.Benchmarks) > 0 {
		fmt.Fprintf(&out, "\nrewriters, on one core, without a network\n")
		rows := [][]string{{"benchmark", "MB/s", "ns", "bytes allocated", "allocations"}}
		for _, b := range r.Benchmarks {
			rows = append(rows, b.cells())
		}
		table(rows...)
	}
	if r.Pods != nil {
		out.WriteString(r.Pods.text())
	}
	for _, section := range r.VPCs {
		out.WriteString(section.text())
	}
	fmt.Fprintf(&out, "\n%s, %d cores (%s), Kubernetes %s, Go %s, vivarium %s, scale %s, %d s\n",
		r.Date, r.Cores, r.Processor, r.Kubernetes, r.Go, r.Vivarium, r.Scale.Name, r.Seconds)
	return out.String()
}

func (b Benchmark) cells() []string {
	return []string{b.Name, fmt.Sprintf("%.0f", b.MBPerSecond), fmt.Sprintf("%.0f", b.Nanoseconds), fmt.Sprint(b.Bytes), fmt.Sprint(b.Allocations)}
}
