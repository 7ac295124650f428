//go:build !amd64

package needle

func scan(*Pair, []byte) (free int, more bool) { return 0, false }
