package translate

import (
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/protowire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// Operations that look at a whole part of an object are written once, for trees. These functions make a tree of a protobuf
// message and a message of the tree: known fields under their JSON names, everything else carried along by number.

// unknownKey names a field that the description of a message does not have. No JSON name starts so.
func unknownKey(number int32) string { return "#" + strconv.Itoa(int(number)) }

// messageToTree makes a tree of a message.
func messageToTree(msg *rules.Message, b []byte) (*jsonwire.Value, error) {
	v := jsonwire.NewObject()
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return nil, err
		}
		b = rest
		known := msg.Field(f.Number)
		if known == nil || known.Kind == rules.WireOpaque && known.Shape != rules.Map {
			key := unknownKey(f.Number)
			if known != nil {
				key = known.JSON
			}
			// Several occurrences stay together.
			v.Set(key, jsonwire.NewOpaque(append(slices.Clip(v.Get(key).Bytes()), f.Raw...)))
			continue
		}
		if known.Kind == rules.WireBool {
			if f.Type != protowire.Varint {
				return nil, fmt.Errorf("%w: %s is no boolean", protowire.ErrMalformed, known.JSON)
			}
			v.Set(known.JSON, jsonwire.NewBool(f.Uint != 0))
			continue
		}
		if f.Type != protowire.Bytes {
			return nil, fmt.Errorf("%w: %s has wire type %d", protowire.ErrMalformed, known.JSON, f.Type)
		}
		switch known.Shape {
		case rules.Map:
			key, value, err := mapEntry(known.Kind, known.Message, f.Value)
			if err != nil {
				return nil, err
			}
			if v.Get(known.JSON) == nil {
				v.Set(known.JSON, jsonwire.NewObject())
			}
			v.Get(known.JSON).Set(key, value)
		case rules.Array:
			e, err := wireToTree(known.Kind, known.Message, f.Value)
			if err != nil {
				return nil, err
			}
			if v.Get(known.JSON) == nil {
				v.Set(known.JSON, jsonwire.NewArray())
			}
			list := v.Get(known.JSON)
			list.SetElems(append(list.Elems(), e))
		default:
			if v.Get(known.JSON) != nil {
				return nil, fmt.Errorf("%w: %s stands twice", protowire.ErrMalformed, known.JSON)
			}
			e, err := wireToTree(known.Kind, known.Message, f.Value)
			if err != nil {
				return nil, err
			}
			v.Set(known.JSON, e)
		}
	}
	return v, nil
}

// wireToTree makes a tree of the content of one field.
func wireToTree(kind rules.WireKind, msg *rules.Message, b []byte) (*jsonwire.Value, error) {
	switch kind {
	case rules.WireString:
		if !utf8.Valid(b) {
			return nil, fmt.Errorf("%w: a string is not UTF-8", protowire.ErrMalformed)
		}
		return jsonwire.NewString(string(b)), nil
	case rules.WireMessage:
		return messageToTree(msg, b)
	case rules.WireJSON:
		return rawToTree(b)
	}
	return jsonwire.NewOpaque(b), nil
}

// rawToTree reads a message whose only field holds JSON.
func rawToTree(b []byte) (*jsonwire.Value, error) {
	if len(b) == 0 {
		return jsonwire.NewOpaque(nil), nil
	}
	f, rest, err := protowire.Next(b)
	if err != nil {
		return nil, err
	}
	if f.Number != 1 || f.Type != protowire.Bytes || len(rest) > 0 {
		return nil, fmt.Errorf("%w: raw JSON is more than its bytes", protowire.ErrMalformed)
	}
	if len(f.Value) == 0 {
		return jsonwire.NewOpaque(b), nil
	}
	v, err := jsonwire.Parse(f.Value)
	if err != nil {
		return nil, fmt.Errorf("%w: raw JSON: %w", protowire.ErrMalformed, err)
	}
	return v, nil
}

