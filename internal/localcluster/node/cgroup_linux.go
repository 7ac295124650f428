package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// daemonsCgroup holds the node's own processes. It is a leaf: where there is one hierarchy only, a cgroup with children that
// have controllers may not have processes.
const daemonsCgroup = "daemons"

// hierarchies lists the mount points of all cgroup hierarchies of this machine. unified is the one of version 2 where that
// is the only one, and empty on machines with version 1, pure or mixed.
func hierarchies() (all []string, unified string, err error) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, "", fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	version1 := false
	for line := range strings.Lines(string(raw)) {
		before, after, ok := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 {
			continue
		}
		switch kind := strings.Fields(after)[0]; kind {
		case "cgroup":
			version1 = true
			all = append(all, fields[4])
		case "cgroup2":
			unified = fields[4]
			all = append(all, fields[4])
		}
	}
	if len(all) == 0 {
		return nil, "", errors.New("find the cgroup hierarchies: none is mounted")
	}
	if version1 {
		unified = ""
	}
	slices.Sort(all)
	return slices.Compact(all), unified, nil
}

// makeCgroup makes the cgroup in every hierarchy, ready for the kubelet to make pods' cgroups in it.
func makeCgroup(cgroup string) error {
	all, unified, err := hierarchies()
	if err != nil {
		return err
	}
	for _, hierarchy := range all {
		dir := hierarchy
		for _, part := range strings.Split(strings.Trim(filepath.Join(cgroup, daemonsCgroup), "/"), "/") {
			if hierarchy == unified {
				if err := delegate(dir); err != nil {
					return err
				}
			}
			parent := dir
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make cgroup: %w", err)
			}
			if err := inheritCPUs(parent, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// delegate hands the controllers of a version 2 cgroup on to its children.
func delegate(dir string) error {
	raw, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("hand cgroup controllers on: %w", err)
	}
	for _, controller := range strings.Fields(string(raw)) {
		if !slices.Contains([]string{"cpu", "cpuset", "io", "memory", "pids", "hugetlb"}, controller) {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("hand cgroup controller %s of %s on: %w", controller, dir, err)
		}
	}
	return nil
}

// inheritCPUs copies what a version 1 cpuset needs before a process may join it.
func inheritCPUs(parent, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.clone_children")); err != nil {
			return nil // version 2, where an empty set means the parent's
		}
		own, err := os.ReadFile(filepath.Join(dir, file))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // not the cpuset hierarchy
		}
		if err != nil {
			return fmt.Errorf("read the CPUs of %s: %w", dir, err)
		}
		if strings.TrimSpace(string(own)) != "" {
			continue
		}
		value, err := os.ReadFile(filepath.Join(parent, file))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), value, 0o644)
		}
		if err != nil {
			return fmt.Errorf("set the CPUs of %s: %w", dir, err)
		}
	}
	return nil
}

// joinCgroup moves this process into the node's cgroup.
func joinCgroup(config Config) error {
	all, _, err := hierarchies()
	if err != nil {
		return err
	}
	for _, hierarchy := range all {
		file := filepath.Join(hierarchy, config.Cgroup, daemonsCgroup, "cgroup.procs")
		if err := os.WriteFile(file, []byte("0"), 0o644); err != nil {
			return fmt.Errorf("join cgroup %s: %w", file, err)
		}
	}
	return nil
}

// RemoveCgroup removes the cgroup and all below it from every hierarchy. Their processes must be gone; the kernel may take
// a moment to notice.
func RemoveCgroup(cgroup string) error {
	all, _, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, hierarchy := range all {
		root := filepath.Join(hierarchy, cgroup)
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			err = removeTree(root)
			if err == nil || !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
				break
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func removeTree(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list cgroup: %w", err)
	}
	for _, dir := range slices.Backward(dirs) {
		if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
	}
	return nil
}
