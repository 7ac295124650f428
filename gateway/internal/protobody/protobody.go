// Package protobody turns request bodies that clients send as protobuf into JSON, which is what is translated.
//
// Clients of stock kinds, kubectl among them, send protobuf without asking whether the server takes it. The body is decoded
// into the API type and encoded again; only if that gives the very same bytes was everything in it understood, and only
// then is it used: a field newer than the types here must be refused, never lost. The package must never be used for
// answers, whose new fields must survive.
//
// Start at [ToJSON].
package protobody

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
)

// Is reports whether a content type is that of Kubernetes' protobuf.
func Is(contentType string) bool {
	mediaType, parameters, err := mime.ParseMediaType(contentType)
	return err == nil && mediaType == runtime.ContentTypeProtobuf && len(parameters) == 0
}

// ErrUnknown says that a body holds something that is not known here, so that JSON would lose it.
var ErrUnknown = errors.New("the protobuf body holds fields or a kind that this API does not know; send it as application/json")

// ToJSON gives the JSON of an object. The error is [ErrUnknown], or says that the body is no protobuf.
func ToJSON(body []byte) ([]byte, error) {
	codec := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	object, kind, err := codec.Decode(body, nil, nil)
	if err != nil {
		if runtime.IsNotRegisteredError(err) {
			return nil, ErrUnknown
		}
		return nil, fmt.Errorf("the body is no protobuf of an object")
	}
	object.GetObjectKind().SetGroupVersionKind(*kind)
	var again bytes.Buffer
	if err := codec.Encode(object, &again); err != nil {
		return nil, ErrUnknown
	}
	if !bytes.Equal(again.Bytes(), body) {
		return nil, ErrUnknown
	}
	out, err := json.Marshal(object)
	if err != nil {
		return nil, ErrUnknown
	}
	return out, nil
}
