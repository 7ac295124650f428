package stream

import (
	"io"
)

// chunk is what is read of a log at once. It is held for as long as the log is read, so it is small.
const chunk = 4 << 10

// CopyFlushing copies text as it comes, flushing what was read at once.
func CopyFlushing(dst io.Writer, flush func() error, src io.Reader) error {
	buf := make([]byte, chunk)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
			if err := flush(); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
