package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// watchLatency measures the time from a write, which is direct in every lane, to its event in a lane's watch.
func watchLatency(ctx context.Context, lanes []*lane, scale Scale) (Operation, error) {
	writer := lanes[0].newClient()
	defer writer.close()
	for _, l := range lanes {
		if err := resetPeak(l.pid()); err != nil {
			return Operation{}, err
		}
	}
	turns := make([][]turn, len(lanes))
	written := 0
	for round := range scale.Rounds {
		for k := range lanes {
			i := (round + k) % len(lanes)
			t, err := watchTurn(ctx, lanes[i], writer, scale.Turn, &written)
			if err != nil {
				return Operation{}, err
			}
			turns[i] = append(turns[i], t)
		}
	}
	op := summarize(lanes, turns)
	op.Name, op.What, op.Clients = "watch-latency", "change of a ConfigMap to its event in a watch, JSON", 1
	for i, l := range lanes {
		var err error
		if op.Lanes[i].PeakMemory, err = memory(l.pid(), "VmHWM"); err != nil {
			return Operation{}, err
		}
	}
	return op, nil
}

func watchTurn(ctx context.Context, l *lane, writer *client, length time.Duration, written *int) (turn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watcher := l.newClient()
	defer watcher.close()
	stream, err := watcher.open(ctx, get("/configmaps?watch=true&fieldSelector=metadata.name%3Done", nsWatched, mediaJSON)(0))
	if err != nil {
		return turn{}, err
	}
	defer stream.Body.Close()
	events := bufio.NewReaderSize(stream.Body, 64<<10)
	change := func() (time.Duration, error) {
		*written++
		mark := fmt.Sprintf(`"n":"%d"`, *written)
		sent := time.Now()
		done := make(chan error, 1)
		go func() {
			_, err := writer.do(ctx, request{
				method: http.MethodPatch, group: core, namespace: nsWatched, rest: "/configmaps/one", accept: mediaJSON,
				contentType: "application/merge-patch+json", body: fmt.Appendf(nil, `{"data":{%s}}`, mark),
			})
			done <- err
		}()
		for {
			line, err := events.ReadBytes('\n')
			if err != nil {
				return 0, fmt.Errorf("%s: the watch ended: %w", l.name, err)
			}
			if bytes.Contains(line, []byte(mark)) {
				// The write is over before the next one begins.
				took := time.Since(sent)
				return took, <-done
			}
		}
	}
	for range warmUp {
		if _, err := change(); err != nil {
			return turn{}, err
		}
	}
	before, controlBefore, err := used(l)
	if err != nil {
		return turn{}, err
	}
	var t turn
	begin := time.Now()
	for first := true; first || time.Since(begin) < length; first = false {
		took, err := change()
		if err != nil {
			return turn{}, err
		}
		t.latencies = append(t.latencies, took)
	}
	t.elapsed = time.Since(begin)
	after, controlAfter, err := used(l)
	t.cpu, t.controlCPU = after-before, controlAfter-controlBefore
	return t, err
}

// streamsPerConnection is how many idle watches share a connection.
const streamsPerConnection = 125

