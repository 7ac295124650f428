package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"vivarium.io/vivarium/internal/localcluster"
)

type config struct {
	scale          Scale
	gateway        string
	provider       string
	programs       string
	portBase       int
	beside         string
	gatewayVersion string
	only           string
	keep           bool
	progress       *localcluster.Progress
	binaries       *localcluster.Binaries
}

// part is one thing that is measured.
type part struct {
	name string
	do   func() error
}

// run measures everything. It leaves nothing behind.
func run(ctx context.Context, c config) (_ *Report, err error) {
	only, err := regexp.Compile(c.only)
	if err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	source, err := localcluster.FindSource()
	if err != nil {
		return nil, err
	}
	if c.binaries, err = localcluster.OpenBinaries(source); err != nil {
		return nil, err
	}
	if missing := c.binaries.Missing(); len(missing) > 0 {
		return nil, fmt.Errorf("%s are not built; run `make kubernetes` first", strings.Join(missing, ", "))
	}
	for _, program := range []struct {
		flag string
		path *string
	}{{"-gateway", &c.gateway}, {"-vk-provider", &c.provider}} {
		if *program.path, err = filepath.Abs(*program.path); err != nil {
			return nil, err
		}
		if _, err := os.Stat(*program.path); err != nil {
			return nil, fmt.Errorf("%s: %w; run `make build` first", program.flag, err)
		}
	}
	if c.programs, err = filepath.Abs(c.programs); err != nil {
		return nil, err
	}
	if c.beside != "" {
		if c.beside, err = filepath.Abs(c.beside); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "vivarium-bench-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if c.keep {
			c.progress.Say("the processes' files are in %s", dir)
			return
		}
		_ = os.RemoveAll(dir)
	}()
	report := &Report{
		Date: time.Now().UTC().Format(time.DateOnly), Scale: c.scale, Cores: runtime.NumCPU(), Processor: processor(),
		System: runtime.GOOS + "/" + runtime.GOARCH, Go: goVersion(), Kubernetes: c.binaries.Version(), Vivarium: c.gatewayVersion,
		GOGC: environment("GOGC", "100, the default"), GOMAXPROCS: environment("GOMAXPROCS", "the number of cores, the default"),
	}
	begin := time.Now()
	wanted := func(p part) bool { return only.MatchString(p.name) }
	// Their names can be told without a world, which takes its time to start.
	if slices.ContainsFunc(parts(ctx, c, nil, dir, source, report), wanted) {
		if err := measureGateway(ctx, c, dir, source, report, wanted); err != nil {
			return nil, err
		}
	}
	if wanted(part{name: podsPart}) {
		if report.Pods, err = measurePods(ctx, c, dir, source); err != nil {
			return nil, fmt.Errorf("%s: %w", podsPart, err)
		}
	}
	if report.VPCs, err = measureVPCs(ctx, c, dir, source, only); err != nil {
		return nil, err
	}
	report.Seconds = int(time.Since(begin).Seconds())
	return report, nil
}

// measureGateway measures the wanted parts of the gateway.
func measureGateway(ctx context.Context, c config, dir, source string, report *Report, wanted func(part) bool) error {
	var w *world
	err := c.progress.Step("control cluster, gateway and plain proxy", func() (err error) {
		if w, err = newWorld(ctx, c, filepath.Join(dir, "lanes")); err != nil {
			return err
		}
		return prepare(ctx, w, c.scale)
	})
	if w != nil {
		defer func() { w.stop() }()
	}
	if err != nil {
		return err
	}
	for _, p := range parts(ctx, c, w, dir, source, report) {
		if !wanted(p) {
			continue
		}
		if err := c.progress.Step(p.name, p.do); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// parts are the gateway's. The vk-provider's is [measurePods].
func parts(ctx context.Context, c config, w *world, dir, source string, report *Report) []part {
	var all []part
	add := func(name string, do func() error) { all = append(all, part{name, do}) }
	for _, op := range operations(w, c.scale) {
		add(op.name, func() error {
			lanes, err := w.lanes()
			if err != nil {
				return err
			}
			result, err := measure(ctx, lanes, c.scale, op)
			report.add(result, op.aims, err)
			return err
		})
	}
	add("watch-latency", func() error {
		lanes, err := w.lanes()
		if err != nil {
			return err
		}
		result, err := watchLatency(ctx, lanes, c.scale)
		report.add(result, []aim{p50AtMost(1.1)}, err)
		return err
	})
	add("idle-watches", func() error {
		figures, err := idleWatches(ctx, w, c.scale)
		report.Figures = append(report.Figures, figures...)
		return err
	})
	add("list-memory", func() error {
		figures, err := longLists(ctx, w, c.scale)
		report.Figures = append(report.Figures, figures...)
		return err
	})
	add("list-everywhere", func() error {
		// Two more worlds come; this one is not needed any longer.
		w.stop()
		result, err := neighbours(ctx, c, filepath.Join(dir, "neighbours"))
		// "No slower" with room for what rounds differ by.
		report.add(result, []aim{{lane: 2, what: "p50 beside neighbours, against alone", limit: 1.1}}, err)
		return err
	})
	if c.scale.Packages {
		add("packages", func() error {
			var err error
			report.Benchmarks, err = packageBenchmarks(ctx, source)
			return err
		})
	}
	return all
}
