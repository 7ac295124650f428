package translate

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/protowire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
	"vivarium.io/vivarium/internal/names"
)

// errForeignItem says that an item is not the tenant's. Filters catch it; elsewhere it becomes a ForeignError.
var errForeignItem = errors.New("an object of another world")

// bufferSize is what a scanner of objects and lists starts with; frames of watches start with less, since thousands of
// them are idle.
const (
	bufferSize      = 32 << 10
	watchBufferSize = 4 << 10
)

// response walks one document of the control cluster, or a stream of them.
type response struct {
	view   View
	kind   Kind
	root   rules.Root
	prefix []byte
	*jsonwire.Scanner

	// Of the document.
	bookmark bool
	single   bool // it is one object, which must show itself to be the tenant's
	columns  []columnRule
	unsent   *jsonwire.Value // column definitions that the tenant has not been sent
	items    *rewriter       // of protobuf
	// Of the current item.
	owned bool
	name  string
}

func (v View) newResponse(k Kind, dst io.Writer, src io.Reader, size int) (*response, error) {
	root, ok := bodyRoot(k)
	if !ok {
		return nil, foreign("no rules for %s.%s/%s %s", k.Resource, k.Group, k.Version, k.Subresource)
	}
	if _, err := names.ParseTenantID(string(v.Tenant)); err != nil {
		return nil, err
	}
	r := &response{view: v, kind: k, root: root, prefix: []byte(v.Tenant.Prefix())}
	if pooled, ok := scanners.Get().(*jsonwire.Scanner); ok && size == bufferSize {
		pooled.Reuse(dst, src)
		r.Scanner = pooled
	} else {
		r.Scanner = jsonwire.NewScanner(dst, src, size)
	}
	return r, nil
}

// scanners keeps buffers for reuse. It holds no state: a scanner is emptied before it is used again.
var scanners sync.Pool

// done gives the scanner's buffers back.
func (r *response) done() {
	r.Reuse(nil, nil)
	scanners.Put(r.Scanner)
	r.Scanner = nil
}

// ObjectToTenant translates one document of a response with a 2xx code: an object, a list, a Table, a
// PartialObjectMetadata or its list, a Scale, a Status. Whether it is JSON or protobuf shows in its first bytes. JSON
// streams in bounded memory; protobuf is held as a whole. After an error dst may hold a
// part of a document, which the front must not end cleanly; nothing has been written to dst before the first 64 KiB, so
// most errors come in time for an answer of the front's own.
func (v View) ObjectToTenant(k Kind, dst io.Writer, src io.Reader) error {
	proto, src, err := isProto(src)
	if err != nil {
		return err
	}
	r, err := v.newResponse(k, dst, src, bufferSize)
	if err != nil {
		return err
	}
	defer r.done()
	if proto {
		return explain(r.protoObject(dst, src))
	}
	if err := r.document(); err != nil {
		return explain(err)
	}
	if end, err := r.End(); err != nil {
		return err
	} else if !end {
		return foreign("something follows the document")
	}
	if err := r.Cut(); err != nil {
		return err
	}
	return r.Flush()
}

// explain turns the sentinel that filters use into the error callers know.
func explain(err error) error {
	if errors.Is(err, errForeignItem) || errors.Is(err, protowire.ErrMalformed) {
		return foreign("%s", err)
	}
	return err
}

// member handles one member of a document whose key has just been read.
type member func(r *response, key string) error

