package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/gateway/internal/offers"
	"vivarium.io/vivarium/gateway/internal/paging"
	"vivarium.io/vivarium/gateway/internal/translate"
	"vivarium.io/vivarium/internal/boot"
)

const (
	// maxBody is what a stock API server takes.
	maxBody = translate.MaxBody
	// maxError bounds the body of an error of the control cluster.
	maxError = 1 << 20
	// bodyTimeout is how long a client may take to send its body.
	bodyTimeout = 30 * time.Second
)

// exchange is one request for a resource on its way to the control cluster and back.
type exchange struct {
	front      *front
	facts      *facts
	kind       *kinds.Kind
	translated translate.Kind
	view       translate.View
	viewer     offers.Viewer
}

// scope is what a continue token of this request is good for.
func (x *exchange) scope() paging.Scope {
	r := x.facts.request
	return paging.Scope{
		TenantUID: x.facts.tenant.UID, Group: r.Group, Version: r.Version, Resource: r.Resource, Namespace: string(r.Namespace),
		LabelSelector: r.Query.Get("labelSelector"), FieldSelector: r.Query.Get("fieldSelector"),
	}
}

func (x *exchange) serve(w http.ResponseWriter, r *http.Request) error {
	request := x.facts.request
	if x.kind.Kept {
		if err := x.mayKeep(r); err != nil {
			return err
		}
	}
	if err := x.notBefore(r.Context()); err != nil {
		return err
	}
	switch {
	case isTunnel(request):
		return x.tunnel(w, r)
	case request.Subresource == "proxy":
		return x.proxy(w, r)
	case request.Subresource == "log":
		return x.log(w, r)
	case x.kind.Confined == kinds.Exported, x.kind.Confined == kinds.Claimed, x.kind.Confined == kinds.Network:
		return x.offered(w, r)
	case x.kind.Confined == kinds.Empty:
		return x.empty(w, r)
	case !translate.Supported(x.translated):
		return errStatus(http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
	case request.Verb == "watch":
		return x.watch(w, r)
	case request.Verb == "list" && x.everywhere():
		return x.listEverywhere(w, r)
	case request.Verb == "deletecollection" && x.everywhere():
		return x.deleteEverywhere(w, r)
	case request.Verb == "get" && x.kind.Confined == kinds.ByLabel:
		return x.getSelected(w, r)
	}
	return x.unary(w, r)
}

// everywhere reports whether the request is for a collection that holds objects of all tenants.
func (x *exchange) everywhere() bool {
	r := x.facts.request
	return r.Name == "" && (x.kind.Confined == kinds.ByName || x.kind.Confined == kinds.ByNamespace && r.Namespace == "")
}

// call makes the part of a control request that every verb needs.
func (x *exchange) call(r *http.Request, mode control.Mode, accept, contentType string) (control.Call, error) {
	return x.callWith(r.Method, r.Header, mode, accept, contentType)
}

// callWith is call for those who do not hold the request any more.
func (x *exchange) callWith(method string, header http.Header, mode control.Mode, accept, contentType string) (control.Call, error) {
	path, err := x.facts.request.ControlPath(x.facts.tenant.ID, x.kind.Scope())
	if err != nil {
		return control.Call{}, err
	}
	return control.Call{
		Mode: mode, As: &x.facts.identity, Method: method, Path: path, Header: control.Headers(header, accept, contentType),
	}, nil
}

// query translates the parameters. What is the tenant's continue token becomes the control cluster's.
func (x *exchange) query(verb string) (url.Values, error) {
	query, err := x.view.QueryToControl(x.translated, verb, x.facts.request.Query)
	if err != nil {
		return nil, err
	}
	if token := query.Get("continue"); token != "" {
		opened, err := x.front.sealer.Open(x.scope(), token)
		if err != nil {
			return nil, badRequest("continue key is not valid: " + err.Error())
		}
		query.Set("continue", opened)
	}
	return query, nil
}

// unary is a request with one answer.
func (x *exchange) unary(w http.ResponseWriter, r *http.Request) error {
	request := x.facts.request
	accept, err := control.Accept(r.Header.Values("Accept"), control.Object)
	if err != nil {
		return err
	}
	call, err := x.call(r, control.Unary, accept, "")
	if err != nil {
		return err
	}
	if call.Query, err = x.query(request.Verb); err != nil {
		return err
	}
	if r.Method != http.MethodGet {
		if err := x.body(w, r, &call); err != nil {
			return err
		}
	}
	res, err := x.front.control.Do(r.Context(), call)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return x.answer(w, r, res, func(dst io.Writer) error { return x.view.ObjectToTenant(x.translated, dst, res.Body) })
}

// body reads and translates the body.
func (x *exchange) body(w http.ResponseWriter, r *http.Request, call *control.Call) error {
	request := x.facts.request
	if r.Header.Get("Content-Encoding") != "" {
		return errStatus(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType, "bodies must not be compressed")
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
	case err != nil:
		return badRequest("the body could not be read")
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	if len(raw) == 0 && r.Method == http.MethodDelete {
		return nil
	}
	contentTypes := r.Header.Values("Content-Type")
	if len(contentTypes) > 1 {
		return badRequest("header Content-Type: is given more than once")
	}
	view := x.view
	if request.Verb == "patch" {
		view.Present = func() []byte { return x.present(r) }
	}
	out, contentType, err := view.BodyToControl(x.translated, request.Verb, strings.Join(contentTypes, ""), raw, string(request.Namespace), request.Name)
	if err != nil {
		return err
	}
	call.Body = out
	call.Header["Content-Type"] = []string{contentType}
	return nil
}

// present gives the object of a request as the user sees it, in the control cluster's words; nil if there is none to see.
func (x *exchange) present(r *http.Request) []byte {
	call, err := x.callWith(http.MethodGet, http.Header{}, control.Unary, "application/json", "")
	if err != nil {
		return nil
	}
	res, err := x.front.control.Do(r.Context(), call)
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	if err != nil || res.StatusCode != http.StatusOK || len(raw) > maxBody || checkType(res) != nil {
		return nil
	}
	return raw
}

// answer passes an answer of the control cluster on: an error as a translated Status, anything else through translated.
func (x *exchange) answer(w http.ResponseWriter, r *http.Request, res *http.Response, translated func(io.Writer) error) error {
	if res.StatusCode < 200 || res.StatusCode >= 300 {
		return x.readError(r.Context(), res)
	}
	if err := checkType(res); err != nil {
		return err
	}
	out := newReply(w, r)
	x.copyHeaders(out.Header(), res)
	out.Header().Set("Content-Type", res.Header.Get("Content-Type"))
	out.WriteHeader(res.StatusCode)
	if err := translated(out); err != nil {
		return x.broken(r.Context(), out, err)
	}
	return x.front.finish(out.Close())
}

// document takes an answer that is a document which can be translated, as a call gave it; anything else becomes an error.
func (x *exchange) document(ctx context.Context, res *http.Response, err error) (*http.Response, error) {
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		return nil, x.readError(ctx, res)
	}
	if err := checkType(res); err != nil {
		_ = res.Body.Close()
		return nil, err
	}
	return res, nil
}

// replyJSON answers with what was made here.
func (x *exchange) replyJSON(w http.ResponseWriter, r *http.Request, raw []byte) error {
	out := newReply(w, r)
	out.Header().Set("Content-Type", "application/json")
	out.Header().Set("Cache-Control", "no-cache, private")
	if _, err := out.Write(raw); err != nil {
		return x.front.finish(err)
	}
	return x.front.finish(out.Close())
}

// broken is what becomes of an answer that could not be passed on to its end. If a part of it has been sent, the
// connection breaks: a clean end would make a truth of half an answer.
func (x *exchange) broken(ctx context.Context, out *reply, err error) error {
	var foreign *translate.ForeignError
	isForeign := errors.As(err, &foreign)
	if isForeign {
		x.front.metrics.foreign.Inc()
		boot.Logger(ctx).Error("An answer of the control cluster is withheld", "error", err,
			"tenant", x.facts.tenant.ID, "verb", x.facts.request.Verb, "resource", x.facts.request.Resource)
	}
	if out.Started() {
		return x.front.finish(err)
	}
	out.Reset()
	var told apierrors.APIStatus
	var passed *controlError
	switch {
	case errors.As(err, &told), errors.As(err, &passed):
		return err
	case isForeign && x.facts.request.Verb == "get":
		return apierrors.NewNotFound(x.facts.request.GroupResource(), x.facts.request.Name)
	case isForeign:
		return errStatus(http.StatusInternalServerError, metav1.StatusReasonInternalError, "the answer could not be translated")
	case ctx.Err() != nil:
		return control.Trouble(ctx, ctx.Err())
	}
	boot.Logger(ctx).Error("An answer of the control cluster broke off", "error", err)
	return control.Unavailable()
}

// copyHeaders passes on what a tenant may see of an answer's headers.
func (x *exchange) copyHeaders(h http.Header, res *http.Response) {
	h.Set("Cache-Control", "no-cache, private")
	if id := res.Header.Get("Audit-Id"); id != "" {
		h.Set("Audit-Id", id)
	}
	// What cannot be parsed is not passed: nobody knows what it says.
	warnings, _ := utilnet.ParseWarningHeaders(res.Header["Warning"])
	for _, warning := range warnings {
		text, err := utilnet.NewWarningHeader(warning.Code, "-", x.view.TextToTenant(warning.Text))
		if err == nil {
			h.Add("Warning", text)
		}
	}
}

func checkType(res *http.Response) error {
	if contentType := res.Header.Get("Content-Type"); !control.Translatable(contentType) {
		return fmt.Errorf("the control cluster answered with %q", contentType)
	}
	return nil
}

// controlError is an error of the control cluster, translated, on its way to the tenant.
type controlError struct {
	code   int
	header http.Header
	body   []byte
}

func (e *controlError) Error() string { return fmt.Sprintf("error %d of the control cluster", e.code) }

// readError reads and translates an error answer.
func (x *exchange) readError(ctx context.Context, res *http.Response) error {
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxError))
	if err != nil {
		return control.Trouble(ctx, err)
	}
	e := &controlError{code: res.StatusCode, header: http.Header{}, body: x.view.StatusToTenant(x.translated, res.StatusCode, raw)}
	x.copyHeaders(e.header, res)
	if after := res.Header.Get("Retry-After"); after != "" {
		e.header.Set("Retry-After", after)
	}
	e.header.Set("Content-Type", "application/json")
	if bytes.HasPrefix(e.body, []byte("k8s\x00")) {
		e.header.Set("Content-Type", res.Header.Get("Content-Type"))
	}
	return e
}

func errStatus(code int32, reason metav1.StatusReason, message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message,
	}}
}
