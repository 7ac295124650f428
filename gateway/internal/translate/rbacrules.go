package translate

import (
	"slices"
	"strings"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
	"vivarium.io/vivarium/internal/names"
)

// A rule with resourceNames may be about resources whose names differ between the worlds and others whose names do not: a
// Namespace "web" is "<id>-web" in control, a Pod "web" is "web". One rule cannot say both there, so that a ClusterRole
// gets several in its place, one after the other, each exact. The first carries what the tenant wrote, as one more name
// that no object can have. On the way back the parts become that rule again, if they are still its parts; else each is
// shown as it stands.
//
// Parts shift the rules behind them, and a JSON patch counts. So a ClusterRole with parts carries a label, and a patch that
// counts tests first that it is not there.

// ruleMark starts the name that holds a rule as its tenant wrote it.
const ruleMark = names.Domain + "/rule:"

// rulePart is a rule, or a part of one, in the control cluster's words.
type rulePart struct{ groups, resources, names []string }

// nameToControl translates the name of an object of a resource.
func (v View) ruleNameToControl(group, resource, name string) string {
	if name == "" {
		return ""
	}
	class := v.nameClassOf(group, resource)
	if class == prefixedNames && v.exported(classResources[resource], name) {
		return name
	}
	return v.resourceNameToControl(class, name)
}

// ruleNameToTenant is the inverse; false means that the name is not the tenant's.
func (v View) ruleNameToTenant(group, resource, name string) (string, bool) {
	class := v.nameClassOf(group, resource)
	if class == prefixedNames && v.exported(classResources[resource], name) {
		return name, true
	}
	return v.resourceNameToTenant(class, name)
}

// split cuts a rule with names, in the tenant's words, into parts that are exact. A rule without need is one part.
func (v View) split(groups, resources, resourceNames []string) []rulePart {
	var parts []rulePart
	add := func(group, resource string) {
		base, _, _ := strings.Cut(resource, "/")
		translated := make([]string, 0, len(resourceNames))
		for _, name := range resourceNames {
			translated = append(translated, v.ruleNameToControl(group, base, name))
		}
		for i := range parts {
			if parts[i].resources[0] == resource && slices.Equal(parts[i].names, translated) {
				if !slices.Contains(parts[i].groups, group) {
					parts[i].groups = append(parts[i].groups, group)
				}
				return
			}
		}
		parts = append(parts, rulePart{[]string{group}, []string{resource}, translated})
	}
	for i, resource := range resources {
		if slices.Contains(resources[:i], resource) {
			continue
		}
		base, sub, deep := strings.Cut(resource, "/")
		for j, group := range groups {
			if slices.Contains(groups[:j], group) {
				continue
			}
			add(group, resource)
			if base != "*" {
				continue
			}
			// Among all resources are those whose names differ.
			for _, special := range specialResources(group) {
				if deep {
					special += "/" + sub
				}
				add(group, special)
			}
		}
	}
	// What differs in the resource alone goes together again.
	var out []rulePart
	for _, p := range parts {
		i := slices.IndexFunc(out, func(q rulePart) bool { return slices.Equal(p.groups, q.groups) && slices.Equal(p.names, q.names) })
		if i < 0 {
			out = append(out, p)
		} else {
			out[i].resources = append(out[i].resources, p.resources...)
		}
	}
	if len(out) == 1 {
		out[0].groups, out[0].resources = groups, resources
	}
	for i := range out {
		translated := make([]string, 0, len(out[i].groups))
		for _, group := range out[i].groups {
			translated = append(translated, v.groupToControl(group))
		}
		out[i].groups = translated
	}
	return out
}

// specialResources are the resources of a group whose names are not the same in both worlds.
func specialResources(group string) []string {
	out := rules.PrefixedResources(group)
	for _, resource := range [...]string{"users", "groups"} {
		if (View{}).nameClassOf(group, resource) != plainNames {
			out = append(out, resource)
		}
	}
	return out
}

// policyRulesToControl translates RBAC rules.
func (q *request) policyRulesToControl(list *jsonwire.Value, path string) error {
	var out []*jsonwire.Value
	for _, rule := range list.Elems() {
		parts, err := q.policyRuleToControl(rule, path)
		if err != nil {
			return err
		}
		out = append(out, parts...)
	}
	if list.Kind() == jsonwire.Array {
		list.SetElems(out)
	}
	return nil
}

func (q *request) policyRuleToControl(rule *jsonwire.Value, path string) ([]*jsonwire.Value, error) {
	groups, resources, resourceNames := texts(rule.Get("apiGroups")), texts(rule.Get("resources")), texts(rule.Get("resourceNames"))
	for _, name := range resourceNames {
		if strings.HasPrefix(name, ruleMark) {
			return nil, forbidden(path+".resourceNames", "the name %.40q belongs to the platform", name)
		}
	}
	parts := q.view.split(groups, resources, resourceNames)
	if len(parts) > 1 && q.root.Kind == "Role" {
		// A Role reaches cluster-scoped objects only where a request for them is one in its namespace: for that Namespace.
		if slices.Contains(resourceNames, q.namespace) {
			return nil, invalid(path, "a rule of a Role that names its own namespace and other objects as well is not supported: write one rule for namespaces and one for the rest")
		}
		parts = []rulePart{{parts[0].groups, resources, resourceNames}}
		parts[0].groups = q.view.groupsToControl(groups)
	}
	if len(parts) <= 1 {
		for i, group := range rule.Get("apiGroups").Elems() {
			if group.Kind() == jsonwire.String {
				group.SetText(q.view.groupToControl(groups[i]))
			}
		}
		for i, name := range rule.Get("resourceNames").Elems() {
			if len(parts) == 1 && name.Kind() == jsonwire.String {
				name.SetText(parts[0].names[i])
			}
		}
		return []*jsonwire.Value{rule}, nil
	}
	verbs := texts(rule.Get("verbs"))
	for _, m := range rule.Members() {
		switch m.Key {
		case "verbs", "apiGroups", "resources", "resourceNames":
		default:
			return nil, invalid(path, "a rule with resourceNames over cluster-scoped resources and others must not have %q: write one rule for each", m.Key)
		}
	}
	q.splitRules = true
	mark := ruleMark + string(ruleOf(verbs, rulePart{groups, resources, resourceNames}).Append(nil))
	out := make([]*jsonwire.Value, 0, len(parts))
	for i, part := range parts {
		if i == 0 {
			part.names = append(slices.Clone(part.names), mark)
		}
		out = append(out, ruleOf(verbs, part))
	}
	return out, nil
}

