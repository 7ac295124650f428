package translate

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/protowire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// maxProto bounds a document in protobuf, whose length stands before its content, so that it is held as a whole. A tenant
// with more asks in pages.
const maxProto = 128 << 20

// isProto reports what the control cluster answers in, from the first bytes: JSON starts with a brace.
func isProto(src io.Reader) (bool, io.Reader, error) {
	var start [4]byte
	n, err := io.ReadFull(src, start[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil, err
	}
	return bytes.Equal(start[:n], protoMagic), io.MultiReader(bytes.NewReader(start[:n]), src), nil
}

func readProto(src io.Reader) ([]byte, error) {
	doc, err := io.ReadAll(io.LimitReader(src, maxProto+1))
	if err == nil && len(doc) > maxProto {
		err = foreign("a protobuf document of more than %d bytes", maxProto)
	}
	return doc, err
}

// protoObject translates one document.
func (r *response) protoObject(dst io.Writer, src io.Reader) error {
	b, ok := buffers.Get().(*protoBuffers)
	if !ok {
		b = new(protoBuffers)
	}
	defer b.done()
	b.doc.Reset()
	if _, err := b.doc.ReadFrom(io.LimitReader(src, maxProto+1)); err != nil {
		return err
	}
	if b.doc.Len() > maxProto {
		return foreign("a protobuf document of more than %d bytes", maxProto)
	}
	out, err := r.protoDocument(b.doc.Bytes(), b.out[:0])
	if err != nil {
		return err
	}
	b.out = out
	_, err = dst.Write(out)
	return err
}

// protoBuffers are the document that is read and the one that is written, kept for reuse while they are of an ordinary
// size.
type protoBuffers struct {
	doc bytes.Buffer
	out []byte
}

var buffers sync.Pool

func (b *protoBuffers) done() {
	if b.doc.Cap() <= 4<<20 && cap(b.out) <= 4<<20 {
		buffers.Put(b)
	}
}

// rewriter makes the rewriter of items.
func (r *response) rewriter() *rewriter {
	return &rewriter{
		apply:  func(op rules.Op, v *jsonwire.Value, _ string) error { return r.toTenant(op, v) },
		passes: r.passes,
		direct: r.direct,
	}
}

// direct takes the prefix out of a name that has it.
func (r *response) direct(op rules.Op, s []byte) ([]byte, bool) {
	switch op {
	case rules.OwnNamespace, rules.OwnName, rules.Namespace:
		if !bytes.HasPrefix(s, r.prefix) || !r.view.Tenant.Owns(string(s)) {
			return nil, false
		}
		s = s[len(r.prefix):]
		if op != rules.Namespace {
			r.owned, r.twice = true, bytes.HasPrefix(s, r.prefix)
		}
		return s, true
	case rules.ObjectName:
		// Few rules ask.
		if r.root.Kind == "ConfigMap" || bytes.Contains(s, r.prefix) {
			return nil, false
		}
		return s, true
	}
	return nil, false
}

// passes says that an operation leaves the raw content of a field as it is.
func (r *response) passes(op rules.Op, raw []byte) bool {
	switch op {
	case rules.NodeName, rules.SchedulerName, rules.TokenAudience, rules.TokenAudiences,
		rules.SecretType, rules.ExternalIPs:
		return true
	case rules.RootCA:
		return r.name != rootCAConfigMap
	case rules.Keys, rules.PodKeys:
		return !bytes.Contains(raw, domain) && !bytes.Contains(raw, r.prefix)
	case rules.ManagedFields:
		return !bytes.Contains(raw, domain) && !bytes.Contains(raw, r.prefix) && r.root.Kind != "Namespace"
	case rules.Text, rules.GenerateName:
		return !bytes.Contains(raw, r.prefix)
	case rules.OwnerReferences:
		// The tag of apiVersion, its length, and a group all of whose kinds are namespaced.
		return bytes.Contains(raw, []byte("\x2a\x07apps/v1")) || bytes.Contains(raw, []byte("\x2a\x08batch/v1"))
	}
	return false
}

// protoItem translates one item.
func (r *response) protoItem(partial bool, raw, dst []byte) ([]byte, error) {
	r.beginItem()
	if r.items == nil {
		r.items = r.rewriter()
	}
	var err error
	switch {
	case r.root.Op == rules.VirtualNode:
		dst, err = r.protoNode(partial, raw, dst)
	case partial:
		metadata := rules.Place{Shape: rules.Object, Wire: []rules.WireField{{Number: 1, JSON: "metadata", Place: r.root.ToTenant.Child([]byte("metadata"))}}}
		if err = onlyMetadata(raw); err == nil {
			dst, err = r.items.message(&metadata, raw, dst, "")
		}
	default:
		dst, err = r.items.message(r.root.ToTenant, raw, dst, "")
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
	e, err := openEnvelope(doc)
	if err != nil {
		return nil, err
	}
	own, _ := r.view.groupVersionToTenant(e.apiVersion)
	return appendEnvelope(dst, own, e.kind, len(e.raw), func(dst []byte) ([]byte, error) {
		meta := e.apiVersion == "meta.k8s.io/v1" || e.apiVersion == "meta.k8s.io/v1beta1"
		switch {
		case e.kind == r.root.Kind && e.apiVersion == r.groupVersion():
			return r.protoItem(false, e.raw, dst)
		case e.kind == "PartialObjectMetadata" && meta:
			return r.protoItem(true, e.raw, dst)
		case e.kind == r.root.Kind+"List" && e.apiVersion == r.groupVersion():
			return r.protoList(false, e.raw, dst)
		case e.kind == "PartialObjectMetadataList" && meta:
			return r.protoList(true, e.raw, dst)
		case e.kind == "Status" && e.apiVersion == "v1":
			status, err := messageToTree(rules.Status(), e.raw)
			if err != nil {
				return nil, err
			}
			if !r.statusToTenant(status) {
				return nil, foreign("a Status about another world")
			}
			return treeToMessage(rules.Status(), status, dst)
		}
		return nil, foreign("%s %s where %s %s was asked for", e.apiVersion, e.kind, r.groupVersion(), r.root.Kind)
	})
}

// protoStatus translates a Status in protobuf; false means that it is none, or not for the tenant.
func (r *response) protoStatus(body []byte) ([]byte, bool) {
	e, err := openEnvelope(body)
	if err != nil || e.kind != "Status" || e.apiVersion != "v1" {
		return nil, false
	}
	out, err := r.protoDocument(body, nil)
	return out, err == nil
}
