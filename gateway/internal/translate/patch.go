package translate

import (
	"slices"
	"strings"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/internal/podsecurity"
)

// maxOperations is how many operations a JSON patch may have, as the API server has it.
const maxOperations = 10_000

// patchBody translates a patch of any kind.
func (q *request) patchBody(media string, body []byte) ([]byte, error) {
	q.patch = true
	switch media {
	case typeJSONPatch:
		ops, err := jsonwire.Parse(body)
		if err != nil {
			return nil, err
		}
		if err := q.operations(ops); err != nil {
			return nil, err
		}
		return ops.Append(nil), nil
	case typeMergePatch, typeStrategicPatch:
		root, err := jsonwire.Parse(body)
		if err != nil {
			return nil, err
		}
		if err := q.partial(root); err != nil {
			return nil, err
		}
		return root.Append(nil), nil
	case typeApplyPatch:
		converted, err := yamlToJSON(body)
		if err != nil {
			return nil, err
		}
		q.patch, q.apply = false, true
		return q.object(converted)
	}
	return nil, unsupportedMedia("a patch of type %q is not understood: use %s, %s, %s or %s", media, typeJSONPatch, typeMergePatch, typeStrategicPatch, typeApplyPatch)
}

// partial translates a merge or strategic merge patch: an object of which only a part is there.
func (q *request) partial(root *jsonwire.Value) error {
	if root.Kind() != jsonwire.Object {
		return malformed("the patch must be an object, not %s", root.Kind())
	}
	if len(q.injectedLabels()) > 0 {
		meta := root.Get("metadata")
		switch {
		case isNull(meta):
			return invalid("metadata", "would remove labels that the platform needs: change single members instead")
		case isNull(meta.Get("labels")):
			return invalid("metadata.labels", "would remove labels that the platform needs: set single labels to null instead")
		}
		for _, m := range meta.Get("labels").Members() {
			if directive(m.Key) {
				return invalid("metadata.labels", "would remove labels that the platform needs: set single labels to null instead")
			}
		}
	}
	if err := q.value(q.root.Place, root, ""); err != nil {
		return err
	}
	if q.root.Kind == "ClusterRole" && root.Get("rules") != nil {
		q.labelPatched(root)
	}
	return nil
}

// labelPatched says in a patch with new rules whether some of them are in parts.
func (q *request) labelPatched(root *jsonwire.Value) {
	object := func(v *jsonwire.Value, key string) *jsonwire.Value {
		if v.Get(key).Kind() != jsonwire.Object {
			v.Set(key, jsonwire.NewObject())
		}
		return v.Get(key)
	}
	label := new(jsonwire.Value)
	if q.splitRules {
		label = jsonwire.NewString("true")
	}
	object(object(root, "metadata"), "labels").Set(names.LabelSplitRules, label)
}

// isNull reports whether something is there and is null.
func isNull(v *jsonwire.Value) bool { return v != nil && v.Kind() == jsonwire.Null }

// operations translates a JSON patch.
func (q *request) operations(ops *jsonwire.Value) error {
	if ops.Kind() != jsonwire.Array {
		return malformed("the patch must be an array of operations, not %s", ops.Kind())
	}
	if len(ops.Elems()) > maxOperations {
		return tooLarge("the patch has %d operations, at most %d are taken", len(ops.Elems()), maxOperations)
	}
	var out []*jsonwire.Value
	for _, op := range ops.Elems() {
		q.enforced, q.before, q.after, q.splitRules = nil, nil, nil, false
		if err := q.operation(op); err != nil {
			return err
		}
		out = append(append(append(out, q.before...), op), q.after...)
		if q.enforced != nil && op.Get("op").Text() != "test" {
			out = append(out, jsonwire.NewObject(
				jsonwire.Member{Key: "op", Value: jsonwire.NewString("add")},
				jsonwire.Member{Key: "path", Value: jsonwire.NewString("/metadata/labels/" + escapeSegment(podsecurity.Enforce))},
				jsonwire.Member{Key: "value", Value: q.enforced},
			))
		}
	}
	ops.SetElems(out)
	return nil
}

