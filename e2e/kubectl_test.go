package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience bounds every wait. It is generous because machines are slow, and no test asserts how much of it was used.
const patience = 3 * time.Minute

// client is one user's kubectl.
type client struct {
	name       string
	kubeconfig string
	// foreign must never occur in anything this client is shown.
	foreign []string
	// program is what runs instead of the kubectl that belongs to the system, with env besides the usual.
	program string
	env     []string
}

// tenant is the kubectl of a tenant's admin. Whatever it prints is searched for the other tenant and for the tenant's own
// control names.
func tenant(id string) client {
	foreign := []string{id + "-"}
	for _, other := range []string{red, blu} {
		if other != id {
			foreign = append(foreign, other)
		}
	}
	return client{name: id, kubeconfig: filepath.Join(suite.runDir, "tenants", id+".kubeconfig"), foreign: foreign}
}

// pool is the kubectl of a pool's own administrator.
func pool(name string) client {
	return client{name: name, kubeconfig: filepath.Join(suite.runDir, "pools", name+".kubeconfig")}
}

// control is the kubectl of the control cluster's administrator.
func control() client {
	return client{name: "control", kubeconfig: filepath.Join(suite.runDir, "control.kubeconfig")}
}

// admin is the operator's kubectl at the gateway's admin API.
func admin() client {
	return client{name: "admin", kubeconfig: filepath.Join(suite.runDir, "admin.kubeconfig")}
}

// command prepares a kubectl call.
func (c client) command(ctx context.Context, args ...string) *exec.Cmd {
	program := c.program
	if program == "" {
		program = filepath.Join(root(), "bin", "kubectl")
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "HOME="+suite.runDir), c.env...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// try runs kubectl and gives what it wrote, both streams, and its error.
func (c client) try(t testing.TB, stdin string, args ...string) (string, error) {
	t.Helper()
	// A clean-up runs after the test's own context has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	cmd := c.command(ctx, args...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	err := cmd.Run()
	c.inspect(t, out.String(), args)
	return out.String(), err
}

// run is try that ends the test on an error.
func (c client) run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := c.try(t, "", args...)
	if err != nil {
		t.Fatalf("%s$ kubectl %s: %v\n%s", c.name, strings.Join(args, " "), err, out)
	}
	return out
}

// apply applies a manifest.
func (c client) apply(t testing.TB, manifest string) {
	t.Helper()
	if out, err := c.try(t, manifest, "apply", "-f", "-"); err != nil {
		t.Fatalf("%s$ kubectl apply: %v\n%s", c.name, err, out)
	}
}

// fails runs kubectl, which must fail, and checks that the message holds each of want.
func (c client) fails(t testing.TB, stdin string, args []string, want ...string) {
	t.Helper()
	out, err := c.try(t, stdin, args...)
	if err == nil {
		t.Errorf("%s$ kubectl %s: succeeded, want a refusal\n%s", c.name, strings.Join(args, " "), out)
		return
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("%s$ kubectl %s: the message lacks %q:\n%s", c.name, strings.Join(args, " "), w, out)
		}
	}
}

// inspect is the leak check on everything a client is shown.
func (c client) inspect(t testing.TB, out string, args []string) {
	t.Helper()
	for _, word := range c.foreign {
		if i := strings.Index(out, word); i >= 0 {
			t.Errorf("%s$ kubectl %s: shows %q: ...%s...", c.name, strings.Join(args, " "), word, out[max(0, i-80):min(len(out), i+80)])
		}
	}
}

// eventually calls check until it returns nil.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(300 * time.Millisecond)
	}
}

// shows waits until kubectl's output holds each of want.
func (c client) shows(t testing.TB, args []string, want ...string) string {
	t.Helper()
	var out string
	eventually(t, fmt.Sprintf("%s$ kubectl %s", c.name, strings.Join(args, " ")), func() error {
		var err error
		if out, err = c.try(t, "", args...); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				return fmt.Errorf("lacks %q:\n%s", w, out)
			}
		}
		return nil
	})
	return out
}

// lines gives the non-empty lines of kubectl's output, sorted as kubectl printed them.
func (c client) lines(t testing.TB, args ...string) []string {
	t.Helper()
	return strings.Fields(c.run(t, args...))
}

// each runs a scenario for both tenants at the same time, with equal names, in a namespace of its own.
func each(t *testing.T, scenario func(t *testing.T, c client, ns string)) {
	t.Helper()
	ns := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	ns = ns[:min(len(ns), 40)]
	for _, id := range []string{red, blu} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			c := tenant(id)
			c.run(t, "create", "namespace", ns)
			defer func() { _, _ = c.try(t, "", "delete", "namespace", ns, "--wait=false") }()
			scenario(t, c, ns)
		})
	}
}

// needsContainers skips a scenario whose subject is a running container where nodes are simulated.
func needsContainers(t *testing.T) {
	t.Helper()
	if !suite.real {
		t.Skip("the pools' nodes are simulated on this machine: no container runs in them")
	}
}
