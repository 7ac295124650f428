package main

import (
	"slices"
	"strconv"
	"time"
)

func number(into *int) func(string) error {
	return func(text string) (err error) {
		*into, err = strconv.Atoi(text)
		return err
	}
}

func duration(into *time.Duration) func(string) error {
	return func(text string) (err error) {
		*into, err = time.ParseDuration(text)
		return err
	}
}

// quantile of values that need not be sorted; zero for none.
func quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// median of values that need not be sorted; zero for none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
