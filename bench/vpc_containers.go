package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"vivarium.io/vivarium/internal/localcluster"
	"vivarium.io/vivarium/internal/localcluster/image"
)

// gaugeImage is an image with the gauge and nothing else.
const gaugeImage = "vivarium.test/gauge:v1"

// containers is a whole system with two pools of one real node each, and two tenants in it whose pods are the same but for
// their networks.
type containers struct {
	dir, vivarium, kubectl string
	portBase               int
}

// measureContainers has containers talk on real nodes.
func measureContainers(ctx context.Context, c config, dir, source string, r *VPCReport) (err error) {
	if !c.scale.VPCContainers {
		r.Skipped = "this scale starts no containers"
		return nil
	}
	if _, err := possibleVPCNode(c.programs); err != nil {
		r.Skipped = err.Error()
		return nil
	}
	if _, ok := findProgram("containerd"); !ok {
		r.Skipped = "containerd is not installed"
		return nil
	}
	w := &containers{dir: dir, vivarium: filepath.Join(c.programs, "vivarium"), kubectl: c.binaries.Path(localcluster.Kubectl), portBase: c.portBase}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	gauge, err := buildGauge(ctx, source, dir)
	if err != nil {
		return err
	}
	archive := filepath.Join(dir, "gauge.tar")
	if err := writeGaugeImage(gauge, archive); err != nil {
		return err
	}
	defer func() {
		// Its processes are its own, and would outlive this one.
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		_, ending := w.run(down, "down")
		err = errors.Join(err, ending)
	}()
	if _, err := w.run(ctx, "up"); err != nil {
		return err
	}
	if _, err := w.run(ctx, "image", "load", archive); err != nil {
		return err
	}
	var near, far []gaugeLane
	for _, tenant := range []struct {
		id, lane string
		network  []string
	}{{"flat01", laneStock, nil}, {"vpcs01", laneVPC, []string{"--vpc-cidr=10.0.0.0/16"}}} {
		if _, err := w.run(ctx, append([]string{"tenant", "create", tenant.id, "--timeout=5m"}, tenant.network...)...); err != nil {
			return err
		}
		file := filepath.Join(dir, tenant.id)
		if _, err := w.run(ctx, "tenant", "kubeconfig", tenant.id, "--output", file); err != nil {
			return err
		}
		one, other, err := w.pods(ctx, file)
		if err != nil {
			return err
		}
		lane := gaugeLane{name: tenant.lane, to: one, run: func(ctx context.Context, args ...string) ([]byte, error) {
			return w.kubectlAs(ctx, file, "", append([]string{"exec", "asks", "--", "/gauge"}, args...)...)
		}}
		near = append(near, lane)
		lane.to = other
		far = append(far, lane)
	}
	if r.Traffic, err = gaugeAll(ctx, near, c.scale.VPCRounds, c.scale.VPCTurn, true); err != nil {
		return fmt.Errorf("on a node: %w", err)
	}
	// Between nodes the stock plugin has no tunnel to compare with: it is told, not judged.
	between, err := gaugeAll(ctx, far, c.scale.VPCRounds, c.scale.VPCTurn, false)
	if err != nil {
		return fmt.Errorf("between nodes: %w", err)
	}
	for _, t := range between {
		t.Name, t.What = "far-"+t.Name, "between nodes of two pools: "+t.What
		r.Traffic = append(r.Traffic, t)
	}
	return nil
}

// run runs the command line of the platform.
func (w *containers) run(ctx context.Context, args ...string) ([]byte, error) {
	return output(ctx, nil, []string{
		"RUN_DIR=" + filepath.Join(w.dir, ".run"), "PORT_BASE=" + strconv.Itoa(w.portBase), "NETWORK=vxlan", "NODES=real", "POOLS=2", "TENANTS=,",
	}, w.vivarium, args...)
}

func (w *containers) kubectlAs(ctx context.Context, kubeconfig, stdin string, args ...string) ([]byte, error) {
	return output(ctx, strings.NewReader(stdin), nil, w.kubectl, append([]string{"--kubeconfig=" + kubeconfig, "--cache-dir=" + filepath.Join(w.dir, "cache")}, args...)...)
}

// output runs a program and gives what it prints.
func output(ctx context.Context, stdin *strings.Reader, env []string, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &complaint, append(os.Environ(), env...)
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(program), strings.Join(args, " "), err, out.Bytes(), complaint.Bytes())
	}
	return out.Bytes(), nil
}

// gaugePods are the one that asks, one that serves beside it, and one that serves in the other pool.
const gaugePods = `
apiVersion: v1
kind: Pod
metadata: {name: asks, labels: {app: asks}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: gauge, image: ` + gaugeImage + `, command: [/gauge, serve]}]
---
apiVersion: v1
kind: Pod
metadata: {name: near}
spec:
  terminationGracePeriodSeconds: 0
  affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: asks}}}]}}
  containers: [{name: gauge, image: ` + gaugeImage + `, command: [/gauge, serve]}]
---
apiVersion: v1
kind: Pod
metadata: {name: far}
spec:
  terminationGracePeriodSeconds: 0
  affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: asks}}}]}}
  containers: [{name: gauge, image: ` + gaugeImage + `, command: [/gauge, serve]}]
`

// pods makes a tenant's pods and gives the addresses of those that serve.
func (w *containers) pods(ctx context.Context, kubeconfig string) (near, far string, err error) {
	if _, err := w.kubectlAs(ctx, kubeconfig, gaugePods, "apply", "-f", "-"); err != nil {
		return "", "", err
	}
	if _, err := w.kubectlAs(ctx, kubeconfig, "", "wait", "--for=condition=Ready", "pod/asks", "pod/near", "pod/far", "--timeout=3m"); err != nil {
		return "", "", err
	}
	var ips [2]string
	for i, name := range []string{"near", "far"} {
		out, err := w.kubectlAs(ctx, kubeconfig, "", "get", "pod", name, "-o", "jsonpath={.status.podIP}")
		if err != nil {
			return "", "", err
		}
		ips[i] = string(out)
	}
	return ips[0], ips[1], nil
}

func writeGaugeImage(program, archive string) error {
	raw, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	img := image.Image{
		Name: gaugeImage, Architecture: runtime.GOARCH, Layers: []image.Layer{{{Path: "/gauge", Mode: 0o755, Content: raw}}},
		Config: image.Config{Entrypoint: []string{"/gauge"}, Cmd: []string{"serve"}},
	}
	if err := img.Write(&out); err != nil {
		return err
	}
	return os.WriteFile(archive, out.Bytes(), 0o644)
}