// document walks one document, whose kind and apiVersion must come first. Encoders of typed objects see to that.
func (r *response) document() error {
	c, err := r.Peek()
	if err != nil {
		return err
	}
	if c != '{' {
		return foreign("a document that is no object")
	}
	r.single = false
	point, err := r.Hold()
	if err != nil {
		return err
	}
	held := true
	release := func() {
		if held {
			r.Release()
			held = false
		}
	}
	defer release()
	r.Enter()
	var kind, apiVersion string
	for first := true; ; first = false {
		ok, err := r.Next(first)
		if err != nil {
			return err
		}
		if !ok {
			return foreign("an object of kind %q and nothing in it", kind)
		}
		rawKey, err := r.Key()
		if err != nil {
			return err
		}
		switch key := string(rawKey); key {
		case "kind", "apiVersion":
			text, err := r.captureText()
			if err != nil {
				return err
			}
			if key == "kind" {
				kind = text
			} else {
				apiVersion = text
				text, _ = r.view.groupVersionToTenant(text)
			}
			if err := r.Emit(jsonwire.AppendQuoted(nil, text)); err != nil {
				return err
			}
		default:
			f, whole, err := r.classify(kind, apiVersion)
			if err != nil {
				return err
			}
			if whole != nil {
				return r.wholeDocument(point, kind, apiVersion, key, whole)
			}
			release()
			if err := r.members(key, f); err != nil || !r.single {
				return err
			}
			return r.endItem()
		}
	}
}

func (r *response) captureText() (string, error) {
	raw, err := r.Capture()
	if err != nil {
		return "", err
	}
	return jsonwire.Unquote(raw)
}

// members handles the rest of a document from a key on.
func (r *response) members(key string, f member) error {
	for {
		if err := f(r, key); err != nil {
			return err
		}
		ok, err := r.Next(false)
		if err != nil || !ok {
			return err
		}
		raw, err := r.Key()
		if err != nil {
			return err
		}
		key = string(raw)
	}
}

// wholeDocument takes back what was written of a small document, reads the rest as a tree and hands it over.
func (r *response) wholeDocument(point int, kind, apiVersion, key string, f func(*jsonwire.Value) error) error {
	doc := jsonwire.NewObject(
		jsonwire.Member{Key: "kind", Value: jsonwire.NewString(kind)},
		jsonwire.Member{Key: "apiVersion", Value: jsonwire.NewString(apiVersion)})
	err := r.members(key, func(r *response, key string) error {
		raw, err := r.Capture()
		if err != nil {
			return err
		}
		v, err := parseTrusted(raw)
		if err != nil {
			return err
		}
		doc.Set(key, v)
		return nil
	})
	if err != nil {
		return err
	}
	if err := f(doc); err != nil {
		return err
	}
	r.Rollback(point)
	return r.Emit(doc.Append(nil))
}

func (r *response) groupVersion() string {
	if r.root.Group == "" {
		return r.root.Version
	}
	return r.root.Group + "/" + r.root.Version
}

// classify decides by kind and version what a document is: what the URL is about, or one of the forms in which the API
// server shows it. Anything else is refused.
func (r *response) classify(kind, apiVersion string) (member, func(*jsonwire.Value) error, error) {
	gv := r.groupVersion()
	meta := apiVersion == "meta.k8s.io/v1" || apiVersion == "meta.k8s.io/v1beta1"
	switch {
	case kind == r.root.Kind && apiVersion == gv:
		if r.root.Op == rules.VirtualNode {
			return nil, r.nodeToTenant, nil
		}
		r.beginItem()
		r.single = true
		return func(r *response, key string) error {
			if err := r.child(r.root.Place, key); err != nil || key != "metadata" {
				return err
			}
			// At once, before a large object has left.
			return r.endItem()
		}, nil, nil
	case kind == r.root.Kind+"List" && apiVersion == gv:
		return listMember(r.root.Place), nil, nil
	case kind == "Table" && meta:
		return tableMember, nil, nil
	case kind == "PartialObjectMetadata" && meta:
		r.beginItem()
		r.single = true
		return func(r *response, key string) error {
			if key != "metadata" {
				return r.Skip()
			}
			return r.metadata()
		}, nil, nil
	case kind == "PartialObjectMetadataList" && meta:
		return listMember(nil), nil, nil
	case kind == "Status" && apiVersion == "v1":
		return nil, func(v *jsonwire.Value) error {
			if !r.statusToTenant(v) {
				return foreign("a Status about another world")
			}
			return nil
		}, nil
	}
	return nil, nil, foreign("%s %s where %s %s was asked for", apiVersion, kind, gv, r.root.Kind)
}

