package translate

import (
	"slices"
	"strconv"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// A JSON patch can set a name alone whose meaning something beside it decides: the kind of a subject, of an owner or of a
// role, the resources of an RBAC rule. What stands beside it now the object as it is tells. That it still does when the patch
// is applied, also behind other operations of the same patch, a test in front of the operation makes sure of.

// present gives a part of the object that is patched, in the control cluster's words; nil if it cannot be had.
func (q *request) present(segs []string) *jsonwire.Value {
	if !q.asked && q.view.Present != nil {
		q.asked = true
		if doc, err := parseTrusted(q.view.Present()); err == nil {
			q.current = doc
		}
	}
	v := q.current
	for _, s := range segs {
		switch v.Kind() {
		case jsonwire.Object:
			v = v.Get(s)
		case jsonwire.Array:
			i, err := strconv.Atoi(s)
			if err != nil || strconv.Itoa(i) != s || i < 0 || i >= len(v.Elems()) {
				return nil
			}
			v = v.Elems()[i]
		default:
			return nil
		}
	}
	return v
}

// pin makes the patch fail if a member of what is at segs is not what it was, or is there now.
func (l *location) pin(segs []string, at *jsonwire.Value, members ...string) {
	for _, member := range members {
		l.before = append(l.before, operation("test", pointerOf(append(slices.Clone(segs), member)), orNull(at.Get(member))))
	}
}

// belowReference translates an operation on the name in a subject, an owner reference or a role reference; done is false if
// it cannot be known what the name means.
func (l *location) belowReference(what string, value *jsonwire.Value, path string) (done bool, err error) {
	segs := slices.Concat(l.segs, l.rest[:len(l.rest)-1])
	now := l.present(segs)
	if now.Kind() != jsonwire.Object || now.Get("kind").Text() == "" {
		return false, nil
	}
	one := jsonwire.NewObject(
		jsonwire.Member{Key: "kind", Value: jsonwire.NewString(now.Get("kind").Text())}, jsonwire.Member{Key: "name", Value: orNull(value)})
	if l.place.Op == rules.OwnerReferences {
		version, ok := l.view.groupVersionToTenant(now.Get("apiVersion").Text())
		if !ok {
			return false, nil
		}
		one.Set("apiVersion", jsonwire.NewString(version))
		l.pin(segs, now, "apiVersion")
	}
	l.pin(segs, now, "kind")
	if what == "remove" {
		return true, nil
	}
	if l.place.Op == rules.RoleRef {
		return true, l.toControl(l.place.Op, one, path)
	}
	return true, l.toControl(l.place.Op, jsonwire.NewArray(one), path)
}

// belowNames translates an operation on the resourceNames of an RBAC rule, or on one of them.
func (l *location) belowNames(what string, value *jsonwire.Value, path string) (done bool, err error) {
	if what == "remove" {
		return true, nil
	}
	segs := slices.Concat(l.segs, l.rest[:1])
	now := l.present(segs)
	if now.Kind() != jsonwire.Object {
		return false, nil
	}
	groups := make([]*jsonwire.Value, 0, 1)
	for _, group := range texts(now.Get("apiGroups")) {
		own, ok := l.view.groupToTenant(group)
		if !ok {
			return false, nil
		}
		groups = append(groups, jsonwire.NewString(own))
	}
	resources := make([]*jsonwire.Value, 0, 1)
	for _, resource := range texts(now.Get("resources")) {
		resources = append(resources, jsonwire.NewString(resource))
	}
	names := orNull(value)
	if len(l.rest) == 3 {
		names = jsonwire.NewArray(names)
	}
	rule := jsonwire.NewObject(
		jsonwire.Member{Key: "apiGroups", Value: jsonwire.NewArray(groups...)}, jsonwire.Member{Key: "resources", Value: jsonwire.NewArray(resources...)},
		jsonwire.Member{Key: "resourceNames", Value: names},
	)
	parts, err := l.policyRuleToControl(rule, path)
	if err != nil || len(parts) != 1 || parts[0] != rule {
		// Names of two kinds: the rule would become several.
		l.splitRules = false
		return false, err
	}
	l.pin(segs, now, "apiGroups", "resources")
	return true, nil
}