func (q *request) operation(op *jsonwire.Value) error {
	if op.Kind() != jsonwire.Object {
		return malformed("an operation of the patch is %s", op.Kind())
	}
	for _, m := range op.Members() {
		switch m.Key {
		case "op", "path", "from":
			if m.Value.Kind() != jsonwire.String {
				return malformed("%q of an operation of the patch is %s", m.Key, m.Value.Kind())
			}
		case "value":
		default:
			return malformed("an operation of the patch has %q", m.Key)
		}
	}
	to, err := q.locate(op.Get("path"))
	if err != nil {
		return err
	}
	switch what := op.Get("op").Text(); what {
	case "add", "replace", "test":
		if err := to.set(what, op.Get("value")); err != nil {
			return err
		}
	case "remove":
		if err := to.remove(op); err != nil {
			return err
		}
	case "copy", "move":
		from, err := q.locate(op.Get("from"))
		if err != nil {
			return err
		}
		if err := to.from(from, what); err != nil {
			return err
		}
		op.Set("from", jsonwire.NewString(from.pointer()))
	default:
		return malformed("%q is no operation of a JSON patch", what)
	}
	op.Set("path", jsonwire.NewString(to.pointer()))
	return nil
}

// location is where a JSON pointer leads: segs up to the place, rest below a place whose operation covers all of it.
type location struct {
	*request
	place *rules.Place // nil where nothing matters
	segs  []string
	rest  []string
}

func (q *request) locate(pointer *jsonwire.Value) (*location, error) {
	text := pointer.Text()
	if pointer == nil || text == "" || text[0] != '/' {
		return nil, invalid("", "a patch must change members of the object: %q is no path to one", text)
	}
	segs := strings.Split(text[1:], "/")
	for i, s := range segs {
		decoded, ok := decodeSegment(s)
		if !ok {
			return nil, malformed("the path %q has an escape that is not ~0 or ~1", text)
		}
		segs[i] = decoded
	}
	l := &location{request: q, place: q.root.Place, segs: segs}
	for i, s := range segs {
		if l.place == nil {
			break
		}
		if l.place.Op > rules.Pass {
			l.segs, l.rest = segs[:i], segs[i:]
			break
		}
		if l.place.Shape == rules.Array {
			l.place = l.place.Elem
		} else {
			l.place = l.place.Child([]byte(s))
		}
	}
	return l, nil
}

func decodeSegment(s string) (string, bool) {
	rest := strings.ReplaceAll(strings.ReplaceAll(s, "~0", ""), "~1", "")
	return strings.ReplaceAll(strings.ReplaceAll(s, "~1", "/"), "~0", "~"), !strings.Contains(rest, "~")
}

// pointer writes the location, in the control cluster's names after set or remove.
func (l *location) pointer() string {
	return pointerOf(slices.Concat(l.segs, l.rest))
}

func pointerOf(segs []string) string {
	var b strings.Builder
	for _, s := range segs {
		b.WriteByte('/')
		b.WriteString(escapeSegment(s))
	}
	return b.String()
}

// escapeSegment is the inverse of decodeSegment.
func escapeSegment(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1")
}

func (l *location) path() string {
	return strings.Join(append(l.segs[:len(l.segs):len(l.segs)], l.rest...), ".")
}

// set translates the value that is put or expected at the location.
func (l *location) set(what string, value *jsonwire.Value) error {
	if value == nil {
		return malformed("an operation %q of the patch has no value", what)
	}
	if l.place == nil {
		return nil
	}
	if len(l.rest) == 0 {
		if err := l.protect(what, value); err != nil {
			return err
		}
		if err := l.value(l.place, value, l.path()); err != nil {
			return err
		}
		l.labelSplit(what)
		return nil
	}
	return l.below(what, value)
}