// listMember handles the members of a list; items of a nil place are PartialObjectMetadata.
func listMember(place *rules.Place) member {
	return func(r *response, key string) error {
		switch key {
		case "metadata":
			return r.listMetadata()
		case "items":
			return r.array(func() error { return r.item(place) })
		}
		return r.Skip()
	}
}

// listMetadata translates the metadata of a list that is shown as it came.
func (r *response) listMetadata() error {
	return r.tree(func(meta *jsonwire.Value) error { return r.continueToTenant(meta) })
}

func (r *response) continueToTenant(meta *jsonwire.Value) error {
	token := meta.Get("continue")
	if token.Text() == "" {
		return nil
	}
	if r.view.Continue == nil {
		return foreign("a continue token and nobody to translate it")
	}
	token.SetText(r.view.Continue(token.Text()))
	return nil
}

func (r *response) beginItem() { r.owned, r.name = false, "" }

// endItem checks that the item has shown itself to be the tenant's. Kinds that the operator offers, and reviews, which
// are stored nowhere, have nothing to show.
func (r *response) endItem() error {
	if !r.owned && !r.bookmark && (r.root.Namespaced || r.root.Prefixed || r.root.Op == rules.VirtualNode) {
		return errForeignItem
	}
	return nil
}

// item walks one element of a list or the object of a frame or row.
func (r *response) item(place *rules.Place) error {
	r.beginItem()
	if place != nil {
		if err := r.value(place); err != nil {
			return err
		}
		return r.endItem()
	}
	err := r.object(func(key []byte) error {
		if string(key) == "metadata" {
			return r.metadata()
		}
		return r.Skip()
	})
	if err != nil {
		return err
	}
	return r.endItem()
}

// metadata walks the metadata of a PartialObjectMetadata.
func (r *response) metadata() error {
	if r.root.Op == rules.VirtualNode {
		return r.tree(r.nodeMetadataToTenant)
	}
	place := r.root.Child([]byte("metadata"))
	if place == nil {
		return foreign("metadata of %s without rules", r.root.Kind)
	}
	return r.value(place)
}

// child walks a member of an object at a place.
func (r *response) child(place *rules.Place, key string) error {
	if p := place.Child([]byte(key)); p != nil {
		return r.value(p)
	}
	return r.Skip()
}

// object walks an object, handing each key to f, which must consume the value. null passes.
func (r *response) object(f func(key []byte) error) error {
	c, err := r.Peek()
	if err != nil {
		return err
	}
	if c != '{' {
		return r.Skip()
	}
	r.Enter()
	for first := true; ; first = false {
		key, ok, err := r.NextKey(first)
		if err != nil || !ok {
			return err
		}
		if err := f(key); err != nil {
			return err
		}
	}
}

// array walks an array, calling f before each element, which it must consume. null passes.
func (r *response) array(f func() error) error {
	c, err := r.Peek()
	if err != nil {
		return err
	}
	if c != '[' {
		return r.Skip()
	}
	r.Enter()
	for first := true; ; first = false {
		ok, err := r.Next(first)
		if err != nil || !ok {
			return err
		}
		if err := f(); err != nil {
			return err
		}
	}
}

// value walks whatever stands at a place.
func (r *response) value(p *rules.Place) error {
	if p.Op > rules.Exported {
		return r.operate(p.Op)
	}
	c, err := r.Peek()
	if err != nil {
		return err
	}
	switch {
	case c == '{':
		r.Enter()
		for first := true; ; first = false {
			key, ok, err := r.NextKey(first)
			if err != nil || !ok {
				return err
			}
			if child := p.Child(key); child != nil {
				err = r.value(child)
			} else {
				err = r.Skip()
			}
			if err != nil {
				return err
			}
		}
	case c == '[' && p.Elem != nil:
		r.Enter()
		for first := true; ; first = false {
			ok, err := r.Next(first)
			if err != nil || !ok {
				return err
			}
			if err := r.value(p.Elem); err != nil {
				return err
			}
		}
	}
	return r.Skip()
}

