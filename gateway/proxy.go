package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apimachinery/pkg/util/validation"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/identity"
	"vivarium.io/vivarium/gateway/internal/route"
	"vivarium.io/vivarium/gateway/internal/stream"
	"vivarium.io/vivarium/gateway/internal/translate"
	"vivarium.io/vivarium/internal/boot"
)

// The gateway serves the proxy subresources of pods and services itself: it speaks HTTP over a port-forward tunnel to the
// pod. The control API server would dial an address: of a pod in a pool, which it has no route to, or of whatever the
// status of an object says, which may be anything.

// target is where a proxied request ends: a port of a pod.
type target struct {
	pod string
	// port is 0 for the usual one of the scheme.
	port int
}

// proxy serves a request to a pod or to a Service.
func (x *exchange) proxy(w http.ResponseWriter, r *http.Request) error {
	request := x.facts.request
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(request.Name)
	if !ok || scheme != "" && scheme != "http" && scheme != "https" || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return badRequest(fmt.Sprintf("invalid %s request %q", strings.TrimSuffix(request.Resource, "s"), request.Name))
	}
	if err := x.authorize(r.Context(), request.Verb); err != nil {
		return err
	}
	path, query, _ := strings.Cut(request.Proxied, "?")
	// It is a path whatever it begins with: two slashes do not make a host of what follows.
	unescaped, err := url.PathUnescape(path)
	if err != nil || path != "" && path[0] != '/' {
		return badRequest("the path behind proxy cannot be read")
	}
	if err := x.checkConnect(r.Context(), w, unescaped); err != nil {
		return err
	}
	if scheme == "" {
		scheme = "http"
	}
	find := x.podTarget
	if request.Resource == "services" {
		find = x.serviceTarget
	}
	to, err := find(r.Context(), name, port)
	if err != nil {
		return err
	}
	if to.port == 0 {
		to.port = 80
		if scheme == "https" {
			to.port = 443
		}
	}
	// The host leads nowhere by itself: only the dialer knows what it means.
	host := net.JoinHostPort(request.Resource+"."+name+".invalid", strconv.Itoa(to.port))
	location := &url.URL{Scheme: scheme, Host: host, Path: unescaped, RawPath: path, RawQuery: query}
	transport := &http.Transport{
		// The context of a dial ends with the dial; the tunnel must not.
		DialContext: func(context.Context, string, string) (net.Conn, error) { return x.dialPod(r.Context(), to) },
		// As for a stock API server, whoever answers in the pod answers for it.
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec
		DisableKeepAlives: true, DisableCompression: true,
	}
	defer transport.CloseIdleConnections()
	handler := proxy.NewUpgradeAwareHandler(location, transport, true, false, proxyErrors{x})
	handler.ServeHTTP(capable{w, http.NewResponseController(w)}, x.toPod(r))
	return nil
}

// toPod takes out of a request what is for the gateway alone: who the user is, and proofs of it.
func (x *exchange) toPod(r *http.Request) *http.Request {
	out := r.Clone(r.Context())
	for name := range out.Header {
		lower := strings.ToLower(name)
		if lower == "authorization" || strings.HasPrefix(lower, "impersonate-") || strings.HasPrefix(lower, "x-remote-") {
			delete(out.Header, name)
		}
	}
	control.StripBearer(out.Header)
	return out
}

// owner is the identity by which the gateway does for a user whom it has let through what takes another right: the right
// to proxy is not the right to read pods or to forward ports, nor is the right to get a node that to list them.
func (x *exchange) owner() *identity.Identity {
	as := x.facts.identity
	if !slices.Contains(as.Groups, "system:masters") {
		as.Groups = append(slices.Clone(as.Groups), "system:masters")
	}
	return &as
}

// fetch reads an object or a list of the tenant. An error of the control cluster is translated.
func (x *exchange) fetch(ctx context.Context, r route.Request, kind string, query url.Values, into any) error {
	path, err := r.ControlPath(x.facts.tenant.ID, route.Namespaced)
	if err != nil {
		return err
	}
	res, err := x.front.control.Do(ctx, control.Call{
		Mode: control.Unary, As: x.owner(), Method: http.MethodGet, Path: path, Query: query, Header: control.Headers(nil, "application/json", ""),
	})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		asked := *x
		asked.translated = translate.Kind{Group: r.Group, Version: r.Version, Resource: r.Resource, Kind: kind, Namespaced: true}
		return asked.readError(ctx, res)
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, 8*maxBody))
	if err != nil {
		return control.Trouble(ctx, err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("read %s: %w", r.Resource, err)
	}
	return nil
}

