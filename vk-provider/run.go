package vkprovider

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/clock"
	"vivarium.io/vivarium/internal/leader"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/vk-provider/internal/console"
	"vivarium.io/vivarium/vk-provider/internal/control"
	"vivarium.io/vivarium/vk-provider/internal/nodes"
	"vivarium.io/vivarium/vk-provider/internal/podspec"
	"vivarium.io/vivarium/vk-provider/internal/provider"
	"vivarium.io/vivarium/vk-provider/internal/tenancy"
	"vivarium.io/vivarium/vk-provider/internal/usage"
	"vivarium.io/vivarium/vk-provider/internal/vpcs"
)

// userAgent names the component to the clusters that it talks to.
const userAgent = "vivarium-vk-provider"

// Provider is the component. Make one with [New] and Run it once.
type Provider struct {
	options *Options
	address netip.Addr
	port    int32
	control kubernetes.Interface
	admin   client.WithWatch
	cache   *control.Cache
	// clock is the control cluster's.
	clock    clock.Clock
	tenants  *tenancy.Tenants
	networks *vpcs.Cache
	registry *pools.Registry
	tls      *tls.Config
	binder   func(driver string) (network.Binder, error)
}

// New makes the component. binder gives the pure half of the network driver that a ResourcePool names. The files that
// the options name are read; nothing is dialled.
func New(options *Options, binder func(driver string) (network.Binder, error)) (*Provider, error) {
	if problems := options.Validate(); len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	if binder == nil {
		return nil, errors.New("vkprovider: binder is required")
	}
	p := &Provider{options: options, binder: binder}
	var err error
	if p.address, err = netip.ParseAddr(options.NodeAddress); err != nil {
		return nil, fmt.Errorf("--node-address: %w", err)
	}
	if p.port, err = options.nodePort(); err != nil {
		return nil, err
	}
	if err := p.clients(); err != nil {
		return nil, err
	}
	if p.cache, err = control.New(p.control); err != nil {
		return nil, err
	}
	if p.tenants, err = tenancy.New(p.admin); err != nil {
		return nil, err
	}
	p.networks = vpcs.New(p.admin, p.tenants.NetworkMode)
	if p.registry, err = pools.NewRegistry(pools.RegistryConfig{Admin: p.admin, Control: p.control, UserAgent: userAgent}); err != nil {
		return nil, err
	}
	if p.tls, err = console.TLS(console.Files{Cert: options.TLSCertFile, Key: options.TLSKeyFile, ClientCA: options.ClientCAFile}); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Provider) clients() error {
	controlConfig, err := clientcmd.BuildConfigFromFlags("", p.options.ControlKubeconfig)
	if err != nil {
		return fmt.Errorf("--control-kubeconfig: %w", err)
	}
	controlConfig.UserAgent = userAgent
	// The control cluster's own fairness decides; a limit here would only hide a backlog.
	controlConfig.QPS = -1
	controlConfig.Wrap(p.clock.Wrap)
	controlConfig.ContentType = runtime.ContentTypeProtobuf
	controlConfig.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	if p.control, err = kubernetes.NewForConfig(controlConfig); err != nil {
		return fmt.Errorf("--control-kubeconfig: %w", err)
	}
	adminConfig, err := clientcmd.BuildConfigFromFlags("", p.options.AdminKubeconfig)
	if err != nil {
		return fmt.Errorf("--admin-kubeconfig: %w", err)
	}
	if p.admin, err = adminClient(adminConfig); err != nil {
		return fmt.Errorf("--admin-kubeconfig: %w", err)
	}
	return nil
}

func adminClient(config *rest.Config) (client.WithWatch, error) {
	config.UserAgent = userAgent
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return client.NewWithWatch(config, client.Options{Scheme: scheme})
}

// Run works until ctx is done.
func (p *Provider) Run(ctx context.Context, health *boot.Health) error {
	handler, err := console.Handler(console.Config{
		Cache: p.cache, Pools: p.registry, ClientName: p.options.ClientName, Metrics: console.NewMetrics(health.Metrics),
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", p.options.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	metrics, err := p.metrics(ctx)
	if err != nil {
		_ = listener.Close()
		return err
	}
	term := &term{provider: p, pods: provider.NewMetrics(health.Metrics), nodes: nodes.NewMetrics(health.Metrics)}
	health.SetReady(func() error {
		switch {
		case !p.cache.HasSynced():
			return errors.New("the control cluster's pods and nodes are being read")
		case !p.networks.HasSynced():
			return errors.New("tenants and their networks are being read")
		case !p.registry.HasSynced():
			return errors.New("the ResourcePools are being read")
		case !p.tenants.HasSynced():
			return errors.New("the Tenants are being read")
		}
		return nil
	})
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { p.cache.Run(ctx); return nil })
	group.Go(func() error { p.tenants.Run(ctx); return nil })
	group.Go(func() error { p.networks.Run(ctx); return nil })
	group.Go(func() error { return p.registry.Run(ctx) })
	group.Go(func() error { return serve(ctx, listener, p.tls, handler) })
	if metrics != nil {
		group.Go(func() error { return metrics.Run(ctx) })
	}
	group.Go(func() error {
		return leader.Run(ctx, leader.Config{Control: p.control, Name: "vk-provider", Enabled: p.options.LeaderElect}, term.lead)
	})
	return group.Wait()
}

// metrics makes the server of metrics.k8s.io, nil where it is not wanted. Every replica serves it: like streams, it needs
// nothing but caches and the pools' clients.
func (p *Provider) metrics(ctx context.Context) (*usage.Server, error) {
	o := p.options
	if o.MetricsListen == "" {
		return nil, nil
	}
	return usage.New(ctx, usage.Config{
		Listen: o.MetricsListen, CertFile: o.TLSCertFile, KeyFile: o.TLSKeyFile,
		ClientCAFile: o.MetricsClientCAFile, ClientName: o.MetricsClientName,
		Source: usage.NewSource(p.cache, p.registry),
	})
}

// serve answers on the listener until ctx is done. Open streams are cut then: their clients' containers go on.
func serve(ctx context.Context, listener net.Listener, config *tls.Config, handler http.Handler) error {
	server := &http.Server{
		Handler: handler, TLSConfig: config, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the kubelet API: %w", err)
	}
	return nil
}

// gateway is what pods are told.
func (o *Options) gateway() podspec.Gateway {
	return podspec.Gateway{Host: o.GatewayHost, Port: o.GatewayPort}
}
