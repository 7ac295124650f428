package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// operation is what is measured in every lane.
type operation struct {
	name, what string
	clients    int
	// request makes the n-th request.
	request func(n int) request
	// aims are what the gateway's ratios shall be.
	aims []aim
	// after cleans up.
	after func(context.Context) error
}

// turn is what one lane did in one round.
type turn struct {
	latencies       []time.Duration
	elapsed         time.Duration
	cpu, controlCPU time.Duration
}

// warmUp is how many requests each client sends before anything counts: connections, caches and pools are filled then.
const warmUp = 20

// measure lets the lanes take turns.
func measure(ctx context.Context, lanes []*lane, scale Scale, op operation) (Operation, error) {
	clients := make([][]*client, len(lanes))
	counter := 0
	var counting sync.Mutex
	next := func() request {
		counting.Lock()
		defer counting.Unlock()
		counter++
		return op.request(counter)
	}
	for i, l := range lanes {
		for range op.clients {
			c := l.newClient()
			defer c.close()
			clients[i] = append(clients[i], c)
		}
		for _, c := range clients[i] {
			begin := time.Now()
			for range warmUp {
				if _, err := c.do(ctx, next()); err != nil {
					return Operation{}, err
				}
				if time.Since(begin) > scale.Turn {
					break
				}
			}
		}
		if err := resetPeak(l.pid()); err != nil {
			return Operation{}, err
		}
	}
	turns := make([][]turn, len(lanes))
	for round := range scale.Rounds {
		for k := range lanes {
			i := (round + k) % len(lanes)
			t, err := takeTurn(ctx, lanes[i], clients[i], scale.Turn, next)
			if err != nil {
				return Operation{}, err
			}
			turns[i] = append(turns[i], t)
		}
	}
	result := summarize(lanes, turns)
	result.Name, result.What, result.Clients = op.name, op.what, op.clients
	for i, l := range lanes {
		peak, err := memory(l.pid(), "VmHWM")
		if err != nil {
			return Operation{}, err
		}
		result.Lanes[i].PeakMemory = peak
	}
	if op.after != nil {
		return result, op.after(ctx)
	}
	return result, nil
}

// takeTurn lets the clients of one lane send requests, each one after the other, for as long as a turn lasts.
func takeTurn(ctx context.Context, l *lane, clients []*client, length time.Duration, next func() request) (turn, error) {
	before, controlBefore, err := used(l)
	if err != nil {
		return turn{}, err
	}
	begin := time.Now()
	latencies, errs := make([][]time.Duration, len(clients)), make([]error, len(clients))
	var wait sync.WaitGroup
	for i, c := range clients {
		wait.Go(func() {
			for first := true; first || time.Since(begin) < length; first = false {
				r := next()
				sent := time.Now()
				if _, errs[i] = c.do(ctx, r); errs[i] != nil {
					return
				}
				latencies[i] = append(latencies[i], time.Since(sent))
			}
		})
	}
	wait.Wait()
	t := turn{elapsed: time.Since(begin)}
	if err := errors.Join(errs...); err != nil {
		return turn{}, err
	}
	after, controlAfter, err := used(l)
	if err != nil {
		return turn{}, err
	}
	t.cpu, t.controlCPU = after-before, controlAfter-controlBefore
	for _, some := range latencies {
		t.latencies = append(t.latencies, some...)
	}
	return t, nil
}

// used is the CPU time of a lane's process and of kube-apiserver.
func used(l *lane) (own, control time.Duration, err error) {
	if own, err = cpu(l.pid()); err != nil {
		return 0, 0, err
	}
	control, err = cpu(l.controlPID())
	return own, control, err
}

// summarize makes figures of turns. Ratios are taken within a round, where the machine was the same for all lanes, and
// then the median of rounds; times and CPU are over all rounds.
func summarize(lanes []*lane, turns [][]turn) Operation {
	var op Operation
	for i, l := range lanes {
		r := Lane{Name: l.name}
		var all []time.Duration
		var cpu, control time.Duration
		var perSecond, p50s, rates []float64
		for round, t := range turns[i] {
			all = append(all, t.latencies...)
			cpu += t.cpu
			control += t.controlCPU
			rate := float64(len(t.latencies)) / t.elapsed.Seconds()
			perSecond = append(perSecond, rate)
			// The first lane is the direct one.
			base := turns[0][round]
			p50s = append(p50s, float64(quantile(t.latencies, .5))/float64(quantile(base.latencies, .5)))
			rates = append(rates, rate/(float64(len(base.latencies))/base.elapsed.Seconds()))
		}
		r.Requests = len(all)
		r.P50, r.P99 = micros(quantile(all, .5)), micros(quantile(all, .99))
		r.PerSecond = median(perSecond)
		r.CPU, r.ControlCPU = micros(cpu)/float64(len(all)), micros(control)/float64(len(all))
		r.Ratio, r.RateRatio = spreadOf(p50s), spreadOf(rates)
		op.Lanes = append(op.Lanes, r)
	}
	return op
}