// mapEntry reads one entry of a map with string keys.
func mapEntry(kind rules.WireKind, msg *rules.Message, b []byte) (string, *jsonwire.Value, error) {
	var key string
	var value []byte
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return "", nil, err
		}
		b = rest
		switch {
		case f.Number == 1 && f.Type == protowire.Bytes && utf8.Valid(f.Value):
			key = string(f.Value)
		case f.Number == 2 && f.Type == protowire.Bytes:
			value = f.Value
		default:
			return "", nil, fmt.Errorf("%w: a map entry with field %d", protowire.ErrMalformed, f.Number)
		}
	}
	v, err := wireToTree(kind, msg, value)
	return key, v, err
}

// treeToMessage is the inverse of messageToTree. Fields come in the order of their numbers, as every encoder writes them.
func treeToMessage(msg *rules.Message, v *jsonwire.Value, dst []byte) ([]byte, error) {
	type numbered struct {
		number int32
		field  *rules.MessageField
		value  *jsonwire.Value
	}
	fields := make([]numbered, 0, len(v.Members()))
	for _, m := range v.Members() {
		n := numbered{value: m.Value}
		for i := range msg.Fields {
			if msg.Fields[i].JSON == m.Key {
				n.field, n.number = &msg.Fields[i], msg.Fields[i].Number
			}
		}
		if n.field == nil {
			number, err := strconv.Atoi(m.Key[1:])
			if err != nil || m.Value.Kind() != jsonwire.Opaque {
				return nil, fmt.Errorf("no field for %q", m.Key)
			}
			n.number = int32(number)
		}
		fields = append(fields, n)
	}
	slices.SortStableFunc(fields, func(a, b numbered) int { return int(a.number) - int(b.number) })
	var err error
	for _, f := range fields {
		switch {
		case f.value.Kind() == jsonwire.Null:
		case f.field == nil || f.field.Kind == rules.WireOpaque && f.field.Shape != rules.Map:
			dst = append(dst, f.value.Bytes()...)
		case f.field.Shape == rules.Map:
			dst, err = appendMap(dst, f.number, f.field.Kind, f.field.Message, f.value)
		case f.field.Shape == rules.Array:
			dst, err = appendList(dst, f.number, f.field.Kind, f.field.Message, f.value)
		default:
			dst, err = appendTree(dst, f.number, f.field.Kind, f.field.Message, f.value)
		}
		if err != nil {
			return nil, err
		}
	}
	return dst, nil
}

func appendList(dst []byte, number int32, kind rules.WireKind, msg *rules.Message, list *jsonwire.Value) ([]byte, error) {
	var err error
	for _, e := range list.Elems() {
		if dst, err = appendTree(dst, number, kind, msg, e); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

func appendMap(dst []byte, number int32, kind rules.WireKind, msg *rules.Message, m *jsonwire.Value) ([]byte, error) {
	var err error
	for _, entry := range m.Members() {
		dst, err = protowire.AppendMessage(dst, number, len(entry.Key), func(dst []byte) ([]byte, error) {
			return appendTree(protowire.AppendString(dst, 1, entry.Key), 2, kind, msg, entry.Value)
		})
		if err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// appendTree writes one field.
func appendTree(dst []byte, number int32, kind rules.WireKind, msg *rules.Message, v *jsonwire.Value) ([]byte, error) {
	switch kind {
	case rules.WireString:
		return protowire.AppendString(dst, number, v.Text()), nil
	case rules.WireBool:
		var n uint64
		if v.IsTrue() {
			n = 1
		}
		return protowire.AppendVarint(dst, number, n), nil
	case rules.WireMessage:
		return protowire.AppendMessage(dst, number, 100, func(dst []byte) ([]byte, error) { return treeToMessage(msg, v, dst) })
	case rules.WireJSON:
		if v.Kind() == jsonwire.Opaque {
			return protowire.AppendBytes(dst, number, v.Bytes()), nil
		}
		return protowire.AppendBytes(dst, number, protowire.AppendBytes(nil, 1, v.Append(nil))), nil
	}
	return protowire.AppendBytes(dst, number, v.Bytes()), nil
}
