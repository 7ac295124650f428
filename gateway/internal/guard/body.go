package guard

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
)

const maxBody = 8 << 20

// checkBody looks at the body that creates a cluster-scoped object: it alone says what the object will be called.
func (w *want) checkBody(owns func(name string) bool) error {
	read := metadata
	switch contentType := w.body.Header.Get("Content-Type"); contentType {
	case "application/json":
	case "application/vnd.kubernetes.protobuf":
		read = protoMetadata
	default:
		return refuse("a body of type %q", contentType)
	}
	if w.body.Body == nil {
		return refuse("no body")
	}
	raw, err := io.ReadAll(io.LimitReader(w.body.Body, maxBody+1))
	_ = w.body.Body.Close()
	if err != nil || len(raw) > maxBody {
		return refuse("the body cannot be read")
	}
	w.body.Body = io.NopCloser(bytes.NewReader(raw))
	name, generateName, namespace, err := read(raw)
	switch {
	case err != nil:
		return err
	case namespace != "":
		return refuse("a cluster-scoped object in namespace %q", namespace)
	case name == "" && generateName == "":
		return refuse("the body names no object")
	case name != "" && !owns(name):
		return refuse("a new object %q for tenant %s", name, w.id)
	case generateName != "" && !strings.HasPrefix(generateName, w.id.Prefix()):
		return refuse("a new object %q... for tenant %s", generateName, w.id)
	}
	return nil
}

// metadata reads three fields out of an object. A field that is there twice is refused: parsers differ on which counts.
func metadata(raw []byte) (name, generateName, namespace string, err error) {
	top, err := members(raw)
	if err != nil {
		return "", "", "", err
	}
	meta, ok := top["metadata"]
	if !ok {
		return "", "", "", refuse("the body has no metadata")
	}
	fields, err := members(meta)
	if err != nil {
		return "", "", "", err
	}
	for key, into := range map[string]*string{"name": &name, "generateName": &generateName, "namespace": &namespace} {
		if value, ok := fields[key]; ok && json.Unmarshal(value, into) != nil {
			return "", "", "", refuse("metadata.%s is not a string", key)
		}
	}
	return name, generateName, namespace, nil
}

// members cuts a JSON object into its members.
func members(raw []byte) (map[string]json.RawMessage, error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return nil, refuse("the body is no JSON object")
	}
	out := map[string]json.RawMessage{}
	seen := map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		key, ok := token.(string)
		if err != nil || !ok {
			return nil, refuse("the body is no JSON object")
		}
		// Some parsers do not tell Metadata from metadata.
		if folded := strings.ToLower(key); seen[folded] {
			return nil, refuse("the body has %q twice", key)
		} else {
			seen[folded] = true
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, refuse("the body is no JSON object")
		}
		out[key] = value
	}
	if _, err := decoder.Token(); err != nil {
		return nil, refuse("the body is no JSON object")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, refuse("the body has more than one document")
	}
	return out, nil
}
