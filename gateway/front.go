package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/customs"
	"vivarium.io/vivarium/gateway/internal/discovery"
	"vivarium.io/vivarium/gateway/internal/fanout"
	"vivarium.io/vivarium/gateway/internal/identity"
	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/gateway/internal/limits"
	"vivarium.io/vivarium/gateway/internal/offers"
	"vivarium.io/vivarium/gateway/internal/paging"
	"vivarium.io/vivarium/gateway/internal/route"
	"vivarium.io/vivarium/gateway/internal/selection"
	"vivarium.io/vivarium/gateway/internal/stream"
	"vivarium.io/vivarium/gateway/internal/tenants"
	"vivarium.io/vivarium/gateway/internal/translate"
	"vivarium.io/vivarium/internal/boot"
)

// front answers tenants. Its links run in the order of [front.handler]: each does one thing and adds what it found out to
// the facts of the request.
type front struct {
	tenants       identity.Tenants
	authenticator *identity.Authenticator
	impersonator  identity.Impersonator
	limiter       *limits.Limiter
	strangers     *limits.Strangers
	sessions      *stream.Sessions
	table         *kinds.Table
	customs       *customs.Registry
	discovery     *discovery.Server
	control       *control.Client
	fanout        *fanout.Hub
	// matching bounds what shared watches with selectors know.
	matching *selection.Budget
	access   *access
	// policies may be nil: then tenants' admission policies are kept and not applied.
	policies *tenantPolicies
	// offers may be nil: then the operator offers nothing.
	offers *offers.Set
	sealer *paging.Sealer
	// stock are the tenants that have the flow schemas of every cluster.
	stock *stock
	// sizes are how long lists over all namespaces were last time.
	sizes   *sizes
	metrics *metrics

	// Of every tenant's view.
	rootCA             string
	tokenAudience      string
	forbiddenAudiences []string

	// observe stands around everything that a tenant is told; nil outside of tests.
	observe func(http.Handler) http.Handler
}

// facts are what the links have found out about a request. Each field is set once.
type facts struct {
	// verb is what the metrics call the request.
	verb    string
	request *route.Request
	// class is what the request counts as while it is under way.
	class limits.Class
	// sender is whose credential it is; identity is whom the request runs as.
	sender, identity identity.Identity
	tenant           tenants.Tenant

	// stay, if set, is the rest of an answer that stays open: it runs when the links have returned, whose stacks thousands
	// of idle watches would otherwise hold. ends is what is to be done when the request is over.
	stay func() error
	ends []func()
}

// atEnd does something when the request is over.
func (k *facts) atEnd(do func()) { k.ends = append(k.ends, do) }

// end does it, the last first.
func (k *facts) end() {
	for _, do := range slices.Backward(k.ends) {
		do()
	}
}

type factsKey struct{}

func withFacts(ctx context.Context, f *facts) context.Context {
	return context.WithValue(ctx, factsKey{}, f)
}

func factsFrom(ctx context.Context) *facts {
	f, _ := ctx.Value(factsKey{}).(*facts)
	return f
}

// link does its part and calls next, or returns an error to answer with.
type link func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) error

func (f *front) handler() http.Handler {
	links := []link{f.route, f.authenticate, f.limit, f.impersonate}
	var handle http.HandlerFunc = func(w http.ResponseWriter, r *http.Request) {
		if err := f.serve(w, r); err != nil {
			f.fail(w, r, err)
		}
	}
	for i := len(links) - 1; i >= 0; i-- {
		next, do := handle, links[i]
		handle = func(w http.ResponseWriter, r *http.Request) {
			if err := do(w, r, next); err != nil {
				f.fail(w, r, err)
			}
		}
	}
	all := f.metrics.measure(contain(handle))
	if f.observe != nil {
		all = f.observe(all)
	}
	if f.policies != nil {
		return f.policies.handler(all)
	}
	return all
}

// fail answers with an error, unless nobody waits for the answer.
func (f *front) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		return
	}
	writeError(r.Context(), w, err)
}

