package localcluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"vivarium.io/vivarium/internal/localcluster/process"
)

// The users that a control plane knows from the start.
const (
	adminUser  = "kubernetes-admin"
	adminGroup = "system:masters"
	// KubeletClient is the common name of the certificate that kube-apiserver shows to kubelets.
	KubeletClient = "kube-apiserver-kubelet-client"
)

// serviceCIDR holds the cluster addresses of a cluster's Services. They never leave the cluster, so all may have the same.
const (
	serviceCIDR    = "10.96.0.0/16"
	firstServiceIP = "10.96.0.1"
	readinessLimit = 5 * time.Minute
	localhost      = "127.0.0.1"
	// serviceAccounts is the audience of tokens for the API server itself, and who issues tokens where nobody says otherwise.
	serviceAccounts = "https://kubernetes.default.svc"
)

// ControlPlaneConfig describes a control plane. All fields up to Processes are required.
type ControlPlaneConfig struct {
	// Name is the cluster's name; the names of its processes and logs begin with it.
	Name string
	// Dir holds its data and credentials.
	Dir string
	// LogDir holds one log per process.
	LogDir string
	// Ports are the ports that it listens on.
	Ports Ports
	// Binaries are the programs; they must be built.
	Binaries *Binaries
	// Processes is the set that its processes become members of.
	Processes *process.Set

	// Address is where kube-apiserver listens, and where clients find it. Default 127.0.0.1; all else listens there anyway.
	Address string
	// Issuer is the https URL, without a slash at its end, that ServiceAccount tokens name as their issuer, and under which
	// somebody serves what the API server says of its keys. Default https://kubernetes.default.svc, whose tokens are accepted
	// in any case: a cluster may get another issuer while there are tokens.
	Issuer string
	// ControllerManager and Scheduler say whether to run these.
	ControllerManager, Scheduler bool
	// APIServerFlags are added to kube-apiserver's own, and win.
	APIServerFlags []string
	// Progress is told when a process had to be started again. Default: nobody.
	Progress *Progress
}

// ControlPlane is one etcd and one kube-apiserver with, if wanted, a controller manager and a scheduler.
type ControlPlane struct {
	config ControlPlaneConfig
	// ca signs servers, clients and kubelets; etcdCA whoever may touch the store; frontProxyCA who may vouch for others.
	ca, etcdCA, frontProxyCA *CA
	// tokens is the file with the key that signs ServiceAccount tokens.
	tokens string
}

// NewControlPlane makes or loads the credentials of a control plane. It starts nothing.
func NewControlPlane(config ControlPlaneConfig) (*ControlPlane, error) {
	if config.Address == "" {
		config.Address = localhost
	}
	c, pki := &ControlPlane{config: config}, filepath.Join(config.Dir, "pki")
	var errs [4]error
	c.ca, errs[0] = OpenCA(pki, "ca")
	c.etcdCA, errs[1] = OpenCA(filepath.Join(pki, "etcd"), "ca")
	c.frontProxyCA, errs[2] = OpenCA(pki, "front-proxy-ca")
	c.tokens, errs[3] = serviceAccountKey(pki)
	return c, errors.Join(errs[:]...)
}

// Start starts what does not run yet and returns when all of it is ready.
func (c *ControlPlane) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readinessLimit, fmt.Errorf("waited %s", readinessLimit))
	defer cancel()
	etcd, err := c.etcd()
	if err != nil {
		return err
	}
	apiserver, err := c.apiServer()
	if err != nil {
		return err
	}
	probe, err := c.prober()
	if err != nil {
		return err
	}
	if err := apiserver.Until(ctx, func(ctx context.Context) error {
		if err := etcd.Ended(); err != nil {
			return err
		}
		return probe.get(ctx, c.Server()+"/readyz")
	}); err != nil {
		return err
	}
	return c.startClients(ctx, probe)
}

// startClients starts the controller manager, which gives up when it does not find the API server within ten seconds and
// so has to wait its turn, and the scheduler.
func (c *ControlPlane) startClients(ctx context.Context, probe prober) error {
	type client struct {
		*process.Process
		port int
	}
	var clients []client
	if c.config.ControllerManager {
		p, err := c.controllerManager()
		if err != nil {
			return err
		}
		clients = append(clients, client{p, c.config.Ports.ControllerManager})
	}
	if c.config.Scheduler {
		p, err := c.scheduler()
		if err != nil {
			return err
		}
		clients = append(clients, client{p, c.config.Ports.Scheduler})
	}
	for _, p := range clients {
		healthz := fmt.Sprintf("https://%s:%d/healthz", localhost, p.port)
		if err := p.Until(ctx, func(ctx context.Context) error { return probe.get(ctx, healthz) }); err != nil {
			return err
		}
	}
	return nil
}

