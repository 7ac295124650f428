package podspec

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// affinity gives the pool pod's. The control scheduler has obeyed the tenant's wishes as far as virtual nodes go; which
// of the pool's nodes a pod lands on is the pool's business, save for two things:
//   - a node that mirrors one of the pool's binds the pod to that one, by affinity and not by nodeName, so that the
//     pool's scheduler keeps its books;
//   - "not on the same host as" and "on the same host as" are handed down as preferences: several virtual nodes may share
//     a host, so dropping them would betray the wish, and requiring them could leave a pod that the control scheduler has
//     placed without a place.
func (t *translator) affinity(in *corev1.PodSpec) *corev1.Affinity {
	if node := t.at.Node.PoolNode; node != "" {
		return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchFields: []corev1.NodeSelectorRequirement{{
					Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
				}},
			}}},
		}}
	}
	if in.Affinity == nil {
		return nil
	}
	out := &corev1.Affinity{}
	if a := in.Affinity.PodAffinity; a != nil {
		if terms := hostTerms(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution); len(terms) > 0 {
			out.PodAffinity = &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: terms}
		}
	}
	if a := in.Affinity.PodAntiAffinity; a != nil {
		if terms := hostTerms(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution); len(terms) > 0 {
			out.PodAntiAffinity = &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: terms}
		}
	}
	if out.PodAffinity == nil && out.PodAntiAffinity == nil {
		return nil
	}
	return out
}

// requiredWeight is the weight of a requirement that becomes a preference: the highest there is.
const requiredWeight = 100

func hostTerms(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) []corev1.WeightedPodAffinityTerm {
	var out []corev1.WeightedPodAffinityTerm
	add := func(weight int32, term corev1.PodAffinityTerm) {
		// Selecting namespaces by label is left out: the pool's namespaces have other labels than the tenant's.
		if term.TopologyKey != corev1.LabelHostname || term.NamespaceSelector != nil {
			return
		}
		out = append(out, corev1.WeightedPodAffinityTerm{Weight: weight, PodAffinityTerm: corev1.PodAffinityTerm{
			// The API server has merged matchLabelKeys into the selector already.
			LabelSelector: term.LabelSelector,
			// Control namespaces, which the pool shares.
			Namespaces:  term.Namespaces,
			TopologyKey: corev1.LabelHostname,
		}})
	}
	for _, term := range required {
		add(requiredWeight, term)
	}
	for _, term := range preferred {
		add(term.Weight, term.PodAffinityTerm)
	}
	return out
}

// spread hands the constraint over hosts down, as a preference and for the same reasons. The API takes one constraint for
// a key and a way of failing, so the strictest of the tenant's stands for all.
func spread(in []corev1.TopologySpreadConstraint) []corev1.TopologySpreadConstraint {
	var chosen *corev1.TopologySpreadConstraint
	for i := range in {
		c := &in[i]
		if c.TopologyKey == corev1.LabelHostname && (chosen == nil ||
			chosen.WhenUnsatisfiable != corev1.DoNotSchedule && c.WhenUnsatisfiable == corev1.DoNotSchedule) {
			chosen = c
		}
	}
	if chosen == nil {
		return nil
	}
	return []corev1.TopologySpreadConstraint{{
		MaxSkew:           chosen.MaxSkew,
		TopologyKey:       corev1.LabelHostname,
		WhenUnsatisfiable: corev1.ScheduleAnyway,
		LabelSelector:     chosen.LabelSelector,
	}}
}
