//go:build unix && !linux

package process

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

func attributes(spec Spec) (*syscall.SysProcAttr, error) {
	if spec.Namespaces {
		return nil, errors.New("namespaces exist on Linux only")
	}
	return &syscall.SysProcAttr{Setsid: true}, nil
}

// look gives the start time of a process as ps prints it, and whether it is more than a zombie. It is an error when there
// is no such process.
func look(pid int) (started string, running bool, err error) {
	out, err := exec.Command("ps", "-o", "stat=,lstart=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return "", false, fmt.Errorf("process %d: %w", pid, err)
	}
	state, started, ok := strings.Cut(strings.TrimSpace(string(out)), " ")
	if !ok {
		return "", false, fmt.Errorf("process %d: unexpected status %q", pid, out)
	}
	return strings.TrimSpace(started), !strings.HasPrefix(state, "Z"), nil
}

func marked(string) []int { return nil }
