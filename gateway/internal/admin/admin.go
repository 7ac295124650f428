package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/util/compatibility"
	restclient "k8s.io/client-go/rest"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/gateway/internal/admin/openapi"
	"vivarium.io/vivarium/gateway/internal/flows"
)

// Config is what an admin API needs.
type Config struct {
	// Listen is the address of the listener.
	Listen string
	// CertFile and KeyFile are the listener's certificate; a changed file is picked up.
	CertFile, KeyFile string
	// ClientCAFile has the CAs of operators' and components' certificates; a changed file is picked up.
	ClientCAFile string
	// Etcd is where objects are stored.
	Etcd Etcd
	// Scanner looks for names in the control cluster before a Tenant takes them.
	Scanner NameScanner
}

func (c Config) validate() error {
	var problems []error
	for name, value := range map[string]string{"listen address": c.Listen, "certificate file": c.CertFile, "key file": c.KeyFile, "client CA file": c.ClientCAFile} {
		if value == "" {
			problems = append(problems, fmt.Errorf("no %s", name))
		}
	}
	if c.Scanner == nil {
		problems = append(problems, errors.New("no scanner of the control cluster"))
	}
	return errors.Join(append(problems, c.Etcd.validate())...)
}

// Server is the admin API. Make one with [New].
type Server struct {
	generic  *server.GenericAPIServer
	loopback *loopback
	stopEtcd func()
}

// shutdownGrace is how long a stopping server lets watches end and requests finish.
const shutdownGrace = 2 * time.Second

// New prepares an admin API: it opens the listener and starts the embedded etcd, if that is configured. Whoever gets a
// Server must run it, which also closes both.
func New(ctx context.Context, c Config) (_ *Server, err error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("configure admin API: %w", err)
	}
	scheme, err := newScheme()
	if err != nil {
		return nil, fmt.Errorf("configure admin API: %w", err)
	}
	cert, err := dynamiccertificates.NewDynamicServingContentFromFiles("admin-serving", c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the admin listener's certificate: %w", err)
	}
	clientCA, err := dynamiccertificates.NewDynamicCAContentFromFile("admin-client-ca", c.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("read the CA of admin clients: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for admin clients: %w", err)
	}
	s := &Server{loopback: newLoopback(), stopEtcd: func() {}}
	defer func() {
		if err != nil {
			_ = listener.Close()
			s.stopEtcd()
		}
	}()
	if c.Etcd.Dir != "" {
		if c.Etcd.Servers, s.stopEtcd, err = startEmbedded(ctx, c.Etcd.Dir); err != nil {
			s.stopEtcd = func() {}
			return nil, err
		}
	}

	if err := c.Etcd.reach(ctx); err != nil {
		return nil, fmt.Errorf("connect the admin API to etcd: %w", err)
	}
	admission := &gate{scanner: c.Scanner}
	config := s.genericConfig(scheme, admission)
	config.SecureServing = &server.SecureServingInfo{Listener: listener, Cert: cert, ClientCA: clientCA}
	config.Authentication.Authenticator = newAuthenticator(clientCA)
	if err := c.Etcd.options(scheme).ApplyTo(config); err != nil {
		return nil, fmt.Errorf("connect the admin API to etcd: %w", err)
	}
	s.generic, err = config.Complete(nil).New("vivarium-admin", server.NewEmptyDelegate())
	if err != nil {
		return nil, fmt.Errorf("make the admin API server: %w", err)
	}
	if err := s.install(scheme, config, admission); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Server) genericConfig(scheme apiScheme, gate *gate) *server.Config {
	config := server.NewConfig(scheme.codecs)
	config.EffectiveVersion = version{compatibility.DefaultBuildEffectiveVersion()}
	config.LoopbackClientConfig = s.loopback.config()
	config.Authorization.Authorizer = authorizer.AuthorizerFunc(authorize)
	config.AdmissionControl = gate
	config.EnableProfiling = false
	config.LegacyAPIGroupPrefixes = nil
	config.ShutdownWatchTerminationGracePeriod = shutdownGrace
	namer := openapinamer.NewDefinitionNamer(scheme.published)
	config.OpenAPIConfig = server.DefaultOpenAPIConfig(openapi.GetOpenAPIDefinitions, namer)
	config.OpenAPIConfig.Info.Title = "Vivarium"
	config.OpenAPIV3Config = server.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)
	config.OpenAPIV3Config.Info.Title = "Vivarium"
	return config
}

