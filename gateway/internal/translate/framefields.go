package translate

import (
	"fmt"
	"strings"
)

// Field is one that an API server selects objects of a kind by, and that a frame about one tells as it is: a string, which
// the control cluster and its tenants write alike.
type Field struct {
	Name  string
	json  []string
	proto []int32
}

// toldFields are those of kinds, by group and resource.
var toldFields = map[[2]string][]Field{
	{"", "secrets"}: {
		{"type", []string{"type"}, []int32{3}},
	},
	{"", "events"}: {
		{"type", []string{"type"}, []int32{9}},
		{"reason", []string{"reason"}, []int32{3}},
	},
	{"", "namespaces"}: {
		{"status.phase", []string{"status", "phase"}, []int32{3, 1}},
	},
	{"", "pods"}: {
		{"spec.restartPolicy", []string{"spec", "restartPolicy"}, []int32{2, 3}},
		{"spec.serviceAccountName", []string{"spec", "serviceAccountName"}, []int32{2, 8}},
		{"status.phase", []string{"status", "phase"}, []int32{3, 1}},
	},
}

// FieldsInFrames gives the fields that frames of a resource tell in the form of a media type.
func FieldsInFrames(group, resource, mediaType string) []Field {
	if strings.Contains(mediaType, ";as=") {
		return nil
	}
	return toldFields[[2]string{group, resource}]
}

// FieldsOfFrame reads fields of the object of a frame, each empty if it is not there. The result shares no memory with the
// frame.
func FieldsOfFrame(frame []byte, wanted []Field) ([]string, error) {
	texts := make([][]byte, len(wanted))
	if len(frame) > 0 && frame[0] == 0 {
		e, err := protoEvent(frame)
		if err != nil {
			return nil, err
		}
		object, err := e.object()
		if err != nil {
			return nil, err
		}
		for i, field := range wanted {
			if texts[i], err = protoField(object, field.proto); err != nil {
				return nil, fmt.Errorf("read %s of a frame: %w", field.Name, err)
			}
		}
		return together(texts), nil
	}
	for i, field := range wanted {
		c := cursor{b: frame}
		c.under("object", func() { texts[i] = c.field(field.json) })
		if c.err != nil {
			return nil, fmt.Errorf("read %s of a frame: %w", field.Name, c.err)
		}
	}
	return together(texts), nil
}

func (c *cursor) field(path []string) (text []byte) {
	c.under(path[0], func() {
		switch {
		case c.peek() == 'n':
		case len(path) == 1:
			text = c.text()
		default:
			text = c.field(path[1:])
		}
	})
	return text
}

func protoField(message []byte, path []int32) (text []byte, err error) {
	for text = message; len(path) > 0 && err == nil; path = path[1:] {
		text, err = firstField(text, path[0])
	}
	return text, err
}
