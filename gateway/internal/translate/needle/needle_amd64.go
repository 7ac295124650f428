package needle

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// step is how many positions are looked at together.
const step = 32

// scanned gives the number of positions from the start at which neither string begins. The rest is for the caller.
func scanned(p *Pair, text []byte) int {
	// All loads must stay in the text.
	count := (len(text) - int(max(p.length[0], p.length[1]))) / step
	if count <= 0 || !cpu.X86.HasAVX2 {
		return 0
	}
	return scanAVX2(p, unsafe.SliceData(text), count) * step
}

// scanAVX2 gives the number of steps before the first with a candidate.
//
//go:noescape
func scanAVX2(p *Pair, text *byte, count int) int
