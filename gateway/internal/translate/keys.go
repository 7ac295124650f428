package translate

import (
	"strings"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
)

const (
	// labelMetadataName is set by the API server on every Namespace.
	labelMetadataName = "kubernetes.io/metadata.name"
	// labelPodSecurity and labelScheduler are the domains by which a namespace weakens what its pods may do.
	labelPodSecurity = "pod-security.kubernetes.io/"
	labelScheduler   = "scheduler.alpha.kubernetes.io/"
	// labelEnforce is what the platform sets on the namespaces of tenants.
	labelEnforce      = labelPodSecurity + "enforce"
	labelEnforceValue = "baseline"

	labelEnforceVersion = labelPodSecurity + "enforce-version"

	// aggregateToTenant and aggregateToControl are the label keys by which ClusterRoles flow into aggregated ones. The
	// control cluster's own aggregated roles select by the first, so no tenant's role may carry it there.
	aggregateToTenant  = "rbac.authorization.k8s.io/aggregate-to-"
	aggregateToControl = names.LabelAggregateTo
)

// keyToControl gives the control form of a label or annotation key, or refuses it.
func (q *request) keyToControl(op rules.Op, key, path string) (string, error) {
	if names.Reserved(key) {
		return "", forbidden(path, "the key %q belongs to the platform", key)
	}
	switch op {
	case rules.NamespaceLabels:
		if protectedNamespaceKey(key) {
			return "", forbidden(path, "the key %q is set by the platform on every namespace", key)
		}
	case rules.ClusterRoleLabels:
		if rest, ok := strings.CutPrefix(key, aggregateToTenant); ok {
			return aggregateToControl + rest, nil
		}
		return key, nil
	case rules.PodKeys:
		if q.kind.Kind == "Namespace" && protectedNamespaceKey(key) {
			return "", forbidden(path, "the key %q is set by the platform on every namespace", key)
		}
	case rules.Keys, rules.ClassAnnotations:
		return key, nil
	}
	if netkeys.Forbidden(key) {
		return "", forbidden(path, "the key %q would choose the network of a pod, which is set by the operator", key)
	}
	return key, nil
}

// keyToTenant is the inverse of keyToControl; false hides the key.
func keyToTenant(op rules.Op, key string) (string, bool) {
	if op == rules.ClusterRoleLabels {
		if rest, ok := strings.CutPrefix(key, aggregateToControl); ok {
			return aggregateToTenant + rest, true
		}
	}
	if names.Reserved(key) || op == rules.NamespaceLabels && protectedNamespaceKey(key) {
		return "", false
	}
	return key, true
}

func protectedNamespaceKey(key string) bool {
	return strings.HasPrefix(key, labelPodSecurity) || strings.HasPrefix(key, labelScheduler)
}

// keysToControl translates labels or annotations. Every mention of a protected key is refused, also one that deletes it.
func (q *request) keysToControl(op rules.Op, v *jsonwire.Value, path string) error {
	members := v.Members()
	for i := range members {
		m := &members[i]
		if directive(m.Key) {
			continue
		}
		key, err := q.keyToControl(op, m.Key, path)
		if err != nil {
			return err
		}
		if op == rules.NamespaceLabels && key == labelMetadataName && m.Value.Text() != "" {
			ns, err := q.view.namespaceToControl(m.Value.Text(), path)
			if err != nil {
				return err
			}
			m.Value.SetText(ns)
		}
		if kind := classAnnotations[key]; kind != "" && op == rules.ClassAnnotations && m.Value.Text() != "" {
			m.Value.SetText(q.view.classToControl(kind, m.Value.Text()))
		}
		m.Key = key
	}
	return nil
}

