package translate

import (
	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/protowire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// typeProto is the content type of a protobuf object.
const typeProto = "application/vnd.kubernetes.protobuf"

// protoBody translates a body in protobuf: a whole object or DeleteOptions. Patches have no such form.
func (q *request) protoBody(body []byte) ([]byte, error) {
	if len(body) == 0 && (q.verb == "delete" || q.verb == "deletecollection") {
		return nil, nil
	}
	doc, err := openEnvelope(body, &q.root)
	if err != nil {
		return nil, err
	}
	if q.verb == "delete" || q.verb == "deletecollection" {
		return q.protoDeleteOptions(doc)
	}
	gv := q.root.Version
	if q.root.Group != "" {
		gv = q.root.Group + "/" + gv
	}
	if doc.kind != "" && doc.kind != q.root.Kind || doc.apiVersion != "" && doc.apiVersion != gv {
		return nil, malformed("the body is a %s of %q, the URL asks for a %s of %q", doc.kind, doc.apiVersion, q.root.Kind, gv)
	}
	if q.root.Op == rules.VirtualNode {
		return nil, q.toControl(q.root.Op, nil, "")
	}
	if err := q.protoRequired(doc.raw); err != nil {
		return nil, err
	}
	if q.name == "" {
		q.speak(protoName(doc.raw))
	}
	w := &rewriter{apply: q.applyWhole, absent: q.absent, strict: true}
	if q.root.Kind == "ClusterRole" {
		// Whether rules are split shows behind the labels, which say so.
		if _, err := w.message(q.root.Place, doc.raw, nil, ""); err != nil {
			return nil, err
		}
	}
	return appendEnvelope(make([]byte, 0, len(body)+128), doc.apiVersion, doc.kind, len(doc.raw), func(dst []byte) ([]byte, error) {
		return w.message(q.root.Place, doc.raw, dst, "")
	})
}

// protoName gives metadata.name of an object. Where it is malformed, whoever reads all of it will say so.
func protoName(raw []byte) string {
	for range 2 {
		var inner []byte
		for len(raw) > 0 {
			f, rest, err := protowire.Next(raw)
			if err != nil {
				return ""
			}
			if raw = rest; f.Number == 1 && f.Type == protowire.Bytes {
				inner = f.Value
				break
			}
		}
		raw = inner
	}
	return string(raw)
}

// protoRequired sees to it that the messages are there into which the platform puts something.
func (q *request) protoRequired(raw []byte) error {
	var want int32
	var name string
	switch {
	case len(q.injectedLabels()) > 0:
		want, name = 1, "metadata"
	case q.root.Kind == "TokenRequest" || q.root.Kind == "TokenReview":
		want, name = 2, "spec"
	default:
		return nil
	}
	for len(raw) > 0 {
		f, rest, err := protowire.Next(raw)
		if err != nil {
			return err
		}
		if f.Number == want {
			return nil
		}
		raw = rest
	}
	return invalid(name, "must be set")
}

// applyWhole is toControl for a complete object, into which the platform puts its own.
func (q *request) applyWhole(op rules.Op, v *jsonwire.Value, path string) error {
	if err := q.toControl(op, v, path); err != nil {
		return err
	}
	switch op {
	case rules.NamespaceLabels, rules.ClusterRoleLabels, rules.OwnedLabels:
		if q.labelled() {
			q.inject(v)
		}
	case rules.TokenAudiences:
		if len(v.Elems()) == 0 {
			v.SetElems(q.absent(op).Elems())
		}
	}
	return nil
}

// absent gives what the platform puts where the tenant has nothing.
func (q *request) absent(op rules.Op) *jsonwire.Value {
	switch op {
	case rules.NamespaceLabels, rules.ClusterRoleLabels, rules.OwnedLabels:
		if q.labelled() {
			return jsonwire.NewObject(q.injectedLabels()...)
		}
	case rules.TokenAudiences:
		return jsonwire.NewArray(jsonwire.NewString(q.view.TokenAudience))
	}
	return nil
}

// lastDeleteOption is the last field of DeleteOptions that is a tenant's to set.
const lastDeleteOption = 5

func (q *request) protoDeleteOptions(doc envelope) ([]byte, error) {
	if doc.kind != "DeleteOptions" && doc.kind != "" {
		return nil, malformed("the body must be DeleteOptions, not %q", doc.kind)
	}
	for raw := doc.raw; len(raw) > 0; {
		f, rest, err := protowire.Next(raw)
		if err != nil {
			return nil, err
		}
		if f.Number > lastDeleteOption {
			return nil, invalid("", "field %d of DeleteOptions is not understood", f.Number)
		}
		raw = rest
	}
	return appendEnvelope(nil, q.view.groupVersionToControl(doc.apiVersion), doc.kind, len(doc.raw), func(dst []byte) ([]byte, error) {
		return append(dst, doc.raw...), nil
	})
}
