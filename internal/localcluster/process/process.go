// Package process runs programs as children and finds them again. A child is known by its PID together with the moment
// it started, so nothing that merely inherited a PID is ever taken for it or signalled.
//
// Children are either attached (they die with the program that started them, as tests need) or detached (a session of
// their own that outlives it, as `vivarium up` needs). Start at [Start]; a later program finds a detached child by its
// [ID] with [Find].
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// ID identifies one process for as long as the machine runs, and says of any other that it is another one.
type ID struct {
	// PID is the process ID.
	PID int `json:"pid"`
	// Started is when it started, in a form that only this package compares.
	Started string `json:"started"`
}

// Spec says what to run.
type Spec struct {
	// Name is what messages call the process.
	Name string
	// Path is the program and Args its arguments, without its name.
	Path string
	Args []string
	// Env is added to the environment of this program.
	Env []string
	// Dir is the working directory; this program's if empty.
	Dir string
	// Log is the file that standard output and error are appended to. Required.
	Log string
	// Revision tells versions of the same program apart. Default: what its file tells.
	Revision string
	// Detached gives the process a session of its own, so that it outlives this program. Otherwise it is killed with it.
	Detached bool
	// Namespaces, on Linux, makes the process the first one of new mount, network, PID, IPC and UTS namespaces.
	Namespaces bool
}

// Process is a running or finished child. Its methods are safe for concurrent use.
type Process struct {
	id   ID
	name string
	log  string
	// exited is closed when a child of this program has ended; nil for a process found by its ID.
	exited chan struct{}
}

// Start runs the program that spec describes. The caller need not wait for it.
func Start(spec Spec) (*Process, error) {
	if err := os.MkdirAll(filepath.Dir(spec.Log), 0o755); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	log, err := os.OpenFile(spec.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	defer log.Close()
	cmd := exec.Command(spec.Path, spec.Args...)
	cmd.Dir = spec.Dir
	cmd.Env = slices.Concat(os.Environ(), spec.Env)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr, err = attributes(spec)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	// The child is ours to reap, so its PID cannot be anybody else's yet, even when it has ended.
	started, _, err := look(cmd.Process.Pid)
	p := &Process{id: ID{PID: cmd.Process.Pid, Started: started}, name: spec.Name, log: spec.Log, exited: make(chan struct{})}
	go func() {
		defer close(p.exited)
		_ = cmd.Wait()
	}()
	if err != nil {
		_ = cmd.Process.Kill()
		<-p.exited
		return nil, fmt.Errorf("start %s: %w\n%s", spec.Name, err, p.LogTail())
	}
	return p, nil
}

// Find gives the process that id identifies, or false when it runs no more.
func Find(id ID, name, log string) (*Process, bool) {
	p := &Process{id: id, name: name, log: log}
	return p, p.Alive()
}

// ID identifies the process to a later program.
func (p *Process) ID() ID { return p.id }

// Name is what messages call the process.
func (p *Process) Name() string { return p.name }

// Log is the file that the process writes to.
func (p *Process) Log() string { return p.log }

// Alive reports whether the process still runs; a zombie does not.
func (p *Process) Alive() bool {
	if p.exited != nil {
		select {
		case <-p.exited:
			return false
		default:
			return true
		}
	}
	started, running, err := look(p.id.PID)
	return err == nil && running && started == p.id.Started
}

// Stop asks the process to end, kills it when it has not after grace, and returns when it is gone. A process that ended
// already is no error.
func (p *Process) Stop(grace time.Duration) error {
	if grace > 0 {
		p.signal(syscall.SIGTERM)
		if p.gone(grace) {
			return nil
		}
	}
	p.signal(syscall.SIGKILL)
	if !p.gone(time.Minute) {
		return fmt.Errorf("kill %s (pid %d): it is still there", p.name, p.id.PID)
	}
	return nil
}

func (p *Process) signal(sig syscall.Signal) {
	if p.Alive() {
		// That it may have ended since is what the caller finds out next.
		_ = syscall.Kill(p.id.PID, sig)
	}
}

func (p *Process) gone(within time.Duration) bool {
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if !p.Alive() {
			return true
		}
	}
	return !p.Alive()
}

// Until polls ready until it returns nil. It gives up when the process ends, when ready finds that another one it needs
// has ended ([ErrEnded]) or when ctx is done, and then says what was missing and how the log ends.
func (p *Process) Until(ctx context.Context, ready func(context.Context) error) error {
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		if err := errors.Join(p.Ended(), onlyEnded(err)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %w\n%s", p.name, context.Cause(ctx), err, p.LogTail())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ErrEnded says that a process ended although it should have stayed.
var ErrEnded = errors.New("the process ended")

// Ended is nil while the process runs, and then an [ErrEnded] that says how the log ends.
func (p *Process) Ended() error {
	if p.Alive() {
		return nil
	}
	return fmt.Errorf("%s: %w\n%s", p.name, ErrEnded, p.LogTail())
}

func onlyEnded(err error) error {
	if errors.Is(err, ErrEnded) {
		return err
	}
	return nil
}
