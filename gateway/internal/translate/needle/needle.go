// Package needle finds out that neither of two byte strings is in a text. Nearly always they are not, so it looks for
// two bytes of each, many positions at a time, and only where both stand for the whole.
//
// The package must never say that a text is free of a string that is in it. Start at [Pair].
package needle

import (
	"bytes"
	"strings"
)

// Pair are two byte strings of at least two and at most 32 bytes.
type Pair struct {
	marks [4]byte // two bytes of the first string, two of the second
	at    [4]uint64
	least int // how long the shorter string is
	back  int // how far the longer one reaches behind its first byte
	text  [2][]byte
}

// Set makes the pair look for two byte strings, which it keeps.
func (p *Pair) Set(first, second []byte) {
	p.least, p.back = min(len(first), len(second)), max(len(first), len(second))-1
	for i, text := range [...][]byte{first, second} {
		a, b := rarest(text)
		p.marks[2*i], p.marks[2*i+1] = text[a], text[b]
		p.at[2*i], p.at[2*i+1] = uint64(a), uint64(b)
		p.text[i] = text
	}
}

// common are the bytes of objects of the API, from the commonest on, as far as names can have them. The rest is rare.
const common = "etaion:srdlcpfumghyb.-kvw013245/6789xzjq"

// rank is how rare a byte is.
func rank(c byte) int {
	if n := strings.IndexByte(common, c); n >= 0 {
		return n
	}
	return len(common)
}

// rarest gives the places of the rarest byte and of the last one; they differ.
func rarest(text []byte) (a, b int) {
	b = len(text) - 1
	for i := range b {
		if rank(text[i]) > rank(text[a]) {
			a = i
		}
	}
	return a, b
}

// In reports whether either string is in the text. It may look at what stands behind the text in the array that it was cut
// from, and makes nothing of it.
func (p *Pair) In(text []byte) bool {
	for from := 0; from+p.least <= len(text); from++ {
		free, more := scan(p, text[from:])
		if from += free; from+p.least > len(text) {
			return false
		}
		if !more {
			return p.among(text[from:])
		}
		if rest := text[from:]; bytes.HasPrefix(rest, p.text[0]) || bytes.HasPrefix(rest, p.text[1]) {
			return true
		}
	}
	return false
}

// among is In, one string after the other.
func (p *Pair) among(text []byte) bool {
	return bytes.Contains(text, p.text[0]) || bytes.Contains(text, p.text[1])
}
