package node

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Run is what the first process of a node does: it makes the node's root, network and settings, and then keeps containerd
// and the kubelet running. It returns only when that is impossible.
func Run(file string) error {
	config, err := readConfig(file)
	if err != nil {
		return err
	}
	if os.Getpid() != 1 {
		return errors.New("a node's first process has to be the first of a PID namespace")
	}
	for _, step := range []func(Config) error{joinCgroup, enterRoot, keepTunables, joinNetwork, chooseSnapshotter} {
		if err := step(config); err != nil {
			return err
		}
	}
	daemons := []*daemon{
		{name: "containerd", log: config.ID + "-containerd.log", argv: []string{config.Containerd.Containerd, "--config", containerdConf}},
		{name: "kubelet", log: config.ID + "-kubelet.log", argv: []string{
			filepath.Join(kubeletDir, filepath.Base(config.Kubelet)),
			"--config=" + homeDir + "/kubelet.yaml",
			"--kubeconfig=" + homeDir + "/kubeconfig",
			"--hostname-override=" + config.Name,
			"--node-ip=" + config.Address.Addr().String(),
		}},
	}
	if config.VPC != nil {
		if err := gatherPlugins(config); err != nil {
			return err
		}
		daemons = append(daemons, agent(config))
	}
	return supervise(daemons)
}

// agent is the daemon that keeps the VPCs of the node.
func agent(config Config) *daemon {
	var protected []string
	for _, prefix := range config.VPC.Protected {
		protected = append(protected, prefix.String())
	}
	argv := []string{
		filepath.Join(programDir, "vpc-agent"),
		"--kubeconfig=" + homeDir + "/vpc.kubeconfig",
		"--tunnel-address=" + config.Address.Addr().String(),
		"--dir=" + agentDir,
		"--plugins=" + config.Containerd.CNIPlugins,
		"--protected=" + strings.Join(protected, ","),
		"--network-config=" + homeDir + "/vpc.conflist",
		"--network-config-path=" + cniConfDir + "/10-node.conflist",
	}
	// Names outside are for whoever the host asks, if a node reaches that.
	if raw, err := os.ReadFile(homeDir + "/resolv.conf"); err == nil {
		if servers := nameservers(string(raw)); len(servers) > 0 {
			argv = append(argv, "--dns-upstream="+strings.Join(servers, ","))
		}
	}
	return &daemon{name: "vpc-agent", log: config.ID + "-vpc-agent.log", argv: argv}
}

// gatherPlugins puts all network plugins in one directory, because the runtime looks into one.
func gatherPlugins(config Config) error {
	// What an earlier life of the node left would be used before the node is guarded.
	if err := os.RemoveAll(cniConfDir); err != nil {
		return fmt.Errorf("gather network plugins: %w", err)
	}
	if err := errors.Join(os.MkdirAll(cniConfDir, 0o755), os.MkdirAll(pluginDir, 0o755)); err != nil {
		return fmt.Errorf("gather network plugins: %w", err)
	}
	stock, err := os.ReadDir(config.Containerd.CNIPlugins)
	if err != nil {
		return fmt.Errorf("gather network plugins: %w", err)
	}
	plugins := []string{filepath.Join(programDir, "vivarium-vpc")}
	for _, plugin := range stock {
		plugins = append(plugins, filepath.Join(config.Containerd.CNIPlugins, plugin.Name()))
	}
	for _, plugin := range plugins {
		if err := os.Symlink(plugin, filepath.Join(pluginDir, filepath.Base(plugin))); err != nil {
			return fmt.Errorf("gather network plugins: %w", err)
		}
	}
	return nil
}

// containerdConf is the configuration with the snapshotter that was chosen.
const containerdConf = "/run/containerd.toml"

// snapshotterFile, in the node's directory, says which snapshotter was chosen.
const snapshotterFile = "snapshotter"

// daemon is a process that the node keeps running.
type daemon struct {
	name, log string
	argv      []string
	pid       int
}

func (d *daemon) start() error {
	log, err := os.OpenFile(filepath.Join(logDir, d.log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	defer null.Close()
	env := append(os.Environ(), "PATH="+systemPath)
	p, err := os.StartProcess(d.argv[0], d.argv, &os.ProcAttr{
		Dir: "/", Env: env, Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	d.pid = p.Pid
	return nil
}

// supervise starts the daemons, starts them again when they end, and reaps whatever else becomes the first process's
// child. Only one loop may wait for children, so nothing else in this program does.
func supervise(daemons []*daemon) error {
	for _, d := range daemons {
		if err := d.start(); err != nil {
			return err
		}
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("wait for the node's processes: %w", err)
		}
		for _, d := range daemons {
			if d.pid != pid {
				continue
			}
			slog.Warn("daemon ended, starting it again", "name", d.name, "status", status.ExitStatus(), "signal", status.Signal())
			// Not at once, lest a daemon that cannot start eats a CPU.
			time.Sleep(time.Second)
			if err := d.start(); err != nil {
				return err
			}
		}
	}
}

// chooseSnapshotter takes overlayfs where the directory of images can carry it, and plain copies elsewhere, as on a
// directory that is itself an overlay.
func chooseSnapshotter(Config) error {
	const conf = homeDir + "/containerd.toml"
	raw, err := os.ReadFile(conf)
	if err != nil {
		return fmt.Errorf("choose a snapshotter: %w", err)
	}
	name := "overlayfs"
	if err := tryOverlay("/var/lib/containerd"); err != nil {
		name = "native"
		slog.Warn("no overlayfs here, images are copied for every container", "error", err)
	}
	raw = bytes.ReplaceAll(raw, []byte(snapshotterMark), []byte(name))
	// The original stays as it is, for the next start.
	if err := errors.Join(
		os.WriteFile(containerdConf, raw, 0o600),
		os.WriteFile(filepath.Join(homeDir, snapshotterFile), []byte(name), 0o644),
	); err != nil {
		return fmt.Errorf("choose a snapshotter: %w", err)
	}
	return nil
}

func tryOverlay(dir string) error {
	probe, err := os.MkdirTemp(dir, "overlay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(probe)
	var paths [4]string
	for i, name := range []string{"lower", "upper", "work", "merged"} {
		paths[i] = filepath.Join(probe, name)
		if err := os.Mkdir(paths[i], 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", paths[0], paths[1], paths[2])
	if err := syscall.Mount("overlay", paths[3], "overlay", 0, options); err != nil {
		return fmt.Errorf("mount an overlay: %w", err)
	}
	return syscall.Unmount(paths[3], 0)
}
