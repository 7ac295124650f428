package translate

import (
	"encoding/binary"
	"fmt"

	"vivarium.io/vivarium/gateway/internal/translate/protowire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// Items of answers are rewritten in one pass over the wire: what nobody asks about is a jump over its length, what is
// renamed is cut, and the lengths around it are set when their messages end. Whatever needs more than that (a map with a
// key of the platform, an owner that may be another world's) goes through rewriter, message by message, which means the
// same.

// level is a message that is being read.
type level struct {
	place      *rules.Place
	start, end int // of its content in what is read
	lengthAt   int // of its length in what is read
	writtenAt  int // of its length in what is written; -1 as long as nothing in it was changed
	shrunk     int // how much shorter what is written of it is
	looked     bool
	free       bool // neither the prefix nor the domain stands in the rest of it; if looked
}

// maxLevels is more than the messages of the API lie within each other on the way to a rule.
const maxLevels = 24

// cuts is a message that is being rewritten.
type cuts struct {
	in, out []byte
	first   int // of what is written of the message
	from    int // in[from:] has not been written
	levels  [maxLevels]level
	depth   int
}

// replace writes what stands before at, and continues to read at to. The caller writes what comes between.
func (c *cuts) replace(at, to int) {
	for d := c.depth; d > 0 && c.levels[d].writtenAt < 0; d-- {
		c.levels[d].writtenAt = len(c.out) + c.levels[d].lengthAt - c.from
	}
	c.out = append(c.out, c.in[c.from:at]...)
	c.from = to
}

// leave ends the innermost message: it sets its length if that has changed.
func (c *cuts) leave() {
	l := &c.levels[c.depth]
	c.depth--
	if l.writtenAt < 0 || l.shrunk == 0 {
		return
	}
	length, width := uint64(l.end-l.start-l.shrunk), l.start-l.lengthAt
	var varint [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(varint[:], length)
	if n != width {
		// Rarely: a length that falls below a power of 128. Written longer than it must be, it would not be what the
		// tenant sent when it created the object.
		end := len(c.out)
		if n > width {
			c.out = append(c.out, varint[:n-width]...)
		}
		copy(c.out[l.writtenAt+n:], c.out[l.writtenAt+width:end])
		c.out = c.out[:end+n-width]
	}
	copy(c.out[l.writtenAt:], varint[:n])
	c.levels[c.depth].shrunk += l.shrunk + width - n
}

// wire appends the tenant's form of a message.
func (r *response) wire(p *rules.Place, in, dst []byte) ([]byte, error) {
	c := &r.wires.cut
	c.in, c.out, c.first, c.from, c.depth = in, dst, len(dst), 0, 0
	c.levels[0] = level{place: p, end: len(in), writtenAt: -1}
	err := r.cutWire(c)
	dst = append(c.out, in[c.from:]...)
	c.in, c.out = nil, nil
	return dst, err
}

func (r *response) cutWire(c *cuts) error {
	in := c.in
	l := &c.levels[0]
	for i := 0; ; {
		for i == l.end {
			if c.depth == 0 {
				return nil
			}
			c.leave()
			l = &c.levels[c.depth]
		}
		at := i
		tag := uint64(in[i])
		if i++; tag >= 0x80 && i < l.end && in[i] < 0x80 {
			tag = tag&0x7f | uint64(in[i])<<7
			i++
		} else if tag >= 0x80 {
			var n int
			if tag, n = binary.Uvarint(in[at:l.end]); n <= 0 || tag>>3 > 1<<29-1 {
				return protowire.ErrMalformed
			}
			i = at + n
		}
		if tag < 8 {
			return protowire.ErrMalformed
		}
		child := l.place.Below(tag >> 3)
		if kind := tag & 7; kind != protowire.Bytes {
			if child != nil {
				return fmt.Errorf("%w: field %d has wire type %d", protowire.ErrMalformed, tag>>3, kind)
			}
			switch kind {
			case protowire.Varint:
				_, n := binary.Uvarint(in[i:l.end])
				if n <= 0 {
					return protowire.ErrMalformed
				}
				i += n
			case protowire.Fixed64:
				i += 8
			case protowire.Fixed32:
				i += 4
			default:
				return protowire.ErrMalformed
			}
			if i > l.end {
				return protowire.ErrMalformed
			}
			continue
		}
		if i >= l.end {
			return protowire.ErrMalformed
		}
		lengthAt := i
		length := uint64(in[i])
		if i++; length >= 0x80 && i < l.end && in[i] < 0x80 {
			length = length&0x7f | uint64(in[i])<<7
			i++
		} else if length >= 0x80 {
			var n int
			if length, n = binary.Uvarint(in[lengthAt:l.end]); n <= 0 {
				return protowire.ErrMalformed
			}
			i = lengthAt + n
		}
		if length > uint64(l.end-i) {
			return protowire.ErrMalformed
		}
		start := i
		i += int(length)
		if child == nil {
			continue
		}
		value := in[start:i]
		switch op := child.Op; op {
		case rules.Pass:
			if length == 0 || child.Text && !r.needles.In(value) {
				continue
			}
			if child.Shape != rules.Object || c.depth+1 == maxLevels {
				break
			}
			c.depth++
			l = &c.levels[c.depth]
			l.place, l.start, l.end, l.lengthAt, l.writtenAt, l.shrunk, l.looked = child, start, i, lengthAt, -1, 0, false
			i = start
			continue
		case rules.GenerateName:
			// Stands before the namespace, which nearly always has the prefix: it must not spoil the look below.
			if r.passes(op, value) {
				continue
			}
		case rules.Keys, rules.PodKeys, rules.PodAnnotations, rules.ManagedFields, rules.Text:
			if !l.looked {
				// These stand together in every object. One look is for all of them.
				l.looked, l.free = true, !r.needles.In(in[at:l.end])
			}
			if l.free && (op != rules.ManagedFields || r.root.Kind != "Namespace") || r.passes(op, value) {
				continue
			}
		case rules.OwnerReferences:
			if ordinaryWireOwner(value) {
				continue
			}
		default:
			if length == 0 && child.Shape == rules.Leaf && op != rules.OwnNamespace && op != rules.OwnName || r.passes(op, value) {
				continue
			}
			if child.Shape == rules.Leaf || eachOne(child) {
				if s, ok := r.direct(op, value); ok {
					if len(s) != len(value) {
						c.replace(at, i)
						before := len(c.out)
						c.out = protowire.AppendBytes(c.out, int32(tag>>3), s)
						l.shrunk += i - at - (len(c.out) - before)
					}
					continue
				}
			}
			if child.Shape == rules.Leaf || child.Shape == rules.Object || eachOne(child) {
				c.replace(at, i)
				before := len(c.out)
				f := protowire.Field{Number: int32(tag >> 3), Type: protowire.Bytes, Raw: in[at:i], Value: value}
				out, err := r.rewriter().one(child, f, c.out, "")
				if err != nil {
					return err
				}
				c.out = out
				l.shrunk += i - at - (len(c.out) - before)
				continue
			}
		}
		// The message as a whole needs more than cuts: from its start, whatever has been cut already.
		if err := r.wholeMessage(c); err != nil {
			return err
		}
		i = l.end
	}
}

// wholeMessage rewrites the innermost message by rewriter.
func (r *response) wholeMessage(c *cuts) error {
	l := &c.levels[c.depth]
	switch {
	case c.depth == 0:
		c.out, c.from = c.out[:c.first], 0
	case l.writtenAt >= 0:
		// Something in it is cut. What is written of it is taken back.
		c.out, c.from = c.out[:l.writtenAt+l.start-l.lengthAt], l.start
	}
	c.replace(l.start, l.end)
	before := len(c.out)
	out, err := r.rewriter().message(l.place, c.in[l.start:l.end], c.out, "")
	if err != nil {
		return err
	}
	c.out = out
	l.shrunk = l.end - l.start - (len(c.out) - before)
	return nil
}

// ordinaryWireOwner recognises an owner of a built-in workload kind, all of which are namespaced and keep their names.
func ordinaryWireOwner(owner []byte) bool {
	ordinary := false
	// Fields as they usually are, with a tag and a length, or a value, of one byte each.
	for len(owner) > 1 && owner[0] < 0x80 && owner[0] >= 8 && owner[1] < 0x80 {
		size := 0
		switch owner[0] & 7 {
		case protowire.Bytes:
			size = int(owner[1])
		case protowire.Varint:
		default:
			size = len(owner)
		}
		if size > len(owner)-2 {
			break
		}
		if owner[0] == 5<<3|protowire.Bytes {
			gv := owner[2 : 2+size]
			ordinary = string(gv) == "apps/v1" || string(gv) == "batch/v1"
		}
		owner = owner[2+size:]
	}
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
