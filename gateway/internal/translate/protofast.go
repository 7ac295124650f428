package translate

import (
	"encoding/binary"
	"fmt"

	"vivarium.io/vivarium/gateway/internal/translate/protowire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// Items of answers are rewritten in one pass over the wire: what nobody asks about is a jump over its length, what is
// renamed is cut in place, and the lengths around it are set behind it. Whatever needs more than that (a map with a key of
// the platform, an owner that may be another world's) goes through rewriter, message by message, which means the same.

// wire appends the tenant's form of a message.
func (r *response) wire(p *rules.Place, in, dst []byte) ([]byte, error) {
	start := len(dst)
	from := 0     // in[from:i] is to be copied
	free := false // neither the prefix nor the domain stands in the rest of the message
	looked := false
	for i := 0; i < len(in); {
		at := i
		tag := uint64(in[i])
		if i++; tag >= 0x80 {
			var n int
			if tag, n = binary.Uvarint(in[at:]); n <= 0 || tag>>3 > 1<<29-1 {
				return nil, protowire.ErrMalformed
			}
			i = at + n
		}
		if tag < 8 {
			return nil, protowire.ErrMalformed
		}
		if tag&7 != protowire.Bytes {
			f, rest, err := protowire.Next(in[at:])
			if err != nil {
				return nil, err
			}
			if f.Number < 1<<29 && p.OnWire(f.Number) != nil {
				return nil, fmt.Errorf("%w: field %d has wire type %d", protowire.ErrMalformed, f.Number, f.Type)
			}
			i = len(in) - len(rest)
			continue
		}
		if i >= len(in) {
			return nil, protowire.ErrMalformed
		}
		length := uint64(in[i])
		if i++; length >= 0x80 {
			var n int
			if length, n = binary.Uvarint(in[i-1:]); n <= 0 {
				return nil, protowire.ErrMalformed
			}
			i += n - 1
		}
		if length > uint64(len(in)-i) {
			return nil, protowire.ErrMalformed
		}
		value := in[i : i+int(length)]
		i += int(length)
		field := p.OnWire(int32(tag >> 3))
		if field == nil {
			continue
		}
		child := field.Place
		op := child.Op
		if op == rules.Pass {
			if child.Shape == rules.Array {
				child = child.Elem
				op = child.Op
			}
			if op == rules.Pass {
				if len(value) == 0 || child.Text && !r.needles.In(value) {
					continue
				}
				if child.Shape != rules.Object {
					return r.slow(p, in, dst[:start])
				}
				dst = append(dst, in[from:at]...)
				from = i
				var mark protowire.Mark
				var err error
				dst, mark = protowire.Open(dst, int32(tag>>3), len(value))
				if dst, err = r.wire(child, value, dst); err != nil {
					return nil, err
				}
				dst = protowire.Close(dst, mark)
				continue
			}
		}
		switch op {
		case rules.Keys, rules.PodKeys, rules.ManagedFields, rules.Text, rules.GenerateName:
			if !looked {
				// These stand together in every object. One look is for all of them.
				looked, free = true, !r.needles.In(in[at:])
			}
			if free && (op != rules.ManagedFields || r.root.Kind != "Namespace") || r.passes(op, value) {
				continue
			}
		case rules.OwnerReferences:
			if ordinaryWireOwner(value) {
				continue
			}
		default:
			if r.passes(op, value) {
				continue
			}
			if child.Shape == rules.Leaf || eachOne(child) {
				if s, ok := r.direct(op, value); ok {
					if len(s) != len(value) {
						dst = append(dst, in[from:at]...)
						from = i
						dst = protowire.AppendBytes(dst, int32(tag>>3), s)
					}
					continue
				}
			}
			if child.Shape == rules.Leaf || child.Shape == rules.Object || eachOne(child) {
				dst = append(dst, in[from:at]...)
				from = i
				var err error
				f := protowire.Field{Number: int32(tag >> 3), Type: protowire.Bytes, Raw: in[at:i], Value: value}
				if dst, err = r.rewriter().one(child, f, dst, ""); err != nil {
					return nil, err
				}
				continue
			}
		}
		return r.slow(p, in, dst[:start])
	}
	return append(dst, in[from:]...), nil
}

// slow rewrites a message that needs more than cuts.
func (r *response) slow(p *rules.Place, in, dst []byte) ([]byte, error) {
	return r.rewriter().message(p, in, dst, "")
}

// ordinaryWireOwner recognises an owner of a built-in workload kind, all of which are namespaced and keep their names.
func ordinaryWireOwner(owner []byte) bool {
	ordinary := false
	for len(owner) > 0 {
		f, rest, err := protowire.Next(owner)
		if err != nil {
			return false
		}
		if owner = rest; f.Number == 5 {
			// Readers take the last.
			ordinary = string(f.Value) == "apps/v1" || string(f.Value) == "batch/v1"
		}
	}
	return ordinary
}
