package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"vivarium.io/vivarium/gateway/internal/admin"
	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/customs"
	"vivarium.io/vivarium/gateway/internal/discovery"
	"vivarium.io/vivarium/gateway/internal/fanout"
	"vivarium.io/vivarium/gateway/internal/identity"
	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/gateway/internal/limits"
	"vivarium.io/vivarium/gateway/internal/offers"
	"vivarium.io/vivarium/gateway/internal/paging"
	"vivarium.io/vivarium/gateway/internal/stream"
	"vivarium.io/vivarium/gateway/internal/tenants"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
)

// Server is a gateway with both of its listeners.
type Server struct {
	admin      *admin.Server
	directory  *tenants.Directory
	controller *tenants.Controller
	offers     *offers.Set
	front      *front
	listener   *listener
}

// New makes a Server of complete and valid options. It binds the addresses and, with an embedded etcd, starts that; Run
// must be called to let go of them.
func New(ctx context.Context, o *Options, health *boot.Health) (*Server, error) {
	controlConfig, err := clientcmd.BuildConfigFromFlags("", o.ControlKubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--control-kubeconfig: %w", err)
	}
	controlConfig.UserAgent = "vivarium-gateway/" + boot.Version()
	files, err := readFiles(o)
	if err != nil {
		return nil, err
	}
	scanner, err := tenants.NewScanner(controlConfig)
	if err != nil {
		return nil, err
	}
	listener, err := newListener(ctx, o, files.clientCAs)
	if err != nil {
		return nil, err
	}
	adminServer, err := admin.New(ctx, admin.Config{
		Listen: o.AdminListen, CertFile: o.TLSCertFile, KeyFile: o.TLSPrivateKeyFile, ClientCAFile: o.AdminClientCAFile,
		Etcd: o.Etcd, Scanner: scanner,
	})
	if err != nil {
		listener.close()
		return nil, err
	}
	s := &Server{admin: adminServer, listener: listener}
	if err := s.wire(ctx, o, files, controlConfig, scanner, health); err != nil {
		listener.close()
		// The admin server lets go of its address and its etcd when it has run.
		ended, end := context.WithCancel(ctx)
		end()
		return nil, errors.Join(err, adminServer.Run(ended))
	}
	return s, nil
}

func (s *Server) wire(ctx context.Context, o *Options, files *files, controlConfig *rest.Config, scanner *tenants.Scanner, health *boot.Health) error {
	loopback := s.admin.LoopbackConfig()
	var err error
	if s.directory, err = tenants.NewDirectory(loopback); err != nil {
		return err
	}
	pods, err := netip.ParseAddrPort(o.PodAddress)
	if err != nil {
		return fmt.Errorf("--pod-address: %w", err)
	}
	shared, err := customs.NewShared(loopback, s.directory, kinds.NewTable().HasGroup)
	if err != nil {
		return err
	}
	s.controller, err = tenants.NewController(tenants.Config{
		Loopback: loopback, Control: controlConfig, Scanner: scanner, Authority: files.authority,
		ServerURL: o.TenantURL, ServingCA: files.servingCA, PodAddress: pods, Shared: shared.ClusterScoped, Metrics: health.Metrics,
	})
	if err != nil {
		return err
	}
	if s.offers, err = offers.New(controlConfig, loopback); err != nil {
		return err
	}
	s.front, err = newFront(frontConfig{
		control: controlConfig, kept: loopback, offers: s.offers, tenants: s.directory, shared: shared, clientCAs: files.clientCAs, secret: files.secret, servingCA: files.servingCA,
		tenantURL: o.TenantURL, tokenAudience: o.TokenAudience, forbiddenAudiences: o.forbiddenAudiences(),
		ready: health.Ready, metrics: newMetrics(),
	})
	if err != nil {
		return err
	}
	if s.front.policies, err = newTenantPolicies(ctx, s.front, controlConfig, cmp.Or(o.AdmissionURL, o.TenantURL), files.servingCA, files.secret); err != nil {
		return err
	}
	if err := s.front.metrics.register(health.Metrics, s.front.limiter, s.front.fanout); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	s.directory.Subscribe(s.front.tenantChanged)
	health.SetReady(func() error { return s.ready(ctx) })
	return nil
}

// Addresses gives the addresses of the tenant and the admin listener, for those who asked for port 0.
func (s *Server) Addresses() (tenant, admin net.Addr) { return s.listener.Addr(), s.admin.Address() }

// ready says what a tenant's request would miss.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := s.admin.Ready(ctx); err != nil {
		return err
	}
	if !s.directory.HasSynced() {
		return errors.New("the tenants are not known yet")
	}
	if err := s.offers.Known(); err != nil {
		return err
	}
	if !s.front.customs.HasSynced() {
		return errors.New("the custom resource definitions are not known yet")
	}
	if err := s.front.discovery.Warm(ctx); err != nil {
		return fmt.Errorf("control cluster: %w", err)
	}
	return nil
}

