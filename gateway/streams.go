package gateway

import (
	"context"
	"errors"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/stream"
	"vivarium.io/vivarium/internal/boot"
)

// log passes the text of a pod's log on.
func (x *exchange) log(w http.ResponseWriter, r *http.Request) error {
	if stream.IsSocket(r) && !stream.SameOrigin(r) {
		return errStatus(http.StatusForbidden, metav1.StatusReasonForbidden, "requests of web pages are not accepted")
	}
	// Whether the kubelet's certificate is checked is not the tenant's to say.
	delete(x.facts.request.Query, "insecureSkipTLSVerifyBackend")
	call, err := x.call(r, control.Streaming, "application/json, */*", "")
	if err != nil {
		return err
	}
	if call.Query, err = x.query("get"); err != nil {
		return err
	}
	res, err := x.front.control.Do(r.Context(), call)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode >= 300 {
		return x.readError(r.Context(), res)
	}
	x.copyHeaders(w.Header(), res)
	if res.StatusCode == http.StatusNoContent {
		// A pod without a node has no log yet.
		w.WriteHeader(res.StatusCode)
		return nil
	}
	if stream.IsSocket(r) {
		stream.SocketText(w, r, res.Body, writeTimeout)
		return nil
	}
	// A log may hold anything; no browser shall take it for a page.
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	out := newLive(w)
	if out.Flush() != nil {
		return nil
	}
	// Whoever still listens must hear that this is not the end.
	return x.front.finish(stream.CopyFlushing(out, out.Flush, res.Body))
}

// tunnel joins the client with a container.
func (x *exchange) tunnel(w http.ResponseWriter, r *http.Request) error {
	switch {
	case !stream.IsUpgrade(r):
		return badRequest("unable to upgrade: this request needs the protocol SPDY/3.1 or websocket over HTTP/1.1")
	case !stream.SameOrigin(r):
		return errStatus(http.StatusForbidden, metav1.StatusReasonForbidden, "requests of web pages are not accepted")
	}
	call, err := x.call(r, control.Upgrade, "application/json, */*", "")
	if err != nil {
		return err
	}
	control.UpgradeHeaders(call.Header, r.Header)
	if call.Query, err = x.query(x.facts.request.Verb); err != nil {
		return err
	}
	res, err := x.front.control.Do(r.Context(), call)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		defer res.Body.Close()
		if res.StatusCode < 300 {
			boot.Logger(r.Context()).Error("The control cluster did not switch protocols", "code", res.StatusCode)
			return errStatus(http.StatusBadGateway, metav1.StatusReasonUnknown, "the API did not switch protocols")
		}
		// The client may have sent more than its request; none of it must be taken for the next one.
		w.Header().Set("Connection", "close")
		return x.readError(r.Context(), res)
	}
	if !strings.EqualFold(res.Header.Get("Upgrade"), r.Header.Get("Upgrade")) {
		_ = res.Body.Close()
		return errStatus(http.StatusBadGateway, metav1.StatusReasonUnknown, "the API switched to another protocol")
	}
	if err := stream.Tunnel(r.Context(), w, res); err != nil {
		return err
	}
	if cause := context.Cause(r.Context()); errors.Is(cause, stream.ErrCut) {
		boot.Logger(r.Context()).Info("A tunnel is cut", "tenant", x.facts.tenant.ID, "cause", cause.Error())
	}
	return nil
}
