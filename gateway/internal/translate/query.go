package translate

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"vivarium.io/vivarium/gateway/internal/translate/rules"
	"vivarium.io/vivarium/internal/names"
)

// maxSelector bounds a selector; the longest that people write are lists of a few names.
const maxSelector = 64 << 10

// parameter says what a query parameter may be.
type parameter uint8

const (
	boolean parameter = iota + 1 // true or false
	number                       // not negative
	text
	several // text, may be repeated
	duration
	labelSelector
	fieldSelector
	includeObject
)

// parameters are the query parameters by verb. What is not here is refused, not dropped: a tenant that believes its
// parameter has an effect should hear that it has none.
var parameters = map[string]map[string]parameter{
	"get":    {"resourceVersion": text, "includeObject": includeObject},
	"list":   listParameters,
	"watch":  listParameters,
	"create": writeParameters,
	"update": writeParameters,
	"patch":  with(writeParameters, map[string]parameter{"force": boolean}),
	"delete": deleteParameters,
	"deletecollection": with(deleteParameters, map[string]parameter{
		"labelSelector": labelSelector, "fieldSelector": fieldSelector, "resourceVersion": text,
		"resourceVersionMatch": text, "limit": number, "continue": text, "timeoutSeconds": number,
	}),
}

var listParameters = map[string]parameter{
	"labelSelector": labelSelector, "fieldSelector": fieldSelector, "resourceVersion": text, "resourceVersionMatch": text,
	"limit": number, "continue": text, "timeoutSeconds": number, "watch": boolean, "allowWatchBookmarks": boolean,
	"sendInitialEvents": boolean, "includeObject": includeObject,
}

var writeParameters = map[string]parameter{"dryRun": several, "fieldManager": text, "fieldValidation": text}

var deleteParameters = map[string]parameter{
	"dryRun": several, "gracePeriodSeconds": number, "orphanDependents": boolean, "propagationPolicy": text,
}

// connectParameters are those of the subresources that carry streams.
var connectParameters = map[string]map[string]parameter{
	"log": {"container": text, "follow": boolean, "previous": boolean, "sinceSeconds": number, "sinceTime": text,
		"timestamps": boolean, "tailLines": number, "limitBytes": number, "stream": text},
	"exec":        {"container": text, "command": several, "stdin": boolean, "stdout": boolean, "stderr": boolean, "tty": boolean},
	"attach":      {"container": text, "stdin": boolean, "stdout": boolean, "stderr": boolean, "tty": boolean},
	"portforward": {"ports": several},
}

func with(base, more map[string]parameter) map[string]parameter {
	out := make(map[string]parameter, len(base)+len(more))
	for k, p := range base {
		out[k] = p
	}
	for k, p := range more {
		out[k] = p
	}
	return out
}

var durationPattern = regexp.MustCompile(`^([0-9]{1,6}(\.[0-9]{1,9})?(ns|us|ms|s|m|h)){1,4}$|^0$`)

// QueryToControl translates the query parameters of a request: it rewrites field and label selectors and refuses unknown,
// repeated and malformed parameters, by verb (as RequestInfo names them) and for log, exec, attach and portforward by
// subresource. A continue token passes: the front has put the control cluster's there. The error is an *Error.
func (v View) QueryToControl(k Kind, verb string, query url.Values) (url.Values, error) {
	known := parameters[verb]
	if c, ok := connectParameters[k.Subresource]; ok {
		known = c
	}
	out := make(url.Values, len(query))
	for key, values := range query {
		p := known[key]
		switch key {
		case "timeout":
			p = duration
		case "pretty":
			// A watch has one frame per line.
			if p = boolean; verb == "watch" {
				continue
			}
		}
		if p == 0 {
			return nil, malformed("the query parameter %q is not understood for %s", key, verb)
		}
		if len(values) != 1 && p != several {
			return nil, malformed("the query parameter %q stands %d times", key, len(values))
		}
		for _, value := range values {
			control, err := v.parameterToControl(k, p, key, value)
			if err != nil {
				return nil, err
			}
			out.Add(key, control)
		}
	}
	if verb == "list" || verb == "watch" || verb == "deletecollection" {
		if only := v.selectorOf(k); only != "" && out.Get("labelSelector") != "" {
			out.Set("labelSelector", out.Get("labelSelector")+","+only)
		} else if only != "" {
			out.Set("labelSelector", only)
		}
	}
	return out, nil
}

// selectorOf tells the tenant's objects of a kind from others where their names do not.
func (v View) selectorOf(k Kind) string {
	if root, ok := v.bodyRoot(k); ok && root.Op == rules.VirtualNode {
		// Only virtual nodes are the tenants' to see.
		return names.LabelPool
	}
	if isDefinition(k) {
		return names.LabelTenant + "=" + string(v.Tenant)
	}
	return ""
}

func (v View) parameterToControl(k Kind, p parameter, key, value string) (string, error) {
	bad := func() (string, error) { return "", malformed("the query parameter %q has the value %.64q", key, value) }
	switch p {
	case boolean:
		switch value {
		case "true", "false", "1", "0", "":
			return value, nil
		}
		return bad()
	case number:
		if n, err := strconv.ParseInt(value, 10, 64); value != "" && (err != nil || n < 0) {
			return bad()
		}
	case duration:
		if !durationPattern.MatchString(value) {
			return bad()
		}
	case includeObject:
		switch value {
		case "Object", "Metadata", "":
			return value, nil
		case "None":
			// Whose a row is only its object says.
			return "Metadata", nil
		}
		return bad()
	case labelSelector:
		return v.labelSelectorToControl(k, value)
	case fieldSelector:
		return v.fieldSelectorToControl(k, value)
	}
	return value, nil
}

