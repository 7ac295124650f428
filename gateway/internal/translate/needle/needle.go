// Package needle finds out that neither of two byte strings is in a text. Nearly always they are not, so it looks for
// three bytes of each at once, many positions at a time, and only then for the whole.
//
// The package must never say that a text is free of a string that is in it. Start at [Pair].
package needle

import "bytes"

// Pair are two byte strings of at least two and at most 32 bytes.
type Pair struct {
	bytes  [2][4]byte // the first two bytes and the last
	length [2]uint64
	text   [2][]byte
}

// Set makes the pair look for two byte strings, which it keeps.
func (p *Pair) Set(first, second []byte) {
	for i, text := range [...][]byte{first, second} {
		p.bytes[i] = [4]byte{text[0], text[1], text[len(text)-1]}
		p.length[i] = uint64(len(text) - 1)
		p.text[i] = text
	}
}

// In reports whether either string is in the text.
func (p *Pair) In(text []byte) bool {
	if n := scanned(p, text); n > 0 {
		// The end, with as much before it as a string could reach back.
		back := int(max(p.length[0], p.length[1]))
		text = text[max(n-back, 0):]
	}
	return bytes.Contains(text, p.text[0]) || bytes.Contains(text, p.text[1])
}
