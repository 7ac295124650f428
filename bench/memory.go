package main

import (
	"context"
	"fmt"
)

// longLists shows whether the gateway's memory grows with the length of a list: the peak of a fresh gateway that passes a
// few short ones on, and of another that passes long ones.
func longLists(ctx context.Context, w *world, scale Scale) ([]Figure, error) {
	s, err := openStore(w)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.pods(ctx, tenant.Prefix()+nsLong, scale.LongPods); err != nil {
		return nil, err
	}
	var figures []Figure
	for _, form := range []struct{ name, accept string }{{"JSON", mediaJSON}, {"protobuf", mediaProtobuf}} {
		short, shortSize, err := w.peakOf(ctx, get("/pods", nsPods, form.accept)(0), scale.LongPods/scale.Pods)
		if err != nil {
			return nil, err
		}
		long, longSize, err := w.peakOf(ctx, get("/pods", nsLong, form.accept)(0), 3)
		if err != nil {
			return nil, err
		}
		// Garbage is collected when the heap has doubled, and the Go runtime takes memory in steps of 4 MiB.
		const slack = 16.0
		grown := mebibytes(long - short)
		figures = append(figures, Figure{
			Name: "list-memory-" + form.name, Unit: "MiB", Value: grown, Aim: fmt.Sprintf("< %.0f", slack), Met: met(grown < slack),
			What: fmt.Sprintf("growth of the gateway's peak memory from lists of %d pods (%.1f MiB each, peak %.1f) to lists of %d pods (%.1f MiB each, peak %.1f), %s",
				scale.Pods, mebibytes(shortSize), mebibytes(short), scale.LongPods, mebibytes(longSize), mebibytes(long), form.name),
		})
	}
	return figures, nil
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// peakOf is the peak memory of a fresh gateway that answers a request a few times, and the length of the answer.
func (w *world) peakOf(ctx context.Context, r request, times int) (peak, size int64, err error) {
	if err := w.restartGateway(ctx); err != nil {
		return 0, 0, err
	}
	lanes, err := w.lanes()
	if err != nil {
		return 0, 0, err
	}
	gateway := lanes[2]
	c := gateway.newClient()
	defer c.close()
	for range times {
		if size, err = c.do(ctx, r); err != nil {
			return 0, 0, err
		}
	}
	peak, err = memory(gateway.pid(), "VmHWM")
	return peak, size, err
}
