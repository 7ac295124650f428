package node

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
)

// Unpack gives the content of what may be packed with gzip, as archives of images often are.
func Unpack(r io.Reader) (io.Reader, error) {
	buffered := bufio.NewReader(r)
	// Too short a file is not packed; whoever reads it finds out.
	if start, err := buffered.Peek(2); err != nil || !bytes.Equal(start, []byte{0x1f, 0x8b}) {
		return buffered, nil
	}
	return gzip.NewReader(buffered)
}
