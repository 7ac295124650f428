package translate

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/protowire"
)

// One watch of the control cluster serves many tenants: its frames are cut out of the stream, looked at once to see whose
// they are, and translated for that tenant alone. A frame is what stands on the wire: a JSON document with its line break,
// or a protobuf event behind its four bytes of length.

// ErrForeignItem says that a frame is about an object that is not the tenant's.
var ErrForeignItem = errForeignItem

// maxFrame bounds a frame: more than the control cluster can store in one object.
const maxFrame = 32 << 20

// Frames cuts a stream of watch frames.
type Frames struct {
	in    *bufio.Reader
	frame []byte
}

// NewFrames reads frames from src. Idle, it holds four KiB.
func NewFrames(src io.Reader) *Frames { return &Frames{in: bufio.NewReaderSize(src, watchBufferSize)} }

// Buffered reports whether more of the stream is here already, so that a flush can wait.
func (f *Frames) Buffered() bool { return f.in.Buffered() > 0 }

// Next gives the next frame, which is valid until the next call. The error is io.EOF only between two frames,
// io.ErrUnexpectedEOF within one.
func (f *Frames) Next() ([]byte, error) {
	if cap(f.frame) > 16*watchBufferSize {
		f.frame = nil
	}
	f.frame = f.frame[:0]
	start, err := f.in.Peek(1)
	if err != nil {
		return nil, err
	}
	if start[0] == 0 {
		return f.proto()
	}
	for {
		part, err := f.in.ReadSlice('\n')
		if err == nil && len(f.frame) == 0 {
			return part, nil
		}
		f.frame = append(f.frame, part...)
		switch {
		case err == nil:
			return f.frame, nil
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(f.frame) > maxFrame:
			return nil, foreign("a frame of more than %d bytes", maxFrame)
		}
	}
}

func (f *Frames) proto() ([]byte, error) {
	size, err := f.in.Peek(4)
	if err != nil {
		return nil, unexpected(err)
	}
	n := int64(binary.BigEndian.Uint32(size)) + 4
	if n > maxFrame {
		return nil, foreign("a frame of %d bytes", n)
	}
	if int64(cap(f.frame)) < n {
		f.frame = make([]byte, n)
	}
	f.frame = f.frame[:n]
	if _, err := io.ReadFull(f.in, f.frame); err != nil {
		return nil, unexpected(err)
	}
	return f.frame, nil
}

// unexpected makes an end within a document the error that it is.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// FrameScope says what a frame is about, in the words of the control cluster. Its slices are parts of the frame.
type FrameScope struct {
	// Type is ADDED, MODIFIED, DELETED, BOOKMARK or ERROR.
	Type string
	// Namespace and Name are empty for bookmarks and errors.
	Namespace, Name []byte
	// ResourceVersion is empty for errors.
	ResourceVersion []byte
}

// ScopeOfFrame finds what a frame is about without decoding it: it reads up to the resource version, which every encoder
// writes behind name and namespace.
func ScopeOfFrame(frame []byte) (FrameScope, error) {
	if len(frame) > 0 && frame[0] == 0 {
		return protoScope(frame)
	}
	c := cursor{b: frame}
	s := c.frame()
	if c.err != nil {
		return FrameScope{}, fmt.Errorf("read what a frame is about: %w", c.err)
	}
	return s, nil
}

// frameType knows the types of frames, so that none is copied.
func frameType(b []byte) string {
	switch string(b) {
	case "ADDED":
		return "ADDED"
	case "MODIFIED":
		return "MODIFIED"
	case "DELETED":
		return "DELETED"
	case "BOOKMARK":
		return "BOOKMARK"
	case "ERROR":
		return "ERROR"
	}
	return ""
}

// cursor reads JSON of a trusted encoder from memory. The first error stays.
type cursor struct {
	b   []byte
	i   int
	err error
}

func (c *cursor) frame() FrameScope {
	var s FrameScope
	c.members(func(key []byte) bool {
		switch string(key) {
		case "type":
			s.Type = frameType(c.text())
			return s.Type != "ERROR"
		case "object":
			c.object(&s)
			return false
		}
		c.skip()
		return true
	})
	if s.Type == "" && c.err == nil {
		c.err = foreign("a frame without a type")
	}
	return s
}

// object reads an object, or the first row of a Table.
func (c *cursor) object(s *FrameScope) {
	table := false
	c.members(func(key []byte) bool {
		switch {
		case string(key) == "kind":
			table = string(c.text()) == "Table"
			return true
		case string(key) == "metadata" && !table:
			c.metadata(s)
			return false
		case string(key) == "rows" && table:
			c.open('[')
			c.members(func(key []byte) bool {
				if string(key) == "object" {
					c.object(s)
					return false
				}
				c.skip()
				return true
			})
			return false
		}
		c.skip()
		return true
	})
}