// idleWatches opens watches over all namespaces in which nothing happens and gives what each adds to the gateway's memory.
func idleWatches(ctx context.Context, w *world, scale Scale) ([]Figure, error) {
	if err := w.restartGateway(ctx); err != nil {
		return nil, err
	}
	lanes, err := w.lanes()
	if err != nil {
		return nil, err
	}
	gateway := lanes[2]
	driver := gateway.newClient()
	defer driver.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resources := []string{"configmaps", "secrets", "services", "pods"}
	versions := map[string]string{}
	// The first watch of each kind begins what all of them share.
	first := gateway.newClient()
	defer first.close()
	for _, resource := range resources {
		if versions[resource], err = resourceVersion(ctx, first, resource); err != nil {
			return nil, err
		}
		if err := first.idle(ctx, resource, versions[resource]); err != nil {
			return nil, err
		}
	}
	before, err := w.live(ctx, driver)
	if err != nil {
		return nil, err
	}
	var current *client
	for n := range scale.Watches {
		if n%streamsPerConnection == 0 {
			current = gateway.newClient()
			defer current.close()
		}
		resource := resources[n%len(resources)]
		if err := current.idle(ctx, resource, versions[resource]); err != nil {
			return nil, fmt.Errorf("watch %d: %w", n, err)
		}
	}
	after, err := w.live(ctx, driver)
	if err != nil {
		return nil, err
	}
	if subscribed := after.watches - before.watches; int(subscribed) != scale.Watches {
		return nil, fmt.Errorf("%v of %d watches are served from the shared ones", subscribed, scale.Watches)
	}
	each := func(a, b float64) float64 { return (b - a) / float64(scale.Watches) / 1024 }
	what := fmt.Sprintf("%d idle watches over all namespaces, %d per connection: ", scale.Watches, streamsPerConnection)
	return []Figure{
		{Name: "idle-watch", What: what + "live heap and stacks of the gateway per watch", Unit: "KiB", Value: each(before.live, after.live), Aim: "< 20", Met: met(each(before.live, after.live) < 20)},
		{Name: "idle-watch-rss", What: what + "resident memory of the gateway per watch", Unit: "KiB", Value: each(before.resident, after.resident)},
		{Name: "idle-watch-goroutines", What: what + "goroutines per watch", Unit: "", Value: (after.goroutines - before.goroutines) / float64(scale.Watches)},
	}, nil
}

// idle opens a watch and reads whatever comes of it until ctx is done. A client that does not read would keep the control
// cluster from ever beginning with what is new, and hold a seat there.
func (c *client) idle(ctx context.Context, resource, version string) error {
	rest := fmt.Sprintf("/%s?watch=true&allowWatchBookmarks=true&resourceVersion=%s", resource, version)
	stream, err := c.open(ctx, get(rest, "", mediaProtobuf+","+mediaJSON)(0))
	if err != nil {
		return err
	}
	go func() {
		defer stream.Body.Close()
		_, _ = io.Copy(io.Discard, stream.Body)
	}()
	return nil
}

// resourceVersion is that of a list. Those of its items may be long past: to watch from there would be to ask for all that
// has happened since.
func resourceVersion(ctx context.Context, c *client, resource string) (string, error) {
	response, err := c.open(ctx, get("/"+resource+"?limit=1", "", mediaJSON)(0))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var list metav1.PartialObjectMetadataList
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil {
		return "", fmt.Errorf("read a list of %s: %w", resource, err)
	}
	return list.ResourceVersion, nil
}

// held is what a process holds on to.
type held struct{ live, resident, goroutines, watches float64 }

// live gives what the gateway holds after garbage has been collected. Nobody can ask it to collect, so it is kept busy
// with lists until it has done so a few times: what a start leaves behind goes with the first.
func (w *world) live(ctx context.Context, driver *client) (held, error) {
	const collections = "go_gc_duration_seconds_count"
	start, err := w.metrics(ctx)
	if err != nil {
		return held{}, err
	}
	list := get("/pods", nsPods, mediaJSON)(0)
	for {
		for range 20 {
			if _, err := driver.do(ctx, list); err != nil {
				return held{}, err
			}
		}
		now, err := w.metrics(ctx)
		if err != nil {
			return held{}, err
		}
		if now[collections] >= start[collections]+3 {
			resident, err := memory(w.processes.Get("gateway").ID().PID, "VmRSS")
			return held{
				live: now["go_gc_heap_live_bytes"] + now["go_memstats_stack_inuse_bytes"], resident: float64(resident), goroutines: now["go_goroutines"],
				watches: now["vivarium_gateway_subscriptions"],
			}, err
		}
	}
}
