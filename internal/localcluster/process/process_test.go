package process_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vivarium.io/vivarium/internal/localcluster/process"
)

func start(t *testing.T, script string) *process.Process {
	t.Helper()
	p, err := process.Start(process.Spec{
		Name: "child", Path: "/bin/sh", Args: []string{"-c", script}, Env: []string{"GREETING=hello"},
		Log: filepath.Join(t.TempDir(), "logs", "child.log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop(0) })
	return p
}

func TestStop(t *testing.T) {
	cases := map[string]string{
		"Obeys":   "sleep 1000",
		"Ignores": "trap '' TERM; while :; do sleep 0.01; done",
		"Ended":   "true",
	}
	for name, script := range cases {
		t.Run(name, func(t *testing.T) {
			p := start(t, script)
			if err := p.Stop(200 * time.Millisecond); err != nil {
				t.Fatal(err)
			}
			if p.Alive() {
				t.Error("alive after Stop")
			}
			if err := p.Stop(0); err != nil {
				t.Errorf("a second Stop: %v", err)
			}
		})
	}
}

func TestFind(t *testing.T) {
	p := start(t, "sleep 1000")
	found, ok := process.Find(p.ID(), "child", "")
	if !ok {
		t.Fatalf("%+v not found", p.ID())
	}
	another := p.ID()
	another.Started += "0"
	stranger, ok := process.Find(another, "child", "")
	if ok {
		t.Error("a process with the same PID that started at another time was taken for the child")
	}
	if err := stranger.Stop(0); err != nil || !p.Alive() {
		t.Errorf("stopping a stranger: %v, alive %v", err, p.Alive())
	}
	if err := found.Stop(0); err != nil {
		t.Fatal(err)
	}
	if _, ok := process.Find(p.ID(), "child", ""); ok {
		t.Error("found after Stop")
	}
	if _, ok := process.Find(process.ID{}, "child", ""); ok {
		t.Error("the zero ID was found")
	}
}

func TestUntil(t *testing.T) {
	missing := errors.New("the door is closed")
	never := func(context.Context) error { return missing }

	p := start(t, "echo $GREETING; exit 3")
	err := p.Until(t.Context(), never)
	if !errors.Is(err, process.ErrEnded) || !strings.Contains(err.Error(), "hello") {
		t.Errorf("a process that ended: %v", err)
	}

	p = start(t, "echo $GREETING; sleep 1000")
	logged := func(context.Context) error {
		if !strings.Contains(p.LogTail(), "hello") {
			return errors.New("nothing logged")
		}
		return nil
	}
	if err := p.Until(t.Context(), logged); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("no patience"))
	err = p.Until(ctx, never)
	if !errors.Is(err, missing) || !strings.Contains(err.Error(), "no patience") {
		t.Errorf("an impatient caller: %v", err)
	}
}

func TestStartFails(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	if _, err := process.Start(process.Spec{Name: "child", Path: "/nonexistent", Log: log}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want not found", err)
	}
}
