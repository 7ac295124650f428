package main

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// PodsReport is what a run found out about the vk-provider. It says by itself when and where, for it may be of another
// run than the rest.
type PodsReport struct {
	Date       string `json:"date"`
	Seconds    int    `json:"seconds"`
	Scale      Scale  `json:"scale"`
	Cores      int    `json:"cores"`
	Processor  string `json:"processor"`
	Kubernetes string `json:"kubernetes"`
	Vivarium   string `json:"vivarium"`
	Simulator  string `json:"simulator"`

	Lanes []PodsLane `json:"lanes"`
	// Ratio is that of pods created per second, the provider's to the plain client's, within a round.
	Ratio   Spread   `json:"ratio"`
	Figures []Figure `json:"figures"`
}

// PodsLane is how a burst went in one lane.
type PodsLane struct {
	Name string `json:"name"`
	Pods int    `json:"pods"`
	// PerSecond is the median over rounds of pods created per second, and Settled of pods that ran per second.
	PerSecond float64 `json:"perSecond"`
	Settled   float64 `json:"settled"`
	// CPU is what everybody used per pod, in microseconds, by what they are.
	CPU map[string]float64 `json:"cpu"`
}

// podsParts measure the vk-provider.
const podsPart = "pods"

// measurePods is the part of a run that is about the vk-provider.
func measurePods(ctx context.Context, c config, dir, source string) (*PodsReport, error) {
	begin := time.Now()
	r := &PodsReport{
		Date: begin.UTC().Format(time.DateOnly), Scale: c.scale, Cores: runtime.NumCPU(), Processor: processor(),
		Kubernetes: c.binaries.Version(), Vivarium: c.gatewayVersion,
	}
	var w *podsWorld
	err := c.progress.Step(fmt.Sprintf("control cluster and %d pools, nodes SIMULATED by KWOK", poolCount), func() (err error) {
		w, err = newPodsWorld(ctx, c, filepath.Join(dir, podsPart), source, make([]string, poolCount), c.scale.PoolNodes, c.scale.PoolPods/poolCount/c.scale.PoolNodes+200)
		return err
	})
	if w != nil {
		defer w.stop()
	}
	if err != nil {
		return nil, err
	}
	r.Simulator = "KWOK " + w.kwok.Version()
	err = r.measure(ctx, c, w)
	r.Seconds = int(time.Since(begin).Seconds())
	return r, err
}

func (r *PodsReport) measure(ctx context.Context, c config, w *podsWorld) error {
	provider, err := w.alone(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = provider.Stop(0) }()
	empty, err := provider.holds(ctx)
	if err != nil {
		return err
	}
	b, err := newBurst(ctx, w, provider)
	if err != nil {
		return err
	}
	laps := map[string][]lap{}
	each := c.scale.PoolPods / c.scale.PoolRounds
	for round := range c.scale.PoolRounds {
		lanes := []string{lanePlain, laneProvider}
		if round%2 == 1 {
			lanes = []string{laneProvider, lanePlain}
		}
		for _, lane := range lanes {
			var l lap
			if err := c.progress.Step(fmt.Sprintf("burst %d of %d: %d pods, %s", round+1, c.scale.PoolRounds, each, lane), func() (err error) {
				if lane == laneProvider {
					l, err = b.provided(ctx, provider, each)
					return err
				}
				// It would have to look at the plain client's pods.
				if err := provider.Stop(0); err != nil {
					return err
				}
				if l, err = b.plain(ctx, each); err != nil {
					return err
				}
				if err := w.removePlain(ctx); err != nil {
					return err
				}
				provider, _, _, err = w.restart(ctx, provider)
				return err
			}); err != nil {
				return err
			}
			laps[lane] = append(laps[lane], l)
		}
	}
	r.summarize(laps)
	var follow [2]latencies
	if err := c.progress.Step(fmt.Sprintf("%d pods one by one", 2*c.scale.PoolSingles), func() (err error) {
		if follow[0], err = w.follow(ctx, "idle", c.scale.PoolSingles, 0); err != nil {
			return err
		}
		follow[1], err = w.follow(ctx, "steady", c.scale.PoolSingles, steadyEvery)
		return err
	}); err != nil {
		return err
	}
	r.judgeLatencies(follow)
	if err := c.progress.Step("restart", func() error {
		if err := w.quiet(ctx); err != nil {
			return err
		}
		var took time.Duration
		var written map[string]float64
		if provider, took, written, err = w.restart(ctx, provider); err != nil {
			return err
		}
		full, err := provider.holds(ctx)
		if err != nil {
			return err
		}
		r.judgeRestart(b.made+1+2*c.scale.PoolSingles, took, written, empty, full)
		return nil
	}); err != nil {
		return err
	}
	return c.progress.Step("takeover", func() error {
		if err := provider.Stop(0); err != nil {
			return err
		}
		for round, grace := range []time.Duration{0, 10 * time.Second} {
			took, err := w.takeover(ctx, round, grace)
			if err != nil {
				return err
			}
			r.Figures = append(r.Figures, Figure{
				Name: "takeover-" + []string{"killed", "stopped"}[round], Value: took.Seconds(), Unit: "s",
				What: "from the end of a leader, " + []string{"killed", "stopped"}[round] + ", to the first pod that the one who waited creates",
			})
		}
		return nil
	})
}

