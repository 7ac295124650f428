package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	cliflag "k8s.io/component-base/cli/flag"

	"vivarium.io/vivarium/gateway/internal/admin"
)

// DefaultTokenAudience is the audience of ServiceAccount tokens that are for the gateway.
const DefaultTokenAudience = "vivarium-gateway"

// Options are the gateway's flags.
type Options struct {
	// ControlKubeconfig is the gateway's own identity at the control cluster.
	ControlKubeconfig string

	// Etcd is where the admin API stores its objects; Etcd.Dir makes it an embedded member.
	Etcd admin.Etcd

	// TenantListen and AdminListen are the addresses of the two listeners.
	TenantListen string
	AdminListen  string
	// TenantURL is how tenants reach the tenant listener, PodAddress (IP:PORT) how pods do.
	TenantURL  string
	PodAddress string
	// AdmissionURL is how the control cluster reaches the tenant listener, to have tenants' admission policies applied; empty
	// for TenantURL.
	AdmissionURL string

	// TLSCertFile and TLSPrivateKeyFile are the certificate of both listeners; changed files are picked up.
	TLSCertFile       string
	TLSPrivateKeyFile string
	// ServingCAFile is what clients verify that certificate with.
	ServingCAFile string
	// TenantCACertFile and TenantCAKeyFile sign tenants' client certificates. The first certificate of the file signs; all
	// of them are accepted.
	TenantCACertFile string
	TenantCAKeyFile  string
	// AdminClientCAFile has the authorities of operators' and components' certificates.
	AdminClientCAFile string

	// TokenAudience is what ServiceAccount tokens for the gateway are made for.
	TokenAudience string
	// ControlAudiences are the audiences that the control cluster's API server accepts itself.
	ControlAudiences []string
}

// NewOptions gives the defaults.
func NewOptions() *Options {
	return &Options{
		Etcd:          admin.Etcd{Prefix: admin.DefaultEtcdPrefix},
		TenantListen:  "0.0.0.0:6443",
		AdminListen:   "127.0.0.1:6444",
		TokenAudience: DefaultTokenAudience,
		ControlAudiences: []string{
			"https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local", "kubernetes.default.svc",
		},
	}
}

// forbiddenAudiences are those that no tenant gets a token for: the control cluster's, and the gateway's own URLs. One of these
// may be the issuer of tokens, and an API server accepts its issuer as an audience unless it is told others.
func (o *Options) forbiddenAudiences() []string {
	out := slices.Clip(o.ControlAudiences)
	for _, own := range []string{strings.TrimSuffix(o.TenantURL, "/"), "https://" + o.PodAddress} {
		out = append(out, own, own+"/")
	}
	return out
}

