package control

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Form says which shapes of an answer can be asked for.
type Form int

// The forms.
const (
	// Object is an object or a list, as it is, as a table or as its metadata alone, in JSON or protobuf.
	Object Form = iota
	// JSON is the same, in JSON alone.
	JSON
	// Plain is JSON without a choice.
	Plain
)

const (
	mediaJSON     = "application/json"
	mediaProtobuf = "application/vnd.kubernetes.protobuf"
)

// Translatable reports whether an answer is of a media type that can be translated.
func Translatable(contentType string) bool {
	mediaType, _, _ := strings.Cut(contentType, ";")
	mediaType = strings.TrimSpace(mediaType)
	return mediaType == mediaJSON || mediaType == mediaProtobuf
}

// maxAccept bounds how many alternatives are looked at.
const maxAccept = 32

// Accept narrows what a client accepts to what can be translated: JSON and protobuf, and of the shapes that they can have
// those that are known here. It fails with 406 if nothing is left. CBOR and YAML are left out, which every client of an
// API server can live with: it offers JSON besides, or takes anything.
func Accept(client []string, form Form) (string, error) {
	var out []string
	seen := 0
	for _, value := range client {
		for element := range strings.SplitSeq(value, ",") {
			if strings.TrimSpace(element) == "" {
				continue
			}
			if seen++; seen > maxAccept {
				break
			}
			if narrowed, ok := acceptOne(element, form); ok && !slices.Contains(out, narrowed) {
				out = append(out, narrowed)
			}
		}
	}
	switch {
	case seen == 0:
		return mediaJSON, nil
	case len(out) == 0 && form == Object:
		return "", status(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable,
			"only the following media types are accepted: "+mediaJSON+", "+mediaProtobuf)
	case len(out) == 0:
		return "", status(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable,
			"only the following media types are accepted: "+mediaJSON)
	}
	return strings.Join(out, ","), nil
}

// acceptOne writes one alternative anew, so that the control cluster reads nothing in it that was not read here.
func acceptOne(element string, form Form) (string, bool) {
	mediaType, rest, _ := strings.Cut(element, ";")
	switch mediaType = strings.ToLower(strings.TrimSpace(mediaType)); mediaType {
	case mediaJSON, "*/*", "application/*":
		mediaType = mediaJSON
	case mediaProtobuf:
		if form != Object {
			return "", false
		}
	default:
		return "", false
	}
	var as, version, group, quality string
	for parameter := range strings.SplitSeq(rest, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "", "charset", "pretty", "stream":
		case "as":
			as = value
		case "v":
			version = value
		case "g":
			group = value
		case "q":
			if q, err := strconv.ParseFloat(value, 64); err != nil || q <= 0 || q > 1 {
				return "", false
			}
			quality = ";q=" + value
		default:
			return "", false
		}
	}
	if as == "" {
		return mediaType + quality, group == "" && version == ""
	}
	// There is no table in protobuf.
	known := as == "Table" && mediaType == mediaJSON || as == "PartialObjectMetadata" || as == "PartialObjectMetadataList"
	// The shapes are the same in both versions.
	if form == Plain || !known || version != "v1" && version != "v1beta1" || group != "meta.k8s.io" {
		return "", false
	}
	return mediaType + ";as=" + as + ";v=" + version + ";g=meta.k8s.io" + quality, true
}
