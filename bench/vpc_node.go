package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"vivarium.io/vivarium/internal/localcluster/process"
)

// measureVPCNode has a process of its own be a node, and reads what that finds.
func measureVPCNode(ctx context.Context, c config, dir, source string, r *VPCReport) error {
	plugins, err := possibleVPCNode(c.programs)
	if err != nil {
		r.Skipped = err.Error()
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	gauge, err := buildGauge(ctx, source, dir)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	raw, err := json.Marshal(vpcNodeConfig{
		Dir: dir, Source: source, Programs: c.programs, Plugins: plugins, Gauge: gauge, Result: filepath.Join(dir, "found.json"),
		VPCs: c.scale.VPCs, Rounds: c.scale.VPCRounds, PluginRounds: c.scale.VPCPluginRounds, Turn: c.scale.VPCTurn, Idle: c.scale.VPCIdle,
	})
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "node.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return err
	}
	node, err := process.Start(process.Spec{Name: vpcNodeCommand, Path: self, Args: []string{vpcNodeCommand, file}, Log: filepath.Join(dir, "node.log"), Namespaces: true})
	if err != nil {
		return err
	}
	// The node takes everything with it that is in its namespaces.
	defer func() { _ = node.Stop(0) }()
	for node.Alive() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	raw, err = os.ReadFile(filepath.Join(dir, "found.json"))
	if err != nil {
		return fmt.Errorf("the node found nothing out:\n%s", node.LogTail())
	}
	var found vpcNodeFound
	if err := decode(raw, &found); err != nil {
		return err
	}
	r.Skipped, r.Traffic, r.Figures = found.Skipped, found.Traffic, append(found.Pods, found.Many...)
	return nil
}

// vpcNodeFound is what the node tells who started it.
type vpcNodeFound struct {
	// Skipped says why it could not be a node.
	Skipped string    `json:"skipped,omitempty"`
	Traffic []Traffic `json:"traffic"`
	Pods    []Figure  `json:"pods"`
	Many    []Figure  `json:"many"`
}

func findProgram(name string) (string, bool) {
	if path, err := exec.LookPath(name); err == nil {
		return path, true
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name), true
		}
	}
	return "", false
}

func decode(raw []byte, into any) error {
	if err := json.Unmarshal(raw, into); err != nil {
		return errors.Join(fmt.Errorf("read %q", raw), err)
	}
	return nil
}
