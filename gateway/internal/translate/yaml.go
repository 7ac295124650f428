package translate

import (
	"bytes"
	"errors"
	"io"

	yamlv2 "go.yaml.in/yaml/v2"
	"sigs.k8s.io/yaml"
)

// yamlToJSON converts one YAML document as the API server does, with the same library, after refusing what a reader could
// take for something else: a second document, repeated keys. Aliases are expanded within the library's bounds and ours.
func yamlToJSON(body []byte) ([]byte, error) {
	docs := yamlv2.NewDecoder(bytes.NewReader(body))
	for n := 0; ; n++ {
		var doc any
		err := docs.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, malformed("the body is not YAML: %s", err)
		}
		if n > 0 {
			return nil, malformed("the body has more than one YAML document")
		}
	}
	out, err := yaml.YAMLToJSONStrict(body)
	if err != nil {
		return nil, malformed("the body is not YAML: %s", err)
	}
	if len(out) > MaxBody {
		return nil, tooLarge("the body has %d bytes as JSON, at most %d are taken", len(out), MaxBody)
	}
	return out, nil
}
