package translate

import (
	"bytes"
	"errors"
	"io"
	"unicode/utf8"

	yamlv2 "go.yaml.in/yaml/v2"
	"sigs.k8s.io/yaml"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
)

// yamlToJSON converts one YAML document as the API server does, with the same library, after refusing what a reader could
// take for something else: a second document, repeated keys. Aliases are expanded within the library's bounds and ours.
func yamlToJSON(body []byte) ([]byte, error) {
	if jsonAlready(body) {
		return body, nil
	}
	if bytes.Contains(body, []byte("---")) || bytes.Contains(body, []byte("...")) {
		if err := oneDocument(body); err != nil {
			return nil, err
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

// jsonAlready recognises what kubectl sends as YAML: JSON, which YAML reads alike as long as it is ASCII. (Beyond that,
// YAML breaks lines at characters that mean nothing to JSON.)
func jsonAlready(body []byte) bool {
	for _, b := range body {
		if b >= utf8.RuneSelf {
			return false
		}
	}
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
		return false
	}
	_, err := jsonwire.Parse(body)
	return err == nil
}

// oneDocument refuses a stream of several documents, of which the API server would read the first.
func oneDocument(body []byte) error {
	docs := yamlv2.NewDecoder(bytes.NewReader(body))
	for n := 0; ; n++ {
		var doc any
		err := docs.Decode(&doc)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return malformed("the body is not YAML: %s", err)
		case n > 0:
			return malformed("the body has more than one YAML document")
		}
	}
}
