package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"vivarium.io/vivarium/internal/localcluster"
)

// Focus is what runs unless something else is asked for: what every conformant cluster passes, of the groups that test the
// API, its users and its command line.
const Focus = `\[sig-(api-machinery|auth|cli)\].*\[Conformance\]`

// Skip is what does not run unless something else is asked for: what breaks the cluster for others or needs features that
// are off.
const Skip = `\[Disruptive\]|\[Alpha\]|\[Flaky\]|\[Feature:(OffByDefault|StorageVersionAPI|CBOR|BoundServiceAccountTokenVolume)\]`

// Config says what to run against what.
type Config struct {
	// Suite and Kubernetes hold the programs, all built.
	Suite, Kubernetes *localcluster.Binaries
	// Kubeconfig is a tenant's.
	Kubeconfig string
	// Focus and Skip are patterns of names of specs.
	Focus, Skip string
	// Parallel is how many specs run at once.
	Parallel int
	// DryRun only tells which specs would run.
	DryRun bool
	// Dir gets the log and the results.
	Dir      string
	Progress *localcluster.Progress
}

// LogFile and ResultsFile are what a run leaves in its directory.
const (
	LogFile     = "e2e.log"
	ResultsFile = "junit_01.xml"
)

// Run runs the suite. Specs that fail are no error.
func Run(ctx context.Context, config Config) (*Results, error) {
	if err := os.MkdirAll(config.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("run the suite: %w", err)
	}
	results := filepath.Join(config.Dir, ResultsFile)
	if err := os.Remove(results); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("run the suite: %w", err)
	}
	log, err := os.Create(filepath.Join(config.Dir, LogFile))
	if err != nil {
		return nil, fmt.Errorf("run the suite: %w", err)
	}
	defer log.Close()
	environment, err := localcluster.SuiteEnvironment(config.Dir)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, config.Suite.Path(localcluster.Ginkgo), config.arguments()...)
	cmd.Env = append(os.Environ(), environment...)
	counter := &counter{progress: config.Progress}
	cmd.Stdout, cmd.Stderr = io.MultiWriter(log, counter), log
	// The runner passes an interrupt on to the specs, which clean up behind themselves.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	runError := cmd.Run()
	raw, err := os.Open(results)
	if err != nil {
		return nil, fmt.Errorf("the suite left no results (%w); its log is %s", errors.Join(runError, err), log.Name())
	}
	defer raw.Close()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("run the suite: %w", context.Cause(ctx))
	}
	return Parse(raw)
}

// arguments are those of Ginkgo, then those of the suite.
func (c Config) arguments() []string {
	args := []string{
		"--procs=" + strconv.Itoa(max(1, c.Parallel)), "--focus=" + c.Focus, "--no-color", "-v", "--keep-going", "--timeout=12h",
	}
	if c.Skip != "" {
		args = append(args, "--skip="+c.Skip)
	}
	if c.DryRun {
		args = append(args, "--dry-run")
		args[0] = "--procs=1"
	}
	return append(args, c.Suite.Path(localcluster.E2ETest), "--",
		"--kubeconfig="+c.Kubeconfig,
		"--kubectl-path="+c.Kubernetes.Path(localcluster.Kubectl),
		"--report-dir="+c.Dir,
		"--provider=skeleton",
		// The log has what the specs say. To go through all pods for more takes longer than the specs.
		"--dump-logs-on-failure=false", "--disable-log-dump",
	)
}

// counter tells from time to time how far the suite is.
type counter struct {
	progress     *localcluster.Progress
	done, failed int
	rest         []byte
}

func (c *counter) Write(p []byte) (int, error) {
	c.rest = append(c.rest, p...)
	for {
		line, rest, ok := bytes.Cut(c.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		c.rest = rest
		if !bytes.HasPrefix(line, []byte("• ")) {
			continue
		}
		c.done++
		if bytes.HasPrefix(line, []byte("• [FAILED]")) {
			c.failed++
		}
		if c.done%10 == 0 {
			c.progress.Say("%d specs done, %d of them failed ...", c.done, c.failed)
		}
	}
}
