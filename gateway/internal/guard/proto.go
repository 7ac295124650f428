package guard

import (
	"bytes"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of what stands around an object in protobuf, and of its metadata. Metadata is the first field of every
// kind.
const (
	fieldRaw          protowire.Number = 2
	fieldMetadata     protowire.Number = 1
	fieldName         protowire.Number = 1
	fieldGenerateName protowire.Number = 2
	fieldNamespace    protowire.Number = 3
)

// protoMetadata is [metadata] for protobuf.
func protoMetadata(raw []byte) (name, generateName, namespace string, err error) {
	envelope, ok := bytes.CutPrefix(raw, []byte("k8s\x00"))
	if !ok {
		return "", "", "", refuse("the body is no protobuf of an object")
	}
	object, err := messages(envelope, fieldRaw)
	if err != nil {
		return "", "", "", err
	}
	meta, err := messages(object[fieldRaw], fieldMetadata)
	if err != nil {
		return "", "", "", err
	}
	fields, err := messages(meta[fieldMetadata], fieldName, fieldGenerateName, fieldNamespace)
	if err != nil {
		return "", "", "", err
	}
	return string(fields[fieldName]), string(fields[fieldGenerateName]), string(fields[fieldNamespace]), nil
}

// messages finds fields of a message that hold bytes. A field that is there twice is refused: readers differ on whether
// the last one counts or all of them together.
func messages(raw []byte, wanted ...protowire.Number) (map[protowire.Number][]byte, error) {
	out := map[protowire.Number][]byte{}
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return nil, refuse("the body is no protobuf of an object")
		}
		raw = raw[n:]
		size := protowire.ConsumeFieldValue(number, kind, raw)
		if size < 0 {
			return nil, refuse("the body is no protobuf of an object")
		}
		for _, want := range wanted {
			if number != want {
				continue
			}
			value, n := protowire.ConsumeBytes(raw)
			if kind != protowire.BytesType || n < 0 {
				return nil, refuse("field %d of the body holds no bytes", number)
			}
			if _, twice := out[number]; twice {
				return nil, refuse("field %d of the body is there twice", number)
			}
			out[number] = value
		}
		raw = raw[size:]
	}
	return out, nil
}