// splitRulesPath leads to the label of a ClusterRole with rules in parts; splitRulesMessage is for who may have counted them.
const (
	splitRulesPath    = "/metadata/labels/vivarium.io~1split-rules"
	splitRulesMessage = "the patch does not apply: a path does not exist, a test failed, or a rule of this ClusterRole has resourceNames over cluster-scoped resources and others, in which case a JSON patch cannot change its rules one by one, or its labels as a whole: replace \"rules\", or use another kind of patch"
	// patchFailed is all that a stock API server says about a JSON patch that fails.
	patchFailed = "the server rejected our request due to an error in our request"
)

func operation(what, path string, value *jsonwire.Value) *jsonwire.Value {
	op := jsonwire.NewObject(jsonwire.Member{Key: "op", Value: jsonwire.NewString(what)}, jsonwire.Member{Key: "path", Value: jsonwire.NewString(path)})
	if value != nil {
		op.Set("value", value)
	}
	return op
}

// unlessSplit makes the patch fail if the ClusterRole has rules in parts, which the operation would count or lose.
func (l *location) unlessSplit() {
	if l.root.Kind == "ClusterRole" {
		l.before = append(l.before, operation("test", splitRulesPath, new(jsonwire.Value)))
	}
}

// labelSplit says with new rules whether some of them are in parts.
func (l *location) labelSplit(what string) {
	if l.place == nil || l.place.Op != rules.PolicyRules || l.root.Kind != "ClusterRole" || what == "test" {
		return
	}
	l.after = append(l.after, operation("add", splitRulesPath, jsonwire.NewString("true")))
	if !l.splitRules {
		l.after = append(l.after, operation("remove", splitRulesPath, nil))
	}
}

// protect keeps the labels that the platform has put on an object.
func (l *location) protect(what string, value *jsonwire.Value) error {
	if len(l.injectedLabels()) == 0 {
		return nil
	}
	switch strings.Join(l.segs, "/") {
	case "metadata":
		return invalid("metadata", "would remove labels that the platform needs: change single members instead")
	case "metadata/labels":
		if what != "add" && what != "replace" || value.Kind() != jsonwire.Object {
			return invalid("metadata.labels", "would remove labels that the platform needs: change single labels instead")
		}
		// The label that goes with split rules would be gone.
		l.unlessSplit()
		// Checked before the platform's own are added, which nothing may check again.
		if err := l.keysToControl(l.place.Op, value, l.path()); err != nil {
			return err
		}
		l.inject(value)
		l.place = nil
	}
	return nil
}

// remove checks that the location may go.
func (l *location) remove(op *jsonwire.Value) error {
	if l.place == nil {
		return nil
	}
	if len(l.rest) == 0 {
		l.labelSplit("remove")
		return l.protect("remove", nil)
	}
	if l.place.Op == rules.NamespaceSelector && l.rest[0] == "matchLabels" && len(l.rest) == 1 {
		// Without any label the selector would leave the tenant.
		labels := jsonwire.NewObject()
		op.Set("op", jsonwire.NewString("replace"))
		op.Set("value", labels)
		return l.below("replace", labels)
	}
	return l.below("remove", nil)
}