func (c *cursor) metadata(s *FrameScope) {
	c.members(func(key []byte) bool {
		switch string(key) {
		case "name":
			s.Name = c.text()
		case "namespace":
			s.Namespace = c.text()
		case "resourceVersion":
			s.ResourceVersion = c.text()
			return false
		default:
			c.skip()
		}
		return true
	})
}

func (c *cursor) fail() { c.err = errors.Join(c.err, jsonwire.ErrMalformed) }

// peek gives the next byte that is no white space, 0 at the end or after an error.
func (c *cursor) peek() byte {
	if c.err != nil {
		return 0
	}
	for c.i < len(c.b) {
		if ch := c.b[c.i]; ch > ' ' {
			return ch
		}
		c.i++
	}
	c.fail()
	return 0
}

func (c *cursor) open(bracket byte) bool {
	if c.peek() != bracket {
		c.fail()
		return false
	}
	c.i++
	return true
}

// members calls f at the value of each member, which f consumes, until it returns false.
func (c *cursor) members(f func(key []byte) bool) {
	if !c.open('{') {
		return
	}
	for {
		switch c.peek() {
		case ',':
			c.i++
		case '"':
			key := c.text()
			if !c.open(':') || !f(key) || c.err != nil {
				return
			}
		case '}':
			c.i++
			return
		default:
			c.fail()
			return
		}
	}
}

// text reads a string.
func (c *cursor) text() []byte {
	if !c.open('"') {
		return nil
	}
	for from, i := c.i, c.i; ; {
		i += jsonwire.StringEnd(c.b[i:])
		switch {
		case i >= len(c.b):
			c.fail()
			return nil
		case c.b[i] == '"':
			c.i = i + 1
			if raw := c.b[from:i]; bytes.IndexByte(raw, '\\') < 0 {
				return raw
			}
			text, err := jsonwire.Unquote(c.b[from-1 : i+1])
			if err != nil {
				c.fail()
			}
			return []byte(text)
		default:
			i += 2
		}
		if i > len(c.b) {
			c.fail()
			return nil
		}
	}
}

// skip passes a value.
func (c *cursor) skip() {
	for depth := 0; ; {
		switch c.peek() {
		case 0:
			return
		case '"':
			c.skipText()
		case '{', '[':
			depth++
			c.i++
			continue
		case '}', ']':
			if depth == 0 {
				c.fail()
				return
			}
			depth--
			c.i++
		case ',', ':':
			if depth == 0 {
				c.fail()
				return
			}
			c.i++
			continue
		default:
			for c.i < len(c.b) && c.b[c.i] != ',' && c.b[c.i] != '}' && c.b[c.i] != ']' && c.b[c.i] > ' ' {
				c.i++
			}
		}
		if depth == 0 || c.err != nil {
			return
		}
	}
}

func (c *cursor) skipText() {
	for i := c.i + 1; i <= len(c.b); {
		i += jsonwire.StringEnd(c.b[i:])
		if i < len(c.b) && c.b[i] == '"' {
			c.i = i + 1
			return
		}
		i += 2
	}
	c.fail()
}

func protoScope(frame []byte) (FrameScope, error) {
	var s FrameScope
	event, err := protoEvent(frame)
	if err != nil {
		return s, err
	}
	s.Type = event.kind
	if s.Type == "ERROR" {
		return s, nil
	}
	body, ok := bytes.CutPrefix(event.doc, protoMagic)
	if !ok {
		return s, foreign("a frame whose object is no document")
	}
	raw, err := firstField(body, 2)
	if err != nil {
		return s, err
	}
	meta, err := firstField(raw, 1)
	if err != nil {
		return s, err
	}
	for len(meta) > 0 {
		f, rest, err := protowire.Next(meta)
		if err != nil {
			return s, err
		}
		meta = rest
		switch f.Number {
		case 1:
			s.Name = f.Value
		case 3:
			s.Namespace = f.Value
		case 6:
			s.ResourceVersion = f.Value
			return s, nil
		}
	}
	return s, nil
}

// firstField finds a field of type Bytes, which every encoder writes once.
func firstField(b []byte, number int32) ([]byte, error) {
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return nil, err
		}
		if f.Number == number && f.Type == protowire.Bytes {
			return f.Value, nil
		}
		b = rest
	}
	return nil, nil
}

// event is a WatchEvent in protobuf.
type event struct {
	kind string
	doc  []byte
}