// tree takes the next value out as a tree, lets f change it and writes it.
func (r *response) tree(f func(*jsonwire.Value) error) error {
	raw, err := r.Capture()
	if err != nil {
		return err
	}
	v, err := parseTrusted(raw)
	if err != nil {
		return err
	}
	if err := f(v); err != nil {
		return err
	}
	return r.Emit(v.Append(nil))
}

var domain = []byte(names.Domain)

// operate applies an operation to the next value. The few that stand in every object have a way around the tree.
func (r *response) operate(op rules.Op) error {
	switch op {
	case rules.NodeName, rules.SchedulerName, rules.PriorityClassName, rules.TokenAudience, rules.TokenAudiences,
		rules.SecretType, rules.ExternalIPs:
		// Rules about what a tenant may ask for.
		return r.Skip()
	case rules.RootCA:
		if r.name != rootCAConfigMap {
			return r.Skip()
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
			raw = raw[len(r.prefix):]
			raw[0] = '"'
			return r.Emit(raw)
		}
	case rules.Namespace:
		if len(raw) > len(r.prefix)+2 && bytes.HasPrefix(raw[1:], r.prefix) && r.view.Tenant.Owns(string(raw[1:len(raw)-1])) {
			raw = raw[len(r.prefix):]
			raw[0] = '"'
			return r.Emit(raw)
		}
	case rules.ObjectName:
		// Read for later, unchanged. Few rules ask.
		if r.root.Kind == "ConfigMap" || bytes.Contains(raw, r.prefix) {
			if r.name, err = jsonwire.Unquote(raw); err != nil {
				return err
			}
		}
		return r.Emit(raw)
	case rules.Keys, rules.PodKeys:
		if !bytes.Contains(raw, domain) {
			return r.Emit(raw)
		}
	case rules.ManagedFields, rules.QuotaKeys:
		if !bytes.Contains(raw, domain) && !bytes.Contains(raw, r.prefix) && r.root.Kind != "Namespace" {
			return r.Emit(raw)
		}
	case rules.Text, rules.GenerateName:
		if !bytes.Contains(raw, r.prefix) {
			return r.Emit(raw)
		}
	case rules.OwnerReferences:
		if ordinaryOwner(raw) {
			return r.Emit(raw)
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

// ordinaryOwner recognises a single owner of a built-in workload kind, all of which are namespaced and keep their names.
func ordinaryOwner(raw []byte) bool {
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
		if err != nil {
			if r.bookmark && v.Text() == "" {
				return nil
			}
			return errForeignItem
		}
		r.owned = true
		v.SetText(own)
	case rules.ObjectName:
		r.name = v.Text()
	case rules.GenerateName:
		if own, err := r.view.Tenant.NameToTenant(v.Text()); err == nil {
			v.SetText(own)
		}
	case rules.Keys, rules.PodKeys, rules.NamespaceLabels, rules.ClusterRoleLabels:
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
	case rules.TokenReviewStatus:
		r.tokenStatusToTenant(v)
	case rules.QuotaKeys:
		r.view.quotaToTenant(v)
	case rules.RootCA:
		if r.name == rootCAConfigMap && v.Kind() == jsonwire.Object {
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
	case rules.Group:
		own, _ = r.view.groupToTenant(s)
	case rules.GroupVersion:
		own, _ = r.view.groupVersionToTenant(s)
	case rules.User:
		own, err = r.view.Tenant.UserToTenant(s)
	case rules.UserGroup:
		own, err = r.view.Tenant.UserGroupToTenant(s)
	case rules.Text:
		if !strings.Contains(r.name, string(r.prefix)) {
			return r.view.TextToTenant(s)
		}
		return r.view.TextToTenant(s, r.name)
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
	if p.Op > rules.Exported {
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
