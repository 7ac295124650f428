package jsonwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

const (
	// flushSize is how much output is gathered before it is written: each write downstream costs a frame, a TLS record and
	// a wake-up.
	flushSize = 64 << 10
	// keepSize is how much of a grown buffer is used again.
	keepSize = 64 << 10
	// maxCapture bounds a single value that a caller looks at as a whole.
	maxCapture = 32 << 20
)

// ErrMalformed says that a trusted encoder did not write JSON.
var ErrMalformed = errors.New("malformed JSON")

// Scanner reads JSON from a trusted encoder and passes on what it reads, save for what [Scanner.Capture] takes out and
// everything read while muted. Methods that return slices return parts of the buffer, valid until the next method is
// called.
type Scanner struct {
	src      io.Reader
	dst      io.Writer
	buf      []byte
	pos, end int
	from     int  // buf[from:pos] is read and not settled
	pinned   bool // those bytes must stay together in the buffer
	eof      bool
	out      []byte
	holds    int
	muted    bool
	eager    bool
	depth    int // brackets that Enter opened and Next has not closed
}

// NewScanner makes a scanner that starts with a buffer of the given size.
func NewScanner(dst io.Writer, src io.Reader, size int) *Scanner {
	return &Scanner{src: src, dst: dst, buf: make([]byte, size)}
}

// Reuse makes the scanner as good as new for another document, keeping its buffers if they are of an ordinary size. Nothing
// of the old document remains readable through it.
func (s *Scanner) Reuse(dst io.Writer, src io.Reader) {
	buf, out := s.buf, s.out[:0]
	if len(buf) > keepSize {
		buf = buf[:keepSize]
	}
	if cap(out) > 2*flushSize {
		out = nil
	}
	*s = Scanner{src: src, dst: dst, buf: buf, out: out}
}

// Eager makes the scanner write all output before it waits for more input, unless it is held.
func (s *Scanner) Eager() { s.eager = true }

// Reset points the scanner at another source and keeps what it is about to write. The old source's rest is forgotten.
func (s *Scanner) Reset(src io.Reader) {
	s.src, s.pos, s.end, s.from, s.eof, s.pinned, s.depth = src, 0, 0, 0, false, false, 0
}

// settle makes pending bytes output, or forgets them if muted.
func (s *Scanner) settle() {
	if s.from < s.pos && !s.muted {
		s.out = append(s.out, s.buf[s.from:s.pos]...)
	}
	s.from = s.pos
}

// Cut gathers what has been read for the output and writes it once there is enough.
func (s *Scanner) Cut() error {
	s.settle()
	if len(s.out) >= flushSize && s.holds == 0 {
		return s.Flush()
	}
	return nil
}

// Mute decides whether what is read from here on is passed on. Emit writes in any case.
func (s *Scanner) Mute(muted bool) {
	s.settle()
	s.muted = muted
}

// Emit writes b behind what has been read.
func (s *Scanner) Emit(b []byte) error {
	s.settle()
	s.out = append(s.out, b...)
	return s.Cut()
}

// Hold keeps output back until [Scanner.Release], so that [Scanner.Rollback] can take it back, and returns the point to
// roll back to.
func (s *Scanner) Hold() (int, error) {
	err := s.Cut()
	s.holds++
	return len(s.out), err
}

// Release ends a Hold.
func (s *Scanner) Release() { s.holds-- }

// Rollback takes back what was read and written since a Hold.
func (s *Scanner) Rollback(point int) {
	s.settle()
	s.out = s.out[:point]
}

// Flush writes all output.
func (s *Scanner) Flush() error {
	if len(s.out) == 0 {
		return nil
	}
	_, err := s.dst.Write(s.out)
	s.out = s.out[:0]
	return err
}

