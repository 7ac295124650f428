package needle

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// step is how many positions are looked at together.
const step = 64

// scan gives the number of positions from the start at which neither string begins, and whether it can look at more than
// these.
func scan(p *Pair, text []byte) (free int, more bool) {
	count := (len(text) + step - 1) / step
	// All loads must stay in the array.
	room := (cap(text) - p.back) / step
	if !cpu.X86.HasAVX2 || room <= 0 {
		return 0, false
	}
	free = scanAVX2(p, unsafe.SliceData(text), min(count, room))
	return free, free < room*step
}

// scanAVX2 gives the first position at which either string may begin, or count steps.
//
//go:noescape
func scanAVX2(p *Pair, text *byte, count int) int
