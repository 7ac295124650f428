package translate

import (
	"bytes"
	"errors"
	"io"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/protowire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// isProto reports what the control cluster answers in, from the first bytes: JSON starts with a brace.
func (h *headReader) isProto(src io.Reader) (bool, error) {
	*h = headReader{src: src}
	for h.n < len(h.head) {
		n, err := src.Read(h.head[h.n:])
		h.n += n
		if errors.Is(err, io.EOF) {
			h.err = io.EOF
			break
		}
		if err != nil {
			return false, err
		}
	}
	return bytes.Equal(h.head[:h.n], protoMagic), nil
}

// headReader reads again what was read to see what it is, and the rest.
type headReader struct {
	head  [4]byte
	n, at int
	src   io.Reader
	err   error
}

func (h *headReader) Read(b []byte) (int, error) {
	if h.at < h.n {
		n := copy(b, h.head[h.at:h.n])
		h.at += n
		return n, nil
	}
	if h.err != nil {
		return 0, h.err
	}
	return h.src.Read(b)
}

// rewriter gives the rewriter of messages that need more than cuts.
func (r *response) rewriter() *rewriter {
	if r.items == nil {
		r.items = &rewriter{
			apply:  func(op rules.Op, v *jsonwire.Value, _ string) error { return r.toTenant(op, v) },
			passes: r.passes,
			direct: r.direct,
		}
	}
	return r.items
}

// direct takes the prefix out of a name that has it: what it gives is the end of the name.
func (r *response) direct(op rules.Op, s []byte) ([]byte, bool) {
	switch op {
	case rules.OwnNamespace, rules.OwnName, rules.Namespace:
		// What Owns says, of a tenant whose ID has been checked.
		if len(s) <= len(r.prefix) || !bytes.HasPrefix(s, r.prefix) {
			return nil, false
		}
		s = s[len(r.prefix):]
		if op != rules.Namespace {
			r.owned, r.twice = true, bytes.HasPrefix(s, r.prefix)
		}
		return s, true
	case rules.ObjectName:
		// Read for later, unchanged. Few rules ask.
		r.rawName = s
		return s, true
	}
	return nil, false
}

// passes says that an operation leaves the raw content of a field as it is.
func (r *response) passes(op rules.Op, raw []byte) bool {
	switch op {
	case rules.NodeName, rules.SchedulerName, rules.TokenAudience, rules.TokenAudiences,
		rules.BoundKind, rules.SecretType, rules.ExternalIPs, rules.ConversionStrategy:
		return true
	case rules.RootCA:
		return string(r.rawName) != rootCAConfigMap && r.name != rootCAConfigMap
	case rules.Keys, rules.PodKeys, rules.PodAnnotations, rules.OwnedLabels:
		return !bytes.Contains(raw, domain) && !bytes.Contains(raw, r.prefix)
	case rules.ManagedFields:
		return !bytes.Contains(raw, domain) && !bytes.Contains(raw, r.prefix) && r.root.Kind != "Namespace"
	case rules.Text, rules.GenerateName:
		return !bytes.Contains(raw, domain) && !bytes.Contains(raw, r.prefix)
	case rules.OwnerReferences:
		return ordinaryWireOwner(raw)
	}
	return false
}

// protoItem translates one item.
func (r *response) protoItem(partial bool, raw, dst []byte) ([]byte, error) {
	r.beginItem()
	var err error
	switch {
	case r.root.Op == rules.VirtualNode:
		dst, err = r.protoNode(partial, raw, dst)
	case partial:
		if err = onlyMetadata(raw); err == nil {
			// The other fields of a whole object do not occur.
			dst, err = r.wire(r.root.ToTenant, raw, dst)
		}
	default:
		dst, err = r.wire(r.root.ToTenant, raw, dst)
	}
	if err != nil {
		return nil, err
	}
	return dst, r.endItem()
}

// onlyMetadata checks that a PartialObjectMetadata is no more than that.
func onlyMetadata(raw []byte) error {
	for len(raw) > 0 {
		f, rest, err := protowire.Next(raw)
		if err != nil {
			return err
		}
		if f.Number != 1 {
			return foreign("a PartialObjectMetadata with field %d", f.Number)
		}
		raw = rest
	}
	return nil
}

func (r *response) protoNode(partial bool, raw, dst []byte) ([]byte, error) {
	node, err := messageToTree(r.root.Message, raw)
	if err != nil {
		return nil, err
	}
	if partial {
		err = r.nodeMetadataToTenant(node.Get("metadata"))
		keepMembers(node, "metadata")
	} else {
		err = r.nodeToTenant(node)
	}
	if err != nil {
		return nil, err
	}
	return treeToMessage(r.root.Message, node, dst)
}

// protoDocument translates one document with its envelope.
func (r *response) protoDocument(doc, dst []byte) ([]byte, error) {
	e, err := openEnvelope(doc, &r.root)
	if err != nil {
		return nil, err
	}
	return r.protoContent(e, dst)
}

// protoContent translates one document that is no list.
func (r *response) protoContent(e envelope, dst []byte) ([]byte, error) {
	var err error
	dst = r.appendHead(dst, e, 0)
	// In place of the length.
	dst, mark := protowire.Open(dst[:len(dst)-2], 2, len(e.raw))
	switch {
	case e.kind == r.root.Kind && e.apiVersion == r.groupVersion():
		dst, err = r.protoItem(false, e.raw, dst)
	case e.kind == "PartialObjectMetadata" && metaVersion(e.apiVersion):
		dst, err = r.protoItem(true, e.raw, dst)
	case e.kind == "Status" && e.apiVersion == "v1":
		dst, err = r.protoStatusContent(e.raw, dst)
	default:
		return nil, foreign("%s %s where %s %s was asked for", e.apiVersion, e.kind, r.groupVersion(), r.root.Kind)
	}
	if err != nil {
		return nil, err
	}
	return append(protowire.Close(dst, mark), protoTail...), nil
}

func (r *response) protoStatusContent(raw, dst []byte) ([]byte, error) {
	status, err := messageToTree(rules.Status(), raw)
	if err != nil {
		return nil, err
	}
	if !r.statusToTenant(status) {
		return nil, foreign("a Status about another world")
	}
	return treeToMessage(rules.Status(), status, dst)
}

// protoStatus translates a Status in protobuf; false means that it is none, or not for the tenant.
func (r *response) protoStatus(body []byte) ([]byte, bool) {
	e, err := openEnvelope(body, &r.root)
	if err != nil || e.kind != "Status" || e.apiVersion != "v1" {
		return nil, false
	}
	out, err := r.protoDocument(body, nil)
	return out, err == nil
}
