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
	src io.Reader
	dst io.Writer
	// buf is whole blocks, the first of them before all that is read: patterns are looked for backwards.
	buf      []byte
	pos, end int
	// index describes buf: up to indexed for good, behind it as far as end.
	index    []block
	indexed  int
	carry    carry // at indexed
	patterns patterns
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
	size = max(size/blockSize, 1) * blockSize
	s := &Scanner{buf: make([]byte, blockSize+size), index: make([]block, 1+size/blockSize)}
	s.Reuse(dst, src)
	return s
}

// Mark is one of the two byte strings that a scanner looks for while it reads.
type Mark int

// The marks.
const (
	First Mark = iota
	Second
)

// LookFor says which byte strings are looked for from here on: two bytes at least, a block at most. It must be called
// before anything is read.
func (s *Scanner) LookFor(first, second []byte) {
	s.patterns.set(int(First), first)
	s.patterns.set(int(Second), second)
}

// Reuse makes the scanner as good as new for another document, keeping its buffers if they are of an ordinary size. Nothing
// of the old document remains readable through it.
func (s *Scanner) Reuse(dst io.Writer, src io.Reader) {
	buf, index, out := s.buf, s.index, s.out[:0]
	if len(buf) > keepSize {
		buf, index = make([]byte, keepSize), make([]block, keepSize/blockSize)
	}
	if cap(out) > 2*flushSize {
		out = nil
	}
	*s = Scanner{src: src, dst: dst, buf: buf, index: index, out: out, pos: blockSize, end: blockSize, from: blockSize, indexed: blockSize}
}

// Eager makes the scanner write all output before it waits for more input, unless it is held.
func (s *Scanner) Eager() { s.eager = true }