// Revive starts the controller manager and the scheduler again where they have ended, as the supervision of a cluster does,
// and tells of each how its log ended. Both count on it: they end themselves when they find no API server, or when their
// caches contradict it.
func (c *ControlPlane) Revive() (ended []error, err error) {
	for program, start := range map[string]func() (*process.Process, error){ControllerManager: c.controllerManager, Scheduler: c.scheduler} {
		p := c.config.Processes.Get(c.ProcessName(program))
		if p == nil || p.Alive() {
			continue
		}
		ended = append(ended, p.Ended())
		if _, err := start(); err != nil {
			return ended, err
		}
	}
	return ended, nil
}

// Server is the URL of kube-apiserver.
func (c *ControlPlane) Server() string {
	return fmt.Sprintf("https://%s:%d", c.config.Address, c.config.Ports.APIServer)
}

// CAFile is the certificate of the authority that signs servers, clients and kubelets of this cluster.
func (c *ControlPlane) CAFile() string { return c.ca.Cert }

// FrontProxyCAFile is the certificate of the authority that signs what kube-apiserver shows to extension API servers.
func (c *ControlPlane) FrontProxyCAFile() string { return c.frontProxyCA.Cert }

// Issue gives a certificate of the cluster's authority, for instance for a kubelet.
func (c *ControlPlane) Issue(r Request) (Pair, error) { return c.ca.Issue(r) }

// EtcdAccess says how to reach a control plane's etcd.
type EtcdAccess struct {
	// Endpoint is an https URL.
	Endpoint string
	// CAFile verifies the server; Client is what it wants to be shown.
	CAFile string
	Client Pair
}

// Etcd says how to reach etcd.
func (c *ControlPlane) Etcd() (EtcdAccess, error) {
	client, err := c.etcdCA.Issue(Request{Name: "client", User: "etcd-client"})
	return EtcdAccess{Endpoint: c.etcdURL(c.config.Ports.EtcdClient), CAFile: c.etcdCA.Cert, Client: client}, err
}

// Kubeconfig gives a kubeconfig for any user, with its certificate in it. The name tells the files of users apart.
func (c *ControlPlane) Kubeconfig(name, user string, groups ...string) ([]byte, error) {
	k, err := c.kubeconfig(name, user, groups...)
	if err != nil {
		return nil, err
	}
	return k.bytes()
}

// AdminKubeconfig gives a kubeconfig for the cluster's administrator.
func (c *ControlPlane) AdminKubeconfig() ([]byte, error) {
	return c.Kubeconfig("admin", adminUser, adminGroup)
}

// AdminConfig gives a client configuration for the cluster's administrator.
func (c *ControlPlane) AdminConfig() (*rest.Config, error) {
	raw, err := c.AdminKubeconfig()
	if err != nil {
		return nil, err
	}
	return clientcmd.RESTConfigFromKubeConfig(raw)
}

func (c *ControlPlane) kubeconfig(name, user string, groups ...string) (kubeconfig, error) {
	client, err := c.ca.Issue(Request{Name: "client-" + name, User: user, Groups: groups})
	return kubeconfig{context: c.config.Name, server: c.Server(), ca: c.ca.Cert, client: client}, err
}

func (c *ControlPlane) kubeconfigFile(name, user string, groups ...string) (string, error) {
	k, err := c.kubeconfig(name, user, groups...)
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.config.Dir, name+".kubeconfig")
	return path, k.write(path)
}

// ProcessName is what the set of processes calls one of a control plane's programs.
func (c *ControlPlane) ProcessName(program string) string { return c.config.Name + "-" + program }

// run keeps one process of the control plane running.
func (c *ControlPlane) run(program string, args ...string) (*process.Process, error) {
	name := c.ProcessName(program)
	p, outcome, err := c.config.Processes.Ensure(process.Spec{
		Name: name,
		Path: c.config.Binaries.Path(program),
		Args: args,
		Log:  filepath.Join(c.config.LogDir, name+".log"),
	})
	if outcome == process.Restarted || outcome == process.Replaced {
		c.config.Progress.Say("%s had to be %s", name, outcome)
	}
	return p, err
}

// hosts are the names under which servers of this control plane are called.
func (c *ControlPlane) hosts(more ...string) []string {
	hosts := slices.Concat([]string{localhost, "localhost", c.config.Address}, more)
	slices.Sort(hosts)
	return slices.Compact(hosts)
}
