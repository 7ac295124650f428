package jsonwire

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// hasMarks says that classify looks for patterns.
var hasMarks = cpu.X86.HasAVX2

// classify says of each byte whether it is a quote, a backslash, a bracket or the end of what may be a pattern. src holds
// whole blocks and has at least a block of memory before it.
func classify(src []byte, blocks []block, p *patterns) {
	if len(blocks) == 0 {
		return
	}
	if !hasMarks {
		classifyWords(src, blocks)
		return
	}
	_ = src[len(blocks)*blockSize-1]
	classifyAVX2(unsafe.SliceData(src), len(blocks), unsafe.SliceData(blocks), p)
}

//go:noescape
func classifyAVX2(src *byte, count int, blocks *block, p *patterns)
