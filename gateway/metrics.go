package gateway

import (
	"bufio"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"vivarium.io/vivarium/gateway/internal/fanout"
	"vivarium.io/vivarium/gateway/internal/limits"
)

// metrics are what the tenant listener tells about itself. No label holds anything that a client can choose.
type metrics struct {
	requests  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	throttled *prometheus.CounterVec
	refused   prometheus.Counter
	foreign   prometheus.Counter
	unshared  prometheus.Counter
	outgrown  prometheus.Counter
}

func newMetrics() *metrics {
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vivarium_gateway_requests_total", Help: "Requests of tenants that are over, by verb and HTTP status.",
		}, []string{"verb", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "vivarium_gateway_request_duration_seconds", Help: "How long requests of tenants took, watches and streams left out.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"verb"}),
		throttled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vivarium_gateway_throttled_total", Help: "Requests refused with 429, by what there was too much of.",
		}, []string{"class"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vivarium_gateway_guard_refusals_total", Help: "Requests that the guard refused to send. Each is a bug: look into the log.",
		}),
		foreign: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vivarium_gateway_withheld_total", Help: "Answers of the control cluster that were withheld because they hold what is not the tenant's.",
		}),
		outgrown: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vivarium_gateway_outgrown_watches_total", Help: "Watches with selectors that matched too many objects to be shared, and became watches of the control cluster.",
		}),
		unshared: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vivarium_gateway_unshared_watches_total", Help: "Watches that could have been shared and were not, because the gateway itself could not watch. Look into its rights in the control cluster.",
		}),
	}
}

// register adds the metrics to a registry, with gauges of what is under way.
func (m *metrics) register(registry prometheus.Registerer, limiter *limits.Limiter, hub *fanout.Hub) error {
	all := []prometheus.Collector{m.requests, m.duration, m.throttled, m.refused, m.foreign, m.unshared, m.outgrown}
	for name, one := range map[string]struct {
		help  string
		value func(fanout.Stats) float64
	}{
		"shared_watches": {"Watches of the control cluster that tenants share.", func(s fanout.Stats) float64 { return float64(s.Feeds) }},
		"subscriptions":  {"Watches of tenants that are served from shared ones.", func(s fanout.Stats) float64 { return float64(s.Subscribers) }},
	} {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "vivarium_gateway_" + name, Help: one.help},
			func() float64 { return one.value(hub.Stats()) }))
	}
	for name, one := range map[string]struct {
		help  string
		value func(fanout.Stats) int64
	}{
		"shared_watch_events":      {"Events that shared watches have brought for tenants.", func(s fanout.Stats) int64 { return s.Events }},
		"shared_watch_restarts":    {"How often a shared watch went on after it had ended.", func(s fanout.Stats) int64 { return s.Restarts }},
		"former_states":            {"Former states of objects that were read for watches whose selectors they ceased to match.", func(s fanout.Stats) int64 { return s.Formers }},
		"subscriptions_missed":     {"Watches that began where no shared one reaches back, and caught up with one of their own.", func(s fanout.Stats) int64 { return s.Missed }},
		"subscriptions_ended_slow": {"Watches that were ended because their clients did not keep up.", func(s fanout.Stats) int64 { return s.Slow }},
	} {
		all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "vivarium_gateway_" + name + "_total", Help: one.help},
			func() float64 { return float64(one.value(hub.Stats())) }))
	}
	for _, class := range []limits.Class{limits.Request, limits.Watch, limits.Stream} {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "vivarium_gateway_in_flight", Help: "What is under way for tenants.",
			ConstLabels: prometheus.Labels{"class": class.String()},
		}, func() float64 { return float64(limiter.UnderWay(class)) }))
	}
	for _, c := range all {
		if err := registry.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// measure counts requests.
func (m *metrics) measure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		seen := &recorder{ResponseWriter: w}
		known := &facts{verb: "other"}
		defer func() {
			m.requests.WithLabelValues(known.verb, seen.label()).Inc()
			if known.verb != "watch" && known.verb != "connect" {
				m.duration.WithLabelValues(known.verb).Observe(time.Since(start).Seconds())
			}
		}()
		next.ServeHTTP(seen, r.WithContext(withFacts(r.Context(), known)))
	})
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	code int
}

// WriteHeader remembers the code.
func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController find what the server's own writer can do.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Hijack remembers that the connection has become a tunnel.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err == nil {
		r.code = http.StatusSwitchingProtocols
	}
	return conn, buffered, err
}

// label is the code, or what became of an answer without one.
func (r *recorder) label() string {
	if r.code == 0 {
		return "none"
	}
	return strconv.Itoa(r.code)
}
