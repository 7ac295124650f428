package translate

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"vivarium.io/vivarium/gateway/internal/translate/protowire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// Items of answers are rewritten in one pass over the wire: what nobody asks about is a jump over its length, what is
// renamed is cut, and the lengths around it are set when their messages end. Whatever needs more than that (a map with a
// key of the platform, an owner that may be another world's) goes through rewriter, message by message, which means the
// same.

// maxLevels is more than the messages of the API lie within each other on the way to a rule.
const maxLevels = 24

// cuts is a message that is being rewritten.
type cuts struct {
	in, out []byte
	from    int // in[from:] has not been written
}

// replace writes what stands before at, and continues to read at to. The caller writes what comes between.
func (c *cuts) replace(at, to int) {
	c.out = append(c.out, c.in[c.from:at]...)
	c.from = to
}

// written says where in what is written stands what stands at at in what is read, if what was written since has become
// shorter by shrunk, and something was.
func (c *cuts) written(at, shrunk int) int { return len(c.out) - (c.from - at) + shrunk }

// setLength sets the length of a message that has become shorter by shrunk: it stands at at, the message from start to
// end. It gives how much shorter both are.
func (c *cuts) setLength(at, start, end, shrunk int) int {
	to, length, width := c.written(at, shrunk), end-start-shrunk, start-at
	if width == 1 && length < 0x80 {
		c.out[to] = byte(length)
		return shrunk
	}
	if width == 2 && length >= 0x80 && length < 0x4000 {
		c.out[to], c.out[to+1] = byte(length)|0x80, byte(length>>7)
		return shrunk
	}
	var varint [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(varint[:], uint64(length))
	if n != width {
		// Rarely: a length that falls below a power of 128. Written longer than it must be, it would not be what the
		// tenant sent when it created the object.
		end := len(c.out)
		if n > width {
			c.out = append(c.out, varint[:n-width]...)
		}
		copy(c.out[to+n:], c.out[to+width:end])
		c.out = c.out[:end+n-width]
	}
	copy(c.out[to:], varint[:n])
	return shrunk + width - n
}

// unasked steps over the fields at i until one that is asked for: a bit for each number, of which zero is one. Of that it
// says what it is and where its length and its content stand. What is not written as it nearly always is stops it too, with
// number zero.
//
// Where a field stands depends on the length before it. Whatever else is decided here is left to branches, which the
// processor guesses ahead.
func unasked(message []byte, i int, asked uint64) (at int, number uint, lengthAt, first, after int) {
	for i < len(message)-1 {
		tag, n := uint(message[i]), i+1
		if tag >= 0x80 {
			high := uint(message[n])
			if n++; n == len(message) || high == 0 || high >= maxPlain>>7 {
				break
			}
			tag = tag&0x7f | high<<7
		}
		// Or the number itself.
		length, start := uint(message[n]), n+1
		if length >= 0x80 {
			if start == len(message) || message[start] == 0 || message[start] >= 0x80 {
				break
			}
			length = length&0x7f | uint(message[start])<<7
			start++
		}
		wanted := asked>>(tag>>3&63)&1 != 0
		if tag&7 == protowire.Varint && !wanted {
			i = start
			continue
		}
		end := start + int(length)
		if tag&7 != protowire.Bytes || end > len(message) {
			break
		}
		if wanted {
			return i, tag >> 3, n, start, end
		}
		i = end
	}
	return i, 0, 0, 0, 0
}

// maxPlain is above every tag of two bytes whose field a bit is kept for.
const maxPlain = 64 << 3

// wire appends the tenant's form of a message.
func (r *response) wire(p *rules.Place, in, dst []byte) ([]byte, error) {
	c := &r.wires.cut
	c.in, c.out, c.from = in, dst, 0
	_, err := r.cutMessage(c, p, 0, 0, len(in), 1)
	dst = append(c.out, in[c.from:]...)
	c.in, c.out = nil, nil
	return dst, err
}

// cutMessage rewrites what stands from start to end, of which nobody asks about what stands before i, and gives how much
// shorter it is.
func (r *response) cutMessage(c *cuts, p *rules.Place, start, i, end, depth int) (shrunk int, err error) {
	in := c.in[:end]
	asked := p.Asked()
	// Whether neither the prefix nor the domain stands in the rest of the message; if looked.
	looked, free := false, false
	for {
		at, number, lengthAt, first, after := unasked(in, i, asked)
		if i = after; number == 0 {
			if at == end {
				return shrunk, nil
			}
			f, rest, err := protowire.Next(in[at:])
			if err != nil {
				return 0, err
			}
			if i = end - len(rest); p.Below(uint64(f.Number)) == nil {
				continue
			}
			if f.Type != protowire.Bytes {
				return 0, fmt.Errorf("%w: field %d has wire type %d", protowire.ErrMalformed, f.Number, f.Type)
			}
			_, width := binary.Uvarint(in[at:])
			number, lengthAt, first = uint(f.Number), at+width, i-len(f.Value)
		}
		child := p.Below(uint64(number))
		value := in[first:i]
		switch op := child.Op; op {
		case rules.Pass:
			if first == i || child.Text && (free || !r.needles.In(value)) {
				continue
			}
			if child.Shape != rules.Object || depth == maxLevels {
				break
			}
			next, _, _, _, _ := unasked(in[:i], first, child.Asked())
			if next == i {
				continue
			}
			less, err := r.cutMessage(c, child, first, next, i, depth+1)
			if err != nil {
				return 0, err
			}
			if less != 0 {
				shrunk += c.setLength(lengthAt, first, i, less)
			}
			continue
		case rules.ObjectReference, rules.InvolvedObject:
			if !r.ordinaryWireReference(value) {
				break
			}
			less, err := r.cutInner(c, ordinaryPlace, lengthAt, first, i, depth)
			if err != nil {
				return 0, err
			}
			shrunk += less
			continue
		case rules.GenerateName:
			// Stands before the namespace, which nearly always has the prefix: it must not spoil the look below.
			if !r.needles.In(value) {
				continue
			}
		case rules.Keys, rules.PodKeys, rules.PodAnnotations, rules.ManagedFields, rules.Text:
			if !looked {
				// These stand together in every object. One look is for all of them.
				if looked, free = true, !r.needles.In(in[at:]); free && r.root.Kind != "Namespace" {
					asked = p.Always()
				}
			}
			if free && (op != rules.ManagedFields || r.root.Kind != "Namespace") || r.passes(op, value) {
				continue
			}
		case rules.OwnerReferences:
			if ordinaryWireOwner(value) {
				continue
			}
		default:
			if child.Shape == rules.Leaf || eachOne(child) {
				if s, ok := r.direct(op, value); ok {
					switch less := len(value) - len(s); {
					case less == 0:
					case first-lengthAt == 1:
						c.replace(first, first+less)
						c.out[len(c.out)-1] = byte(len(s))
						shrunk += less
					default:
						c.replace(at, i)
						before := len(c.out)
						c.out = protowire.AppendBytes(c.out, int32(number), s)
						shrunk += i - at - (len(c.out) - before)
					}
					continue
				}
			}
			if first == i && child.Shape == rules.Leaf && op != rules.OwnNamespace && op != rules.OwnName || r.passes(op, value) {
				continue
			}
		}
		if child.Op > rules.Pass && (child.Shape == rules.Leaf || child.Shape == rules.Object || eachOne(child)) {
			c.replace(at, i)
			before := len(c.out)
			f := protowire.Field{Number: int32(number), Type: protowire.Bytes, Raw: in[at:i], Value: value}
			out, err := r.rewriter().one(child, f, c.out, "")
			if err != nil {
				return 0, err
			}
			c.out = out
			shrunk += i - at - (len(c.out) - before)
			continue
		}
		// The message as a whole needs more than cuts: from its start, whatever has been cut already.
		return r.wholeMessage(c, p, start, end, shrunk)
	}
}

// cutInner rewrites a message inside another, whose length stands at lengthAt, and gives how much shorter both are.
func (r *response) cutInner(c *cuts, p *rules.Place, lengthAt, start, end, depth int) (shrunk int, err error) {
	at, _, _, _, _ := unasked(c.in[:end], start, p.Asked())
	if at == end {
		return 0, nil
	}
	if shrunk, err = r.cutMessage(c, p, start, at, end, depth+1); shrunk != 0 {
		shrunk = c.setLength(lengthAt, start, end, shrunk)
	}
	return shrunk, err
}

// wholeMessage rewrites a message by rewriter, of which what is written has become shorter by shrunk.
func (r *response) wholeMessage(c *cuts, p *rules.Place, start, end, shrunk int) (int, error) {
	if c.from > start {
		// Something in it is cut. What is written of it is taken back.
		c.out, c.from = c.out[:c.written(start, shrunk)], start
	}
	c.replace(start, end)
	before := len(c.out)
	out, err := r.rewriter().message(p, c.in[start:end], c.out, "")
	if err != nil {
		return 0, err
	}
	c.out = out
	return end - start - (len(c.out) - before), nil
}

// The fields of metav1.OwnerReference and of core's ObjectReference by which it is known what they are about.
const (
	ownerKind, ownerVersion                             = 1, 5
	referenceKind, referenceNamespace, referenceVersion = 1, 2, 5
)

// ordinaryWireOwner recognises an owner of a built-in workload kind or of a namespaced core kind, all of which keep their
// names.
func ordinaryWireOwner(owner []byte) bool {
	var kind, version []byte
	// Fields as they usually are, with a tag and a length, or a value, of one byte each.
	for len(owner) > 1 && owner[0] < 0x80 && owner[0] >= 8 && owner[1] < 0x80 {
		size := 0
		switch owner[0] & 7 {
		case protowire.Bytes:
			size = int(owner[1])
		case protowire.Varint:
		default:
			return false
		}
		if size > len(owner)-2 {
			return false
		}
		// Readers take the last.
		switch owner[0] {
		case ownerKind<<3 | protowire.Bytes:
			kind = owner[2 : 2+size]
		case ownerVersion<<3 | protowire.Bytes:
			version = owner[2 : 2+size]
		}
		owner = owner[2+size:]
	}
	for len(owner) > 0 {
		f, rest, err := protowire.Next(owner)
		if err != nil {
			return false
		}
		switch owner = rest; f.Number {
		case ownerKind:
			kind = f.Value
		case ownerVersion:
			version = f.Value
		}
	}
	switch string(version) {
	case "apps/v1", "batch/v1":
		return true
	case "v1":
		cluster, _ := rules.ClusterScoped("", string(kind))
		return !cluster
	}
	return false
}

// ordinaryPlace is the place of a reference of which no more than the prefix of its namespace is to be cut.
var ordinaryPlace = rules.ToTenant(&rules.Place{Shape: rules.Object, Wire: []rules.WireField{
	{Number: referenceNamespace, JSON: "namespace", Place: &rules.Place{Op: rules.Namespace, Value: rules.WireString}},
}})

// ordinaryWireReference recognises a reference of which no more than the prefix of its namespace is to be cut.
func (r *response) ordinaryWireReference(reference []byte) bool {
	var kind, version, namespace []byte
	for i := 0; i < len(reference); {
		at, number, _, first, after := unasked(reference, i, 1|1<<referenceKind|1<<referenceVersion|1<<referenceNamespace)
		// Readers take the last.
		switch i = after; number {
		case referenceKind:
			kind = reference[first:after]
		case referenceVersion:
			version = reference[first:after]
		case referenceNamespace:
			if namespace != nil {
				return false
			}
			namespace = reference[first:after]
		default:
			if i = at; i < len(reference) {
				return false
			}
		}
	}
	return r.ordinary(kind, version, namespace)
}

// ordinary reports whether what a reference is about is of a built-in kind in a namespace of the tenant.
func (r *response) ordinary(kind, version, namespace []byte) bool {
	if !bytes.HasPrefix(namespace, r.prefix) || len(namespace) == len(r.prefix) {
		return false
	}
	group, _, grouped := bytes.Cut(version, []byte("/"))
	if grouped && !rules.BuiltInGroup(string(group)) {
		return false
	}
	cluster, _ := scopeOf(string(version), string(kind))
	return !cluster
}