// inside is a request for something in the namespace of this one.
func (x *exchange) inside(group, resource, name string) route.Request {
	out := route.Request{Group: group, Version: "v1", Resource: resource, Namespace: x.facts.request.Namespace, Name: name, IsResource: true}
	out.Segments = []string{"api", "v1"}
	if group != "" {
		out.Segments = []string{"apis", group, "v1"}
	}
	out.Segments = append(out.Segments, "namespaces", string(out.Namespace), resource)
	if name != "" {
		out.Segments = append(out.Segments, name)
	}
	return out
}

func (x *exchange) podTarget(ctx context.Context, name, port string) (target, error) {
	var pod corev1.Pod
	if err := x.fetch(ctx, x.inside("", "pods", name), "Pod", nil, &pod); err != nil {
		return target{}, err
	}
	to := target{pod: name}
	if port != "" {
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil || number == 0 {
			return target{}, badRequest(fmt.Sprintf("invalid pod request %q: the port must be a number", x.facts.request.Name))
		}
		to.port = int(number)
		return to, nil
	}
	for _, container := range pod.Spec.Containers {
		if len(container.Ports) > 0 {
			to.port = int(container.Ports[0].ContainerPort)
			break
		}
	}
	return to, nil
}

// serviceTarget picks one of the pods that are ready behind a port of a Service.
func (x *exchange) serviceTarget(ctx context.Context, name, port string) (target, error) {
	var service corev1.Service
	if err := x.fetch(ctx, x.inside("", "services", name), "Service", nil, &service); err != nil {
		return target{}, err
	}
	// A number means the port of the Service; endpoints know it by its name.
	if number, err := strconv.ParseInt(port, 10, 32); err == nil {
		i := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return int64(p.Port) == number })
		if i < 0 {
			return target{}, apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", number, name))
		}
		port = service.Spec.Ports[i].Name
	} else if port == "" && len(service.Spec.Ports) == 1 {
		port = service.Spec.Ports[0].Name
	}
	var slicesOf discoveryv1.EndpointSliceList
	query := url.Values{"labelSelector": {discoveryv1.LabelServiceName + "=" + name}}
	if err := x.fetch(ctx, x.inside("discovery.k8s.io", "endpointslices", ""), "EndpointSlice", query, &slicesOf); err != nil {
		return target{}, err
	}
	var ready []target
	for _, slice := range slicesOf.Items {
		for _, p := range slice.Ports {
			if p.Port == nil || p.Name != nil && *p.Name != port || p.Name == nil && port != "" {
				continue
			}
			for _, endpoint := range slice.Endpoints {
				if (endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready) && endpoint.TargetRef != nil && endpoint.TargetRef.Kind == "Pod" {
					ready = append(ready, target{endpoint.TargetRef.Name, int(*p.Port)})
				}
			}
		}
	}
	if len(ready) == 0 {
		return target{}, apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", x.facts.request.Name))
	}
	return ready[rand.N(len(ready))], nil
}

// dialPod opens a tunnel to a port of a pod. The tunnel lives no longer than the session.
func (x *exchange) dialPod(ctx context.Context, to target) (net.Conn, error) {
	forward := x.inside("", "pods", to.pod)
	forward.Segments = append(forward.Segments, "portforward")
	path, err := forward.ControlPath(x.facts.tenant.ID, route.Namespaced)
	if err != nil {
		return nil, err
	}
	call := control.Call{Mode: control.Upgrade, As: x.owner(), Method: http.MethodPost, Path: path, Header: control.Headers(nil, "application/json, */*", "")}
	stream.ForwardHeaders(call.Header)
	res, err := x.front.control.Do(ctx, call)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		raw, _ := io.ReadAll(io.LimitReader(res.Body, maxError))
		_ = res.Body.Close()
		boot.Logger(ctx).Info("A pod cannot be reached", "tenant", x.facts.tenant.ID, "code", res.StatusCode, "answer", string(raw))
		return nil, fmt.Errorf("the pod cannot be reached")
	}
	conn, err := stream.Forward(res, to.port)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	return conn, nil
}

// proxyErrors answers when the pod does not.
type proxyErrors struct{ *exchange }

// Error answers with a Status as a stock API server's.
func (p proxyErrors) Error(w http.ResponseWriter, r *http.Request, err error) {
	var told apierrors.APIStatus
	switch {
	case errors.Is(err, context.Canceled):
		return
	case errors.As(err, &told):
		writeError(r.Context(), w, err)
		return
	}
	boot.Logger(r.Context()).Info("A proxied request failed", "tenant", p.facts.tenant.ID, "error", err)
	writeError(r.Context(), w, apierrors.NewServiceUnavailable("error trying to reach service: the pod does not answer on that port"))
}

// capable is a writer that says itself that it can be taken over, as the proxy wants it.
type capable struct {
	http.ResponseWriter
	controller *http.ResponseController
}

// Hijack takes the connection over.
func (c capable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return c.controller.Hijack() }

// Flush sends what is buffered.
func (c capable) Flush() { _ = c.controller.Flush() }
