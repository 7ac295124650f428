package jsonwire

import (
	"encoding/binary"
	"math/bits"
)

// Walking JSON byte by byte is slow because its strings are short and of unforeseeable lengths: every quote is a branch
// that the processor guesses wrong. So each buffer is first indexed, 64 bytes at a time and without a branch: where the
// quotes are, and which brackets stand outside strings. The walk then jumps from bit to bit, and passes what nobody asks
// about at 64 bytes a step.

// blockSize is how many bytes one block of the index describes.
const blockSize = 64

// block is the index of 64 bytes, the lowest bit for the first.
type block struct {
	quotes  uint64 // quotes that begin or end a string
	opens   uint64 // opening brackets outside strings
	closes  uint64 // closing brackets outside strings
	escapes uint64 // backslashes
	// marks are where the first two and the last byte of a pattern stand, at the last. Only meaningful with hasMarks.
	marks [2]uint64
}

// patterns are the byte strings whose absence lets a value pass unseen, in the form in which classify looks for them.
type patterns struct {
	back  [2]uint64 // length-1
	bytes [2][4]byte
	text  [2][]byte
}

func (p *patterns) set(i int, text []byte) {
	p.text[i] = text
	p.back[i] = uint64(len(text) - 1)
	p.bytes[i] = [4]byte{text[0], text[1], text[len(text)-1]}
}

// carry is what the index of one block must know of those before.
type carry struct {
	inString uint64 // all ones within a string
	escaped  uint64 // 1 if the next byte is escaped
}

// resolve makes an index of what classify found.
func (c *carry) resolve(blocks []block) {
	in := c.inString
	for i := range blocks {
		b := &blocks[i]
		q := b.quotes
		if b.escapes|c.escaped != 0 {
			q &^= c.escape(b.escapes)
			b.quotes = q
		}
		s := q
		s ^= s << 1
		s ^= s << 2
		s ^= s << 4
		s ^= s << 8
		s ^= s << 16
		s ^= s << 32
		s ^= in
		in = uint64(int64(s) >> 63)
		b.opens &^= s
		b.closes &^= s
	}
	c.inString = in
}

// escape finds the bytes that backslashes escape: those behind an odd number of them.
func (c *carry) escape(backslashes uint64) uint64 {
	const even = 0x5555555555555555
	backslashes &^= c.escaped
	follows := backslashes<<1 | c.escaped
	odd := backslashes &^ even &^ follows
	sum, over := bits.Add64(odd, backslashes, 0)
	c.escaped = over
	return (even ^ sum<<1) & follows
}

const (
	lowBits  = 0x0101010101010101
	lowSeven = 0x7f7f7f7f7f7f7f7f
	// gather moves the highest bits of eight bytes into one.
	gather = 0x0002040810204081
	// lower makes '[' and ']' of the same table row as '{' and '}'.
	lower = lowBits * 0x20
)

// classifyWords is classify for processors of which nothing is known. It does not look for patterns.
func classifyWords(src []byte, blocks []block) {
	for i := range blocks {
		var b block
		src := src[i*blockSize:][:blockSize]
		for j := 0; j < blockSize; j += 8 {
			w := binary.LittleEndian.Uint64(src[j:])
			b.quotes |= equal(w, lowBits*'"') << j
			b.escapes |= equal(w, lowBits*'\\') << j
			b.opens |= equal(w|lower, lowBits*'{') << j
			b.closes |= equal(w|lower, lowBits*'}') << j
		}
		blocks[i] = b
	}
}

// equal tells in eight bits which bytes of a word are those of a pattern.
func equal(w, pattern uint64) uint64 {
	x := w ^ pattern
	return ^(((x & lowSeven) + lowSeven) | x | lowSeven) * gather >> 56
}
