package usage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/util/compatibility"
	restclient "k8s.io/client-go/rest"
	"k8s.io/metrics/pkg/apis/metrics/install"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"vivarium.io/vivarium/vk-provider/internal/usage/openapi"
)

// Config is what a [Server] needs; everything is required.
type Config struct {
	// Listen is the address of the listener.
	Listen string
	// CertFile and KeyFile are its certificate, which must name the Service that the APIService refers to; a changed file is
	// picked up.
	CertFile, KeyFile string
	// ClientCAFile and ClientName are the authority and the common name of the certificate that the control cluster's API
	// server shows to its extensions.
	ClientCAFile, ClientName string
	Source                   *Source
}

// Server serves metrics.k8s.io. Make one with [New] and Run it.
type Server struct{ generic *server.GenericAPIServer }

func groupResource(name string) schema.GroupResource {
	return v1beta1.SchemeGroupVersion.WithResource(name).GroupResource()
}

// New prepares the server and opens its listener, which Run closes.
func New(ctx context.Context, c Config) (*Server, error) {
	if c.Listen == "" || c.CertFile == "" || c.KeyFile == "" || c.ClientCAFile == "" || c.ClientName == "" || c.Source == nil {
		return nil, errors.New("usage: every field of Config is required")
	}
	cert, err := dynamiccertificates.NewDynamicServingContentFromFiles("metrics-serving", c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of the metrics API: %w", err)
	}
	clientCA, err := dynamiccertificates.NewDynamicCAContentFromFile("metrics-client-ca", c.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("read the authority of the metrics API's client: %w", err)
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	codecs := serializer.NewCodecFactory(scheme)

	config := server.NewConfig(codecs)
	config.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	// Nothing in this process asks.
	config.LoopbackClientConfig = &restclient.Config{}
	config.EnableProfiling, config.EnableMetrics, config.EnableIndex = false, false, false
	config.LegacyAPIGroupPrefixes = nil
	config.ShutdownDelayDuration = 0
	config.Authentication.Authenticator = headerrequest.NewDynamicVerifyOptionsSecure(clientCA.VerifyOptions,
		headerrequest.StaticStringSlice{c.ClientName},
		headerrequest.StaticStringSlice{"X-Remote-User"}, headerrequest.StaticStringSlice{"X-Remote-Uid"},
		headerrequest.StaticStringSlice{"X-Remote-Group"}, headerrequest.StaticStringSlice{"X-Remote-Extra-"})
	// The control cluster's API server passes on what its own authorizer has allowed, and nobody else gets this far.
	config.Authorization.Authorizer = authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		if a.IsReadOnly() {
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionDeny, "figures can only be read", nil
	})
	namer := openapinamer.NewDefinitionNamer(scheme)
	config.OpenAPIConfig = server.DefaultOpenAPIConfig(openapi.GetOpenAPIDefinitions, namer)
	config.OpenAPIConfig.Info.Title = "Vivarium metrics"
	config.OpenAPIV3Config = server.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)
	config.OpenAPIV3Config.Info.Title = "Vivarium metrics"

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for requests for metrics: %w", err)
	}
	config.SecureServing = &server.SecureServingInfo{Listener: listener, Cert: cert, ClientCA: clientCA}
	s := &Server{}
	if s.generic, err = config.Complete(nil).New("vivarium-metrics", server.NewEmptyDelegate()); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("make the metrics API: %w", err)
	}
	// Idle clients would be waited for otherwise.
	s.generic.ShutdownTimeout = time.Second
	group := server.NewDefaultAPIGroupInfo(v1beta1.GroupName, scheme, metav1.ParameterCodec, codecs)
	group.VersionedResourcesStorageMap[v1beta1.SchemeGroupVersion.Version] = map[string]rest.Storage{
		"pods": pods{c.Source}, "nodes": nodes{c.Source},
	}
	if err := s.generic.InstallAPIGroup(&group); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("make the metrics API: %w", err)
	}
	return s, nil
}

// Address is where the server listens.
func (s *Server) Address() net.Addr { return s.generic.SecureServingInfo.Listener.Addr() }

// handler answers without a listener, for tests.
func (s *Server) handler() http.Handler { return s.generic.PrepareRun().Handler }

// Run serves until ctx is done.
func (s *Server) Run(ctx context.Context) error {
	if err := s.generic.PrepareRun().RunWithContext(ctx); err != nil {
		return fmt.Errorf("serve the metrics API: %w", err)
	}
	return nil
}