// below translates an operation on a part of something that one rule covers as a whole. Only those parts are understood
// whose meaning does not depend on the rest.
func (l *location) below(what string, value *jsonwire.Value) error {
	path := l.path()
	switch op := l.place.Op; op {
	case rules.Keys, rules.PodKeys, rules.PodAnnotations, rules.NamespaceLabels, rules.ClusterRoleLabels, rules.ClassAnnotations, rules.OwnedLabels:
		if len(l.rest) == 1 {
			one := jsonwire.NewObject(jsonwire.Member{Key: l.rest[0], Value: orNull(value)})
			if directive(l.rest[0]) {
				return invalid(path, "no key starts with a dollar sign")
			}
			if err := l.keysToControl(op, one, path); err != nil {
				return err
			}
			l.rest = []string{one.Members()[0].Key}
			l.enforced = one.Get(podsecurity.Enforce)
			return nil
		}
	case rules.QuotaKeys:
		if len(l.rest) == 1 {
			l.rest = []string{l.view.quotaKeyToControl(l.rest[0])}
			return nil
		}
	case rules.NamespaceSelector:
		return l.belowSelector(value, path)
	case rules.PolicyRules:
		return l.belowRules(what, value, path)
	case rules.AggregationRule:
		return l.belowAggregation(what, value, path)
	case rules.OwnerReferences, rules.Subjects:
		if len(l.rest) == 1 {
			return l.toControl(op, jsonwire.NewArray(orNull(value)), path)
		}
		// What is the same whatever the rest says.
		switch member := l.rest[1]; {
		case op == rules.OwnerReferences && len(l.rest) == 2 && (member == "uid" || member == "controller" || member == "blockOwnerDeletion"):
			return nil
		case op == rules.Subjects && len(l.rest) == 2 && member == "apiGroup":
			return nil
		case len(l.rest) == 2 && member == "kind" && what == "test":
			// Expecting a kind changes the meaning of nothing.
			return nil
		case len(l.rest) == 2 && member == "apiVersion" && what == "test":
			return l.toControl(rules.GroupVersion, orNull(value), path)
		case op == rules.Subjects && len(l.rest) == 2 && member == "namespace":
			// Only ServiceAccounts have one.
			return l.toControl(rules.Namespace, orNull(value), path)
		case len(l.rest) == 2 && member == "name":
			if done, err := l.belowReference(what, value, path); done || err != nil {
				return err
			}
		}
	case rules.RoleRef:
		switch {
		case len(l.rest) == 1 && (l.rest[0] == "apiGroup" || l.rest[0] == "kind" && what == "test"):
			return nil
		case len(l.rest) == 1 && l.rest[0] == "name" && l.root.Kind == "ClusterRoleBinding":
			// It refers to nothing but ClusterRoles.
			return l.toControl(op, jsonwire.NewObject(
				jsonwire.Member{Key: "kind", Value: jsonwire.NewString("ClusterRole")}, jsonwire.Member{Key: "name", Value: orNull(value)}), path)
		case len(l.rest) == 1 && l.rest[0] == "name":
			if done, err := l.belowReference(what, value, path); done || err != nil {
				return err
			}
		}
	case rules.SigningRequest:
		switch l.rest[0] {
		case "signerName":
			return l.toControl(op, jsonwire.NewObject(jsonwire.Member{Key: l.rest[0], Value: orNull(value)}), strings.Join(l.segs, "."))
		case "request", "usages", "expirationSeconds", "uid":
			return nil
		}
	case rules.RootCA, rules.ManagedFields:
		return nil
	case rules.ExternalIPs:
		if what != "remove" {
			return l.toControl(op, value, path)
		}
		return nil
	case rules.Namespace, rules.Group, rules.User, rules.UserGroup, rules.TokenAudiences:
		if len(l.rest) == 1 {
			return l.toControl(op, orNull(value), path)
		}
	case rules.ObjectReference, rules.InvolvedObject:
		// Whether the name is prefixed depends on the kind.
		switch l.rest[len(l.rest)-1] {
		case "uid", "resourceVersion", "fieldPath":
			return nil
		}
	}
	return invalid(path, "cannot be changed by itself in a JSON patch: replace %q as a whole", strings.Join(l.segs, "."))
}

// belowRules translates an operation inside a list of RBAC rules.
func (l *location) belowRules(what string, value *jsonwire.Value, path string) error {
	l.unlessSplit()
	if len(l.rest) == 1 {
		one := jsonwire.NewArray(orNull(value))
		if err := l.policyRulesToControl(one, path); err != nil {
			return err
		}
		if len(one.Elems()) != 1 {
			return invalid(path, "a rule with resourceNames over cluster-scoped resources and others cannot be set by itself in a JSON patch: replace %q as a whole", strings.Join(l.segs, "."))
		}
		return nil
	}
	switch l.rest[1] {
	case "verbs", "nonResourceURLs":
		return nil
	case "apiGroups", "resources":
		// They decide what the rule's names mean, so it must have none.
		names := slices.Concat(l.segs, []string{l.rest[0], "resourceNames"})
		l.before = append(l.before, operation("test", pointerOf(names), new(jsonwire.Value)))
		if l.rest[1] == "apiGroups" {
			return l.toControl(rules.Group, orNull(value), path)
		}
		return nil
	case "resourceNames":
		if len(l.rest) > 3 {
			break
		}
		if done, err := l.belowNames(what, value, path); done || err != nil {
			return err
		}
	}
	return invalid(path, "cannot be changed by itself in a JSON patch: replace the rule as a whole")
}

