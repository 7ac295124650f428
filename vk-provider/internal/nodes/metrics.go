package nodes

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the controller's.
type Metrics struct {
	leases  *prometheus.CounterVec
	nodes   *prometheus.GaugeVec
	healthy *prometheus.GaugeVec
}

// NewMetrics makes and registers the metrics.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		leases:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vivarium_vk_lease_renewals_total", Help: "Renewals of virtual Nodes' Leases."}, []string{"result"}),
		nodes:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "vivarium_vk_virtual_nodes", Help: "Virtual Nodes of a pool."}, []string{"pool"}),
		healthy: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "vivarium_vk_pool_ready", Help: "1 while a pool's virtual Nodes are kept Ready."}, []string{"pool"}),
	}
	registry.MustRegister(m.leases, m.nodes, m.healthy)
	return m
}

func (c *Controller) measure(p *pass) {
	ready := 0.0
	if p.health.ready && !p.health.silent {
		ready = 1
	}
	c.config.Metrics.nodes.WithLabelValues(p.resource.Name).Set(float64(len(p.nodes)))
	c.config.Metrics.healthy.WithLabelValues(p.resource.Name).Set(ready)
}
