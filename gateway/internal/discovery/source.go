package discovery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/internal/boot"
)

const (
	// freshFor is how long a document is served without asking whether it is still good.
	freshFor = 15 * time.Second
	// fetchTimeout bounds the asking, which no client's leaving may end: others wait for the same answer.
	fetchTimeout = 20 * time.Second
	// moment is how long somebody waits for a document who could have an older one.
	moment = 2 * time.Second
)

// Fetcher gets a document that the control cluster publishes.
type Fetcher func(ctx context.Context, path, accept, etag string) (control.Document, error)

// source is one document of the control cluster and what was made of it.
type source[T any] struct {
	fetch        Fetcher
	path, accept string
	now          func() time.Time
	// make turns the document into what is served.
	make func(body []byte) (T, error)

	// mu guards what follows. It is not held while the document is fetched.
	mu      sync.Mutex
	etag    string
	checked time.Time
	known   bool
	value   T
	// fetching is closed when the fetch under way is over; nil when there is none. err is how the last one ended.
	fetching chan struct{}
	err      error
}

// get gives what is served. While the control cluster is away the last known answer is good: it changes with the control
// cluster's version only. The document is fetched once for all who ask; who could have an answer without it waits for a moment
// at most.
func (s *source[T]) get(ctx context.Context) (T, error) {
	s.mu.Lock()
	if s.known && (s.fetching != nil || s.now().Sub(s.checked) < freshFor) {
		defer s.mu.Unlock()
		return s.value, nil
	}
	if s.fetching == nil {
		s.fetching = make(chan struct{})
		go s.refresh(context.WithoutCancel(ctx), s.fetching)
	}
	done, known := s.fetching, s.known
	s.mu.Unlock()
	var late <-chan time.Time
	if known {
		late = time.After(moment)
	}
	var gone error
	select {
	case <-done:
	case <-late:
	case <-ctx.Done():
		gone = ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.known:
		return s.value, nil
	case gone != nil:
		return s.value, gone
	}
	return s.value, s.err
}

// refresh fetches the document and makes of it what is served.
func (s *source[T]) refresh(ctx context.Context, done chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	s.mu.Lock()
	etag := s.etag
	s.mu.Unlock()
	document, value, err := s.load(ctx, etag)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(done)
	if s.fetching, s.err = nil, err; err != nil {
		if errors.Is(err, control.ErrNotPublished) {
			s.known, s.etag = false, ""
		}
		if s.known {
			boot.Logger(ctx).Error("Discovery serves an older document", "path", s.path, "error", err)
			s.checked = s.now()
		}
		return
	}
	if document.Fresh {
		s.value, s.known, s.etag = value, true, document.ETag
	}
	s.checked = s.now()
}

// load asks for the document. A mistake in what is made of it does not end the process.
func (s *source[T]) load(ctx context.Context, etag string) (document control.Document, value T, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("read %s: panic: %v", s.path, reason)
		}
	}()
	if document, err = s.fetch(ctx, s.path, s.accept, etag); err == nil && document.Fresh {
		value, err = s.make(document.Body)
	}
	return document, value, err
}