// belowAggregation translates an operation inside an aggregation rule, each of whose selectors must keep its tenant.
func (l *location) belowAggregation(what string, value *jsonwire.Value, path string) error {
	if l.rest[0] == "clusterRoleSelectors" {
		switch whole := orNull(value); {
		case len(l.rest) == 1:
			return l.aggregationToControl(jsonwire.NewObject(jsonwire.Member{Key: l.rest[0], Value: whole}), path)
		case len(l.rest) == 2 && what == "remove":
			return nil
		case len(l.rest) == 2:
			return l.aggregationToControl(jsonwire.NewObject(jsonwire.Member{Key: l.rest[0], Value: jsonwire.NewArray(whole)}), path)
		case len(l.rest) == 4 && l.rest[2] == "matchLabels":
			one := jsonwire.NewObject(jsonwire.Member{Key: l.rest[3], Value: whole})
			if err := l.keysToControl(rules.ClusterRoleLabels, one, path); err != nil {
				return err
			}
			l.rest = append(slices.Clone(l.rest[:3]), one.Members()[0].Key)
			return nil
		}
	}
	return invalid(path, "cannot be changed by itself in a JSON patch (%s): replace the selector as a whole", what)
}

// belowSelector translates an operation inside a selector over namespaces, which must keep its tenant.
func (l *location) belowSelector(value *jsonwire.Value, path string) error {
	switch {
	case l.rest[0] == "matchLabels" && len(l.rest) == 1:
		sel := jsonwire.NewObject(jsonwire.Member{Key: "matchLabels", Value: value})
		if value.Kind() != jsonwire.Object {
			return invalid(path, "must be an object")
		}
		return l.selectorToControl(sel, path)
	case l.rest[0] == "matchLabels" && len(l.rest) == 2:
		return l.selectorLabelsToControl(jsonwire.NewObject(jsonwire.Member{Key: l.rest[1], Value: orNull(value)}), path)
	case l.rest[0] == "matchExpressions" && len(l.rest) == 1:
		return l.requirementsToControl(orNull(value), path)
	case l.rest[0] == "matchExpressions" && len(l.rest) == 2:
		return l.requirementsToControl(jsonwire.NewArray(orNull(value)), path)
	}
	return invalid(path, "cannot be changed by itself in a JSON patch: replace the selector as a whole")
}

func orNull(v *jsonwire.Value) *jsonwire.Value {
	if v == nil {
		return new(jsonwire.Value)
	}
	return v
}

// from checks a copy or move between two locations: allowed where both sides mean the same.
func (l *location) from(source *location, what string) error {
	if !source.place.Matters() && !l.place.Matters() {
		return nil
	}
	bothKeys := source.place != nil && l.place != nil && isKeys(source.place.Op) && isKeys(l.place.Op)
	if bothKeys && len(source.rest) == 1 && len(l.rest) == 1 &&
		plainKey(source.rest[0]) && plainKey(l.rest[0]) {
		if err := source.below(what, nil); err != nil {
			return err
		}
		return l.below(what, nil)
	}
	return invalid(l.path(), "cannot be the end of a %s in a JSON patch: set the value itself", what)
}

// plainKey reports whether the value under a key is the tenant's as it stands.
func plainKey(key string) bool {
	return key != labelMetadataName && classAnnotations[key] == "" && podsecurity.ToControl(key) == key && !netkeys.OfTenant(key)
}

func isKeys(op rules.Op) bool {
	switch op {
	case rules.Keys, rules.PodKeys, rules.PodAnnotations, rules.NamespaceLabels, rules.ClusterRoleLabels, rules.ClassAnnotations, rules.OwnedLabels:
		return true
	}
	return false
}
