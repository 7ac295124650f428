package localcluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"vivarium.io/vivarium/internal/localcluster/node"
)

// missingTools names what real nodes need and this machine lacks, as the packages of Debian and Ubuntu that have it.
func missingTools() []string {
	var packages []string
	_, missing := node.FindRuntime()
	for _, name := range missing {
		switch name {
		case "containerd", "ctr":
			packages = append(packages, "containerd")
		case "runc":
			packages = append(packages, "runc")
		default:
			packages = append(packages, "containernetworking-plugins")
		}
	}
	if _, err := staticBusybox(); err != nil {
		packages = append(packages, "busybox-static")
	}
	for program, name := range map[string]string{"nsenter": "util-linux", "iptables": "iptables", "nft": "nftables"} {
		if _, ok := node.FindProgram(program); !ok {
			packages = append(packages, name)
		}
	}
	slices.Sort(packages)
	return slices.Compact(packages)
}

// InstallTools installs the system's programs that real nodes need, where this machine can have such nodes; elsewhere it
// does nothing.
func InstallTools(ctx context.Context, progress *Progress) error {
	if node.Possible() != nil {
		return nil
	}
	return installTools(ctx, progress)
}

// installTools installs what is missing where that is possible, and otherwise says what to install.
func installTools(ctx context.Context, progress *Progress) error {
	packages := missingTools()
	if len(packages) == 0 {
		return nil
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil || os.Getuid() != 0 {
		return fmt.Errorf("nodes that run containers need what Debian calls %s; install that, or simulate the nodes with NODES=kwok", strings.Join(packages, ", "))
	}
	get := func(args ...string) error {
		cmd := exec.CommandContext(ctx, apt, args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, lastLines(out, 8))
		}
		return nil
	}
	install := append([]string{"install", "-y", "--no-install-recommends"}, packages...)
	return progress.Step("installing "+strings.Join(packages, ", ")+" with apt-get", func() error {
		// Lists of packages may be absent or out of date, but fetching them costs more than trying.
		if get(install...) != nil {
			if err := get("update"); err != nil {
				return err
			}
			if err := get(install...); err != nil {
				return err
			}
		}
		if left := missingTools(); len(left) > 0 {
			return fmt.Errorf("apt-get installed %s, but it is not found", strings.Join(left, ", "))
		}
		return nil
	})
}

// chooseNodes settles what the nodes will be, and says why where nobody asked for it.
func chooseNodes(ctx context.Context, wanted NodeKind, progress *Progress) (kind NodeKind, reason string, err error) {
	if wanted == NodesKwok {
		return NodesKwok, "", nil
	}
	err = node.Possible()
	if err == nil {
		err = installTools(ctx, progress)
	}
	switch {
	case err == nil:
		return NodesReal, "", nil
	case wanted == NodesReal || ctx.Err() != nil:
		return "", "", err
	default:
		return NodesKwok, err.Error(), nil
	}
}

const gibibyte = 1 << 30

// needSpace is an error when the file system of dir, which must exist, has less than need bytes left.
func needSpace(dir string, need uint64, what, remedy string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("ask for the space left in %s: %w", dir, err)
	}
	if free := uint64(fs.Bavail) * uint64(fs.Bsize); free < need {
		return fmt.Errorf("%s needs %.0f GiB in %s, which has %.1f GiB left; free some or %s",
			what, float64(need)/gibibyte, dir, float64(free)/gibibyte, remedy)
	}
	return nil
}
