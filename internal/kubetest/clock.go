package kubetest

import (
	"errors"
	"testing"
	"time"

	"vivarium.io/vivarium/internal/localcluster"
)

// ErrOneClock says that a process cannot be given a clock of its own here.
var ErrOneClock = errors.New("a process cannot be given a clock of its own here")

// ShiftClock puts the clocks of the whole control plane forward or back; zero puts them right. What is started later has the
// right time. Where that cannot be done the test is skipped.
func (c *Cluster) ShiftClock(t testing.TB, by time.Duration) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, program := range []string{localcluster.Etcd, localcluster.KubeAPIServer, localcluster.ControllerManager, localcluster.Scheduler} {
		p := c.processes.Get(c.plane.ProcessName(program))
		if p == nil || !p.Alive() {
			continue
		}
		if err := ShiftClock(p.ID().PID, by); errors.Is(err, ErrOneClock) {
			t.Skip(err)
		} else if err != nil && p.Alive() {
			t.Fatalf("put the clock of %s by %s: %v", program, by, err)
		}
	}
}
