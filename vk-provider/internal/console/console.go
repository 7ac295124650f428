// Package console is the kubelet API of every virtual Node: logs, exec, attach and port-forward, carried on through the
// API of the pool that runs the pod. One listener serves all Nodes and every replica serves it, for it needs nothing but
// caches and the pools' clients.
//
// It must never serve anybody but the control cluster's API server, and never open a stream to a pool pod whose UID label
// is not the control pod's: names repeat, and a stream into somebody else's container is the worst mistake to make here.
// Start at [Handler].
package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/virtual-kubelet/virtual-kubelet/node/api"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/vk-provider/internal/control"
	"vivarium.io/vivarium/vk-provider/internal/podspec"
	"vivarium.io/vivarium/vk-provider/internal/provider"
)

const (
	// streamTimeout is how long a stream may be idle, creationTimeout how long a connection may take to get one, as kubelets
	// have it.
	streamTimeout   = 4 * time.Hour
	creationTimeout = 30 * time.Second
)

// resolveTimeout bounds the look at the pool before a stream is opened.
const resolveTimeout = 10 * time.Second

// Pools gives open pools by name.
type Pools interface {
	Pool(name string) (*pools.Pool, bool)
}

// Config is what a [Handler] is made of; everything is required.
type Config struct {
	Cache *control.Cache
	Pools Pools
	// ClientName is the common name of the only client that is served: the control cluster's API server.
	ClientName string
	Metrics    *Metrics
}

// Metrics are the console's.
type Metrics struct{ streams *prometheus.GaugeVec }

// NewMetrics makes and registers the metrics.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "vivarium_vk_streams", Help: "Open streams to pools."}, []string{"type"})}
	registry.MustRegister(m.streams)
	return m
}

// Handler is the kubelet API. Put it behind TLS that asks for a client certificate; see [TLS].
func Handler(config Config) (http.Handler, error) {
	if config.Cache == nil || config.Pools == nil || config.ClientName == "" || config.Metrics == nil {
		return nil, errors.New("console: Cache, Pools, ClientName and Metrics are required")
	}
	s := &server{config}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	mux.Handle("GET /containerLogs/{namespace}/{pod}/{container}", s.stream("logs", s.logs))
	for _, method := range []string{"GET", "POST"} {
		mux.Handle(method+" /exec/{namespace}/{pod}/{container}", s.stream("exec", s.upgraded))
		mux.Handle(method+" /attach/{namespace}/{pod}/{container}", s.stream("attach", s.upgraded))
		mux.Handle(method+" /portForward/{namespace}/{pod}", s.stream("portforward", servePortForward))
	}
	for _, path := range []string{"/stats/", "/metrics/"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "virtual nodes do not measure: the pools do, and metrics.k8s.io tells what they say", http.StatusNotImplemented)
		})
	}
	return s.authenticated(mux), nil
}

type server struct{ config Config }

// authenticated lets in whoever showed the right certificate. TLS has verified that it is a certificate of the right
// authority if one was shown.
func (s *server) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.TLS == nil || len(r.TLS.VerifiedChains) == 0:
			http.Error(w, "a client certificate is required", http.StatusUnauthorized)
		case r.TLS.PeerCertificates[0].Subject.CommonName != s.config.ClientName:
			http.Error(w, "only the control cluster's API server may ask", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// target is a container of a pool, proven to be the asked one.
type target struct {
	pool    *pools.Pool
	control *corev1.Pod
	below   *corev1.Pod
	at      podspec.Placement
}

// say puts an error of the pool into the tenant's words; it keeps exit codes.
func (t *target) say(text string) string {
	return podspec.TextToTenant(text, t.control, t.below, t.at)
}

// refusal is an answer instead of a stream.
type refusal struct {
	code int
	text string
}

// Error is the text for the client.
func (r *refusal) Error() string { return r.text }

// resolve finds the pool's container that a request is about.
func (s *server) resolve(ctx context.Context, namespace, name string) (*target, error) {
	notFound := &refusal{http.StatusNotFound, fmt.Sprintf("pod %q not found", name)}
	pod, ok := s.config.Cache.Pod(namespace, name)
	if !ok {
		return nil, notFound
	}
	node, ok := s.config.Cache.Node(pod.Spec.NodeName)
	if !ok {
		return nil, notFound
	}
	tenant, inner, err := s.config.Cache.Tenant(namespace)
	if err != nil {
		return nil, notFound
	}
	poolName, _ := pools.NodePool(node)
	pool, ok := s.config.Pools.Pool(poolName)
	if !ok {
		return nil, &refusal{http.StatusServiceUnavailable, "the pool that runs the pod does not answer"}
	}
	call, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	below, err := pool.Client.CoreV1().Pods(namespace).Get(call, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, notFound
	case err != nil:
		boot.Logger(ctx).Info("pool does not tell about a pod", "pool", poolName, "controlNamespace", namespace, "name", name, "error", err)
		return nil, &refusal{http.StatusServiceUnavailable, "the pool that runs the pod does not answer"}
	case !pool.Owns(provider.Component, below), below.Labels[names.LabelControlUID] != string(pod.UID):
		return nil, notFound
	}
	return &target{
		pool: pool, control: pod, below: below,
		at: podspec.Placement{Tenant: tenant, Namespace: inner, Node: podspec.Node{Name: node.Name}},
	}, nil
}

// stream resolves, counts and serves one kind of request.
func (s *server) stream(kind string, serve func(http.ResponseWriter, *http.Request, *target)) http.Handler {
	open := s.config.Metrics.streams.WithLabelValues(kind)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t, err := s.resolve(r.Context(), r.PathValue("namespace"), r.PathValue("pod"))
		var refused *refusal
		if errors.As(err, &refused) {
			http.Error(w, refused.text, refused.code)
			return
		}
		if err != nil {
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		open.Inc()
		defer open.Dec()
		serve(w, r, t)
	})
}

// upgraded serves exec and attach with virtual-kubelet's handlers, made anew around the resolved target: they pass on names,
// which prove nothing.
func (s *server) upgraded(w http.ResponseWriter, r *http.Request, t *target) {
	api.PodHandler(api.PodHandlerConfig{
		RunInContainer: func(ctx context.Context, _, _, container string, command []string, io api.AttachIO) error {
			return t.exec(ctx, container, command, io)
		},
		AttachToContainer: func(ctx context.Context, _, _, container string, io api.AttachIO) error {
			return t.attach(ctx, container, io)
		},
		StreamIdleTimeout:     streamTimeout,
		StreamCreationTimeout: creationTimeout,
	}, false).ServeHTTP(w, r)
}
