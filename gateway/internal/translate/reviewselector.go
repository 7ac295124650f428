package translate

import (
	"strings"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// An access review may ask about a list with selectors. They come as text or taken apart, never both, and mean what they
// would mean in a query.

// reviewed is the kind that a review asks about, as far as selectors need to know. Classes are the kinds whose names may
// be the operator's.
func reviewed(group, resource string) Kind {
	k := Kind{Group: group, Resource: resource, Kind: classResources[resource]}
	if group == "" && resource == "namespaces" {
		k.Kind = "Namespace"
	}
	return k
}

// classResources are the kinds of classes by resource.
var classResources = map[string]string{
	"storageclasses": "StorageClass", "volumeattributesclasses": "VolumeAttributesClass", "priorityclasses": "PriorityClass",
	"runtimeclasses": "RuntimeClass", "ingressclasses": "IngressClass", "deviceclasses": "DeviceClass",
}

func (q *request) reviewSelectorsToControl(attrs *jsonwire.Value, path string) error {
	about := &request{view: q.view, kind: reviewed(attrs.Get("group").Text(), attrs.Get("resource").Text())}
	if raw := attrs.At("fieldSelector", "rawSelector"); raw.Text() != "" {
		control, err := q.view.fieldSelectorToControl(about.kind, raw.Text())
		if err != nil {
			return err
		}
		setChanged(raw, control, canonFields)
	}
	requirements := attrs.At("fieldSelector", "requirements").Elems()
	event := aboutIn(requirements)
	for _, req := range requirements {
		for _, value := range req.Get("values").Elems() {
			control, err := about.fieldToControl(event, req.Get("key").Text(), value.Text())
			if err != nil {
				return err
			}
			value.SetText(control)
		}
	}
	if raw := attrs.At("labelSelector", "rawSelector"); raw.Text() != "" {
		control, err := q.view.labelSelectorToControl(about.kind, raw.Text())
		if err != nil {
			return err
		}
		setChanged(raw, control, canonLabels)
	}
	op := labelsOf(about.kind)
	for _, req := range attrs.At("labelSelector", "requirements").Elems() {
		key, err := about.keyToControl(op, req.Get("key").Text(), path+".labelSelector")
		if err != nil {
			return err
		}
		if key == labelMetadataName && op == rules.NamespaceLabels {
			for _, value := range req.Get("values").Elems() {
				control, err := q.view.namespaceToControl(value.Text(), path+".labelSelector")
				if err != nil {
					return err
				}
				value.SetText(control)
			}
		}
		if key != "" {
			req.Get("key").SetText(key)
		}
	}
	return nil
}

// setChanged replaces a selector by its translation, unless that says the same: a review is echoed, and who asked shall
// see what it wrote.
func setChanged(raw *jsonwire.Value, translated string, canon func(string) string) {
	if canon(raw.Text()) != translated {
		raw.SetText(translated)
	}
}

func canonFields(text string) string {
	sel, err := fields.ParseSelector(text)
	if err != nil {
		return text
	}
	return writeFields(sel.Requirements())
}

func canonLabels(text string) string {
	sel, err := labels.Parse(text)
	if err != nil {
		return text
	}
	return sel.String()
}

func writeFields(requirements fields.Requirements) string {
	var out []string
	for _, r := range requirements {
		operator := "="
		if r.Operator == selection.NotEquals {
			operator = "!="
		}
		out = append(out, r.Field+operator+fields.EscapeValue(r.Value))
	}
	return strings.Join(out, ",")
}

func aboutIn(requirements []*jsonwire.Value) about {
	var a about
	for _, req := range requirements {
		values := req.Get("values").Elems()
		if req.Get("operator").Text() != "In" || len(values) != 1 {
			continue
		}
		switch key := req.Get("key").Text(); {
		case a.is(key, "kind"):
			a.kind = values[0].Text()
		case a.is(key, "apiVersion"):
			a.apiVersion = values[0].Text()
		}
	}
	return a
}

// reviewSelectorsToTenant is the inverse. The attributes' group has been translated.
func (r *response) reviewSelectorsToTenant(attrs *jsonwire.Value) {
	k := reviewed(attrs.Get("group").Text(), attrs.Get("resource").Text())
	if raw := attrs.At("fieldSelector", "rawSelector"); raw.Text() != "" {
		if sel, err := fields.ParseSelector(raw.Text()); err == nil {
			requirements := sel.Requirements()
			about := aboutOf(requirements)
			for i := range requirements {
				requirements[i].Value = r.fieldToTenant(k, about, requirements[i].Field, requirements[i].Value)
			}
			setChanged(raw, writeFields(requirements), canonFields)
		} else {
			raw.SetText(r.view.TextToTenant(raw.Text()))
		}
	}
	requirements := attrs.At("fieldSelector", "requirements").Elems()
	about := aboutIn(requirements)
	for _, req := range requirements {
		for _, value := range req.Get("values").Elems() {
			value.SetText(r.fieldToTenant(k, about, req.Get("key").Text(), value.Text()))
		}
	}
	op := labelsOf(k)
	if raw := attrs.At("labelSelector", "rawSelector"); raw.Text() != "" {
		setChanged(raw, r.labelSelectorToTenant(op, raw.Text()), canonLabels)
	}
	for _, req := range attrs.At("labelSelector", "requirements").Elems() {
		key, _ := keyToTenant(op, req.Get("key").Text())
		if key == labelMetadataName && op == rules.NamespaceLabels {
			for _, value := range req.Get("values").Elems() {
				value.SetText(r.namespaceToTenant(value.Text()))
			}
		}
		if req.Get("key") != nil {
			req.Get("key").SetText(key)
		}
	}
}

// labelSelectorToTenant is the inverse of labelSelectorToControl; requirements of the platform's are left out.
func (r *response) labelSelectorToTenant(op rules.Op, text string) string {
	sel, err := labels.Parse(text)
	if err != nil {
		return r.view.TextToTenant(text)
	}
	requirements, selectable := sel.Requirements()
	if !selectable {
		return text
	}
	out := labels.NewSelector()
	for _, req := range requirements {
		key, ok := keyToTenant(op, req.Key())
		values := req.Values().List()
		if op == rules.NamespaceLabels && key == labelMetadataName {
			for i, value := range values {
				values[i] = r.namespaceToTenant(value)
			}
		}
		if own, err := labels.NewRequirement(key, req.Operator(), values); ok && err == nil {
			out = out.Add(*own)
		}
	}
	return out.String()
}

// labelsOf is the operation on the labels of a kind.
func labelsOf(k Kind) rules.Op {
	switch {
	case k.Group == "" && k.Resource == "namespaces":
		return rules.NamespaceLabels
	case k.Group == "rbac.authorization.k8s.io" && k.Resource == "clusterroles":
		return rules.ClusterRoleLabels
	}
	return rules.Keys
}
