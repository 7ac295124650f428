package kubetest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Linux process reads the time from code and data that the kernel maps into it, the vDSO; time namespaces know no wall
// clocks, and programs in Go call no library that could be put in between. So the code itself is replaced, in the one
// process that is meant: it asks the kernel and adds a number of seconds to the wall clock. Clocks that only count stay, as
// they do when a machine's time is put right.
var (
	shiftedClock = []byte{
		0xb8, 0xe4, 0x00, 0x00, 0x00, // mov  $228,%eax       clock_gettime
		0x0f, 0x05, //                   syscall
		0x85, 0xff, //                   test %edi,%edi       CLOCK_REALTIME?
		0x75, 0x0e, //                   jne  done
		0x85, 0xc0, //                   test %eax,%eax       no error?
		0x75, 0x0a, //                   jne  done
		0x48, 0x8b, 0x0d, 0x0a, 0, 0, 0, // mov  shift(%rip),%rcx
		0x48, 0x01, 0x0e, //             add  %rcx,(%rsi)
		0xc3,                               // done: ret
		0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, // up to shift, eight bytes
	}
	clockSymbol = "__vdso_clock_gettime"
)

// ShiftClock has a running process believe that it is earlier or later than it is, in whole seconds; zero puts its clock
// right. It fails with [ErrOneClock] where that cannot be done.
func ShiftClock(pid int, by time.Duration) error {
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", ErrOneClock, err)
	}
	if err != nil {
		return fmt.Errorf("shift a clock: %w", err)
	}
	defer memory.Close()
	begin, end, err := findClock(pid, memory)
	if err != nil {
		return err
	}
	code := make([]byte, len(shiftedClock))
	if _, err := memory.ReadAt(code, int64(begin)); err != nil { //nolint:gosec // an address
		return fmt.Errorf("%w: %w", ErrOneClock, err)
	}
	shift := binary.LittleEndian.AppendUint64(nil, uint64(int64(by/time.Second))) //nolint:gosec // two's complement
	if bytes.Equal(code, shiftedClock) {
		begin += uint64(len(shiftedClock))
	} else {
		shift = append(bytes.Clone(shiftedClock), shift...)
	}
	return stopped(pid, begin, end, func() error {
		if _, err := memory.WriteAt(shift, int64(begin)); err != nil { //nolint:gosec // an address
			return fmt.Errorf("%w: %w", ErrOneClock, err)
		}
		return nil
	})
}

// findClock gives where a process has the code that tells the time.
func findClock(pid int, memory *os.File) (begin, end uint64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("shift a clock: %w", err)
	}
	var from, to uint64
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			_, err = fmt.Sscanf(line, "%x-%x", &from, &to)
		}
	}
	if err != nil || from == 0 {
		return 0, 0, fmt.Errorf("%w: process %d has no vDSO", ErrOneClock, pid)
	}
	image := make([]byte, to-from)
	if _, err := memory.ReadAt(image, int64(from)); err != nil { //nolint:gosec // an address
		return 0, 0, fmt.Errorf("%w: %w", ErrOneClock, err)
	}
	library, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %w", ErrOneClock, err)
	}
	symbols, err := library.DynamicSymbols()
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %w", ErrOneClock, err)
	}
	for _, s := range symbols {
		if s.Name == clockSymbol && s.Value%8 == 0 && s.Size >= uint64(len(shiftedClock)+8) {
			return from + s.Value, from + s.Value + s.Size, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: no %s that could be replaced", ErrOneClock, clockSymbol)
}

// stopped calls change while every thread of a process stands still, and none of them between begin and end.
func stopped(pid int, begin, end uint64, change func() error) error {
	for range 1000 {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return fmt.Errorf("stop process %d: %w", pid, err)
		}
		clear, err := standsOutside(pid, begin, end)
		if err == nil && clear {
			err = change()
		}
		if err := errors.Join(err, syscall.Kill(pid, syscall.SIGCONT)); err != nil || clear {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("shift a clock: process %d always looks at it", pid)
}

// standsOutside waits until every thread of a process has stopped, and reports whether all are outside of that code.
func standsOutside(pid int, begin, end uint64) (bool, error) {
	tasks := fmt.Sprintf("/proc/%d/task", pid)
	deadline := time.Now().Add(time.Minute)
	for {
		threads, err := os.ReadDir(tasks)
		if err != nil {
			return false, fmt.Errorf("shift a clock: %w", err)
		}
		moving := false
		for _, thread := range threads {
			stat, err := os.ReadFile(filepath.Join(tasks, thread.Name(), "stat"))
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
				continue // it has ended
			}
			if err != nil {
				return false, fmt.Errorf("shift a clock: %w", err)
			}
			// The state comes after the name, which is in brackets and may hold anything.
			if _, state, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')'):]), " "); !strings.HasPrefix(state, "T") && !strings.HasPrefix(state, "Z") {
				moving = true
				continue
			}
			where, err := os.ReadFile(filepath.Join(tasks, thread.Name(), "syscall"))
			if err != nil {
				continue // a kernel that does not tell
			}
			fields := strings.Fields(string(where))
			at, err := strconv.ParseUint(fields[len(fields)-1], 0, 64)
			if err == nil && begin <= at && at < end {
				return false, nil
			}
		}
		if !moving {
			return true, nil
		}
		if time.Now().After(deadline) {
			return false, fmt.Errorf("shift a clock: process %d does not stop", pid)
		}
		time.Sleep(time.Millisecond)
	}
}
