package translate

import (
	"strings"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/internal/podsecurity"
)

const (
	// labelMetadataName is set by the API server on every Namespace.
	labelMetadataName = "kubernetes.io/metadata.name"
	// labelScheduler is the domain by which a namespace chooses nodes for its pods.
	labelScheduler = "scheduler.alpha.kubernetes.io/"

	// aggregateToTenant and aggregateToControl are the label keys by which ClusterRoles flow into aggregated ones. The
	// control cluster's own aggregated roles select by the first, so no tenant's role may carry it there.
	aggregateToTenant  = "rbac.authorization.k8s.io/aggregate-to-"
	aggregateToControl = names.LabelAggregateTo
)

// keyToControl gives the control form of a label or annotation key, or refuses it.
func (q *request) keyToControl(op rules.Op, key, path string) (string, error) {
	if names.Reserved(key) {
		switch own := netkeys.OfTenant(key); {
		case own && op == rules.PodAnnotations && q.view.VPC:
			return key, nil
		case own && op == rules.PodAnnotations:
			return "", forbidden(path, "the key %q is for clusters whose pods are in a VPC; the pods of this one are not", key)
		case own:
			return "", forbidden(path, "the key %q is an annotation of pods, pod templates and namespaces alone", key)
		}
		return "", forbidden(path, "the key %q belongs to the platform", key)
	}
	switch op {
	case rules.NamespaceLabels:
		if protectedNamespaceKey(key) {
			return "", forbidden(path, "the key %q is set by the platform on every namespace", key)
		}
		key = podsecurity.ToControl(key)
	case rules.ClusterRoleLabels:
		if rest, ok := strings.CutPrefix(key, aggregateToTenant); ok {
			return aggregateToControl + rest, nil
		}
		return key, nil
	case rules.PodKeys, rules.PodAnnotations:
		if q.kind.Kind == "Namespace" && protectedNamespaceKey(key) {
			return "", forbidden(path, "the key %q is set by the platform on every namespace", key)
		}
	case rules.Keys, rules.ClassAnnotations, rules.OwnedLabels:
		return key, nil
	}
	if netkeys.Forbidden(key) {
		return "", forbidden(path, "the key %q would choose the network of a pod, which is set by the operator", key)
	}
	return key, nil
}

// keyToTenant is the inverse of keyToControl; false hides the key.
func keyToTenant(op rules.Op, key string) (string, bool) {
	switch op {
	case rules.NamespaceLabels:
		if tenant, ok := podsecurity.ToTenant(key); !ok || tenant != key {
			return tenant, ok
		}
	case rules.ClusterRoleLabels:
		if rest, ok := strings.CutPrefix(key, aggregateToControl); ok {
			return aggregateToTenant + rest, true
		}
		// Not the tenant's doing, and it would stand beside the tenant's own.
		if strings.HasPrefix(key, aggregateToTenant) {
			return "", false
		}
	}
	if op == rules.PodAnnotations && netkeys.OfTenant(key) {
		return key, true
	}
	if names.Reserved(key) || op == rules.NamespaceLabels && protectedNamespaceKey(key) {
		return "", false
	}
	return key, true
}

// hidden reports whether the owner of a key is none of the tenant's affairs.
func hidden(key string) bool { return names.Reserved(key) && !netkeys.OfTenant(key) }

func protectedNamespaceKey(key string) bool {
	return strings.HasPrefix(key, labelScheduler)
}

// keysToControl translates labels or annotations. Every mention of a protected key is refused, also one that deletes it.
func (q *request) keysToControl(op rules.Op, v *jsonwire.Value, path string) error {
	enforced := ""
	members := v.Members()
	for i := range members {
		m := &members[i]
		if directive(m.Key) {
			continue
		}
		if op == rules.NamespaceLabels {
			level, err := checkPodSecurity(m, path)
			if err != nil {
				return err
			}
			enforced += level
		}
		key, err := q.keyToControl(op, m.Key, path)
		if err != nil {
			return err
		}
		if netkeys.OfTenant(key) {
			if err := q.checkNetworkKey(m, path); err != nil {
				return err
			}
		}
		if op == rules.NamespaceLabels && key == labelMetadataName && m.Value.Text() != "" {
			ns, err := q.view.namespaceToControl(m.Value.Text(), path)
			if err != nil {
				return err
			}
			m.Value.SetText(ns)
		}
		scalingAnnotation(q.root.Kind, key, m.Value, q.view.groupVersionToControl)
		if kind := classAnnotations[key]; kind != "" && op == rules.ClassAnnotations && m.Value.Text() != "" {
			m.Value.SetText(q.view.classToControl(kind, m.Value.Text()))
		}
		m.Key = key
	}
	if enforced != "" {
		v.Set(podsecurity.Enforce, jsonwire.NewString(enforced))
	}
	return nil
}

