package process

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Set is a set of processes by name. One made by [NewSet] holds attached processes and forgets them with the program; one
// made by [OpenSet] holds detached ones, records them in a directory and finds them again. It is safe for concurrent use.
type Set struct {
	dir  string
	mark string

	mu     sync.Mutex // guards what follows
	byName map[string]*Process
	specs  map[string]string
}

// record is what a file in the directory of a set says.
type record struct {
	ID
	Log string `json:"log"`
	// Spec is a digest of what was run; see [digest].
	Spec string `json:"spec"`
}

// NewSet makes an empty set of attached processes.
func NewSet() *Set { return &Set{byName: map[string]*Process{}, specs: map[string]string{}} }

// OpenSet gives the set of detached processes that is recorded in dir. The mark, NAME=value, is put into the environment of
// each, for [Marked] to find.
func OpenSet(dir, mark string) (*Set, error) {
	s := NewSet()
	s.dir, s.mark = dir, mark
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open the process records: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("open the process records: %w", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read a process record: %w", err)
		}
		var r record
		if err := json.Unmarshal(raw, &r); err != nil {
			return nil, fmt.Errorf("read process record %s: %w", file, err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		s.byName[name] = &Process{id: r.ID, name: name, log: r.Log}
		s.specs[name] = r.Spec
	}
	return s, nil
}

// Outcome says what [Set.Ensure] did.
type Outcome string

// The outcomes.
const (
	// Kept means that the process was running already.
	Kept Outcome = "kept"
	// Started means that there was none of that name.
	Started Outcome = "started"
	// Restarted means that it had ended and was started anew.
	Restarted Outcome = "restarted"
	// Replaced means that the program or its arguments had changed: the old one was stopped and the new one started.
	Replaced Outcome = "replaced"
)

// Ensure makes sure that the process spec.Name runs as spec says.
func (s *Set) Ensure(spec Spec) (*Process, Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	outcome := Started
	want := digest(spec)
	if p, ok := s.byName[spec.Name]; ok {
		outcome = Restarted
		if p.Alive() {
			if s.specs[spec.Name] == want {
				return p, Kept, nil
			}
			outcome = Replaced
			if err := p.Stop(5 * time.Second); err != nil {
				return nil, outcome, err
			}
		}
	}
	spec.Detached = s.dir != ""
	if s.mark != "" {
		spec.Env = append(slices.Clip(spec.Env), s.mark)
	}
	p, err := Start(spec)
	if err != nil {
		return nil, outcome, err
	}
	s.byName[spec.Name], s.specs[spec.Name] = p, want
	if err := s.record(spec.Name, record{ID: p.id, Log: p.log, Spec: want}); err != nil {
		return nil, outcome, errors.Join(err, p.Stop(0))
	}
	return p, outcome, nil
}

func (s *Set) record(name string, r record) error {
	if s.dir == "" {
		return nil
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record %s: %w", name, err)
	}
	// A torn record would be worse than none: write it aside, then rename.
	file := filepath.Join(s.dir, name+".json")
	if err := errors.Join(os.WriteFile(file+".new", raw, 0o644), os.Rename(file+".new", file)); err != nil {
		return fmt.Errorf("record %s: %w", name, err)
	}
	return nil
}

// Get gives the process of that name, running or not; nil when there never was one.
func (s *Set) Get(name string) *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byName[name]
}

// All lists the processes by name, running or not.
func (s *Set) All() []*Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Process, 0, len(s.byName))
	for _, p := range s.byName {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *Process) int { return strings.Compare(a.name, b.name) })
	return all
}

// Stop stops all processes whose name select accepts, all at once, and forgets them.
func (s *Set) Stop(grace time.Duration, selected func(name string) bool) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for _, p := range s.All() {
		if !selected(p.name) {
			continue
		}
		wg.Go(func() {
			err := p.Stop(grace)
			if err == nil {
				err = s.forget(p.name)
			}
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *Set) forget(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byName, name)
	delete(s.specs, name)
	if s.dir == "" {
		return nil
	}
	if err := os.Remove(filepath.Join(s.dir, name+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget %s: %w", name, err)
	}
	return nil
}

// Marked gives the running processes that carry a mark, NAME=value, in their environment, whether a set knows them or not:
// a starter that was killed may have had no time to record one. Only Linux can tell; elsewhere there are none.
func Marked(mark string) []*Process {
	var found []*Process
	for _, pid := range marked(mark) {
		if started, running, err := look(pid); err == nil && running && pid != os.Getpid() {
			found = append(found, &Process{id: ID{PID: pid, Started: started}, name: fmt.Sprintf("process %d", pid)})
		}
	}
	return found
}

// digest tells whether two specs run the same: the same revision of a program with the same arguments and environment.
func digest(spec Spec) string {
	revision := spec.Revision
	if revision == "" {
		revision = fileRevision(spec.Path)
	}
	return fmt.Sprintf("%.16x", sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q", spec.Path, spec.Args, spec.Env, spec.Dir, revision)))
}

// fileRevision tells versions of a program apart: by the ID that Go gives to what it builds, which stays the same when
// nothing has changed but the file was written anew; for other programs by the file's size and time.
func fileRevision(path string) string {
	if program, err := elf.Open(path); err == nil {
		defer program.Close()
		if section := program.Section(".note.go.buildid"); section != nil {
			if id, err := section.Data(); err == nil {
				return string(id)
			}
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprint(info.Size(), info.ModTime().UnixNano())
}
