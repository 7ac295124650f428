package translate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/protowire"
)

// A watch that selects objects is served from the one that all tenants share: what an object is selected by is read out of
// its frame without decoding it, and a frame is told again as something else.

// Labels are an object's labels, each key with its value behind it. They are what selectors of the API machinery match.
type Labels []string

// Lookup finds a label.
func (l Labels) Lookup(key string) (value string, exists bool) {
	for i := 0; i+1 < len(l); i += 2 {
		if l[i] == key {
			return l[i+1], true
		}
	}
	return "", false
}

// Has reports whether there is a label.
func (l Labels) Has(key string) bool {
	_, ok := l.Lookup(key)
	return ok
}

// Get gives the value of a label, empty if there is none.
func (l Labels) Get(key string) string {
	value, _ := l.Lookup(key)
	return value
}

// SelectableOfFrame reads the type of a frame about an object and the object's labels, in the words of the cluster that the
// frame is from. The result shares no memory with the frame.
func SelectableOfFrame(frame []byte) (kind string, found Labels, err error) {
	var buffer [32][]byte
	texts := buffer[:0]
	if len(frame) > 0 && frame[0] == 0 {
		kind, texts, err = protoLabels(frame, texts)
	} else {
		c := cursor{b: frame}
		kind, texts = c.selectable(texts)
		err = c.err
	}
	if err != nil {
		return "", nil, fmt.Errorf("read the labels of a frame: %w", err)
	}
	if kind == "" {
		return "", nil, foreign("a frame without a type")
	}
	return kind, together(texts), nil
}

// together copies texts into one piece of memory.
func together(texts [][]byte) Labels {
	if len(texts) == 0 {
		return nil
	}
	size := 0
	for _, text := range texts {
		size += len(text)
	}
	all := make([]byte, 0, size)
	for _, text := range texts {
		all = append(all, text...)
	}
	whole, out := string(all), make(Labels, len(texts))
	for i, text := range texts {
		out[i], whole = whole[:len(text)], whole[len(text):]
	}
	return out
}

func (c *cursor) selectable(texts [][]byte) (kind string, _ [][]byte) {
	c.members(func(key []byte) bool {
		switch string(key) {
		case "type":
			kind = frameType(c.text())
			return true
		case "object":
			c.under("metadata", func() {
				c.under("labels", func() {
					if c.peek() == 'n' {
						c.skip()
						return
					}
					c.members(func(key []byte) bool {
						texts = append(texts, key, c.text())
						return true
					})
				})
			})
			return false
		}
		c.skip()
		return true
	})
	return kind, texts
}

// under reads one member of an object, and nothing behind it.
func (c *cursor) under(name string, read func()) {
	c.members(func(key []byte) bool {
		if string(key) == name {
			read()
			return false
		}
		c.skip()
		return true
	})
}

func protoLabels(frame []byte, texts [][]byte) (string, [][]byte, error) {
	e, err := protoEvent(frame)
	if err != nil {
		return "", nil, err
	}
	object, err := e.object()
	if err != nil {
		return "", nil, err
	}
	meta, err := firstField(object, 1)
	if err != nil {
		return "", nil, err
	}
	for len(meta) > 0 {
		f, rest, err := protowire.Next(meta)
		if err != nil {
			return "", nil, err
		}
		meta = rest
		// Fields are in the order of their numbers.
		if f.Number > 11 {
			break
		}
		if f.Number != 11 {
			continue
		}
		key, err := firstField(f.Value, 1)
		if err != nil {
			return "", nil, err
		}
		value, err := firstField(f.Value, 2)
		if err != nil {
			return "", nil, err
		}
		texts = append(texts, key, value)
	}
	return e.kind, texts, nil
}

// object gives the bytes of the event's object, without what stands around them.
func (e event) object() ([]byte, error) {
	body, ok := bytes.CutPrefix(e.doc, protoMagic)
	if !ok {
		return nil, foreign("a frame whose object is no document")
	}
	return firstField(body, 2)
}

// RetypedFrame makes of a frame the same one of another type.
func RetypedFrame(frame []byte, kind string) ([]byte, error) {
	if len(frame) > 0 && frame[0] == 0 {
		e, err := protoEvent(frame)
		if err != nil {
			return nil, err
		}
		return e.as(kind, len(frame), func(dst []byte) ([]byte, error) { return append(dst, e.doc...), nil })
	}
	c := cursor{b: frame}
	var from, to int
	c.under("type", func() {
		from = c.i
		c.text()
		to = c.i
	})
	if c.err != nil || from == to {
		return nil, foreign("a frame without a type")
	}
	out := make([]byte, 0, len(frame)+len(kind))
	return append(jsonwire.AppendQuoted(append(out, frame[:from]...), kind), frame[to:]...), nil
}

// FormerFrame makes of a frame that adds an object the one that takes it away at another resource version: what an API
// server sends to a watch whose selector the object has ceased to match.
func FormerFrame(frame []byte, rv uint64) ([]byte, error) {
	version := strconv.FormatUint(rv, 10)
	if len(frame) > 0 && frame[0] == 0 {
		e, err := protoEvent(frame)
		if err != nil {
			return nil, err
		}
		return e.as("DELETED", len(frame), func(dst []byte) ([]byte, error) {
			body, ok := bytes.CutPrefix(e.doc, protoMagic)
			if !ok {
				return nil, foreign("a frame whose object is no document")
			}
			return replaceProto(append(dst, protoMagic...), body, []byte(version), 2, 1, 6)
		})
	}
	retyped, err := RetypedFrame(frame, "DELETED")
	if err != nil {
		return nil, err
	}
	c := cursor{b: retyped}
	var from, to int
	c.under("object", func() {
		c.under("metadata", func() {
			c.under("resourceVersion", func() {
				from = c.i
				c.text()
				to = c.i
			})
		})
	})
	if c.err != nil || from == to {
		return nil, foreign("an object without a resource version")
	}
	out := make([]byte, 0, len(retyped)+len(version))
	return append(jsonwire.AppendQuoted(append(out, retyped[:from]...), version), retyped[to:]...), nil
}

// as writes an event of another type around a document.
func (e event) as(kind string, hint int, doc func([]byte) ([]byte, error)) ([]byte, error) {
	out := make([]byte, 4, hint+32)
	out = protowire.AppendString(out, 1, kind)
	out, err := protowire.AppendMessage(out, 2, hint, func(dst []byte) ([]byte, error) {
		return protowire.AppendMessage(dst, 1, hint, doc)
	})
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(out, uint32(len(out)-4)) //nolint:gosec // bounded by maxFrame
	return out, nil
}

// replaceProto copies a message and writes another value into the field at a path, which must be there.
func replaceProto(dst, message, value []byte, path ...int32) ([]byte, error) {
	found := false
	for len(message) > 0 {
		f, rest, err := protowire.Next(message)
		if err != nil {
			return nil, err
		}
		message = rest
		switch {
		case f.Number != path[0] || f.Type != protowire.Bytes || found:
			dst = append(dst, f.Raw...)
			continue
		case len(path) == 1:
			dst = protowire.AppendBytes(dst, f.Number, value)
		default:
			dst, err = protowire.AppendMessage(dst, f.Number, len(f.Value), func(dst []byte) ([]byte, error) {
				return replaceProto(dst, f.Value, value, path[1:]...)
			})
			if err != nil {
				return nil, err
			}
		}
		found = true
	}
	if !found {
		return nil, foreign("an object without a resource version")
	}
	return dst, nil
}