// contain keeps a mistake in one request from ending the process.
func contain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch reason := recover(); reason {
			case nil:
			case http.ErrAbortHandler:
				// The way to break off an answer that has been begun; the server expects it.
				panic(reason)
			default:
				boot.Logger(r.Context()).Error("A request panicked", "panic", reason, "stack", string(debug.Stack()))
				writeError(r.Context(), w, fmt.Errorf("panic: %v", reason))
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// route reads the request, once.
func (f *front) route(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) error {
	if err := identity.CheckHeaders(r.Header); err != nil {
		return err
	}
	request, err := route.Parse(r.Method, r.RequestURI)
	if err != nil {
		return err
	}
	known := factsFrom(r.Context())
	known.request, known.class = request, classify(request)
	switch {
	case !request.IsResource:
		known.verb = "discovery"
	case known.class == limits.Stream:
		known.verb = "connect"
	default:
		known.verb = request.Verb
	}
	if known.class == limits.Request {
		growStack(len(r.RequestURI))
	}
	defer known.end()
	next(w, r)
	if known.stay != nil {
		return known.stay()
	}
	return nil
}

// stackSize makes the runtime give a goroutine 16 KiB, which is what most requests come to.
const stackSize = 12 << 10

// growStack lets the stack of a request's goroutine grow once, while there is little on it to be copied, and not step by
// step while it gets deeper: that was a quarter of what the gateway's own code cost for a get. What stays open does without,
// because there the size of a stack counts.
//
//go:noinline
func growStack(at int) byte {
	var frame [stackSize]byte
	// The frame is there only if the compiler cannot tell what is read.
	frame[at%stackSize] = 1
	return frame[at/2%stackSize]
}

// classify says what a request counts as. A log is a stream also when it is not followed: how long it is nobody knows before
// its end.
func classify(r *route.Request) limits.Class {
	switch {
	case r.IsResource && r.Verb == "watch":
		return limits.Watch
	case r.IsResource && isTunnel(r), r.IsResource && r.Subresource == "log", r.IsResource && r.Subresource == "proxy":
		return limits.Stream
	}
	return limits.Request
}

func isTunnel(r *route.Request) bool {
	return r.Subresource == "exec" || r.Subresource == "attach" || r.Subresource == "portforward"
}

// authenticate finds out who asks, and for which tenant.
func (f *front) authenticate(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) error {
	strange := f.authenticator.Strange(r)
	if strange {
		if err := f.strangers.Check(r.RemoteAddr); err != nil {
			f.metrics.throttled.WithLabelValues("strangers").Inc()
			return err
		}
	}
	sender, tenant, err := f.authenticator.Authenticate(r)
	if err != nil {
		if strange && statusOf(r.Context(), err).Code == http.StatusUnauthorized {
			f.strangers.Failed(r.RemoteAddr)
		}
		return err
	}
	known := factsFrom(r.Context())
	known.sender, known.tenant = sender, tenant
	next(w, r)
	return nil
}

// limit lets the request in, or tells it to come later.
func (f *front) limit(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) error {
	known := factsFrom(r.Context())
	release, err := f.limiter.Acquire(known.tenant, known.class)
	if err != nil {
		f.metrics.throttled.WithLabelValues(known.class.String()).Inc()
		return err
	}
	known.atEnd(release)
	next(w, r)
	return nil
}

// impersonate finds out whom the request runs as, and puts whatever stays open under the credential's life.
func (f *front) impersonate(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) error {
	known := factsFrom(r.Context())
	var err error
	if known.identity, err = f.impersonator.Impersonate(r.Context(), known.sender, r.Header); err != nil {
		return err
	}
	if known.class == limits.Request {
		ctx, cancel := context.WithTimeout(r.Context(), unaryTimeout)
		defer cancel()
		next(w, r.WithContext(ctx))
		return nil
	}
	var recheck stream.Check
	if known.sender.Token != nil {
		recheck = f.recheck(r)
	}
	ctx, done := f.sessions.Open(r.Context(), &known.sender, recheck)
	known.atEnd(done)
	next(w, r.WithContext(ctx))
	return nil
}

// unaryTimeout is a little longer than a stock API server takes for a request at most.
const unaryTimeout = 70 * time.Second

// recheck asks again about the credential of a request; only a definite no counts.
func (f *front) recheck(r *http.Request) stream.Check {
	return func(ctx context.Context) error {
		_, _, err := f.authenticator.Authenticate(r.WithContext(ctx))
		if err == nil {
			return nil
		}
		if code := statusOf(ctx, err).Code; code == http.StatusUnauthorized || code == http.StatusForbidden {
			return err
		}
		return nil
	}
}

// serve answers a request that may be answered.
func (f *front) serve(w http.ResponseWriter, r *http.Request) error {
	known := factsFrom(r.Context())
	if !known.request.IsResource {
		out := newReply(w, r)
		if err := f.discovery.Serve(out, r, known.request, f.world(r.Context(), known)); err != nil {
			return err
		}
		return f.finish(out.Close())
	}
	kind, has, err := f.decide(r.Context(), known)
	if err != nil {
		return err
	}
	if err := kind.CheckDelete(known.request); err != nil {
		return err
	}
	x := &exchange{front: f, facts: known, kind: kind, translated: translate.Kind{
		Group: kind.Group, Version: known.request.Version, Resource: kind.Resource, Kind: kind.Kind,
		Namespaced: kind.Namespaced, Subresource: known.request.Subresource,
	}}
	if f.offers != nil {
		if f.offers.Known() != nil {
			return apierrors.NewServiceUnavailable("the gateway is starting")
		}
		x.viewer = offers.Viewer{ID: known.tenant.ID, Labels: known.tenant.Labels, Beginning: known.tenant.Beginning.Control}
	}
	if custom := kind.Custom; custom != nil {
		x.translated.Custom, x.translated.ListKind, x.translated.Columns = true, custom.ListKind, custom.Columns[known.request.Version]
		x.translated.Collection = known.request.Verb == "list" || known.request.Verb == "deletecollection"
	}
	x.view = f.viewOf(x, has)
	x.view.Continue = func(controlToken string) string { return f.sealer.Seal(x.scope(), controlToken) }
	if err := x.checkDefinitions(has); err != nil {
		return err
	}
	if err := x.checkPolicies(); err != nil {
		return err
	}
	return x.serve(w, r)
}

// viewOf is how a tenant sees the control cluster.
func (f *front) viewOf(x *exchange, has *customs.Snapshot) translate.View {
	return translate.View{
		Tenant: x.facts.tenant.ID, RootCA: f.rootCA, TokenAudience: f.tokenAudience, ForbiddenAudiences: f.forbiddenAudiences,
		Exported: x.exported, SharedGroups: has.SharedGroups(), Customs: has, VPC: x.facts.tenant.VPC != "",
	}
}

// world is whose discovery is asked for.
func (f *front) world(ctx context.Context, known *facts) discovery.World {
	id := known.tenant.ID
	has := f.customs.Of(id)
	return discovery.World{
		Tenant: id, Customs: has,
		Schemas: func(ctx context.Context, group string) ([]*apiextensionsv1.CustomResourceDefinition, bool, error) {
			return f.customs.Schemas(ctx, id, has, group)
		},
		MayRead: func(ctx context.Context, path string) error { return f.mayRead(ctx, &known.identity, path) },
	}
}

// decide finds the kind of a request and what custom kinds its tenant has. Built-in groups come first: nothing can take
// their place.
func (f *front) decide(ctx context.Context, known *facts) (*kinds.Kind, *customs.Snapshot, error) {
	kind, err := f.table.Decide(known.request)
	if errors.Is(err, kinds.ErrNoSuchPath) {
		return f.customs.Find(ctx, known.tenant.ID, known.request)
	}
	return kind, f.customs.Of(known.tenant.ID), err
}

// finish says whether an answer got through; if it did not, nobody is there to be told.
func (f *front) finish(err error) error {
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

func badRequest(message string) error {
	return errStatus(http.StatusBadRequest, metav1.StatusReasonBadRequest, message)
}
