package translate

import (
	"bytes"
	"fmt"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/protowire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// protoMagic starts every protobuf document of Kubernetes.
var protoMagic = []byte("k8s\x00")

// rewriter rewrites protobuf messages by the places of a table. Fields on the way to no rule are copied.
type rewriter struct {
	// apply does one operation to a tree, a string being the smallest.
	apply func(op rules.Op, v *jsonwire.Value, path string) error
	// passes says that an operation would change nothing, from the raw content of its field; nil to always apply.
	passes func(op rules.Op, raw []byte) bool
	// direct does the commonest operations on strings without a tree; nil or false to go through one.
	direct func(op rules.Op, s []byte) ([]byte, bool)
	// absent is called for places of whole lists and maps that a message does not have; it gives what to write, or null.
	absent func(op rules.Op) *jsonwire.Value
	// strict refuses what encoders never write: single fields that are repeated, since readers merge them.
	strict bool
}

func (w *rewriter) message(p *rules.Place, in, dst []byte, path string) ([]byte, error) {
	var seen uint64
	for rest := in; len(rest) > 0; {
		f, after, err := protowire.Next(rest)
		if err != nil {
			return nil, err
		}
		rest = after
		field := p.OnWire(f.Number)
		if field == nil {
			dst = append(dst, f.Raw...)
			continue
		}
		if f.Type != protowire.Bytes {
			return nil, fmt.Errorf("%w: %s has wire type %d", protowire.ErrMalformed, join(path, field.JSON), f.Type)
		}
		again := f.Number < 64 && seen&(1<<f.Number) != 0
		if f.Number < 64 {
			seen |= 1 << f.Number
		}
		child := field.Place
		whole := child.Op > rules.Pass && child.Shape != rules.Leaf && child.Shape != rules.Object && !eachOne(child)
		switch {
		case whole && again:
			// Done with the first.
			continue
		case again && w.strict && (child.Shape == rules.Leaf || child.Shape == rules.Object):
			return nil, fmt.Errorf("%w: %s stands twice", protowire.ErrMalformed, join(path, field.JSON))
		}
		at := path
		if field.JSON != "" && w.strict {
			// Only a tenant is told where something stands.
			at = join(path, field.JSON)
		}
		switch {
		case whole:
			dst, err = w.whole(child, f, in, dst, at)
		case child.Op > rules.Pass:
			dst, err = w.one(child, f, dst, at)
		case child.Shape == rules.Array && child.Elem.Op > rules.Pass:
			dst, err = w.one(child.Elem, f, dst, at)
		case child.Shape == rules.Array:
			dst, err = w.inner(child.Elem, f, dst, at)
		case child.Shape == rules.Object:
			dst, err = w.inner(child, f, dst, at)
		default:
			err = fmt.Errorf("%s: a map of messages with rules is not understood", at)
		}
		if err != nil {
			return nil, err
		}
	}
	if w.absent == nil {
		return dst, nil
	}
	for i := range p.Wire {
		f := &p.Wire[i]
		if f.Number >= 64 || seen&(1<<f.Number) != 0 || f.Place.Op <= rules.Pass {
			continue
		}
		v := w.absent(f.Place.Op)
		if v.Kind() == jsonwire.Null {
			continue
		}
		var err error
		if dst, err = appendPlace(dst, f.Number, f.Place, v); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// inner rewrites a message inside a message.
func (w *rewriter) inner(p *rules.Place, f protowire.Field, dst []byte, path string) ([]byte, error) {
	dst, mark := protowire.Open(dst, f.Number, len(f.Value))
	dst, err := w.message(p, f.Value, dst, path)
	if err != nil {
		return nil, err
	}
	return protowire.Close(dst, mark), nil
}

// eachOne are the operations on lists of strings that look at one string at a time.
func eachOne(p *rules.Place) bool {
	if p.Shape != rules.Array || p.Value != rules.WireString {
		return false
	}
	switch p.Op {
	case rules.Namespace, rules.Group, rules.User, rules.UserGroup:
		return true
	}
	return false
}

// one applies an operation to a single string or message.
func (w *rewriter) one(p *rules.Place, f protowire.Field, dst []byte, path string) ([]byte, error) {
	if w.passes != nil && w.passes(p.Op, f.Value) {
		return append(dst, f.Raw...), nil
	}
	if w.direct != nil {
		if s, ok := w.direct(p.Op, f.Value); ok {
			return protowire.AppendBytes(dst, f.Number, s), nil
		}
	}
	v, err := wireToTree(p.Value, p.Message, f.Value)
	if err != nil {
		return nil, err
	}
	if err := w.apply(p.Op, v, path); err != nil {
		return nil, err
	}
	return appendTree(dst, f.Number, p.Value, p.Message, v)
}

// whole applies an operation to a list or map, which is spread over the fields of one number.
func (w *rewriter) whole(p *rules.Place, first protowire.Field, in, dst []byte, path string) ([]byte, error) {
	count, passes := 0, w.passes != nil
	for rest := in; len(rest) > 0; {
		f, after, err := protowire.Next(rest)
		if err != nil {
			return nil, err
		}
		rest = after
		if f.Number != first.Number {
			continue
		}
		if f.Type != protowire.Bytes {
			return nil, fmt.Errorf("%w: %s has wire type %d", protowire.ErrMalformed, path, f.Type)
		}
		passes = passes && w.passes(p.Op, f.Value)
		count++
	}
	if passes {
		for rest := in; len(rest) > 0; {
			f, after, err := protowire.Next(rest)
			if err != nil {
				return nil, err
			}
			if rest = after; f.Number == first.Number {
				dst = append(dst, f.Raw...)
			}
		}
		return dst, nil
	}
	occurrences := make([]protowire.Field, 0, count)
	for rest := in; len(rest) > 0; {
		f, after, err := protowire.Next(rest)
		if err != nil {
			return nil, err
		}
		if rest = after; f.Number == first.Number {
			occurrences = append(occurrences, f)
		}
	}
	v := jsonwire.NewArray()
	if p.Shape == rules.Map {
		v = jsonwire.NewObject()
	}
	for _, f := range occurrences {
		if p.Shape == rules.Map {
			key, e, err := mapEntry(p.Value, p.Message, f.Value)
			if err != nil {
				return nil, err
			}
			if v.Get(key) != nil && w.strict {
				return nil, fmt.Errorf("%w: the key %q stands twice in %s", protowire.ErrMalformed, key, path)
			}
			v.Set(key, e)
			continue
		}
		e, err := wireToTree(p.Value, p.Message, f.Value)
		if err != nil {
			return nil, err
		}
		v.SetElems(append(v.Elems(), e))
	}
	if err := w.apply(p.Op, v, path); err != nil {
		return nil, err
	}
	return appendPlace(dst, first.Number, p, v)
}

func appendPlace(dst []byte, number int32, p *rules.Place, v *jsonwire.Value) ([]byte, error) {
	switch p.Shape {
	case rules.Map:
		return appendMap(dst, number, p.Value, p.Message, v)
	case rules.Array:
		return appendList(dst, number, p.Value, p.Message, v)
	}
	return appendTree(dst, number, p.Value, p.Message, v)
}

// envelope is the document around a protobuf object.
type envelope struct {
	apiVersion, kind string
	raw              []byte
}

// openEnvelope takes a document apart that is held as a whole.
func openEnvelope(doc []byte, root *rules.Root) (envelope, error) {
	var e envelope
	body, ok := bytes.CutPrefix(doc, protoMagic)
	if !ok {
		return e, fmt.Errorf("%w: not a Kubernetes document", protowire.ErrMalformed)
	}
	seen := 0
	for len(body) > 0 {
		f, rest, err := protowire.Next(body)
		if err != nil {
			return e, err
		}
		body = rest
		if f.Type != protowire.Bytes || f.Number > 4 || seen&(1<<f.Number) != 0 {
			return e, fmt.Errorf("%w: envelope with field %d", protowire.ErrMalformed, f.Number)
		}
		seen |= 1 << f.Number
		switch f.Number {
		case 1:
			if err := e.typeMeta(f.Value, root); err != nil {
				return e, err
			}
		case 2:
			e.raw = f.Value
		default:
			// Content encoding and type: an object in yet another encoding.
			if len(f.Value) > 0 {
				return e, fmt.Errorf("%w: envelope with an encoding of its own", protowire.ErrMalformed)
			}
		}
	}
	return e, nil
}

func (e *envelope) typeMeta(b []byte, root *rules.Root) error {
	for n := 0; len(b) > 0; n++ {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.Number == 1 && f.Type == protowire.Bytes && e.apiVersion == "":
			e.apiVersion = known(f.Value, root)
		case f.Number == 2 && f.Type == protowire.Bytes && e.kind == "":
			e.kind = known(f.Value, root)
		default:
			return fmt.Errorf("%w: type with field %d", protowire.ErrMalformed, f.Number)
		}
	}
	return nil
}

// known makes a string of what nearly always is one of a few.
func known(b []byte, root *rules.Root) string {
	for _, s := range [...]string{root.Kind, root.GroupVersion, root.List, "v1", "meta.k8s.io/v1", "PartialObjectMetadata", "PartialObjectMetadataList", "Status"} {
		if s == string(b) {
			return s
		}
	}
	return string(b)
}

// appendEnvelope writes an envelope whose content f appends.
func appendEnvelope(dst []byte, apiVersion, kind string, hint int, f func([]byte) ([]byte, error)) ([]byte, error) {
	dst = append(dst, protoMagic...)
	dst = protowire.AppendBytes(dst, 1, protowire.AppendString(protowire.AppendString(nil, 1, apiVersion), 2, kind))
	dst, err := protowire.AppendMessage(dst, 2, hint, f)
	if err != nil {
		return nil, err
	}
	// Encoders write these two empty fields as well.
	return protowire.AppendString(protowire.AppendString(dst, 3, ""), 4, ""), nil
}
