//go:build !amd64

package jsonwire

const hasMarks = false

func classify(src []byte, blocks []block, _ *patterns) { classifyWords(src, blocks) }
