package discovery

import (
	"context"
	"errors"
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

	// mu guards what follows, and is held while the document is fetched, so that it is fetched once.
	mu      sync.Mutex
	etag    string
	checked time.Time
	known   bool
	value   T
}

// get gives what is served. While the control cluster is away the last known answer is good: it changes with the control
// cluster's version only.
func (s *source[T]) get(ctx context.Context) (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known && s.now().Sub(s.checked) < freshFor {
		return s.value, nil
	}
	err := s.refresh(ctx)
	if errors.Is(err, control.ErrNotPublished) {
		s.known, s.etag = false, ""
	}
	if err != nil && s.known {
		boot.Logger(ctx).Error("Discovery serves an older document", "path", s.path, "error", err)
		s.checked = s.now()
		return s.value, nil
	}
	return s.value, err
}

func (s *source[T]) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	document, err := s.fetch(ctx, s.path, s.accept, s.etag)
	if err != nil {
		return err
	}
	if document.Fresh {
		value, err := s.make(document.Body)
		if err != nil {
			return err
		}
		s.value, s.known, s.etag = value, true, document.ETag
	}
	s.checked = s.now()
	return nil
}
