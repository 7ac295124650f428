package node

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vivarium.io/vivarium/internal/localcluster/process"
)

// Possible is nil when this machine lets us make nodes: we are the administrator and may make namespaces and cgroups. The
// programs that run containers are another matter; see [FindRuntime].
func Possible() error {
	if os.Getuid() != 0 {
		return fmt.Errorf("nodes that run containers need root")
	}
	probe := exec.Command("true")
	probe.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	if err := probe.Run(); err != nil {
		return fmt.Errorf("this machine does not let us make namespaces: %w", err)
	}
	name := fmt.Sprintf("/vivarium-probe-%d", os.Getpid())
	err := makeCgroup(name)
	if rmErr := RemoveCgroup(name); err == nil {
		err = rmErr
	}
	if err != nil {
		return fmt.Errorf("this machine does not let us make cgroups: %w", err)
	}
	return nil
}

// Import brings the images of an archive, OCI or Docker, into the node whose state is in dir and whose first process is p,
// and gives their names. It waits until containerd answers.
func Import(ctx context.Context, p process.ID, runtime Runtime, dir, archive string) ([]string, error) {
	ctr := func(args ...string) *exec.Cmd {
		// Its root, too: where this program itself runs in a chroot, that is not the root of the mounts.
		args = append([]string{"--target", strconv.Itoa(p.PID), "--mount", "--root", "--net", "--pid", "--ipc", "--uts", "--", runtime.Ctr, "--namespace", "k8s.io"}, args...)
		cmd := exec.CommandContext(ctx, "nsenter", args...)
		cmd.WaitDelay = time.Second
		return cmd
	}
	for {
		out, err := ctr("namespaces", "list", "--quiet").CombinedOutput()
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for containerd: %w: %s", context.Cause(ctx), strings.TrimSpace(string(out)))
		case <-time.After(100 * time.Millisecond):
		}
	}
	file, err := os.Open(archive)
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	defer file.Close()
	snapshotter, err := os.ReadFile(filepath.Join(dir, snapshotterFile))
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	// The node does not see the host's files everywhere, but it can be handed one.
	cmd := ctr("images", "import", "--snapshotter", string(snapshotter), "-")
	if cmd.Stdin, err = Unpack(file); err != nil {
		return nil, fmt.Errorf("import images of %s: %w", archive, err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("import images of %s: %w: %s", archive, err, strings.TrimSpace(string(out)))
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(line, "unpacking "); ok {
			name, _, _ = strings.Cut(name, " ")
			names = append(names, name)
		}
	}
	return names, nil
}