func (v View) groupsToControl(groups []string) []string {
	out := make([]string, 0, len(groups))
	for _, group := range groups {
		out = append(out, v.groupToControl(group))
	}
	return out
}

// ruleOf makes a rule, its members in the order of the API's encoder.
func ruleOf(verbs []string, p rulePart) *jsonwire.Value {
	list := func(words []string) *jsonwire.Value {
		elems := make([]*jsonwire.Value, 0, len(words))
		for _, w := range words {
			elems = append(elems, jsonwire.NewString(w))
		}
		return jsonwire.NewArray(elems...)
	}
	return jsonwire.NewObject(
		jsonwire.Member{Key: "verbs", Value: list(verbs)}, jsonwire.Member{Key: "apiGroups", Value: list(p.groups)},
		jsonwire.Member{Key: "resources", Value: list(p.resources)}, jsonwire.Member{Key: "resourceNames", Value: list(p.names)})
}

// isRule reports whether a rule says what a part does; mark is one more name.
func isRule(rule *jsonwire.Value, verbs []string, p rulePart, mark string) bool {
	have := texts(rule.Get("resourceNames"))
	if mark != "" {
		have = slices.DeleteFunc(have, func(name string) bool { return name == mark })
	}
	return slices.Equal(texts(rule.Get("verbs")), verbs) && slices.Equal(texts(rule.Get("apiGroups")), p.groups) &&
		slices.Equal(texts(rule.Get("resources")), p.resources) && slices.Equal(have, p.names) && len(rule.Get("nonResourceURLs").Elems()) == 0
}

// whole finds the rule that a tenant wrote where its parts begin, and how many they are; nil if none begins here.
func (r *response) wholeRule(list []*jsonwire.Value) (*jsonwire.Value, int) {
	for _, mark := range texts(list[0].Get("resourceNames")) {
		text, ok := strings.CutPrefix(mark, ruleMark)
		if !ok {
			continue
		}
		written, err := jsonwire.Parse([]byte(text))
		if err != nil {
			return nil, 0
		}
		verbs := texts(written.Get("verbs"))
		parts := r.view.split(texts(written.Get("apiGroups")), texts(written.Get("resources")), texts(written.Get("resourceNames")))
		if len(parts) > len(list) {
			return nil, 0
		}
		for i, part := range parts {
			if i > 0 {
				mark = ""
			}
			if !isRule(list[i], verbs, part, mark) {
				return nil, 0
			}
		}
		return written, len(parts)
	}
	return nil, 0
}

// policyRulesToTenant is the inverse. What a rule says about other worlds is left out, and the whole rule where nothing
// else remains: a rule without names or groups would read as one about everything.
func (r *response) policyRulesToTenant(list *jsonwire.Value) {
	var out []*jsonwire.Value
	for rest := list.Elems(); len(rest) > 0; {
		if written, n := r.wholeRule(rest); written != nil {
			out, rest = append(out, written), rest[n:]
			continue
		}
		if r.policyRuleToTenant(rest[0]) {
			out = append(out, rest[0])
		}
		rest = rest[1:]
	}
	if list.Kind() == jsonwire.Array {
		list.SetElems(out)
	}
}

func (r *response) policyRuleToTenant(rule *jsonwire.Value) bool {
	if groups := rule.Get("apiGroups"); len(groups.Elems()) > 0 {
		groups.SetElems(slices.DeleteFunc(groups.Elems(), func(g *jsonwire.Value) bool {
			own, ok := r.view.groupToTenant(g.Text())
			if ok && g.Kind() == jsonwire.String {
				g.SetText(own)
			}
			return !ok
		}))
		if len(groups.Elems()) == 0 {
			return false
		}
	}
	resourceNames := rule.Get("resourceNames")
	if len(resourceNames.Elems()) == 0 {
		return true
	}
	group, resource := r.sameNames(texts(rule.Get("apiGroups")), texts(rule.Get("resources")))
	resourceNames.SetElems(slices.DeleteFunc(resourceNames.Elems(), func(name *jsonwire.Value) bool {
		own, ok := r.view.ruleNameToTenant(group, resource, name.Text())
		if ok && name.Text() != "" {
			name.SetText(own)
		}
		return !ok || strings.HasPrefix(name.Text(), ruleMark)
	}))
	return len(resourceNames.Elems()) > 0
}

// sameNames gives a resource that stands for all of a rule's as far as names go; of a mixture, names stay as they are.
func (r *response) sameNames(groups, resources []string) (group, resource string) {
	class := nameClass(0)
	for _, one := range resources {
		base, _, _ := strings.Cut(one, "/")
		if base == "*" {
			return "", "*"
		}
		for _, g := range groups {
			if class |= r.view.nameClassOf(g, base); class&(class-1) != 0 {
				return "", "*"
			}
			group, resource = g, base
		}
	}
	return group, resource
}
