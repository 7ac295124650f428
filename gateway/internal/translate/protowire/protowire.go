// Package protowire reads and writes protobuf's wire format, one field at a time, without knowing any message.
//
// The package must never guess: a length past the end, a group, field number zero or a varint of more than ten bytes is an
// error. Start at [Next].
package protowire

import (
	"encoding/binary"
	"errors"
)

// ErrMalformed says that bytes are no protobuf message.
var ErrMalformed = errors.New("malformed protobuf")

// The wire types.
const (
	Varint  = 0
	Fixed64 = 1
	Bytes   = 2
	Fixed32 = 5
)

// Field is one field of a message.
type Field struct {
	Number int32
	Type   uint8
	// Raw is the whole field with its tag.
	Raw []byte
	// Value is the content of a field of type Bytes.
	Value []byte
	// Uint is the content of a field of type Varint.
	Uint uint64
}

// Next reads the first field of b and gives what follows it.
func Next(b []byte) (Field, []byte, error) {
	tag, n := binary.Uvarint(b)
	if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
		return Field{}, nil, ErrMalformed
	}
	f := Field{Number: int32(tag >> 3), Type: uint8(tag & 7)}
	switch f.Type {
	case Varint:
		v, m := binary.Uvarint(b[n:])
		if m <= 0 {
			return Field{}, nil, ErrMalformed
		}
		f.Uint = v
		n += m
	case Fixed64:
		n += 8
	case Fixed32:
		n += 4
	case Bytes:
		length, m := binary.Uvarint(b[n:])
		if m <= 0 || length > uint64(len(b)-n-m) {
			return Field{}, nil, ErrMalformed
		}
		n += m
		f.Value = b[n : n+int(length)]
		n += int(length)
	default:
		return Field{}, nil, ErrMalformed
	}
	if n > len(b) {
		return Field{}, nil, ErrMalformed
	}
	f.Raw = b[:n]
	return f, b[n:], nil
}

// AppendTag writes a tag.
func AppendTag(dst []byte, number int32, wireType uint8) []byte {
	return binary.AppendUvarint(dst, uint64(number)<<3|uint64(wireType))
}

// AppendBytes writes a field of type Bytes.
func AppendBytes(dst []byte, number int32, value []byte) []byte {
	dst = AppendTag(dst, number, Bytes)
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

// AppendString writes a field of type Bytes from a string.
func AppendString(dst []byte, number int32, value string) []byte {
	dst = AppendTag(dst, number, Bytes)
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

// AppendVarint writes a field of type Varint.
func AppendVarint(dst []byte, number int32, value uint64) []byte {
	return binary.AppendUvarint(AppendTag(dst, number, Varint), value)
}

// Open starts a field of type Bytes whose content the caller appends before [Close]. hint is about how long it will be; a
// good one saves moving it.
func Open(dst []byte, number int32, hint int) (out []byte, mark Mark) {
	dst = AppendTag(dst, number, Bytes)
	mark.at = len(dst)
	dst = binary.AppendUvarint(dst, uint64(hint))
	mark.start = len(dst)
	return dst, mark
}

// Mark is an open field.
type Mark struct{ at, start int }

// Close ends the field that Open began.
func Close(dst []byte, mark Mark) []byte {
	length := len(dst) - mark.start
	if mark.start-mark.at == 2 && length >= 0x80 && length < 0x4000 {
		// As nearly always.
		dst[mark.at], dst[mark.at+1] = byte(length)|0x80, byte(length>>7)
		return dst
	}
	var varint [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(varint[:], uint64(length))
	if reserved := mark.start - mark.at; n != reserved {
		if n > reserved {
			dst = append(dst, varint[:n-reserved]...)
		}
		copy(dst[mark.at+n:], dst[mark.start:mark.start+length])
		dst = dst[:mark.at+n+length]
	}
	copy(dst[mark.at:], varint[:n])
	return dst
}

// AppendMessage writes a field of type Bytes whose content f appends.
func AppendMessage(dst []byte, number int32, hint int, f func([]byte) ([]byte, error)) ([]byte, error) {
	dst, mark := Open(dst, number, hint)
	dst, err := f(dst)
	if err != nil {
		return nil, err
	}
	return Close(dst, mark), nil
}
