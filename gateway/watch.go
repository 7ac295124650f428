package gateway

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/translate"
	"vivarium.io/vivarium/internal/boot"
)

// watch passes changes on as they come.
func (x *exchange) watch(w http.ResponseWriter, r *http.Request) error {
	accept, err := control.Accept(r.Header.Values("Accept"), control.Object)
	if err != nil {
		return err
	}
	query, err := x.query("watch")
	if err != nil {
		return err
	}
	if s := x.share(query, accept); s != nil {
		if done, err := s.serve(w, r); done {
			return err
		}
	}
	return x.watchAlone(w, r, query, accept)
}

// watchAlone watches as the tenant's user. Of a collection that holds objects of all tenants, those of others are left
// out.
func (x *exchange) watchAlone(w http.ResponseWriter, r *http.Request, query url.Values, accept string) error {
	res, err := x.open(r.Context(), r.Header, query, accept)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	x.copyHeaders(w.Header(), res)
	w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
	w.WriteHeader(http.StatusOK)
	out := newLive(w)
	if out.Flush() != nil {
		return nil
	}
	return x.withhold(r.Context(), x.view.WatchToTenant(x.translated, out, func() { _ = out.Flush() }, res.Body, x.everywhere()))
}

// open begins a watch of the control cluster as the tenant's user.
func (x *exchange) open(ctx context.Context, header http.Header, query url.Values, accept string) (*http.Response, error) {
	call, err := x.callWith(http.MethodGet, header, control.Streaming, accept, "")
	if err != nil {
		return nil, err
	}
	call.Query = query
	res, err := x.front.control.Do(ctx, call)
	return x.document(ctx, res, err)
}

// withhold breaks a watch off that cannot be translated. Whatever else ended one, frames were passed whole: clients watch
// again from the last one.
func (x *exchange) withhold(ctx context.Context, err error) error {
	var foreign *translate.ForeignError
	if !errors.As(err, &foreign) {
		return nil
	}
	x.front.metrics.foreign.Inc()
	boot.Logger(ctx).Error("A watch of the control cluster is withheld", "error", err,
		"tenant", x.facts.tenant.ID, "resource", x.facts.request.Resource)
	return x.front.finish(err)
}