// protoEvent takes a frame apart.
func protoEvent(frame []byte) (event, error) {
	var e event
	if len(frame) < 4 || int64(binary.BigEndian.Uint32(frame)) != int64(len(frame))-4 {
		return e, foreign("a frame of another length than it says")
	}
	for b := frame[4:]; len(b) > 0; {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return e, err
		}
		b = rest
		switch {
		case f.Number == 1 && f.Type == protowire.Bytes && e.kind == "":
			e.kind = frameType(f.Value)
		case f.Number == 2 && f.Type == protowire.Bytes && e.kind != "" && e.doc == nil:
			inner, rest, err := protowire.Next(f.Value)
			if err != nil || inner.Number != 1 || inner.Type != protowire.Bytes || len(rest) > 0 {
				return e, errors.Join(foreign("a frame whose object is no document"), err)
			}
			e.doc = inner.Value
		default:
			return e, foreign("a frame of type %q with field %d", e.kind, f.Number)
		}
	}
	if e.doc == nil {
		return e, foreign("a frame without an object")
	}
	return e, nil
}

// FrameToTenant appends the tenant's form of one frame to dst. Nothing is appended with an error, which is
// [ErrForeignItem] if the frame is about another tenant's object. Frames of Tables are for [View.TableFrameToTenant].
func (v View) FrameToTenant(k Kind, dst, frame []byte) ([]byte, error) {
	return v.frameToTenant(k, dst, frame, nil, false)
}

// Columns are the column definitions of a watch of Tables, which only its first frame names.
type Columns struct {
	raw   []byte
	rules []columnRule
}

// ColumnsOfFrame remembers the column definitions of a frame; nil if it has none.
func ColumnsOfFrame(k Kind, frame []byte) (*Columns, error) {
	c := cursor{b: frame}
	var found *Columns
	c.members(func(key []byte) bool {
		if string(key) != "object" {
			c.skip()
			return true
		}
		c.members(func(key []byte) bool {
			if string(key) != "columnDefinitions" || c.peek() != '[' {
				c.skip()
				return true
			}
			from := c.i
			c.skip()
			found = &Columns{raw: bytes.Clone(c.b[from:c.i])}
			return false
		})
		return false
	})
	if c.err != nil {
		return nil, fmt.Errorf("read the columns of a frame: %w", c.err)
	}
	if found == nil {
		return nil, nil
	}
	v, err := jsonwire.Parse(found.raw)
	if err != nil {
		return nil, fmt.Errorf("read the columns of a frame: %w", err)
	}
	r := response{kind: k}
	r.setColumns(v)
	found.rules = r.columns
	return found, nil
}

// TableFrameToTenant is [View.FrameToTenant] for a watch of Tables. define says that the frame shall name the columns: in
// the first one that a client gets.
func (v View) TableFrameToTenant(k Kind, dst, frame []byte, columns *Columns, define bool) ([]byte, error) {
	if columns == nil {
		return dst, foreign("a table that does not say first what its columns are")
	}
	return v.frameToTenant(k, dst, frame, columns, define)
}

func (v View) frameToTenant(k Kind, dst, frame []byte, columns *Columns, define bool) ([]byte, error) {
	r, err := v.newResponse(k, nil, nil, bufferSize)
	if err != nil {
		return dst, err
	}
	defer r.done()
	if len(frame) > 0 && frame[0] == 0 {
		if _, err := protoEvent(frame); err != nil {
			return dst, explainFrame(err)
		}
		grown, err := r.protoFrame(frame[4:], append(dst, 0, 0, 0, 0))
		if err != nil {
			return dst, explainFrame(err)
		}
		binary.BigEndian.PutUint32(grown[len(dst):], uint32(len(grown)-len(dst)-4))
		return grown, nil
	}
	r.memory.in.Reset(frame)
	r.memory.out.b = dst
	r.Reuse(&r.memory.out, &r.memory.in)
	r.LookFor(r.prefix, domain)
	r.table, r.define = columns, define
	if columns != nil {
		r.columns = columns.rules
	}
	if err := r.frame(false); err != nil {
		return dst, explainFrame(err)
	}
	r.Mute(true)
	if end, err := r.End(); err != nil || !end {
		return dst, errors.Join(foreign("something follows the frame"), err)
	}
	if err := r.Flush(); err != nil {
		return dst, err
	}
	return r.memory.out.b, nil
}

// explainFrame keeps the sentinel of a frame apart from what is wrong.
func explainFrame(err error) error {
	if errors.Is(err, errForeignItem) {
		return ErrForeignItem
	}
	return explain(err)
}

// memory is where a frame comes from and goes to.
type memory struct {
	in  bytes.Reader
	out appender
}

// appender is a writer into a slice.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}
