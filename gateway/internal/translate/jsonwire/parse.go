package jsonwire

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// The bounds of a document from a client. No object that the API server accepts comes near them.
const (
	// MaxDepth is how deep arrays and objects may nest.
	MaxDepth = 200
	// MaxValues is how many values a document may hold; it bounds the memory of the tree.
	MaxValues = 400_000
)

// ErrTooLarge says that a document holds more values than anybody needs.
var ErrTooLarge = errors.New("the document has too many values")

// SyntaxError says where a document is not the JSON that the API server would read in only one way.
type SyntaxError struct {
	Offset  int
	Problem string
	// Repeated says that the problem is a key that stands twice in one object.
	Repeated bool
}

// Error gives the problem and the offset.
func (e *SyntaxError) Error() string { return fmt.Sprintf("%s at offset %d", e.Problem, e.Offset) }

// Parse reads exactly one document. It refuses what two parsers might read differently: repeated keys, invalid UTF-8, lone
// surrogates, raw control characters, a byte order mark, anything after the value. The tree refers to data.
func Parse(data []byte) (*Value, error) {
	p := parser{data: data}
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	p.space()
	if p.pos < len(p.data) {
		return nil, p.problem("something follows the document")
	}
	return v, nil
}

type parser struct {
	data  []byte
	pos   int
	count int
	slab  []Value
}

func (p *parser) problem(format string, args ...any) error {
	return &SyntaxError{Offset: p.pos, Problem: fmt.Sprintf(format, args...)}
}