// keysToTenant is the inverse of keysToControl.
func (r *response) keysToTenant(op rules.Op, v *jsonwire.Value) {
	v.Filter(func(m *jsonwire.Member) bool {
		key, ok := keyToTenant(op, m.Key)
		if ok && op == rules.NamespaceLabels && key == labelMetadataName {
			m.Value.SetText(r.namespaceToTenant(m.Value.Text()))
		}
		if kind := classAnnotations[key]; kind != "" && op == rules.ClassAnnotations && m.Value.Text() != "" {
			m.Value.SetText(r.view.classToTenant(kind, m.Value.Text()))
		}
		m.Key = key
		return ok
	})
}

// injectedLabels are the labels that the platform puts on a tenant's objects of a kind.
func (q *request) injectedLabels() []jsonwire.Member {
	tenant := jsonwire.Member{Key: names.LabelTenant, Value: jsonwire.NewString(string(q.view.Tenant))}
	switch {
	case q.root.Group == "" && q.root.Kind == "Namespace":
		return []jsonwire.Member{tenant, {Key: labelEnforce, Value: jsonwire.NewString(labelEnforceValue)},
			{Key: labelEnforceVersion, Value: jsonwire.NewString("latest")}}
	case q.root.Group == "rbac.authorization.k8s.io" && q.root.Kind == "ClusterRole":
		// Aggregation selects by it, so that no role of another tenant flows in.
		return []jsonwire.Member{tenant}
	}
	return nil
}

// inject adds the platform's labels to a map of labels.
func (q *request) inject(labels *jsonwire.Value) {
	for _, m := range q.injectedLabels() {
		labels.Set(m.Key, m.Value)
	}
}

// managedFieldsToTenant takes the platform's keys out of the record of who owns which field, and translates the rest.
func (r *response) managedFieldsToTenant(v *jsonwire.Value) {
	for _, entry := range v.Elems() {
		if gv := entry.Get("apiVersion"); gv.Text() != "" {
			tenant, _ := r.view.groupVersionToTenant(gv.Text())
			gv.SetText(tenant)
		}
		r.fieldsToTenant(entry.Get("fieldsV1"))
	}
}

func (r *response) fieldsToTenant(v *jsonwire.Value) {
	v.Filter(func(m *jsonwire.Member) bool {
		name, field := strings.CutPrefix(m.Key, "f:")
		if field {
			switch {
			case strings.HasPrefix(name, aggregateToControl):
				m.Key = "f:" + aggregateToTenant + strings.TrimPrefix(name, aggregateToControl)
			case names.Reserved(name), r.root.Kind == "Namespace" && protectedNamespaceKey(name):
				return false
			default:
				if key, ok := r.view.quotaKeyToTenant(name); ok {
					m.Key = "f:" + key
				}
			}
		}
		r.fieldsToTenant(m.Value)
		return true
	})
}

// managedFieldsToControl is the inverse as far as the control cluster cares: what was hidden stays out, which only means
// that nobody is recorded as its owner.
func (q *request) managedFieldsToControl(v *jsonwire.Value) {
	for _, entry := range v.Elems() {
		if gv := entry.Get("apiVersion"); gv.Text() != "" {
			gv.SetText(q.view.groupVersionToControl(gv.Text()))
		}
		q.fieldsToControl(entry.Get("fieldsV1"))
	}
}

func (q *request) fieldsToControl(v *jsonwire.Value) {
	v.Filter(func(m *jsonwire.Member) bool {
		if name, ok := strings.CutPrefix(m.Key, "f:"); ok {
			switch {
			case names.Reserved(name):
				return false
			case q.root.Kind == "ClusterRole" && strings.HasPrefix(name, aggregateToTenant):
				m.Key = "f:" + aggregateToControl + strings.TrimPrefix(name, aggregateToTenant)
			default:
				m.Key = "f:" + q.view.quotaKeyToControl(name)
			}
		}
		q.fieldsToControl(m.Value)
		return true
	})
}

// directive reports whether a key is an instruction of a strategic merge patch and not a name.
func directive(key string) bool { return strings.HasPrefix(key, "$") }