// fill reads more. At the end of the source it fails with io.ErrUnexpectedEOF: whoever may stop there checks first.
func (s *Scanner) fill() error {
	if s.eof {
		return io.ErrUnexpectedEOF
	}
	if !s.pinned {
		if err := s.Cut(); err != nil {
			return err
		}
	}
	if s.from > 0 {
		copy(s.buf, s.buf[s.from:s.end])
		s.pos, s.end, s.from = s.pos-s.from, s.end-s.from, 0
	}
	if s.end == len(s.buf) {
		if len(s.buf) >= maxCapture {
			return fmt.Errorf("%w: one value of more than %d bytes", ErrMalformed, maxCapture)
		}
		grown := make([]byte, 2*len(s.buf))
		copy(grown, s.buf[:s.end])
		s.buf = grown
	}
	if s.eager && s.holds == 0 {
		if err := s.Flush(); err != nil {
			return err
		}
	}
	for range 100 {
		n, err := s.src.Read(s.buf[s.end:])
		s.end += n
		if n > 0 {
			if errors.Is(err, io.EOF) {
				s.eof = true
				return nil
			}
			return err
		}
		if errors.Is(err, io.EOF) {
			s.eof = true
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// Peek gives the first byte of the next token and stays before it.
func (s *Scanner) Peek() (byte, error) {
	for {
		for s.pos < s.end {
			c := s.buf[s.pos]
			if c > ' ' {
				return c, nil
			}
			s.pos++
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
}

// End skips white space and reports whether the source ended there.
func (s *Scanner) End() (bool, error) {
	_, err := s.Peek()
	if errors.Is(err, io.ErrUnexpectedEOF) && s.eof {
		return true, nil
	}
	return false, err
}

// Enter passes the opening bracket that Peek has shown.
func (s *Scanner) Enter() {
	s.pos++
	s.depth++
}

// Depth is how many brackets have been entered and not left.
func (s *Scanner) Depth() int { return s.depth }

// Unwind leaves brackets until only depth are left, passing what is in them. The scanner must stand behind a value.
func (s *Scanner) Unwind(depth int) error {
	if s.depth <= depth {
		return nil
	}
	levels := s.depth - depth
	s.depth = depth
	return s.skipLevels(levels)
}

// Next steps to the next member or element: false, and past the closing bracket, if there is none. first says that it is
// the first of its object or array.
func (s *Scanner) Next(first bool) (bool, error) {
	c, err := s.Peek()
	if err != nil {
		return false, err
	}
	switch {
	case c == '}' || c == ']':
		s.pos++
		s.depth--
		return false, nil
	case first:
		return true, nil
	case c != ',':
		return false, fmt.Errorf("%w: %q where a comma was due", ErrMalformed, c)
	}
	s.pos++
	return true, nil
}

// NextKey steps to the next member of an object and reads its key as Key does; false, and past the closing bracket, if
// there is none.
func (s *Scanner) NextKey(first bool) ([]byte, bool, error) {
	// The shape that every encoder writes, without the steps in between: comma, quote, key, quote, colon.
	b, i := s.buf[:s.end], s.pos
	if !first && i < len(b) && b[i] == ',' {
		i++
		first = true
	}
	if first && i < len(b) && b[i] == '"' {
		i++
		n := i + StringEnd(b[i:])
		if n+1 < len(b) && b[n] == '"' && b[n+1] == ':' {
			s.pos = n + 2
			return b[i:n], true, nil
		}
	}
	if s.pos < i && b[s.pos] == ',' {
		s.pos++
	}
	return s.slowNextKey(first)
}

func (s *Scanner) slowNextKey(first bool) ([]byte, bool, error) {
	ok, err := s.Next(first)
	if err != nil || !ok {
		return nil, false, err
	}
	key, err := s.Key()
	return key, err == nil, err
}

// Key reads a member's key, without quotes and as it is spelt, and passes the colon.
func (s *Scanner) Key() ([]byte, error) {
	c, err := s.Peek()
	if err != nil {
		return nil, err
	}
	if c != '"' {
		return nil, fmt.Errorf("%w: %q where a key was due", ErrMalformed, c)
	}
	if b := s.buf[s.pos+1 : s.end]; len(b) > 0 {
		if n := bytes.IndexByte(b[:min(len(b), 64)], '"'); n >= 0 && n+1 < len(b) && b[n+1] == ':' && (n == 0 || b[n-1] != '\\') {
			s.pos += n + 3
			return b[:n], nil
		}
	}
	return s.slowKey()
}

// slowKey reads a key that lies across the end of the buffer, is long, or is followed by white space.
func (s *Scanner) slowKey() ([]byte, error) {
	if err := s.Cut(); err != nil {
		return nil, err
	}
	s.pinned = true
	defer func() { s.pinned = false }()
	start := s.pos - s.from
	s.pos++
	if err := s.skipString(); err != nil {
		return nil, err
	}
	length := s.pos - s.from - start
	c, err := s.Peek()
	if err != nil {
		return nil, err
	}
	if c != ':' {
		return nil, fmt.Errorf("%w: %q where a colon was due", ErrMalformed, c)
	}
	s.pos++
	return s.buf[s.from+start+1 : s.from+start+length-1], nil
}

// Skip passes one value of any kind.
func (s *Scanner) Skip() error {
	c, err := s.Peek()
	if err != nil {
		return err
	}
	switch c {
	case '"':
		s.pos++
		return s.skipString()
	case '{', '[':
		return s.skipLevels(0)
	case '}', ']', ',', ':':
		return fmt.Errorf("%w: %q where a value was due", ErrMalformed, c)
	}
	return s.skipScalar()
}

// Capture takes the next value out of the stream and gives its source text.
func (s *Scanner) Capture() ([]byte, error) {
	if _, err := s.Peek(); err != nil {
		return nil, err
	}
	if err := s.Cut(); err != nil {
		return nil, err
	}
	s.pinned = true
	err := s.Skip()
	s.pinned = false
	if err != nil {
		return nil, err
	}
	raw := s.buf[s.from:s.pos]
	s.from = s.pos
	return raw, nil
}

// skipScalar passes a number or literal. One at the very end of the source is cut off for all that can be known.
func (s *Scanner) skipScalar() error {
	for {
		for s.pos < s.end {
			switch s.buf[s.pos] {
			case ',', '}', ']', ' ', '\t', '\n', '\r':
				return nil
			}
			s.pos++
		}
		if err := s.fill(); err != nil {
			return err
		}
	}
}

const (
	lowBits   = 0x0101010101010101
	highBits  = 0x8080808080808080
	quotes    = lowBits * '"'
	backslash = lowBits * '\\'
)

// skipString passes the rest of a string after its opening quote, eight bytes at a time: strings are short, so a call per
// string to find the quote would cost as much as the loop.
func (s *Scanner) skipString() error {
	for {
		i := StringEnd(s.buf[s.pos:s.end])
		s.pos += i
		if s.pos < s.end {
			if s.buf[s.pos] == '"' {
				s.pos++
				return nil
			}
			if s.end-s.pos >= 2 {
				s.pos += 2
				continue
			}
		}
		if err := s.fill(); err != nil {
			return err
		}
	}
}

// StringEnd finds the first quote or backslash, len(b) if there is none.
func StringEnd(b []byte) int {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		q, e := w^quotes, w^backslash
		if m := ((q - lowBits) &^ q & highBits) | ((e - lowBits) &^ e & highBits); m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
	}
	for ; i < len(b); i++ {
		if b[i] == '"' || b[i] == '\\' {
			return i
		}
	}
	return i
}

// skipLevels passes everything up to the closing bracket that leaves no level open; with none open it starts at an
// opening one. It counts brackets and does not tell their kinds apart.
func (s *Scanner) skipLevels(depth int) error {
	for {
		b := s.buf[s.pos:s.end]
		i := 0
		for i < len(b) {
			switch b[i] {
			case '"':
				j := i + 1
				if j+8 <= len(b) {
					// Most strings end within a word.
					w := binary.LittleEndian.Uint64(b[j:])
					q, e := w^quotes, w^backslash
					if m := ((q - lowBits) &^ q & highBits) | ((e - lowBits) &^ e & highBits); m != 0 {
						j += bits.TrailingZeros64(m) >> 3
					} else {
						j += 8 + StringEnd(b[j+8:])
					}
				} else {
					j += StringEnd(b[j:])
				}
				if j < len(b) && b[j] == '"' {
					i = j + 1
					continue
				}
				s.pos += i + 1
				if err := s.skipString(); err != nil {
					return err
				}
				b, i = s.buf[s.pos:s.end], 0
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					s.pos += i + 1
					return nil
				}
			}
			i++
		}
		s.pos = s.end
		if err := s.fill(); err != nil {
			return err
		}
	}
}