// AddFlags implements boot.Options.
func (o *Options) AddFlags(groups *cliflag.NamedFlagSets) {
	control := groups.FlagSet("control cluster")
	control.StringVar(&o.ControlKubeconfig, "control-kubeconfig", o.ControlKubeconfig, "Kubeconfig of the control cluster, of the gateway's own identity there. Required.")
	control.StringSliceVar(&o.ControlAudiences, "control-audiences", o.ControlAudiences, "Token audiences that the control cluster's API server accepts itself; no tenant gets a token for one of them.")

	storage := groups.FlagSet("storage of the admin API")
	storage.StringSliceVar(&o.Etcd.Servers, "etcd-servers", o.Etcd.Servers, "URLs of etcd servers. Either this or --etcd-embedded is required.")
	storage.StringVar(&o.Etcd.CAFile, "etcd-cafile", o.Etcd.CAFile, "PEM certificates to verify the etcd servers with.")
	storage.StringVar(&o.Etcd.CertFile, "etcd-certfile", o.Etcd.CertFile, "PEM client certificate for the etcd servers.")
	storage.StringVar(&o.Etcd.KeyFile, "etcd-keyfile", o.Etcd.KeyFile, "PEM key of the client certificate for the etcd servers.")
	storage.StringVar(&o.Etcd.Prefix, "etcd-prefix", o.Etcd.Prefix, "Prefix of all keys in etcd.")
	storage.StringVar(&o.Etcd.Dir, "etcd-embedded", o.Etcd.Dir, "Directory of an etcd member inside this process: one replica, for trying.")

	listeners := groups.FlagSet("listeners")
	listeners.StringVar(&o.TenantListen, "tenant-listen", o.TenantListen, "Address that serves tenants.")
	listeners.StringVar(&o.TenantURL, "tenant-url", o.TenantURL, "https URL by which tenants reach --tenant-listen; goes into their kubeconfigs. Required.")
	listeners.StringVar(&o.AdmissionURL, "admission-url", o.AdmissionURL, "https URL by which the control cluster's API server reaches --tenant-listen, to ask whether tenants' admission policies let a write pass; --tenant-url by default.")
	listeners.StringVar(&o.PodAddress, "pod-address", o.PodAddress, "IP:PORT by which pods reach --tenant-listen; becomes the endpoint of each tenant's Service \"kubernetes\". Required.")
	listeners.StringVar(&o.AdminListen, "admin-listen", o.AdminListen, "Address that serves operators and the platform's components.")

	certificates := groups.FlagSet("certificates")
	certificates.StringVar(&o.TLSCertFile, "tls-cert-file", o.TLSCertFile, "PEM serving certificate of both listeners, with its chain. Required.")
	certificates.StringVar(&o.TLSPrivateKeyFile, "tls-private-key-file", o.TLSPrivateKeyFile, "PEM key of the serving certificate. Required.")
	certificates.StringVar(&o.ServingCAFile, "serving-ca-file", o.ServingCAFile, "PEM certificates that clients verify the serving certificate with; goes into tenants' kubeconfigs and kube-root-ca.crt. Required.")
	certificates.StringVar(&o.TenantCACertFile, "tenant-ca-cert-file", o.TenantCACertFile, "PEM authorities of tenants' client certificates; the first one signs. Required.")
	certificates.StringVar(&o.TenantCAKeyFile, "tenant-ca-key-file", o.TenantCAKeyFile, "PEM key of the authority that signs. Required.")
	certificates.StringVar(&o.AdminClientCAFile, "admin-client-ca-file", o.AdminClientCAFile, "PEM authorities of operators' and components' client certificates. Required.")
	certificates.StringVar(&o.TokenAudience, "token-audience", o.TokenAudience, "Audience of ServiceAccount tokens that are for this gateway.")
}

// Validate implements boot.Options.
func (o *Options) Validate() []error {
	var problems []error
	report := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	for _, required := range []struct{ flag, value string }{
		{"--control-kubeconfig", o.ControlKubeconfig},
		{"--tenant-url", o.TenantURL},
		{"--pod-address", o.PodAddress},
		{"--tls-cert-file", o.TLSCertFile},
		{"--tls-private-key-file", o.TLSPrivateKeyFile},
		{"--serving-ca-file", o.ServingCAFile},
		{"--tenant-ca-cert-file", o.TenantCACertFile},
		{"--tenant-ca-key-file", o.TenantCAKeyFile},
		{"--admin-client-ca-file", o.AdminClientCAFile},
		{"--token-audience", o.TokenAudience},
	} {
		if required.value == "" {
			report("%s: is required", required.flag)
		}
	}
	if (len(o.Etcd.Servers) == 0) == (o.Etcd.Dir == "") {
		problems = append(problems, errors.New("--etcd-servers, --etcd-embedded: exactly one of them is required"))
	}
	if (o.Etcd.CertFile == "") != (o.Etcd.KeyFile == "") {
		problems = append(problems, errors.New("--etcd-certfile, --etcd-keyfile: must be given together"))
	}
	for _, listen := range []struct{ flag, value string }{{"--tenant-listen", o.TenantListen}, {"--admin-listen", o.AdminListen}} {
		if _, port, err := net.SplitHostPort(listen.value); err != nil || !isPort(port) {
			report("%s: %q is not HOST:PORT", listen.flag, listen.value)
		}
	}
	if o.TenantListen == o.AdminListen {
		problems = append(problems, errors.New("--tenant-listen, --admin-listen: must differ"))
	}
	for flag, value := range map[string]string{"--tenant-url": o.TenantURL, "--admission-url": o.AdmissionURL} {
		if u, err := url.Parse(value); value != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || (u.Path != "" && u.Path != "/")) {
			report("%s: %q is not https://HOST[:PORT]", flag, value)
		}
	}
	if _, err := netip.ParseAddrPort(o.PodAddress); o.PodAddress != "" && err != nil {
		report("--pod-address: %q is not IP:PORT", o.PodAddress)
	}
	for _, audience := range o.ControlAudiences {
		if audience == o.TokenAudience {
			report("--token-audience, --control-audiences: %q must not be in both: such a token would work at the control cluster itself", audience)
		}
	}
	return problems
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && (n > 0 || s == "0")
}
