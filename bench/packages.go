package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
)

// rewriters are the packages whose benchmarks tell how fast answers are translated, without a network.
const rewriters = "./gateway/internal/translate/..."

// packageBenchmarks runs them on one core.
func packageBenchmarks(ctx context.Context, source string) ([]Benchmark, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-short", "-run", "^$", "-bench", ".", "-benchmem", "-cpu", "1", rewriters)
	cmd.Dir = source
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("benchmarks of %s: %w\n%s", rewriters, err, out)
	}
	return parseBenchmarks(out), nil
}

func parseBenchmarks(out []byte) []Benchmark {
	var all []Benchmark
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		b := Benchmark{Name: strings.TrimPrefix(fields[0], "Benchmark")}
		for i := 2; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				break
			}
			switch fields[i+1] {
			case "ns/op":
				b.Nanoseconds = value
			case "MB/s":
				b.MBPerSecond = value
			case "B/op":
				b.Bytes = int64(value)
			case "allocs/op":
				b.Allocations = int64(value)
			}
		}
		all = append(all, b)
	}
	return all
}

func goVersion() string { return strings.TrimPrefix(runtime.Version(), "go") }
