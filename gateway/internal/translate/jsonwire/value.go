package jsonwire

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// Kind is the kind of a JSON value.
type Kind byte

// The kinds.
const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Object
	// Opaque is a value in another encoding that is only carried along. It has no JSON text.
	Opaque
)

// String names the kind as an error message would.
func (k Kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "an array", "an object", "an opaque value"}[k]
}

// Value is one JSON value. Scalars keep their source text until they are changed. The zero value is null.
type Value struct {
	kind    Kind
	raw     []byte // source text of a scalar, nil for a string that was set
	text    string // content of a string
	elems   []*Value
	members []Member
}

// Member is one member of an object, in source order.
type Member struct {
	Key   string
	Value *Value
}

// NewString makes a string.
func NewString(s string) *Value { return &Value{kind: String, text: s} }

// NewObject makes an object of the given members, which must have different keys.
func NewObject(members ...Member) *Value { return &Value{kind: Object, members: members} }

// NewArray makes an array.
func NewArray(elems ...*Value) *Value { return &Value{kind: Array, elems: elems} }

// NewBool makes a boolean.
func NewBool(b bool) *Value { return &Value{kind: Bool, raw: strconv.AppendBool(nil, b)} }

// NewOpaque makes a value that is only carried along.
func NewOpaque(b []byte) *Value { return &Value{kind: Opaque, raw: b} }

// Bytes gives what an opaque value carries.
func (v *Value) Bytes() []byte {
	if v.Kind() != Opaque {
		return nil
	}
	return v.raw
}

// Kind gives the value's kind; a nil Value is null.
func (v *Value) Kind() Kind {
	if v == nil {
		return Null
	}
	return v.kind
}

// Text gives the content of a string, "" for every other kind.
func (v *Value) Text() string {
	if v == nil {
		return ""
	}
	return v.text
}

// IsTrue reports whether the value is the literal true.
func (v *Value) IsTrue() bool { return v.Kind() == Bool && bytes.Equal(v.raw, []byte("true")) }

// SetText makes the value a string.
func (v *Value) SetText(s string) {
	if v.kind == String && v.text == s {
		return
	}
	*v = Value{kind: String, text: s}
}

// Elems gives the elements of an array; nil for every other kind.
func (v *Value) Elems() []*Value {
	if v == nil {
		return nil
	}
	return v.elems
}

// SetElems replaces the elements of an array.
func (v *Value) SetElems(elems []*Value) { v.elems = elems }

// Members gives the members of an object; nil for every other kind. The caller may change keys and values in place and
// must keep keys different.
func (v *Value) Members() []Member {
	if v == nil {
		return nil
	}
	return v.members
}

// Get gives the member of an object, nil if there is none.
func (v *Value) Get(key string) *Value {
	for i := range v.Members() {
		if v.members[i].Key == key {
			return v.members[i].Value
		}
	}
	return nil
}

// At follows keys through objects, nil where one is missing.
func (v *Value) At(keys ...string) *Value {
	for _, k := range keys {
		v = v.Get(k)
	}
	return v
}

// Set adds or replaces a member of an object.
func (v *Value) Set(key string, value *Value) {
	for i := range v.members {
		if v.members[i].Key == key {
			v.members[i].Value = value
			return
		}
	}
	v.members = append(v.members, Member{key, value})
}

// Delete removes a member of an object.
func (v *Value) Delete(key string) {
	for i := range v.Members() {
		if v.members[i].Key == key {
			v.members = append(v.members[:i:i], v.members[i+1:]...)
			return
		}
	}
}

// Filter keeps the members of an object for which keep is true. Anything else has none.
func (v *Value) Filter(keep func(m *Member) bool) {
	if v.Kind() != Object {
		return
	}
	kept := v.members[:0]
	for i := range v.members {
		if keep(&v.members[i]) {
			kept = append(kept, v.members[i])
		}
	}
	v.members = kept
}

// Append writes the value as compact JSON.
func (v *Value) Append(dst []byte) []byte {
	switch v.Kind() {
	case Null, Opaque:
		return append(dst, "null"...)
	case String:
		if v.raw == nil {
			return AppendQuoted(dst, v.text)
		}
		return append(dst, v.raw...)
	case Array:
		dst = append(dst, '[')
		for i, e := range v.elems {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = e.Append(dst)
		}
		return append(dst, ']')
	case Object:
		dst = append(dst, '{')
		for i := range v.members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(AppendQuoted(dst, v.members[i].Key), ':')
			dst = v.members[i].Value.Append(dst)
		}
		return append(dst, '}')
	}
	return append(dst, v.raw...)
}

const hexDigits = "0123456789abcdef"

// AppendQuoted writes a JSON string as the API server's encoder does, down to the characters that HTML would mind.
func AppendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&' {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\b':
				dst = append(dst, '\\', 'b')
			case '\f':
				dst = append(dst, '\\', 'f')
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == '\u2028' || r == '\u2029' {
			dst = append(dst, s[start:i]...)
			dst = append(dst, '\\', 'u', '2', '0', '2', hexDigits[r&15])
			start = i + size
		}
		i += size
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
