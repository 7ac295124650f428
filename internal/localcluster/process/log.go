package process

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// LogTail gives the end of the process's log, for messages about its failure.
func (p *Process) LogTail() string { return LogTail(p.log) }

// LogTail gives the end of a log.
func LogTail(path string) string {
	const size, lines = 8 << 10, 12
	f, err := os.Open(path)
	if err != nil {
		return fmt.Sprintf("(no log: %v)", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > size {
		_, _ = f.Seek(-size, io.SeekEnd)
	}
	raw, err := io.ReadAll(f)
	if err != nil {
		return fmt.Sprintf("(log %s: %v)", path, err)
	}
	all := bytes.Split(bytes.TrimSpace(raw), []byte("\n"))
	tail := bytes.Join(all[max(0, len(all)-lines):], []byte("\n  "))
	return fmt.Sprintf("%s ends with:\n  %s", path, tail)
}