func (p *parser) space() {
	for p.pos < len(p.data) {
		switch p.data[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

func (p *parser) next() byte {
	if p.pos < len(p.data) {
		return p.data[p.pos]
	}
	return 0
}

func (p *parser) alloc() (*Value, error) {
	if p.count++; p.count > MaxValues {
		return nil, ErrTooLarge
	}
	if len(p.slab) == 0 {
		p.slab = make([]Value, min(256, 16+p.count))
	}
	v := &p.slab[0]
	p.slab = p.slab[1:]
	return v, nil
}

func (p *parser) value(depth int) (*Value, error) {
	if depth > MaxDepth {
		return nil, p.problem("more than %d levels of nesting", MaxDepth)
	}
	p.space()
	if p.pos >= len(p.data) {
		return nil, p.problem("the document ends early")
	}
	v, err := p.alloc()
	if err != nil {
		return nil, err
	}
	switch c := p.data[p.pos]; {
	case c == '{':
		v.kind = Object
		return v, p.object(v, depth)
	case c == '[':
		v.kind = Array
		return v, p.array(v, depth)
	case c == '"':
		start := p.pos
		v.kind = String
		if v.text, err = p.str(); err != nil {
			return nil, err
		}
		v.raw = p.data[start:p.pos]
		return v, nil
	case c == '-' || c >= '0' && c <= '9':
		start := p.pos
		v.kind = Number
		if err := p.number(); err != nil {
			return nil, err
		}
		v.raw = p.data[start:p.pos]
		return v, nil
	}
	for _, lit := range []struct {
		text string
		kind Kind
	}{{"true", Bool}, {"false", Bool}, {"null", Null}} {
		if bytes.HasPrefix(p.data[p.pos:], []byte(lit.text)) {
			v.kind, v.raw = lit.kind, p.data[p.pos:p.pos+len(lit.text)]
			p.pos += len(lit.text)
			return v, nil
		}
	}
	return nil, p.problem("unexpected character %q", p.data[p.pos])
}

func (p *parser) array(v *Value, depth int) error {
	p.pos++
	p.space()
	if p.next() == ']' {
		p.pos++
		return nil
	}
	for {
		e, err := p.value(depth + 1)
		if err != nil {
			return err
		}
		v.elems = append(v.elems, e)
		p.space()
		switch p.next() {
		case ',':
			p.pos++
		case ']':
			p.pos++
			return nil
		default:
			return p.problem("want a comma or the end of an array")
		}
	}
}

func (p *parser) object(v *Value, depth int) error {
	p.pos++
	p.space()
	if p.next() == '}' {
		p.pos++
		return nil
	}
	var seen map[string]struct{}
	for {
		p.space()
		if p.next() != '"' {
			return p.problem("want a key")
		}
		key, err := p.str()
		if err != nil {
			return err
		}
		twice := false
		if len(v.members) < 16 {
			twice = v.Get(key) != nil
		} else {
			if seen == nil {
				seen = make(map[string]struct{}, 64)
				for i := range v.members {
					seen[v.members[i].Key] = struct{}{}
				}
			}
			_, twice = seen[key]
			seen[key] = struct{}{}
		}
		if twice {
			return &SyntaxError{Offset: p.pos, Problem: fmt.Sprintf("the key %q stands twice in one object", key), Repeated: true}
		}
		p.space()
		if p.next() != ':' {
			return p.problem("want a colon")
		}
		p.pos++
		e, err := p.value(depth + 1)
		if err != nil {
			return err
		}
		v.members = append(v.members, Member{key, e})
		p.space()
		switch p.next() {
		case ',':
			p.pos++
		case '}':
			p.pos++
			return nil
		default:
			return p.problem("want a comma or the end of an object")
		}
	}
}

func (p *parser) digits() bool {
	start := p.pos
	for c := p.next(); c >= '0' && c <= '9'; c = p.next() {
		p.pos++
	}
	return p.pos > start
}

func (p *parser) number() error {
	if p.next() == '-' {
		p.pos++
	}
	if p.next() == '0' {
		p.pos++
	} else if !p.digits() {
		return p.problem("want a digit")
	}
	if p.next() == '.' {
		p.pos++
		if !p.digits() {
			return p.problem("want a digit")
		}
	}
	if c := p.next(); c == 'e' || c == 'E' {
		p.pos++
		if c := p.next(); c == '+' || c == '-' {
			p.pos++
		}
		if !p.digits() {
			return p.problem("want a digit")
		}
	}
	return nil
}

// str reads a string from its opening quote.
func (p *parser) str() (string, error) {
	p.pos++
	start := p.pos
	for i := start; i < len(p.data); i++ {
		switch c := p.data[i]; {
		case c == '"':
			s := p.data[start:i]
			if !utf8.Valid(s) {
				return "", p.problem("invalid UTF-8 in a string")
			}
			p.pos = i + 1
			return string(s), nil
		case c == '\\':
			return p.escaped(start, i)
		case c < ' ':
			p.pos = i
			return "", p.problem("raw control character in a string")
		}
	}
	return "", p.problem("a string does not end")
}

// escaped reads the rest of a string whose first escape is at i.
func (p *parser) escaped(start, i int) (string, error) {
	if !utf8.Valid(p.data[start:i]) {
		return "", p.problem("invalid UTF-8 in a string")
	}
	out := append([]byte(nil), p.data[start:i]...)
	for p.pos = i; p.pos < len(p.data); {
		switch c := p.data[p.pos]; {
		case c == '"':
			p.pos++
			if !utf8.Valid(out) {
				return "", p.problem("invalid UTF-8 in a string")
			}
			return string(out), nil
		case c < ' ':
			return "", p.problem("raw control character in a string")
		case c != '\\':
			out = append(out, c)
			p.pos++
		default:
			p.pos++
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
		}
	}
	return "", p.problem("a string does not end")
}

// escape reads one escape after its backslash.
func (p *parser) escape() (rune, error) {
	c := p.next()
	p.pos++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		r, err := p.hex()
		if err != nil || !utf16.IsSurrogate(r) {
			return r, err
		}
		if p.next() != '\\' || p.pos+1 >= len(p.data) || p.data[p.pos+1] != 'u' {
			return 0, p.problem("lone surrogate in a string")
		}
		p.pos += 2
		low, err := p.hex()
		if err != nil {
			return 0, err
		}
		full := utf16.DecodeRune(r, low)
		if full == utf8.RuneError {
			return 0, p.problem("lone surrogate in a string")
		}
		return full, nil
	}
	return 0, p.problem("unknown escape in a string")
}

func (p *parser) hex() (rune, error) {
	if p.pos+4 > len(p.data) {
		return 0, p.problem("a string does not end")
	}
	n, err := strconv.ParseUint(string(p.data[p.pos:p.pos+4]), 16, 16)
	if err != nil {
		return 0, p.problem("want four hexadecimal digits")
	}
	p.pos += 4
	return rune(n), nil
}

// Unquote gives the content of a JSON string that a trusted encoder wrote, quotes included.
func Unquote(raw []byte) (string, error) {
	p := parser{data: raw}
	if p.next() != '"' {
		return "", p.problem("want a string")
	}
	s, err := p.str()
	if err == nil && p.pos != len(raw) {
		err = p.problem("something follows the string")
	}
	return s, err
}
