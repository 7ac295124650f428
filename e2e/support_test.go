package e2e

import (
	"bytes"
	"errors"
	"os/exec"
	"sync"
)

// lockedBuffer collects what a running command writes while the test reads it.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func asExit(err error, exit **exec.ExitError) bool { return errors.As(err, exit) }