func (s *Server) install(scheme apiScheme, config *server.Config, gate *gate) error {
	resources := map[string]rest.Storage{}
	options := config.RESTOptionsGetter
	serial := &sync.Mutex{}
	var err error
	if gate.tenants, err = serve(resources, scheme, options, tenantKind()); err != nil {
		return err
	}
	if gate.pools, err = serve(resources, scheme, options, poolKind(serial)); err != nil {
		return err
	}
	if gate.vpcs, err = serve(resources, scheme, options, vpcKind(serial)); err != nil {
		return err
	}
	if gate.subnets, err = serve(resources, scheme, options, subnetKind(serial)); err != nil {
		return err
	}
	if gate.blocks, err = serve(resources, scheme, options, ipBlockKind()); err != nil {
		return err
	}
	if _, err = serve(resources, scheme, options, sharedKind()); err != nil {
		return err
	}
	group := server.NewDefaultAPIGroupInfo(v1alpha1.GroupVersion.Group, scheme.Scheme, scheme.parameters, scheme.codecs)
	group.VersionedResourcesStorageMap[v1alpha1.GroupVersion.Version] = resources
	if err := s.generic.InstallAPIGroup(&group); err != nil {
		return fmt.Errorf("install the admin API: %w", err)
	}
	kept, err := flows.Storage(scheme, options)
	if err != nil {
		return err
	}
	group = server.NewDefaultAPIGroupInfo(flows.GroupVersion.Group, scheme.Scheme, scheme.parameters, scheme.codecs)
	group.VersionedResourcesStorageMap[flows.GroupVersion.Version] = kept
	if err := s.generic.InstallAPIGroup(&group); err != nil {
		return fmt.Errorf("install what tenants say about flows: %w", err)
	}
	// The machinery would otherwise wait a whole request timeout for idle clients.
	s.generic.ShutdownTimeout = shutdownGrace
	return nil
}

// LoopbackConfig is how clients in this process reach the API, with every right and without a secret. It answers once
// Run has begun.
func (s *Server) LoopbackConfig() *restclient.Config { return s.loopback.config() }

// Address is where the listener listens.
func (s *Server) Address() net.Addr { return s.generic.SecureServingInfo.Listener.Addr() }

// Run serves until ctx is done.
func (s *Server) Run(ctx context.Context) error {
	defer s.stopEtcd()
	prepared := s.generic.PrepareRun()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.loopback.serve(ctx, s.generic.Handler) })
	group.Go(func() error { return prepared.RunWithContext(ctx) })
	if err := group.Wait(); err != nil {
		return fmt.Errorf("serve the admin API: %w", err)
	}
	return nil
}

// Ready says what keeps the API from serving, nil when it does.
func (s *Server) Ready(ctx context.Context) error {
	client, err := restclient.HTTPClientFor(s.loopback.config())
	if err != nil {
		return fmt.Errorf("ask the admin API: %w", err)
	}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.loopback.config().Host+"/readyz", http.NoBody)
	if err != nil {
		return fmt.Errorf("ask the admin API: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the admin API: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	why, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
	return fmt.Errorf("admin API: %s", notReady(string(why)))
}

// notReady picks the failed checks out of the machinery's list, whose lines start with [-].
func notReady(list string) string {
	var failed []string
	for line := range strings.Lines(list) {
		if rest, ok := strings.CutPrefix(line, "[-]"); ok {
			name, _, _ := strings.Cut(rest, " ")
			failed = append(failed, name)
		}
	}
	if len(failed) == 0 {
		return "not ready"
	}
	return "not ready: " + strings.Join(failed, ", ")
}
