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
	// Object is an object or a list, as it is, as a table or as its metadata alone.
	Object Form = iota
	// Plain is JSON without a choice.
	Plain
)

// maxAccept bounds how many alternatives are looked at.
const maxAccept = 32

// Accept narrows what a client accepts to what can be translated: JSON, and of the shapes that JSON can have those that
// are known here. It fails with 406 if nothing is left. Protobuf, CBOR and YAML are left out, which every client of an API
// server can live with: it offers JSON besides, or takes anything.
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
		return "application/json", nil
	case len(out) == 0:
		return "", status(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable,
			"only the following media types are accepted: application/json")
	}
	return strings.Join(out, ","), nil
}

// acceptOne writes one alternative anew, so that the control cluster reads nothing in it that was not read here.
func acceptOne(element string, form Form) (string, bool) {
	mediaType, rest, _ := strings.Cut(element, ";")
	switch strings.ToLower(strings.TrimSpace(mediaType)) {
	case "application/json", "*/*", "application/*":
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
		return "application/json" + quality, group == "" && version == ""
	}
	known := as == "Table" || as == "PartialObjectMetadata" || as == "PartialObjectMetadataList"
	if form != Object || !known || version != "v1" || group != "meta.k8s.io" {
		return "", false
	}
	return "application/json;as=" + as + ";v=v1;g=meta.k8s.io" + quality, true
}
