package localcluster

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Progress tells whoever waits what is being done: one line when a slow step begins, one from time to time while it lasts
// and one with its duration. The zero value is silent. It is safe for concurrent use.
type Progress struct {
	mu sync.Mutex
	w  io.Writer
}

// NewProgress writes to w.
func NewProgress(w io.Writer) *Progress { return &Progress{w: w} }

// Say writes a line.
func (p *Progress) Say(format string, args ...any) {
	if p == nil || p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// Step runs a slow step and tells of it.
func (p *Progress) Step(what string, do func() error) error {
	p.Say("%s ...", what)
	start := time.Now()
	done, told := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		tick := time.NewTicker(30 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				p.Say("%s ... still at it after %.0f s", what, time.Since(start).Seconds())
			}
		}
	}()
	err := do()
	close(done)
	<-told
	if err == nil {
		p.Say("%s: done in %.1f s", what, time.Since(start).Seconds())
	}
	return err
}