// steadyEvery is the pace of pods that come steadily.
const steadyEvery = 50 * time.Millisecond

func (r *PodsReport) summarize(laps map[string][]lap) {
	var ratios []float64
	writes := map[string]float64{}
	for _, name := range []string{lanePlain, laneProvider} {
		lane := PodsLane{Name: name, CPU: map[string]float64{}}
		var rates, settled []float64
		for round, l := range laps[name] {
			lane.Pods += l.pods
			rates = append(rates, l.rate())
			settled = append(settled, float64(l.pods)/l.settling.Seconds())
			for kind, used := range l.cpu {
				lane.CPU[kind] += micros(used)
			}
			if name == laneProvider {
				ratios = append(ratios, l.rate()/laps[lanePlain][round].rate())
				for about, n := range l.writes {
					writes[about] += n
				}
			}
		}
		for kind := range lane.CPU {
			lane.CPU[kind] /= float64(lane.Pods)
		}
		lane.PerSecond, lane.Settled = median(rates), median(settled)
		r.Lanes = append(r.Lanes, lane)
	}
	pods := float64(r.Lanes[1].Pods)
	r.Ratio = spreadOf(ratios)
	perPod := (writes[writesOfPods] + writes[writesOfEvents]) / pods
	r.Figures = append(r.Figures,
		Figure{Name: "burst-ratio", What: "pods created per second in a burst, to the plain client's", Value: r.Ratio.Median, Aim: ">= 0.70", Met: met(r.Ratio.Median >= .7)},
		Figure{Name: "writes-per-pod", What: "the provider's writes to the API servers of control and pools per pod of a burst", Value: perPod, Aim: "<= 6", Met: met(perPod <= 6)},
	)
}

func (r *PodsReport) judgeLatencies(follow [2]latencies) {
	millis := func(d time.Duration) float64 { return micros(d) / 1000 }
	what := [2]string{"pods that come one by one", fmt.Sprintf("pods that come every %s", steadyEvery)}
	p50 := millis(quantile(follow[0].bindToCreate, .5))
	p99 := millis(quantile(follow[1].readyToReady, .99))
	r.Figures = append(r.Figures,
		Figure{Name: "bind-to-create-p50", What: what[0] + ": from a binding's request to the pool pod in the pool's etcd, p50", Value: p50, Unit: "ms", Aim: "< 20", Met: met(p50 < 20)},
		Figure{Name: "bind-to-create-p99", What: what[0] + ": the same, p99", Value: millis(quantile(follow[0].bindToCreate, .99)), Unit: "ms"},
		Figure{Name: "ready-to-ready-p50", What: what[1] + ": from Ready in the pool's etcd to Ready in the control cluster's, p50", Value: millis(quantile(follow[1].readyToReady, .5)), Unit: "ms"},
		Figure{Name: "ready-to-ready-p99", What: what[1] + ": the same, p99", Value: p99, Unit: "ms", Aim: "< 300", Met: met(p99 < 300)},
	)
}

func (r *PodsReport) judgeRestart(pods int, took time.Duration, written map[string]float64, empty, full held) {
	about := written[writesOfPods] + written[writesOfEvents]
	each := func(a, b float64) float64 { return (b - a) / float64(pods) / 2 / 1024 }
	live, resident := each(empty.live, full.live), each(empty.resident, full.resident)
	what := fmt.Sprintf("restart with %d pods: ", pods)
	memory := fmt.Sprintf("memory per pod and side (control and pool), %d pods: ", pods)
	r.Figures = append(r.Figures,
		Figure{Name: "restart-writes", What: what + "writes about pods and events", Value: about, Aim: "0", Met: met(about == 0)},
		Figure{Name: "restart-writes-nodes", What: what + "writes about virtual Nodes and their Leases", Value: written[writesOfNodes]},
		Figure{Name: "restart-time", What: what + "from the start of the process until every pod has been looked at", Value: took.Seconds(), Unit: "s", Aim: "< 15", Met: met(took < 15*time.Second)},
		Figure{Name: "memory-live", What: memory + "live heap and stacks", Value: live, Unit: "KiB", Aim: "< 15", Met: met(live < 15)},
		Figure{Name: "memory-resident", What: memory + "what the process holds", Value: resident, Unit: "KiB", Aim: "< 15", Met: met(resident < 15)},
	)
}