// Reset points the scanner at another source and keeps what it is about to write. The old source's rest is forgotten.
func (s *Scanner) Reset(src io.Reader) {
	s.src, s.eof, s.pinned, s.depth = src, false, false, 0
	s.pos, s.end, s.from, s.indexed, s.carry = blockSize, blockSize, blockSize, blockSize, carry{}
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
	// Blocks move as a whole, and one of them stays before what is kept.
	if past := s.from/blockSize - 1; past > 0 {
		copy(s.buf, s.buf[past*blockSize:s.end])
		copy(s.index, s.index[past:(s.end+blockSize-1)/blockSize])
		s.pos, s.end, s.from, s.indexed = s.pos-past*blockSize, s.end-past*blockSize, s.from-past*blockSize, s.indexed-past*blockSize
	}
	if s.end == len(s.buf) {
		if len(s.buf) >= maxCapture {
			return fmt.Errorf("%w: one value of more than %d bytes", ErrMalformed, maxCapture)
		}
		grown, index := make([]byte, 2*len(s.buf)), make([]block, 2*len(s.index))
		copy(grown, s.buf[:s.end])
		copy(index, s.index)
		s.buf, s.index = grown, index
	}
	if s.eager && s.holds == 0 {
		if err := s.Flush(); err != nil {
			return err
		}
	}
	for range 100 {
		n, err := s.src.Read(s.buf[s.end:])
		if n > 0 {
			s.end += n
			s.extend()
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

// extend indexes what has been read.
func (s *Scanner) extend() {
	first, last := s.indexed/blockSize, s.end/blockSize
	classify(s.buf[s.indexed:], s.index[first:last], &s.patterns)
	s.carry.resolve(s.index[first:last])
	s.indexed = last * blockSize
	if rest := s.end - s.indexed; rest > 0 {
		// The block is not whole yet: what stands behind the end is of no account, and it will be indexed again.
		classify(s.buf[s.indexed:], s.index[last:last+1], &s.patterns)
		carry := s.carry
		carry.resolve(s.index[last : last+1])
		b, here := &s.index[last], uint64(1)<<rest-1
		b.quotes, b.opens, b.closes = b.quotes&here, b.opens&here, b.closes&here
	}
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
	if i < len(b) {
		switch {
		case b[i] == '}':
			s.pos++
			s.depth--
			return nil, false, nil
		case !first && b[i] == ',':
			i++
			first = true
		}
	}
	if first && i+1 < len(b) && b[i] == '"' {
		i++
		if n := s.nextQuote(i); n >= 0 && n+1 < len(b) && b[n+1] == ':' {
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
	if n := s.nextQuote(s.pos + 1); n >= 0 && n+1 < s.end && s.buf[n+1] == ':' {
		key := s.buf[s.pos+1 : n]
		s.pos = n + 2
		return key, nil
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

// nextQuote finds the first quote at i or behind it, -1 if it has not been read yet.
func (s *Scanner) nextQuote(i int) int {
	if i >= s.end {
		return -1
	}
	w := i / blockSize
	if m := s.index[w].quotes >> (i % blockSize); m != 0 {
		return i + bits.TrailingZeros64(m)
	}
	for w++; w*blockSize < s.end; w++ {
		if m := s.index[w].quotes; m != 0 {
			return w*blockSize + bits.TrailingZeros64(m)
		}
	}
	return -1
}

// skipString passes the rest of a string after its opening quote.
func (s *Scanner) skipString() error {
	for {
		if n := s.nextQuote(s.pos); n >= 0 {
			s.pos = n + 1
			return nil
		}
		s.pos = s.end
		if err := s.fill(); err != nil {
			return err
		}
	}
}

const (
	highBits  = 0x8080808080808080
	quotes    = lowBits * '"'
	backslash = lowBits * '\\'
)

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
		var end int
		if end, depth = s.close(s.pos, depth); end >= 0 {
			s.pos = end
			return nil
		}
		s.pos = s.end
		if err := s.fill(); err != nil {
			return err
		}
	}
}

// close finds what follows the bracket that closes depth levels from i on: -1 and the levels that are left if it has not
// been read yet.
func (s *Scanner) close(i, depth int) (int, int) {
	if i >= s.end {
		return -1, depth
	}
	w := i / blockSize
	before := uint64(1)<<(i%blockSize) - 1
	opens, closes := s.index[w].opens&^before, s.index[w].closes&^before
	for {
		// As long as there are more levels than closing brackets in the block, their order does not matter.
		if n := bits.OnesCount64(closes); n < depth {
			depth += bits.OnesCount64(opens) - n
		} else {
			for ; closes != 0; closes &= closes - 1 {
				at := closes & -closes
				if level := depth + bits.OnesCount64(opens&(at-1)) - 1; level <= 0 {
					return w*blockSize + bits.TrailingZeros64(closes) + 1, 0
				} else {
					depth--
				}
			}
			depth += bits.OnesCount64(opens)
		}
		if w++; w*blockSize >= s.end {
			return -1, depth
		}
		opens, closes = s.index[w].opens, s.index[w].closes
	}
}

// SkipWithout passes the next value if all of it has been read and it holds none of the marks. False says nothing: the
// value may be free of them and only too long.
func (s *Scanner) SkipWithout(marks ...Mark) bool {
	if s.pos >= s.end {
		return false
	}
	end := -1
	switch s.buf[s.pos] {
	case '{', '[':
		end, _ = s.close(s.pos, 0)
	case '"':
		if end = s.nextQuote(s.pos + 1); end >= 0 {
			end++
		}
	}
	if end < 0 {
		return false
	}
	for _, m := range marks {
		if s.marked(m, s.pos, end) {
			return false
		}
	}
	s.pos = end
	return true
}

// marked reports whether a mark stands between two points of the buffer.
func (s *Scanner) marked(m Mark, from, to int) bool {
	text := s.patterns.text[m]
	if len(text) == 0 {
		return true
	}
	if !hasMarks {
		return bytes.Contains(s.buf[from:to], text)
	}
	for w := from / blockSize; w*blockSize < to; w++ {
		for ends := s.index[w].marks[m]; ends != 0; ends &= ends - 1 {
			end := w*blockSize + bits.TrailingZeros64(ends) + 1
			if end-len(text) >= from && end <= to && bytes.Equal(s.buf[end-len(text):end], text) {
				return true
			}
		}
	}
	return false
}