// Run serves until ctx is done, or until a part of the gateway fails.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.admin.Run(ctx) })
	group.Go(func() error { return s.directory.Run(ctx) })
	group.Go(func() error { return s.controller.Run(ctx) })
	group.Go(func() error { return s.offers.Run(ctx) })
	group.Go(func() error { return s.front.customs.Run(ctx) })
	group.Go(func() error { return s.front.sessions.Run(ctx) })
	group.Go(func() error { return s.front.policies.Run(ctx) })
	group.Go(func() error { return s.listener.serve(ctx, s.front) })
	tenantAddr, adminAddr := s.Addresses()
	boot.Logger(ctx).Info("The gateway serves", "tenants", tenantAddr.String(), "admin", adminAddr.String())
	err := group.Wait()
	s.front.close()
	return err
}

// close ends what does not end with its request.
func (f *front) close() {
	f.fanout.Close()
	f.control.Close()
}

// tenantChanged follows what the directory sees.
func (f *front) tenantChanged(id names.TenantID) {
	f.sessions.Changed(id)
	if f.offers != nil {
		f.offers.Wake()
	}
	f.customs.Changed(id)
	if _, err := f.authenticator.Tenant(id); err != nil {
		f.limiter.Forget(id)
		if f.policies != nil {
			f.policies.worlds.Forget(id)
		}
	}
}

// files are what is read once.
type files struct {
	servingCA []byte
	clientCAs *x509.CertPool
	authority *tenants.Authority
	// secret is known to every replica and to nobody else.
	secret []byte
}

func readFiles(o *Options) (*files, error) {
	servingCA, err := os.ReadFile(o.ServingCAFile)
	if err != nil {
		return nil, fmt.Errorf("--serving-ca-file: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(servingCA) {
		return nil, fmt.Errorf("--serving-ca-file: %s holds no certificate", o.ServingCAFile)
	}
	tenantCA, err := os.ReadFile(o.TenantCACertFile)
	if err != nil {
		return nil, fmt.Errorf("--tenant-ca-cert-file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(tenantCA) {
		return nil, fmt.Errorf("--tenant-ca-cert-file: %s holds no certificate", o.TenantCACertFile)
	}
	authority, err := tenants.LoadAuthority(o.TenantCACertFile, o.TenantCAKeyFile)
	if err != nil {
		return nil, fmt.Errorf("--tenant-ca-cert-file, --tenant-ca-key-file: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(o.TenantCACertFile, o.TenantCAKeyFile)
	if err != nil {
		return nil, fmt.Errorf("--tenant-ca-cert-file, --tenant-ca-key-file: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("--tenant-ca-key-file: %w", err)
	}
	return &files{servingCA: servingCA, clientCAs: pool, authority: authority, secret: secret}, nil
}

// frontConfig is what the tenant listener is made of.
type frontConfig struct {
	control            *rest.Config
	kept               *rest.Config
	offers             *offers.Set
	tenants            identity.Tenants
	shared             *customs.Shared
	clientCAs          *x509.CertPool
	secret             []byte
	servingCA          []byte
	tenantURL          string
	tokenAudience      string
	forbiddenAudiences []string
	ready              func() error
	metrics            *metrics
}

func newFront(c frontConfig) (*front, error) {
	u, err := url.Parse(c.tenantURL)
	if err != nil {
		return nil, fmt.Errorf("--tenant-url: %w", err)
	}
	registry, err := customs.New(customs.Config{Control: c.control, Shared: c.shared})
	if err != nil {
		return nil, err
	}
	client, err := control.New(control.Config{REST: c.control, Shared: registry.SharedWith, Refused: c.metrics.refused.Inc, Kept: c.kept})
	if err != nil {
		return nil, err
	}
	f := &front{
		tenants: c.tenants, access: newAccess(client), impersonator: identity.Impersonator{Reviewer: client}, limiter: limits.New(time.Now), table: kinds.NewTable(), customs: registry, control: client, offers: c.offers,
		metrics: c.metrics, matching: newMatching(), stock: newStock(), rootCA: string(c.servingCA), tokenAudience: c.tokenAudience, forbiddenAudiences: c.forbiddenAudiences,
	}
	if f.authenticator, err = identity.New(identity.Config{
		CA: c.clientCAs, Audience: c.tokenAudience, Tenants: c.tenants, Reviewer: client,
	}); err != nil {
		return nil, err
	}
	f.sessions = stream.NewSessions(func(id *identity.Identity) error {
		_, err := f.authenticator.Check(id)
		return err
	})
	if f.strangers, err = limits.NewStrangers(time.Now); err != nil {
		return nil, err
	}
	if f.fanout, err = fanout.New(fanout.Config{Get: client.Stream}); err != nil {
		return nil, err
	}
	if f.sizes, err = newSizes(); err != nil {
		return nil, err
	}
	if f.sealer, err = paging.NewSealer(c.secret); err != nil {
		return nil, err
	}
	f.discovery, err = discovery.New(discovery.Config{Fetch: client.Fetch, Table: f.table, Address: u.Host, Ready: c.ready})
	return f, err
}