var podsColumns = []string{"lane", "pods", "created/s", "running/s", "CPU µs/pod: vk-provider", "control", "pools", "KWOK"}

func (l PodsLane) cells() []string {
	out := []string{l.Name, fmt.Sprint(l.Pods), fmt.Sprintf("%.0f", l.PerSecond), fmt.Sprintf("%.0f", l.Settled)}
	for _, kind := range []string{laneProvider, "control", "pools", "KWOK"} {
		out = append(out, fmt.Sprintf("%.0f", l.CPU[kind]))
	}
	return out
}

// text is a figure with its verdict, for a terminal.
func (f Figure) text() string {
	text := fmt.Sprintf("%s: %s", f.What, f.value())
	if f.Met != nil {
		text += fmt.Sprintf(", aim %s: %s", f.Aim, yes(*f.Met))
	}
	return text
}

func (f Figure) value() string { return strings.TrimSpace(fmt.Sprintf("%.2f %s", f.Value, f.Unit)) }

// text is the report for a terminal.
func (r *PodsReport) text() string {
	var out strings.Builder
	fmt.Fprintf(&out, "\nvk-provider: bursts over %d pools whose nodes are SIMULATED (%s): no container ran\n", poolCount, r.Simulator)
	t := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  "+strings.Join(podsColumns, "\t"))
	for _, l := range r.Lanes {
		fmt.Fprintln(t, "  "+strings.Join(l.cells(), "\t"))
	}
	_ = t.Flush()
	fmt.Fprintf(&out, "  created/s, vk-provider to plain client: %s\n", r.Ratio)
	for _, f := range r.Figures {
		fmt.Fprintln(&out, f.text())
	}
	return out.String()
}

// markdown is the report's part of the page.
func (r *PodsReport) markdown(say func(string, ...any), head, row func(...string)) {
	say("\n## Pods in pools\n")
	say("What the vk-provider costs, measured by\n\n    %s\n", podsMadeBy(r.Scale))
	say("on %s: %d cores (%s), Kubernetes %s, vivarium %s, in %d seconds.\n", r.Date, r.Cores, r.Processor, r.Kubernetes, r.Vivarium, r.Seconds)
	say("The control cluster and %d pools are real etcds, kube-apiservers and, in the pools, schedulers, with the rights and policies", poolCount)
	say("that are shipped. **The pools' nodes are simulated** by %s, %d in each: no container ran. All of it shares the machine's", r.Simulator, r.Scale.PoolNodes)
	say("cores. A burst is %d pods of %d tenants that are bound at once: they are put into the control cluster's etcd as the", r.Scale.PoolPods/r.Scale.PoolRounds, burstTenants)
	often := "once"
	if r.Scale.PoolRounds > 1 {
		often = fmt.Sprintf("%d times", r.Scale.PoolRounds)
	}
	say("scheduler would leave them, for a scheduler is not what is measured. It comes %s, in turns with a **plain client** that creates", often)
	say("the same pods directly in the pools, %d at once in each like the provider, with the same rights and limits, and brings", workersPerPool)
	say("nothing back; its pods are removed after each turn, the provider's stay. The provider does not run in the plain client's")
	say("turns. Created per second is until the last pod is in etcd; running per second until the last one runs as well, above too")
	say("where the provider made it. Writes are those that the API servers counted for the provider's users.\n")
	head("what", "measured", "aim", "")
	for _, f := range r.Figures {
		aim, verdict := "", ""
		if f.Met != nil {
			aim, verdict = f.Aim, yes(*f.Met)
		}
		row(f.What, f.value(), aim, verdict)
	}
	say("")
	head(podsColumns...)
	for _, l := range r.Lanes {
		row(l.cells()...)
	}
	say("\nCreated per second, vk-provider to plain client, median of rounds with the middle half: %s.", r.Ratio)
}

// podsMadeBy is the command that measures the provider alone at a scale.
func podsMadeBy(s Scale) string {
	base := withName(scales[s.Name], s.Name)
	if s.PoolPods == base.PoolPods && s.PoolRounds == base.PoolRounds && s.PoolSingles == base.PoolSingles && s.PoolNodes == base.PoolNodes {
		return "BENCH_SCALE=" + s.Name + " BENCH_ONLY=" + podsPart + " make bench"
	}
	return fmt.Sprintf("make build && go build -o bin/ ./bench && bin/bench -scale %s -only %s -pool-pods %d -pool-rounds %d -pool-singles %d -pool-nodes %d",
		s.Name, podsPart, s.PoolPods, s.PoolRounds, s.PoolSingles, s.PoolNodes)
}
