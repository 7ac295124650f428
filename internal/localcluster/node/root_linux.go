package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// enterRoot gives the node a root of its own: the host's directories, save those that hold state, and the node's state in
// the places where every program looks for it by default. Nothing mounted here is seen on the host, and all of it is gone
// with the node's last process.
func enterRoot(config Config) error {
	// What is unmounted on the host must not be held by the node; what is mounted here must not show up on the host.
	if err := syscall.Mount("", "/", "", syscall.MS_SLAVE|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("leave the host's mounts: %w", err)
	}
	// The new root is put together on /proc, the only directory that neither is copied nor can hold what is.
	const root = "/proc"
	resolver, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("find the resolver's configuration: %w", err)
	}
	if err := mount("tmpfs", root, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	if err := bindHost(root); err != nil {
		return err
	}
	for _, dir := range []string{
		"run", "run/netns", "run/containerd", "tmp", "var/tmp", "var/lib/cni", "var/log/containers", "var/cache", "var/spool",
	} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return fmt.Errorf("make the node's root: %w", err)
		}
	}
	for link, to := range map[string]string{"var/run": "/run", "var/lock": "/run/lock"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			return fmt.Errorf("make the node's root: %w", err)
		}
	}
	if err := errors.Join(os.Chmod(filepath.Join(root, "tmp"), 0o1777), os.Chmod(filepath.Join(root, "var/tmp"), 0o1777)); err != nil {
		return fmt.Errorf("make the node's root: %w", err)
	}
	binds := map[string]string{
		homeDir:               config.Dir,
		logDir:                config.LogDir,
		kubeletDir:            filepath.Dir(config.Kubelet),
		"/var/lib/containerd": filepath.Join(config.Dir, "containerd"),
		"/var/lib/kubelet":    filepath.Join(config.Dir, "kubelet"),
		"/var/log/pods":       filepath.Join(config.Dir, "pods"),
	}
	if config.VPC != nil {
		binds[programDir] = config.VPC.Programs
	}
	for inside, outside := range binds {
		if err := os.MkdirAll(outside, 0o755); err != nil {
			return fmt.Errorf("make the node's root: %w", err)
		}
		if err := mount(outside, filepath.Join(root, inside), "", syscall.MS_BIND, ""); err != nil {
			return err
		}
	}
	if err := mount("proc", filepath.Join(root, "proc"), "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := pivot(root); err != nil {
		return err
	}
	// Kubernetes expects mounts to propagate between the node and those containers that ask for it.
	if err := syscall.Mount("", "/", "", syscall.MS_SHARED|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("share the node's mounts: %w", err)
	}
	return provideResolver(resolver)
}

// bindHost makes the host's directories visible below root, except for those that a node has of its own.
func bindHost(root string) error {
	own := map[string]bool{"proc": true, "run": true, "var": true, "tmp": true}
	entries, err := os.ReadDir("/")
	if err != nil {
		return fmt.Errorf("list the host's root: %w", err)
	}
	for _, entry := range entries {
		from, to := "/"+entry.Name(), filepath.Join(root, entry.Name())
		switch {
		case own[entry.Name()]:
		case entry.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(from)
			if err == nil {
				err = os.Symlink(target, to)
			}
			if err != nil {
				return fmt.Errorf("make the node's root: %w", err)
			}
		case entry.IsDir():
			if err := mount(from, to, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// mount mounts on a directory that it makes.
func mount(source, target, kind string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}

func pivot(root string) error {
	const old = ".host"
	if err := os.Mkdir(filepath.Join(root, old), 0o700); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := syscall.PivotRoot(root, filepath.Join(root, old)); err != nil {
		return fmt.Errorf("change the root to %s: %w", root, err)
	}
	if err := errors.Join(os.Chdir("/"), syscall.Unmount("/"+old, syscall.MNT_DETACH), os.Remove("/"+old)); err != nil {
		return fmt.Errorf("leave the host's root: %w", err)
	}
	return nil
}

// provideResolver writes the resolver's configuration where /etc/resolv.conf points to, if that is a place which the node
// does not share with the host.
func provideResolver(path string) error {
	if !strings.HasPrefix(path, "/run/") && !strings.HasPrefix(path, "/var/") {
		return nil
	}
	raw, err := os.ReadFile(homeDir + "/resolv.conf")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(path, raw, 0o644)
	}
	if err != nil {
		return fmt.Errorf("provide the resolver's configuration: %w", err)
	}
	return nil
}

// keepTunables hides settings of the kernel that a kubelet would set for the whole machine behind files that hold what it
// wants to see. It only writes what differs.
func keepTunables(Config) error {
	for i, tunable := range []struct{ path, value string }{
		{"vm/overcommit_memory", "1"}, {"vm/panic_on_oom", "0"}, {"kernel/panic", "10"}, {"kernel/panic_on_oops", "1"},
		{"kernel/keys/root_maxkeys", "1000000"}, {"kernel/keys/root_maxbytes", "25000000"},
	} {
		target := "/proc/sys/" + tunable.path
		if _, err := os.Stat(target); err != nil {
			continue
		}
		file := "/run/tunable-" + strconv.Itoa(i)
		if err := os.WriteFile(file, []byte(tunable.value+"\n"), 0o644); err != nil {
			return fmt.Errorf("hide %s: %w", target, err)
		}
		if err := syscall.Mount(file, target, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("hide %s: %w", target, err)
		}
	}
	return nil
}
