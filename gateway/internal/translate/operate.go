package translate

import (
	"bytes"
	"errors"
	"strings"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
	"vivarium.io/vivarium/internal/names"
)

var domain = []byte(names.Domain)

// operate applies an operation to the next value. The few that stand in every object have a way around the tree.
func (r *response) operate(op rules.Op) error {
	switch op {
	case rules.NodeName, rules.SchedulerName, rules.TokenAudience, rules.TokenAudiences,
		rules.BoundKind, rules.SecretType, rules.ExternalIPs, rules.ConversionStrategy:
		// Rules about what a tenant may ask for.
		return r.Skip()
	case rules.RootCA:
		if r.name != rootCAConfigMap {
			return r.Skip()
		}
	case rules.Keys, rules.PodKeys, rules.PodAnnotations:
		if r.SkipWithout(ofTenant, ofPlatform) {
			return nil
		}
	case rules.ManagedFields:
		if r.root.Kind != "Namespace" && r.SkipWithout(ofTenant, ofPlatform) {
			return nil
		}
	case rules.Text, rules.GenerateName:
		if r.SkipWithout(ofTenant, ofPlatform) {
			return nil
		}
	case rules.Namespace:
		if c, err := r.Peek(); err != nil || c == '[' {
			return errors.Join(err, r.each(op))
		}
	}
	raw, err := r.Capture()
	if err != nil {
		return err
	}
	switch op {
	case rules.OwnNamespace, rules.OwnName:
		if len(raw) > len(r.prefix)+2 && raw[0] == '"' && bytes.HasPrefix(raw[1:], r.prefix) {
			// The one string in every object: taking the prefix out needs no tree. Owns decides, as for every name.
			if !r.view.Tenant.Owns(string(raw[1 : len(raw)-1])) {
				return errForeignItem
			}
			r.owned = true
			r.twice = bytes.HasPrefix(raw[1+len(r.prefix):], r.prefix)
			return r.emitName(raw)
		}
	case rules.Namespace:
		if len(raw) > len(r.prefix)+2 && bytes.HasPrefix(raw[1:], r.prefix) && r.view.Tenant.Owns(string(raw[1:len(raw)-1])) {
			return r.emitName(raw)
		}
	case rules.ObjectName:
		// Read for later, unchanged. Few rules ask.
		if string(raw) == `"`+rootCAConfigMap+`"` {
			r.name = rootCAConfigMap
		} else if bytes.Contains(raw, r.prefix) {
			if r.name, err = jsonwire.Unquote(raw); err != nil {
				return err
			}
		}
		return r.Emit(raw)
	case rules.Keys, rules.PodKeys, rules.PodAnnotations, rules.OwnedLabels:
		if !bytes.Contains(raw, domain) && !bytes.Contains(raw, r.prefix) {
			return r.Emit(raw)
		}
	case rules.ManagedFields:
		if !bytes.Contains(raw, domain) && !bytes.Contains(raw, r.prefix) && r.root.Kind != "Namespace" {
			return r.Emit(raw)
		}
	case rules.Text, rules.GenerateName:
		if !bytes.Contains(raw, domain) && !bytes.Contains(raw, r.prefix) {
			return r.Emit(raw)
		}
	case rules.OwnerReferences:
		if ordinaryOwner(raw) {
			return r.Emit(raw)
		}
	case rules.ObjectReference, rules.InvolvedObject:
		if at := r.ordinaryReference(raw); at > 0 {
			if err := r.Emit(raw[:at]); err != nil {
				return err
			}
			return r.Emit(raw[at+len(r.prefix):])
		}
	}
	v, err := parseTrusted(raw)
	if err != nil {
		return err
	}
	if err := r.toTenant(op, v); err != nil {
		return err
	}
	return r.Emit(v.Append(nil))
}

// emitName writes a captured name without its prefix.
func (r *response) emitName(raw []byte) error {
	if err := r.Emit(raw[:1]); err != nil {
		return err
	}
	return r.Emit(raw[1+len(r.prefix):])
}

