package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The tenants of every scenario. Their IDs occur in no word of the language, so that a leak is found by searching.
const (
	red = "red7q1"
	blu = "blu7q2"
)

// suite is the running system under test; set once by TestMain before any test, read only afterwards.
var suite struct {
	runDir  string
	network string // the pools' network driver
	real    bool   // the pools run real containers
}

// TestMain starts one whole system for all scenarios and takes it down again. E2E_RUN_DIR names a running one to use
// instead, which is left running.
func TestMain(m *testing.M) {
	if os.Getenv("E2E") == "" {
		fmt.Println("e2e: skipped: it starts whole clusters; run it with `make e2e`")
		os.Exit(0)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	suite.runDir = os.Getenv("E2E_RUN_DIR")
	if suite.runDir == "" {
		dir, err := os.MkdirTemp("", "viv")
		if err != nil {
			fmt.Println("e2e:", err)
			return 1
		}
		suite.runDir = filepath.Join(dir, "run")
		defer os.RemoveAll(dir)
		defer func() {
			if out, err := vivarium(context.Background(), "down"); err != nil {
				fmt.Printf("e2e: down: %v\n%s", err, out)
			}
		}()
	}
	suite.network = "vxlan"
	out, err := up(context.Background())
	if err != nil && strings.Contains(out, "NETWORK=vxlan needs real nodes") {
		suite.network = "flat"
		out, err = up(context.Background())
	}
	if err != nil {
		fmt.Printf("e2e: up: %v\n%s\n", err, out)
		saveLogs()
		return 1
	}
	status, err := vivarium(context.Background(), "status", "-o", "json")
	if err != nil {
		fmt.Printf("e2e: status: %v\n%s\n", err, status)
		return 1
	}
	suite.real = !strings.Contains(status, `"simulated": true`)
	code := m.Run()
	if code != 0 {
		saveLogs()
	}
	return code
}

// up starts the system, or starts again whatever of it has died.
func up(ctx context.Context) (string, error) { return vivarium(ctx, "up") }

// vivarium runs the operator's command line against the system under test.
func vivarium(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(root(), "bin", "vivarium"), args...)
	cmd.Dir = root()
	cmd.Env = append(os.Environ(),
		"RUN_DIR="+suite.runDir, "POOLS=2", "NODES_PER_POOL=2", "TENANTS="+red+","+blu, "PORT_BASE="+portBase(), "NETWORK="+suite.network)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func portBase() string {
	if base := os.Getenv("E2E_PORT_BASE"); base != "" {
		return base
	}
	return "17000"
}

// root is the checkout: the tests' working directory is this package's.
func root() string {
	dir, err := filepath.Abs("..")
	if err != nil {
		panic(err)
	}
	return dir
}

// saveLogs copies the components' logs to $ARTIFACTS, where that is set, for whoever looks at the failure later.
func saveLogs() {
	artifacts := os.Getenv("ARTIFACTS")
	if artifacts == "" {
		return
	}
	if err := os.CopyFS(filepath.Join(artifacts, "logs"), os.DirFS(filepath.Join(suite.runDir, "logs"))); err != nil {
		fmt.Println("e2e: save logs:", err)
	}
}
