package route

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Bounds of a request line. No client of an API server comes near them, a selector with hundreds of values included.
const (
	maxPath       = 2 << 10
	maxSegment    = 512
	maxQuery      = 32 << 10
	maxParameters = 100
	// maxRepeated bounds the values of a parameter that may be repeated, such as the words of a command.
	maxRepeated = 1000
)

func badRequest(format string, args ...any) error {
	return apierrors.NewBadRequest(fmt.Sprintf(format, args...))
}

func tooLong(what string, limit int) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: http.StatusRequestURITooLong,
		Reason: metav1.StatusReasonBadRequest, Message: fmt.Sprintf("the %s is longer than %d bytes", what, limit),
	}}
}

func parsePath(path string) ([]string, error) {
	switch {
	case len(path) > maxPath:
		return nil, tooLong("path", maxPath)
	case path == "" || path[0] != '/':
		return nil, badRequest("the path does not start with a slash")
	case path == "/":
		return nil, nil
	}
	segments := strings.Split(path[1:], "/")
	if last := len(segments) - 1; segments[last] == "" && isDiscovery(segments[:last]) {
		segments = segments[:last]
	}
	for i, raw := range segments {
		segment, err := parseSegment(raw)
		if err != nil {
			return nil, err
		}
		segments[i] = segment
	}
	return segments, nil
}

// isDiscovery reports whether a path leads to a document about the API. Those are the only ones that the API server serves
// with a slash at their end, too, and some clients write it.
func isDiscovery(segments []string) bool {
	switch len(segments) {
	case 0:
		return false
	case 1:
		return segments[0] == "api" || segments[0] == "apis" || segments[0] == "version"
	}
	return segments[0] == "api" && len(segments) == 2 || segments[0] == "apis" && len(segments) <= 3
}

func parseSegment(raw string) (string, error) {
	switch raw {
	case "":
		return "", badRequest("the path has an empty segment")
	case ".", "..":
		return "", badRequest("the path has a dot segment")
	}
	decoded := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == '%':
			if i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2]) {
				return "", badRequest("the path has an incomplete escape")
			}
			c = unhex(raw[i+1])<<4 | unhex(raw[i+2])
			i += 2
			// What separates, climbs or escapes is refused in disguise: somebody behind might decode it once more.
			if c < 0x20 || c == 0x7f || strings.IndexByte(`/\.%;`, c) >= 0 {
				return "", badRequest("the path has an escape that it must not have")
			}
		case !isSegmentByte(c):
			return "", badRequest("the path has a character that it must not have")
		}
		decoded = append(decoded, c)
	}
	if len(decoded) > maxSegment {
		return "", badRequest("a segment of the path is longer than %d bytes", maxSegment)
	}
	if !utf8.Valid(decoded) {
		return "", badRequest("the path is not UTF-8")
	}
	return string(decoded), nil
}

// isSegmentByte reports whether RFC 3986 lets a byte stand in a path segment as it is. The semicolon is left out: some
// parsers cut a segment there.
func isSegmentByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~!$&'()*+,=:@", c) >= 0
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}

// repeatable are the parameters with more than one value: the words of a command and the ports of a tunnel.
func repeatable(key string) bool { return key == "command" || key == "ports" }

func parseQuery(raw string) (url.Values, error) {
	if len(raw) > maxQuery {
		return nil, tooLong("query", maxQuery)
	}
	for i := range len(raw) {
		if c := raw[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return nil, badRequest("the query has a character that it must not have")
		}
	}
	query := url.Values{}
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		rawKey, rawValue, _ := strings.Cut(pair, "=")
		if !isParameter(rawKey) {
			return nil, badRequest("the query has a parameter whose name is not made of letters")
		}
		// Some parsers take a semicolon for an ampersand, and a client that means one escapes it.
		if strings.IndexByte(rawValue, ';') >= 0 {
			return nil, badRequest("query parameter %s: has a semicolon", rawKey)
		}
		value, err := url.QueryUnescape(rawValue)
		if err != nil {
			return nil, badRequest("query parameter %s: has an incomplete escape", rawKey)
		}
		if !utf8.ValidString(value) || strings.IndexByte(value, 0) >= 0 {
			return nil, badRequest("query parameter %s: is not text", rawKey)
		}
		have := len(query[rawKey])
		switch {
		case have > 0 && !repeatable(rawKey):
			return nil, badRequest("query parameter %s: is given more than once", rawKey)
		case have >= maxRepeated:
			return nil, badRequest("query parameter %s: is given more than %d times", rawKey, maxRepeated)
		case have == 0 && len(query) >= maxParameters:
			return nil, badRequest("the query has more than %d parameters", maxParameters)
		}
		query[rawKey] = append(query[rawKey], value)
	}
	return query, nil
}

func isParameter(key string) bool {
	for i := range len(key) {
		if c := key[i] | 0x20; c < 'a' || c > 'z' {
			return false
		}
	}
	return key != ""
}
