package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func attributes(spec Spec) (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Setsid: true}
	if !spec.Detached {
		attr.Pdeathsig = syscall.SIGKILL
	}
	if spec.Namespaces {
		attr.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
	}
	return attr, nil
}

// look gives the start time of a process in ticks since the boot, together with the boot, and whether it is more than a
// zombie. It is an error when there is no such process.
func look(pid int) (started string, running bool, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", false, err
	}
	// The second field is the program's name in parentheses and may contain both spaces and parentheses.
	_, rest, ok := strings.Cut(string(raw[bytes.LastIndexByte(raw, ')')+1:]), " ")
	fields := strings.Fields(rest)
	const state, startTime = 0, 22 - 3 // counted from the third field
	if !ok || len(fields) <= startTime {
		return "", false, fmt.Errorf("process %d: unexpected status", pid)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", false, err
	}
	return fields[startTime] + "@" + string(bytes.TrimSpace(boot)), !strings.Contains("ZX", fields[state]), nil
}

// marked lists the processes whose environment holds mark. Those of other users stay unseen, and are not ours.
func marked(mark string) []int {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	var pids []int
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil || !slices.Contains(strings.Split(string(raw), "\x00"), mark) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
