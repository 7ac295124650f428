//go:build linux

package plane

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func nsHandle(ns *os.File) netns.NsHandle { return netns.NsHandle(ns.Fd()) }

// inside runs f on a thread that is in the network namespace. f must not start goroutines that rely on it; children that
// it starts are in the namespace.
func inside(ns *os.File, f func() error) error {
	return elsewhere(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace %s: %w", ns.Name(), err)
		}
		return f()
	})
}

// elsewhere runs f, which changes the network namespace of its thread, and brings the thread back. Merely to end the
// thread would not do: the process's first one is only put to sleep, and would keep a namespace that is gone alive, with
// the tunnels in it.
func elsewhere(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- fmt.Errorf("open the thread's network namespace: %w", err)
			return
		}
		defer home.Close()
		err = f()
		// A thread that cannot be brought back stays locked, and nobody else gets it.
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, fmt.Errorf("come back from a network namespace: %w", back))
		} else {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// openNetNS opens the network namespace at path, and makes it where there is none. made says whether it did.
func openNetNS(path string) (ns *os.File, made bool, err error) {
	if ns, err = openExisting(path); ns != nil || err != nil {
		return ns, false, err
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, false, fmt.Errorf("make a network namespace: %w", err)
	}
	err = elsewhere(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
	if err != nil {
		return nil, false, fmt.Errorf("make a network namespace at %s: %w", path, err)
	}
	if ns, err = openExisting(path); ns == nil && err == nil {
		err = fmt.Errorf("make a network namespace at %s: it is not there", path)
	}
	return ns, true, err
}

// openExisting opens the network namespace at path, nil where there is none.
func openExisting(path string) (*os.File, error) {
	var at unix.Statfs_t
	err := unix.Statfs(path, &at)
	if errors.Is(err, fs.ErrNotExist) || err == nil && at.Type != unix.NSFS_MAGIC {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at the network namespace %s: %w", path, err)
	}
	ns, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	return ns, nil
}

// removeNetNS lets go of a network namespace; links in it end with it.
func removeNetNS(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the network namespace %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the network namespace: %w", err)
	}
	return nil
}

// sysctl sets kernel parameters of a network namespace; those that this kernel lacks are no error.
func sysctl(ns *os.File, settings map[string]string) error {
	return inside(ns, func() error {
		for name, value := range settings {
			err := os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0o644)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("set net/%s: %w", name, err)
			}
		}
		return nil
	})
}

// run runs a program in a network namespace and gives what it wrote. What it complains of is in the error.
func run(ns *os.File, stdin []byte, env []string, program string, args ...string) ([]byte, error) {
	var out, complaint bytes.Buffer
	err := inside(ns, func() error {
		cmd := exec.Command(program, args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = bytes.NewReader(stdin), &out, &complaint, env
		return cmd.Run()
	})
	if err != nil {
		return out.Bytes(), fmt.Errorf("run %s: %w: %s%s", filepath.Base(program), err, bytes.TrimSpace(complaint.Bytes()), bytes.TrimSpace(out.Bytes()))
	}
	return out.Bytes(), nil
}