// labelSelectorToControl translates a selector over labels of objects of a kind.
func (v View) labelSelectorToControl(k Kind, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	if len(text) > maxSelector {
		return "", malformed("the label selector has %d bytes, at most %d are taken", len(text), maxSelector)
	}
	sel, err := labels.Parse(text)
	if err != nil {
		return "", malformed("the label selector cannot be read: %s", err)
	}
	requirements, selectable := sel.Requirements()
	if !selectable {
		return text, nil
	}
	op := labelsOf(k)
	q := &request{view: v, kind: k}
	out := labels.NewSelector()
	for _, r := range requirements {
		key, err := q.keyToControl(op, r.Key(), "labelSelector")
		if err != nil {
			return "", err
		}
		values := r.Values().List()
		if op == rules.NamespaceLabels && key == labelMetadataName {
			for i, value := range values {
				if values[i], err = v.namespaceToControl(value, "labelSelector"); err != nil {
					return "", err
				}
			}
		}
		control, err := labels.NewRequirement(key, r.Operator(), values)
		if err != nil {
			return "", malformed("the label selector cannot be translated: %s", err)
		}
		out = out.Add(*control)
	}
	return out.String(), nil
}

// fieldSelectorToControl translates a selector over fields of objects of a kind.
func (v View) fieldSelectorToControl(k Kind, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	if len(text) > maxSelector {
		return "", malformed("the field selector has %d bytes, at most %d are taken", len(text), maxSelector)
	}
	sel, err := fields.ParseSelector(text)
	if err != nil {
		return "", malformed("the field selector cannot be read: %s", err)
	}
	q := &request{view: v, kind: k}
	requirements := sel.Requirements()
	about := aboutOf(requirements)
	var out []string
	for _, r := range requirements {
		if about.is(r.Field, "namespace") && r.Value == "" && v.clusterKind(about.apiVersion, about.kind) {
			// Events about cluster-scoped objects are stored with the Event's own namespace.
			continue
		}
		value, err := q.fieldToControl(about, r.Field, r.Value)
		if err != nil {
			return "", err
		}
		operator := "="
		if r.Operator == selection.NotEquals {
			operator = "!="
		}
		out = append(out, r.Field+operator+fields.EscapeValue(value))
	}
	return strings.Join(out, ","), nil
}

// fieldToControl translates what a field is compared with.
func (q *request) fieldToControl(about about, field, value string) (string, error) {
	const path = "fieldSelector"
	switch {
	case field == "metadata.name":
		return q.selectedNameToControl(value, path)
	case field == "metadata.namespace", about.is(field, "namespace"):
		return q.view.namespaceToControl(value, path)
	case about.is(field, "name") && value != "":
		return q.kindNameToControl(about.apiVersion, about.kind, value, path)
	case about.is(field, "apiVersion"):
		return q.view.groupVersionToControl(value), nil
	case field == "spec.signerName" && isSigningRequest(q.kind) && value != "":
		return q.view.Tenant.NameToControl(value), nil
	}
	return value, nil
}

// selectedNameToControl translates the name that objects of the request's kind are selected by.
func (q *request) selectedNameToControl(value, path string) (string, error) {
	switch q.view.nameClassOf(q.kind.Group, q.kind.Resource) {
	case crdNames:
		// What cannot be the name of one selects none.
		if control, err := q.view.Tenant.DefinitionToControl(value); err == nil {
			return control, nil
		}
	case prefixedNames:
		if rules.BuiltInGroup(q.kind.Group) {
			return q.nameToControl(q.kind.Kind, value, path)
		}
		if value != "" {
			return q.view.Tenant.NameToControl(value), nil
		}
	}
	return value, nil
}

// fieldToTenant is the inverse; what is not the tenant's is empty.
func (r *response) fieldToTenant(k Kind, about about, field, value string) string {
	switch {
	case value == "":
		return ""
	case field == "metadata.name":
		switch class := r.view.nameClassOf(k.Group, k.Resource); {
		case class == prefixedNames && rules.BuiltInGroup(k.Group):
			own, _ := r.view.objectToTenant(k.Kind, value)
			return own
		case class == prefixedNames, class == crdNames:
			own, _ := r.view.resourceNameToTenant(class, value)
			return own
		}
	case field == "metadata.namespace", about.is(field, "namespace"):
		return r.namespaceToTenant(value)
	case about.is(field, "name"):
		apiVersion, _ := r.view.groupVersionToTenant(about.apiVersion)
		own, _ := r.view.kindNameToTenant(apiVersion, about.kind, value)
		return own
	case about.is(field, "apiVersion"):
		own, _ := r.view.groupVersionToTenant(value)
		return own
	case field == "spec.signerName" && isSigningRequest(k):
		own, _ := r.view.Tenant.NameToTenant(value)
		return own
	}
	return value
}

// about is the object that Events are selected by.
type about struct{ kind, apiVersion string }

func aboutOf(requirements fields.Requirements) about {
	var a about
	for _, r := range requirements {
		if r.Operator == selection.NotEquals {
			continue
		}
		switch {
		case a.is(r.Field, "kind"):
			a.kind = r.Value
		case a.is(r.Field, "apiVersion"):
			a.apiVersion = r.Value
		}
	}
	return a
}

func (about) is(field, member string) bool {
	return field == "involvedObject."+member || field == "regarding."+member
}
