package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"vivarium.io/vivarium/gateway/internal/identity"
	"vivarium.io/vivarium/gateway/internal/limits"
	"vivarium.io/vivarium/internal/names"
)

// inside is a tenant's API for a part of the gateway that acts in the tenant's cluster as its API server would: as an
// administrator, without a credential, outside the tenant's limits, and also while the tenant is suspended, whose
// controllers go on. It is a http.RoundTripper that nothing but this process can use.
type inside struct {
	front *front
	id    names.TenantID
}

// insideUser is who asks. Its group has every right in the tenant's cluster, and none outside of it.
const insideUser = "system:apiserver"

// RoundTrip answers a request by the links that any request goes through once it is known who asks.
func (i inside) RoundTrip(r *http.Request) (*http.Response, error) {
	tenant, ok := i.front.tenants.Get(i.id)
	if !ok {
		return nil, fmt.Errorf("tenant %s: is not there", i.id)
	}
	ctx, cancel := context.WithCancel(r.Context())
	body, w := io.Pipe()
	out := &piped{header: http.Header{}, body: w, begun: make(chan struct{})}
	who := identity.Identity{Tenant: i.id, TenantUID: tenant.UID, User: insideUser, Groups: []string{"system:masters", "system:authenticated"}}
	known := &facts{verb: "other", sender: who, identity: who, tenant: tenant}
	in := r.Clone(withFacts(ctx, known))
	in.RequestURI = r.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	go func() {
		defer cancel()
		defer in.Body.Close()
		err := i.serve(out, in)
		out.WriteHeader(http.StatusOK)
		_ = w.CloseWithError(err)
	}()
	select {
	case <-out.begun:
		return &http.Response{
			Status: http.StatusText(out.code), StatusCode: out.code, Proto: "HTTP/2.0", ProtoMajor: 2, Header: out.sent, ContentLength: -1,
			Body: &endable{body, cancel}, Request: r,
		}, nil
	case <-ctx.Done():
		_ = body.CloseWithError(ctx.Err())
		return nil, ctx.Err()
	}
}

// serve gives an error for an answer that broke off.
func (i inside) serve(w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = io.ErrUnexpectedEOF
		}
	}()
	f := i.front
	contain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := f.route(w, r, func(w http.ResponseWriter, r *http.Request) {
			if factsFrom(r.Context()).class == limits.Request {
				ctx, cancel := context.WithTimeout(r.Context(), unaryTimeout)
				defer cancel()
				r = r.WithContext(ctx)
			}
			if err := f.serve(w, r); err != nil {
				f.fail(w, r, err)
			}
		})
		if err != nil {
			f.fail(w, r, err)
		}
	})).ServeHTTP(w, r)
	return nil
}

// piped is an answer that is read while it is written.
type piped struct {
	header http.Header
	body   *io.PipeWriter
	once   sync.Once
	begun  chan struct{}
	// code and sent are set before begun is closed.
	code int
	sent http.Header
}

// Header implements http.ResponseWriter.
func (p *piped) Header() http.Header { return p.header }

// WriteHeader implements http.ResponseWriter.
func (p *piped) WriteHeader(code int) {
	p.once.Do(func() {
		p.code, p.sent = code, p.header.Clone()
		close(p.begun)
	})
}

// Write implements http.ResponseWriter.
func (p *piped) Write(b []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	return p.body.Write(b)
}

// Flush implements http.Flusher: nothing is held back, but who waits for the header gets it.
func (p *piped) Flush() { p.WriteHeader(http.StatusOK) }

// SetReadDeadline and SetWriteDeadline are for http.ResponseController: a reader in this process that stops reading has
// closed the body.
func (p *piped) SetReadDeadline(time.Time) error  { return nil }
func (p *piped) SetWriteDeadline(time.Time) error { return nil }

// endable is a body that ends its request when it is closed.
type endable struct {
	*io.PipeReader
	end context.CancelFunc
}

// Close implements io.Closer.
func (e *endable) Close() error {
	e.end()
	return e.PipeReader.Close()
}