// checkNetworkKey checks one of the tenant's own network keys. What it names must exist only when a pod comes to be: the
// network controller sees to that.
func (q *request) checkNetworkKey(m *jsonwire.Member, path string) error {
	if m.Key == netkeys.IP && q.kind.Kind == "Namespace" {
		return forbidden(path, "the key %q says the address of one pod: set it on the pod", m.Key)
	}
	if m.Value.Kind() == jsonwire.Null {
		return nil
	}
	if m.Value.Kind() != jsonwire.String {
		return invalid(path, "the value of %q must be a string", m.Key)
	}
	if err := netkeys.Check(m.Key, m.Value.Text()); err != nil {
		return invalid(path, "Invalid value: %q: the value of %s %v", m.Value.Text(), m.Key, err)
	}
	return nil
}

// checkPodSecurity checks a label of a namespace. Where it says which level the namespace is to enforce, or that it is to
// enforce none, it gives the level that the control cluster has to enforce.
func checkPodSecurity(m *jsonwire.Member, path string) (string, error) {
	if m.Value.Kind() != jsonwire.Null {
		if problem := podsecurity.Check(m.Key, m.Value.Text()); problem != "" {
			return "", invalid(path, "Invalid value: %q: %s", m.Value.Text(), problem)
		}
	}
	if m.Key != podsecurity.Enforce {
		return "", nil
	}
	return podsecurity.Enforced(m.Value.Text()), nil
}

// keysToTenant is the inverse of keysToControl.
func (r *response) keysToTenant(op rules.Op, v *jsonwire.Value) {
	v.Filter(func(m *jsonwire.Member) bool {
		key, ok := keyToTenant(op, m.Key)
		if ok && op == rules.NamespaceLabels && key == labelMetadataName {
			m.Value.SetText(r.namespaceToTenant(m.Value.Text()))
		}
		scalingAnnotation(r.root.Kind, key, m.Value, func(gv string) string {
			own, _ := r.view.groupVersionToTenant(gv)
			return own
		})
		if kind := classAnnotations[key]; kind != "" && op == rules.ClassAnnotations && m.Value.Text() != "" {
			m.Value.SetText(r.view.classToTenant(kind, m.Value.Text()))
		}
		if key == annotationLastApplied && !r.lastAppliedToTenant(m.Value) {
			return false
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
		return []jsonwire.Member{tenant, {Key: podsecurity.Enforce, Value: jsonwire.NewString(podsecurity.Baseline)},
			{Key: podsecurity.EnforceVersion, Value: jsonwire.NewString(podsecurity.Latest)}}
	case isDefinition(q.kind):
		// Its name begins with its plural: the label is how a tenant's are found.
		return []jsonwire.Member{tenant}
	case q.root.Group == "rbac.authorization.k8s.io" && q.root.Kind == "ClusterRole":
		// Aggregation selects by it, so that no role of another tenant flows in.
		if q.splitRules {
			return []jsonwire.Member{tenant, {Key: names.LabelSplitRules, Value: jsonwire.NewString("true")}}
		}
		return []jsonwire.Member{tenant}
	}
	return nil
}

// inject adds the platform's labels to a map of labels that has been translated.
func (q *request) inject(labels *jsonwire.Value) {
	for _, m := range q.injectedLabels() {
		if m.Key == podsecurity.Enforce {
			m.Value.SetText(podsecurity.Enforced(labels.Get(podsecurity.TenantEnforce).Text()))
		}
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
			own, shown := name, true
			if r.root.Kind == "Namespace" {
				own, shown = podsecurity.ToTenant(name)
			}
			switch {
			case own != name:
				m.Key = "f:" + own
				return shown
			case strings.HasPrefix(name, aggregateToControl):
				m.Key = "f:" + aggregateToTenant + strings.TrimPrefix(name, aggregateToControl)
			case hidden(name), r.root.Kind == "Namespace" && protectedNamespaceKey(name):
				return false
			case r.root.Kind == "ResourceQuota":
				key, ok := r.view.quotaKeyToTenant(name)
				if !ok {
					return false
				}
				m.Key = "f:" + key
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
			case hidden(name):
				return false
			case q.root.Kind == "ClusterRole" && strings.HasPrefix(name, aggregateToTenant):
				m.Key = "f:" + aggregateToControl + strings.TrimPrefix(name, aggregateToTenant)
			case q.root.Kind == "Namespace" && podsecurity.ToControl(name) != name:
				m.Key = "f:" + podsecurity.ToControl(name)
			case q.root.Kind == "ResourceQuota":
				m.Key = "f:" + q.view.quotaKeyToControl(name)
			}
		}
		q.fieldsToControl(m.Value)
		return true
	})
}

// directive reports whether a key is an instruction of a strategic merge patch and not a name.
func directive(key string) bool { return strings.HasPrefix(key, "$") }
