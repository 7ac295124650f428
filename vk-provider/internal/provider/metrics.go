package provider

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the provider's. Labels are bounded: pools, verbs, results; never tenants or pods.
type Metrics struct {
	actions   *prometheus.CounterVec
	statuses  *prometheus.CounterVec
	created   *prometheus.HistogramVec
	depth     *prometheus.GaugeVec
	adopted   *prometheus.CounterVec
	conflicts *prometheus.CounterVec
	lost      *prometheus.CounterVec
	refused   *prometheus.CounterVec
	orphans   *prometheus.GaugeVec
	collected *prometheus.CounterVec
	events    *prometheus.CounterVec
	bounced   *prometheus.CounterVec
}

// NewMetrics makes and registers the metrics.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vivarium_vk_" + name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "vivarium_vk_" + name, Help: help}, labels)
	}
	m := &Metrics{
		actions:  counter("actions_total", "What was done about pods.", "pool", "action", "result"),
		statuses: counter("status_patches_total", "Status patches to the control cluster; noop ones were not sent.", "pool", "result"),
		created: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "vivarium_vk_create_seconds", Help: "From a bound pod's arrival in the cache to its pool pod's creation.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 14),
		}, []string{"pool"}),
		depth:     gauge("queue_depth", "Pods that wait for a worker.", "pool"),
		adopted:   counter("adoptions_total", "Pool pods that were there already and are ours.", "pool"),
		conflicts: counter("conflicts_total", "Pool objects in the way that are not ours.", "pool"),
		lost:      counter("lost_total", "Pods that their pool ended.", "pool"),
		refused:   counter("refused_total", "Pods that no pool may run.", "pool"),
		orphans:   gauge("orphans", "Pool pods without a control pod.", "pool"),
		collected: counter("orphans_deleted_total", "Orphans that were deleted.", "pool"),
		bounced:   counter("bounces_total", "Pods that pools gave back because they had no place for them.", "pool", "reason"),
		events:    counter("events_total", "Events of pools brought to tenants.", "pool", "result"),
	}
	registry.MustRegister(m.actions, m.statuses, m.created, m.depth, m.adopted, m.conflicts, m.lost, m.refused, m.orphans, m.collected, m.events, m.bounced)
	return m
}

func result(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}