// each applies an operation to each element of a list.
func (r *response) each(op rules.Op) error {
	r.Enter()
	for first := true; ; first = false {
		ok, err := r.Next(first)
		if err != nil || !ok {
			return err
		}
		if err := r.operate(op); err != nil {
			return err
		}
	}
}

// ordinaryReference recognises a reference of which no more than the prefix of its namespace is to be cut, and gives where
// that stands; 0 for any other.
func (r *response) ordinaryReference(raw []byte) (at int) {
	// Members as encoders write them: strings in which nothing is escaped.
	if bytes.IndexByte(raw, '\\') >= 0 {
		return 0
	}
	var kind, version, namespace []byte
	for rest, start := raw, byte('{'); ; start = ',' {
		if len(rest) < 2 || rest[0] != start || rest[1] != '"' {
			return 0
		}
		key, after, _ := bytes.Cut(rest[2:], []byte(`":"`))
		value, after, ended := bytes.Cut(after, []byte(`"`))
		if !ended || bytes.IndexByte(key, '"') >= 0 {
			return 0
		}
		once := true
		switch string(key) {
		case "kind":
			kind, once = value, kind == nil
		case "apiVersion":
			version, once = value, version == nil
		case "namespace":
			namespace, once = value, namespace == nil
			at = len(raw) - len(after) - 1 - len(value)
		}
		if !once {
			return 0
		}
		if rest = after; len(rest) == 1 && rest[0] == '}' {
			break
		}
	}
	if !r.ordinary(kind, version, namespace) {
		return 0
	}
	return at
}

// ordinaryOwner recognises a single owner of a built-in workload kind or of a namespaced core kind, all of which keep their
// names.
func ordinaryOwner(raw []byte) bool {
	if rest, ok := bytes.CutPrefix(raw, []byte(`[{"apiVersion":"v1","kind":"`)); ok {
		kind, _, _ := bytes.Cut(rest, []byte(`"`))
		cluster, _ := rules.ClusterScoped("", string(kind))
		return !cluster && bytes.IndexByte(kind, '\\') < 0 && bytes.Count(raw, []byte("{")) == 1
	}
	for _, start := range [...]string{`[{"apiVersion":"apps/v1","kind":"`, `[{"apiVersion":"batch/v1","kind":"`} {
		if bytes.HasPrefix(raw, []byte(start)) {
			return bytes.Count(raw, []byte("{")) == 1
		}
	}
	return false
}

// rootCAConfigMap is published by the control cluster in every namespace.
const rootCAConfigMap = "kube-root-ca.crt"

