package carrier

import "github.com/prometheus/client_golang/prometheus"

// Metrics count what carriers do. Labels are bounded by the number of pools.
type Metrics struct {
	writes   *prometheus.CounterVec
	delivery *prometheus.HistogramVec
	queue    *prometheus.GaugeVec
	objects  *prometheus.GaugeVec
	refused  *prometheus.CounterVec
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vivarium_syncer_operations_total",
			Help: "Writes and deletions of pool objects, by result: ok, conflict (a foreign object is in the way), refused (must not cross), error (tried again).",
		}, []string{"pool", "kind", "operation", "result"}),
		delivery: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "vivarium_syncer_delivery_seconds",
			Help:    "From the moment something was seen to be needed or changed until it was written in the pool.",
			Buckets: []float64{.002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30},
		}, []string{"pool", "kind"}),
		queue: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vivarium_syncer_queue_length",
			Help: "Keys that wait to be looked at.",
		}, []string{"pool"}),
		objects: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vivarium_syncer_pool_objects",
			Help: "Objects of ours in the pool.",
		}, []string{"pool", "resource"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vivarium_syncer_events_total",
			Help: "Events put on pods, by reason.",
		}, []string{"reason"}),
	}
	registry.MustRegister(m.writes, m.delivery, m.queue, m.objects, m.refused)
	return m
}

// forgetPool drops the series of a pool that is gone.
func (m *Metrics) forgetPool(pool string) {
	label := prometheus.Labels{"pool": pool}
	m.writes.DeletePartialMatch(label)
	m.delivery.DeletePartialMatch(label)
	m.queue.DeletePartialMatch(label)
	m.objects.DeletePartialMatch(label)
}
