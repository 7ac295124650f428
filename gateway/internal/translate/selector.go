package translate

import (
	"slices"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/podsecurity"
)

// selectorToControl keeps a selector over namespaces inside the tenant: every namespace of a tenant carries its label, so
// asking for the label too makes "all namespaces" mean all of the tenant's. An absent selector stays absent, for that
// means the object's own namespace.
func (q *request) selectorToControl(sel *jsonwire.Value, path string) error {
	switch sel.Kind() {
	case jsonwire.Null:
		return nil
	case jsonwire.Object:
	default:
		return invalid(path, "must be a label selector")
	}
	for _, m := range sel.Members() {
		switch m.Key {
		case "matchLabels":
			if err := q.selectorLabelsToControl(m.Value, path); err != nil {
				return err
			}
		case "matchExpressions":
			if err := q.requirementsToControl(m.Value, path); err != nil {
				return err
			}
		default:
			return invalid(path, "unknown member %q of a label selector", m.Key)
		}
	}
	labels := sel.Get("matchLabels")
	if labels.Kind() != jsonwire.Object {
		labels = jsonwire.NewObject()
		sel.Set("matchLabels", labels)
	}
	labels.Set(names.LabelTenant, jsonwire.NewString(string(q.view.Tenant)))
	return nil
}

func (q *request) selectorLabelsToControl(labels *jsonwire.Value, path string) error {
	members := labels.Members()
	for i := range members {
		m := &members[i]
		if err := selectorKey(m.Key, path); err != nil {
			return err
		}
		m.Key = podsecurity.ToControl(m.Key)
		if m.Key == labelMetadataName {
			ns, err := q.view.namespaceToControl(m.Value.Text(), path)
			if err != nil {
				return err
			}
			m.Value.SetText(ns)
		}
	}
	return nil
}

func (q *request) requirementsToControl(requirements *jsonwire.Value, path string) error {
	for _, req := range requirements.Elems() {
		key := req.Get("key").Text()
		if err := selectorKey(key, path); err != nil {
			return err
		}
		if control := podsecurity.ToControl(key); control != key {
			req.Get("key").SetText(control)
		}
		if key != labelMetadataName {
			continue
		}
		for _, value := range req.Get("values").Elems() {
			ns, err := q.view.namespaceToControl(value.Text(), path)
			if err != nil {
				return err
			}
			value.SetText(ns)
		}
	}
	return nil
}

func selectorKey(key, path string) error {
	if names.Reserved(key) || protectedNamespaceKey(key) {
		return forbidden(path, "the label %q belongs to the platform", key)
	}
	return nil
}

// selectorToTenant is the inverse of selectorToControl.
func (r *response) selectorToTenant(sel *jsonwire.Value) {
	if labels := sel.Get("matchLabels"); labels.Kind() == jsonwire.Object {
		labels.Filter(func(m *jsonwire.Member) bool {
			if m.Key == labelMetadataName {
				m.Value.SetText(r.namespaceToTenant(m.Value.Text()))
			}
			m.Key, _ = podsecurity.ToTenant(m.Key)
			return m.Key != "" && !names.Reserved(m.Key)
		})
		if len(labels.Members()) == 0 {
			sel.Delete("matchLabels")
		}
	}
	requirements := sel.Get("matchExpressions")
	if requirements.Kind() != jsonwire.Array {
		return
	}
	requirements.SetElems(slices.DeleteFunc(requirements.Elems(), func(req *jsonwire.Value) bool {
		key := req.Get("key")
		if values := req.Get("values"); key.Text() == labelMetadataName && values.Kind() == jsonwire.Array {
			for _, value := range values.Elems() {
				value.SetText(r.namespaceToTenant(value.Text()))
			}
			values.SetElems(slices.DeleteFunc(values.Elems(), func(v *jsonwire.Value) bool { return v.Text() == "" }))
		}
		own, ok := podsecurity.ToTenant(key.Text())
		if ok && own != key.Text() {
			key.SetText(own)
		}
		return !ok || names.Reserved(own)
	}))
}