// toTenant applies an operation to a tree.
func (r *response) toTenant(op rules.Op, v *jsonwire.Value) error {
	switch op {
	case rules.OwnNamespace, rules.OwnName:
		own, err := r.view.Tenant.NameToTenant(v.Text())
		if op == rules.OwnName && !r.root.Custom && r.view.exported(r.root.Kind, v.Text()) {
			own, err = v.Text(), nil
		}
		if err != nil {
			if r.bookmark && v.Text() == "" {
				return nil
			}
			return errForeignItem
		}
		r.owned, r.twice = true, strings.HasPrefix(own, string(r.prefix))
		v.SetText(own)
	case rules.DefinitionName:
		own, err := r.view.Tenant.DefinitionToTenant(v.Text())
		if err != nil {
			if r.bookmark && v.Text() == "" {
				return nil
			}
			return errForeignItem
		}
		r.owned = true
		v.SetText(own)
	case rules.ObjectName:
		r.name, r.rawName = v.Text(), nil
	case rules.GenerateName:
		if own, err := r.view.Tenant.NameToTenant(v.Text()); err == nil {
			v.SetText(own)
		}
	case rules.Keys, rules.PodKeys, rules.PodAnnotations, rules.NamespaceLabels, rules.ClusterRoleLabels, rules.ClassAnnotations, rules.OwnedLabels:
		r.keysToTenant(op, v)
	case rules.OwnerReferences:
		r.ownerReferencesToTenant(v)
	case rules.ManagedFields:
		r.managedFieldsToTenant(v)
	case rules.ObjectReference:
		if !r.referenceToTenant(v) {
			*v = *jsonwire.NewObject()
		}
	case rules.InvolvedObject:
		r.involvedObjectToTenant(v)
	case rules.NamespaceSelector:
		r.selectorToTenant(v)
	case rules.PolicyRules:
		r.policyRulesToTenant(v)
	case rules.RoleRef:
		r.roleRefToTenant(v)
	case rules.Subjects:
		r.subjectsToTenant(v)
	case rules.AggregationRule:
		r.aggregationToTenant(v)
	case rules.ResourceAttributes:
		r.attributesToTenant(v)
	case rules.UserInfo:
		if !r.userInfoToTenant(v) {
			return errForeignItem
		}
	case rules.SigningRequest:
		if !r.signingRequestToTenant(v) {
			*v = *jsonwire.NewObject()
		}
	case rules.TokenReviewStatus:
		r.tokenStatusToTenant(v)
	case rules.QuotaKeys:
		r.view.quotaToTenant(v)
	case rules.ScopeSelector:
		r.view.scopeToTenant(v)
	case rules.RootCA:
		if r.itsName() == rootCAConfigMap && v.Kind() == jsonwire.Object {
			r.rootCAToTenant(v)
		}
	case rules.RevisionData:
		if template, ok := rules.For("", "v1", "PodTemplate"); ok {
			return r.treeToTenant(template.Child([]byte("template")), v.At("spec", "template"))
		}
	case rules.VirtualNode:
		return r.nodeToTenant(v)
	default:
		eachText(v, func(s *jsonwire.Value) { s.SetText(r.textToTenant(op, s.Text())) })
	}
	return nil
}

// textToTenant applies an operation to one string.
func (r *response) textToTenant(op rules.Op, s string) string {
	if s == "" {
		return s
	}
	var own string
	var err error
	switch op {
	case rules.Namespace:
		return r.namespaceToTenant(s)
	case rules.StorageClass, rules.VolumeAttributesClass, rules.PriorityClass, rules.RuntimeClass, rules.IngressClass:
		return r.view.classToTenant(classKinds[op], s)
	case rules.Group:
		own, _ = r.view.groupToTenant(s)
	case rules.GroupVersion:
		own, _ = r.view.groupVersionToTenant(s)
	case rules.PolicyName:
		own, err = r.view.Tenant.PolicyToTenant(s)
	case rules.User:
		own, err = r.view.Tenant.UserToTenant(s)
	case rules.UserGroup:
		own, err = r.view.Tenant.UserGroupToTenant(s)
	case rules.Text:
		if name := r.itsName(); strings.Contains(name, string(r.prefix)) {
			return r.view.TextToTenant(s, name)
		}
		return r.view.TextToTenant(s)
	default:
		return s
	}
	if err != nil {
		return ""
	}
	return own
}

// eachText calls f for a string, or each string in a list or map of them.
func eachText(v *jsonwire.Value, f func(*jsonwire.Value)) {
	switch v.Kind() {
	case jsonwire.String:
		f(v)
	case jsonwire.Array:
		for _, e := range v.Elems() {
			eachText(e, f)
		}
	case jsonwire.Object:
		for _, m := range v.Members() {
			eachText(m.Value, f)
		}
	}
}

// treeToTenant does to a tree what value does to a stream.
func (r *response) treeToTenant(p *rules.Place, v *jsonwire.Value) error {
	if p == nil || v.Kind() == jsonwire.Null {
		return nil
	}
	if p.Op > rules.Pass {
		return r.toTenant(p.Op, v)
	}
	for _, m := range v.Members() {
		if err := r.treeToTenant(p.Child([]byte(m.Key)), m.Value); err != nil {
			return err
		}
	}
	for _, e := range v.Elems() {
		if err := r.treeToTenant(p.Elem, e); err != nil {
			return err
		}
	}
	return nil
}
