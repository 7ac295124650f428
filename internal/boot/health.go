package boot

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Health is what a component tells the outside about itself. Safe for concurrent use.
type Health struct {
	// Metrics is the component's registry, served at /metrics; register with the prefix "vivarium_".
	Metrics *prometheus.Registry

	ready atomic.Pointer[func() error]
}

func newHealth() *Health {
	h := &Health{Metrics: prometheus.NewRegistry()}
	// What is still needed after garbage has been collected: the other metrics of the heap tell when it was collected last.
	live := collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/gc/heap/live:bytes$`)})
	h.Metrics.MustRegister(collectors.NewGoCollector(live), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return h
}

// NewHealth makes a Health that is not served, for tests and for programs that embed a component.
func NewHealth() *Health { return newHealth() }

// SetReady installs the readiness check: nil means ready, an error says what is missing. Until it is called the
// component is not ready.
func (h *Health) SetReady(check func() error) { h.ready.Store(&check) }

// Ready runs the readiness check.
func (h *Health) Ready() error {
	check := h.ready.Load()
	if check == nil {
		return fmt.Errorf("starting")
	}
	return (*check)()
}

// serve answers /livez, /readyz and /metrics on the listener until the returned function is called.
func (h *Health) serve(listener net.Listener) (stop func()) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := h.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(h.Metrics, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Shutdown(ctx)
		<-done
	}
}
