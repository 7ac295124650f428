package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Runtime is what runs containers on this machine.
type Runtime struct {
	// Containerd, Ctr and Runc are programs.
	Containerd, Ctr, Runc string
	// CNIPlugins is the directory of the stock network plugins.
	CNIPlugins string
}

// systemPath is where programs of the system are, also for users whose PATH lacks the administrator's.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// FindRuntime looks for what runs containers, and names everything that is missing.
func FindRuntime() (Runtime, []string) {
	var missing []string
	program := func(name string) string {
		path, ok := FindProgram(name)
		if !ok {
			missing = append(missing, name)
		}
		return path
	}
	r := Runtime{Containerd: program("containerd"), Ctr: program("ctr"), Runc: program("runc")}
	dirs := []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}
	at := slices.IndexFunc(dirs, func(dir string) bool {
		for _, plugin := range []string{"bridge", "host-local", "loopback", "portmap"} {
			if _, err := os.Stat(filepath.Join(dir, plugin)); err != nil {
				return false
			}
		}
		return true
	})
	if at < 0 {
		missing = append(missing, fmt.Sprintf("CNI plugins (in %s)", strings.Join(dirs, " or ")))
	} else {
		r.CNIPlugins = dirs[at]
	}
	return r, missing
}

// FindProgram looks for a program in the PATH and where administrators' programs are.
func FindProgram(name string) (string, bool) {
	if path, err := exec.LookPath(name); err == nil {
		return path, true
	}
	for _, dir := range filepath.SplitList(systemPath) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, true
		}
	}
	return "", false
}
