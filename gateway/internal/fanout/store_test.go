package fanout

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"vivarium.io/vivarium/gateway/internal/selection"
)

// store is a control cluster: a history of one resource that can be listed and watched.
type store struct {
	mu      sync.Mutex
	changed chan struct{}
	history []change1
	rv      uint64
	// oldest is the resource version before which the past is gone.
	oldest uint64
	// code, if set, is the answer to every request.
	code     int
	watches  []context.CancelFunc
	requests []string
}

type change1 struct {
	rv       uint64
	ns, name string
	frame    string
	// state is what has become of the object: on or off, which is its label, or gone.
	state string
}

func newStore() *store { return &store{changed: make(chan struct{}), rv: 100} }

// write notes events of one transaction, each of an object "namespace/name" or "namespace/name=state", and gives its
// resource version.
func (s *store) write(objects ...string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rv++
	for _, object := range objects {
		ns, name, _ := strings.Cut(object, "/")
		name, state, _ := strings.Cut(name, "=")
		kind, label := "MODIFIED", state
		switch before := s.before(ns, name, s.rv); {
		case state == "gone":
			// A deletion tells what there was.
			kind, label = "DELETED", before.state
		case state != "" && before.gone():
			kind = "ADDED"
		}
		labels := ""
		if label != "" {
			labels = fmt.Sprintf(`,"labels":{"is":%q}`, label)
		}
		s.history = append(s.history, change1{s.rv, ns, name, fmt.Sprintf(
			`{"type":%q,"object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":%q,"namespace":%q,"resourceVersion":"%d"%s}}}`+"\n", kind, name, ns, s.rv, labels), state})
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return s.rv
}

// gone reports whether the object was not there.
func (c change1) gone() bool { return c.state == "" || c.state == "gone" }

// before gives what an object was before a resource version. mu is held.
func (s *store) before(ns, name string, rv uint64) change1 {
	for i := len(s.history) - 1; i >= 0; i-- {
		if c := s.history[i]; c.rv < rv && c.ns == ns && c.name == name {
			return c
		}
	}
	return change1{}
}

// mark sends a bookmark to every watch.
func (s *store) mark() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history = append(s.history, change1{rv: s.rv, frame: fmt.Sprintf(
		`{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"%d"}}}`+"\n", s.rv)})
	close(s.changed)
	s.changed = make(chan struct{})
	return s.rv
}

// forget lets go of the past up to a resource version.
func (s *store) forget(rv uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oldest = rv
}

// cut breaks all watches off.
func (s *store) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, cancel := range s.watches {
		cancel()
	}
	s.watches = nil
}

func (s *store) answer(code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.code = code
}

func (s *store) get(ctx context.Context, _ string, query url.Values, _ string) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, query.Encode())
	if s.code != 0 {
		return &http.Response{StatusCode: s.code, Body: io.NopCloser(strings.NewReader("{}")), Header: http.Header{}}, nil
	}
	res := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}}
	if query.Get("watch") != "true" {
		res.Body = io.NopCloser(strings.NewReader(fmt.Sprintf(`{"metadata":{"resourceVersion":"%d"},"items":[]}`, s.rv)))
		return res, nil
	}
	from, err := strconv.ParseUint(query.Get("resourceVersion"), 10, 64)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s.watches = append(s.watches, cancel)
	r, w := io.Pipe()
	res.Body = r
	go func() {
		<-ctx.Done()
		_ = w.CloseWithError(io.ErrUnexpectedEOF)
	}()
	next := slices.IndexFunc(s.history, func(c change1) bool { return c.rv > from })
	if next < 0 {
		next = len(s.history)
	}
	if from < s.oldest {
		go func() {
			_, _ = io.WriteString(w, `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version","reason":"Expired","code":410}}`+"\n")
			_ = w.Close()
		}()
		return res, nil
	}
	go func() {
		for {
			s.mu.Lock()
			var frames []change1
			if next < len(s.history) {
				frames = slices.Clone(s.history[next:])
			}
			next += len(frames)
			changed := s.changed
			s.mu.Unlock()
			for _, one := range frames {
				if _, err := io.WriteString(w, one.frame); err != nil {
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return res, nil
}

// truth gives what a tenant's watch from a resource version must see.
func (s *store) truth(tenant string, from, to uint64) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, c := range s.history {
		if c.rv > from && c.rv <= to && strings.HasPrefix(c.ns, tenant+"-") {
			out = append(out, fmt.Sprintf("%d %s", c.rv, c.name))
		}
	}
	return out
}

// matching gives a tenant's objects that are on at a resource version.
func (s *store) matching(tenant string, rv uint64) *selection.Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := &selection.Set{}
	for _, c := range s.history {
		if c.rv > rv || !strings.HasPrefix(c.ns, tenant+"-") {
			continue
		}
		key := selection.KeyOf([]byte(c.ns), []byte(c.name))
		if c.state == "on" {
			set.Add(key)
		} else {
			set.Remove(key)
		}
	}
	return set
}

// selected gives what a watch of a tenant's objects that are on must see, as an API server decides it from what an object is
// and what it was.
func (s *store) selected(tenant string, from, to uint64) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, c := range s.history {
		if c.rv <= from || c.rv > to || !strings.HasPrefix(c.ns, tenant+"-") {
			continue
		}
		before := s.before(c.ns, c.name, c.rv)
		is, was := c.state == "on", before.state == "on"
		switch {
		case is && was:
			out = append(out, fmt.Sprintf("%d %s MODIFIED", c.rv, c.name))
		case is:
			out = append(out, fmt.Sprintf("%d %s ADDED", c.rv, c.name))
		case was && c.state == "gone":
			out = append(out, fmt.Sprintf("%d %s DELETED", c.rv, c.name))
		case was:
			out = append(out, fmt.Sprintf("%d %s DELETED as of %d", c.rv, c.name, before.rv))
		}
	}
	return out
}

func newHub(t *testing.T, s *store, change func(*Config)) *Hub {
	t.Helper()
	c := Config{Get: s.get}
	if change != nil {
		change(&c)
	}
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

var configMaps = Key{Version: "v1", Resource: "configmaps", Accept: "application/json"}

func acquire(t *testing.T, h *Hub, from uint64) *Lease {
	t.Helper()
	lease, err := h.Acquire(t.Context(), configMaps, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Release)
	return lease
}

// soon is far longer than anything here takes; only a failure waits for it.
const soon = 30 * time.Second

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(soon); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
