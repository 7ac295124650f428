package localcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"vivarium.io/vivarium/internal/localcluster/node"
	"vivarium.io/vivarium/internal/localcluster/process"
)

// Down stops the instance in dir and removes everything that it took from the machine, whatever state it is in: half
// started, half removed, or without its directory. It touches nothing else. With keep the directory stays, logs and all,
// but no longer holds an instance. An instance that is not there is no error.
func Down(ctx context.Context, dir string, keep bool, progress *Progress) error {
	i, err := newInstance(dir)
	if err != nil {
		return err
	}
	// A directory that is not ours gets no lock from us, but it may once have been.
	if _, err := os.Stat(i.dir); err == nil && i.checkOurs() == nil {
		unlock, err := i.lock(ctx, progress)
		if err != nil {
			return err
		}
		defer unlock()
	}
	ours := true
	if opened, err := Open(dir); err == nil {
		i = opened
	} else {
		// Its state is gone or torn. All names follow from the directory's, so what is left is found all the same.
		ours = !errors.Is(err, ErrNoInstance)
		i.state, i.processes = state{ID: instanceID(i.dir)}, process.NewSet()
	}
	if err := errors.Join(i.stop(), i.release()); err != nil {
		return fmt.Errorf("%w\nsome of the instance is left; run `vivarium down` again", err)
	}
	switch {
	case !ours:
		progress.Say("no instance in %s; nothing of one runs", i.dir)
		return i.removeEmpty()
	case keep:
		progress.Say("down; %s is kept", i.dir)
		return errors.Join(os.Remove(i.path(stateFile)), os.RemoveAll(i.path("run")))
	}
	if err := os.RemoveAll(i.dir); err != nil {
		return fmt.Errorf("remove the run directory: %w", err)
	}
	progress.Say("down; nothing is left of %s", i.dir)
	return nil
}

// stop stops every process of the instance. Nodes go with all their containers.
func (i *Instance) stop() error {
	// etcd alone has something to finish, and only for those who keep the directory.
	isEtcd := func(name string) bool { return strings.HasSuffix(name, "-"+Etcd) }
	errs := []error{
		i.processes.Stop(0, func(name string) bool { return !isEtcd(name) }),
		i.processes.Stop(2*time.Second, isEtcd),
	}
	// What a killed starter had no time to write down may have children that are being made now.
	for range 10 {
		strays := process.Marked(processMark(i.state.ID))
		if len(strays) == 0 {
			break
		}
		for _, stray := range strays {
			errs = append(errs, stray.Stop(0))
		}
	}
	return errors.Join(errs...)
}

// release gives back what the machine lent besides processes.
func (i *Instance) release() error {
	return errors.Join(i.state.bridge().Remove(), node.RemoveCgroup(cgroupName(i.state.ID)))
}

// removeEmpty removes a directory in which there is nothing but our lock.
func (i *Instance) removeEmpty() error {
	entries, err := os.ReadDir(i.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(entries) == 1 && entries[0].Name() == lockName {
		err = os.RemoveAll(i.dir)
	}
	if err != nil {
		return fmt.Errorf("remove the run directory: %w", err)
	}
	return nil
}
