package tenants

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/api/v1alpha1"
)

// phases counts tenants by phase whenever somebody asks, from what is in memory anyway.
type phases struct {
	store cache.Store
}

var tenantsDesc = prometheus.NewDesc("vivarium_tenants", "Tenants by phase.", []string{"phase"}, nil)

// Describe sends the one description.
func (p *phases) Describe(ch chan<- *prometheus.Desc) { ch <- tenantsDesc }

// Collect sends a count for each phase, zeros too.
func (p *phases) Collect(ch chan<- prometheus.Metric) {
	counts := map[v1alpha1.TenantPhase]float64{
		v1alpha1.TenantPending: 0, v1alpha1.TenantActive: 0, v1alpha1.TenantSuspended: 0, v1alpha1.TenantTerminating: 0,
	}
	for _, obj := range p.store.List() {
		t := obj.(*v1alpha1.Tenant)
		phase := t.Status.Phase
		switch {
		case t.DeletionTimestamp != nil:
			phase = v1alpha1.TenantTerminating
		case phase == "":
			phase = v1alpha1.TenantPending
		}
		counts[phase]++
	}
	for phase, n := range counts {
		ch <- prometheus.MustNewConstMetric(tenantsDesc, prometheus.GaugeValue, n, string(phase))
	}
}
