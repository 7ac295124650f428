package localcluster

import (
	"fmt"
	"path/filepath"
	"strconv"

	"vivarium.io/vivarium/internal/localcluster/process"
)

// The command lines of the programs of a control plane. Every flag that differs from the default has its reason here.

func (c *ControlPlane) etcdURL(port int) string { return fmt.Sprintf("https://%s:%d", localhost, port) }

// etcd asks for client certificates even on the loopback: whoever reads etcd is above every tenant.
func (c *ControlPlane) etcd() (*process.Process, error) {
	ca := c.etcdCA
	server, err := ca.Issue(Request{Name: "server", User: "etcd", Hosts: []string{localhost, "localhost"}})
	if err != nil {
		return nil, err
	}
	client, peer := c.etcdURL(c.config.Ports.EtcdClient), c.etcdURL(c.config.Ports.EtcdPeer)
	return c.run(Etcd,
		"--name="+c.config.Name,
		"--data-dir="+filepath.Join(c.config.Dir, "etcd"),
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer,
		"--initial-cluster="+c.config.Name+"="+peer,
		"--cert-file="+server.Cert, "--key-file="+server.Key, "--trusted-ca-file="+ca.Cert, "--client-cert-auth",
		"--peer-cert-file="+server.Cert, "--peer-key-file="+server.Key, "--peer-trusted-ca-file="+ca.Cert, "--peer-client-cert-auth",
		// Nothing here has to survive a power cut, and laptops' disks are slow to sync.
		"--unsafe-no-fsync",
		"--log-level=warn",
	)
}

func (c *ControlPlane) apiServer() (*process.Process, error) {
	etcd, err := c.Etcd()
	if err != nil {
		return nil, err
	}
	serving, err := c.servingPair()
	if err != nil {
		return nil, err
	}
	kubeletClient, err := c.ca.Issue(Request{Name: KubeletClient, User: KubeletClient, Groups: []string{adminGroup}})
	if err != nil {
		return nil, err
	}
	proxyClient, err := c.frontProxyCA.Issue(Request{Name: "front-proxy-client", User: "front-proxy-client"})
	if err != nil {
		return nil, err
	}
	args := []string{
		"--bind-address=" + c.config.Address,
		"--advertise-address=" + c.config.Address,
		"--secure-port=" + strconv.Itoa(c.config.Ports.APIServer),
		"--tls-cert-file=" + serving.Cert, "--tls-private-key-file=" + serving.Key,
		"--client-ca-file=" + c.ca.Cert,
		"--etcd-servers=" + etcd.Endpoint,
		"--etcd-cafile=" + etcd.CAFile, "--etcd-certfile=" + etcd.Client.Cert, "--etcd-keyfile=" + etcd.Client.Key,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--service-cluster-ip-range=" + serviceCIDR,
		// Not those of the issuer, which would be the default: whoever is an issuer's audience would be let in here.
		"--api-audiences=" + serviceAccounts,
		"--service-account-key-file=" + c.tokens, "--service-account-signing-key-file=" + c.tokens,
		"--kubelet-certificate-authority=" + c.ca.Cert,
		"--kubelet-client-certificate=" + kubeletClient.Cert, "--kubelet-client-key=" + kubeletClient.Key,
		// Names of nodes resolve nowhere.
		"--kubelet-preferred-address-types=InternalIP",
		"--requestheader-client-ca-file=" + c.frontProxyCA.Cert,
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + proxyClient.Cert, "--proxy-client-key-file=" + proxyClient.Key,
		"--profiling=false",
	}
	// The first one signs.
	if issuer := c.config.Issuer; issuer != "" {
		args = append(args, "--service-account-issuer="+issuer, "--service-account-jwks-uri="+issuer+"/openid/v1/jwks")
	}
	args = append(args, "--service-account-issuer="+serviceAccounts)
	if c.config.Address == localhost {
		// The loopback cannot be an endpoint of the Service "kubernetes".
		args = append(args, "--endpoint-reconciler-type=none")
	}
	return c.run(KubeAPIServer, append(args, c.config.APIServerFlags...)...)
}

func (c *ControlPlane) servingPair() (Pair, error) {
	return c.ca.Issue(Request{Name: "serving", User: "kube-apiserver", Hosts: c.hosts(
		firstServiceIP, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	)})
}

func (c *ControlPlane) controllerManager() (*process.Process, error) {
	kubeconfig, err := c.kubeconfigFile("controller-manager", "system:kube-controller-manager")
	if err != nil {
		return nil, err
	}
	serving, err := c.servingPair()
	if err != nil {
		return nil, err
	}
	return c.run(ControllerManager,
		"--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--bind-address="+localhost, "--secure-port="+strconv.Itoa(c.config.Ports.ControllerManager),
		"--tls-cert-file="+serving.Cert, "--tls-private-key-file="+serving.Key,
		"--root-ca-file="+c.ca.Cert,
		"--cluster-signing-cert-file="+c.ca.Cert, "--cluster-signing-key-file="+c.ca.Key,
		"--service-account-private-key-file="+c.tokens,
		"--service-cluster-ip-range="+serviceCIDR,
		"--use-service-account-credentials",
		// There is but one.
		"--leader-elect=false",
		// With the default of 20 a burst of a hundred tenants waits 20 seconds for its ServiceAccounts.
		"--kube-api-qps=200", "--kube-api-burst=400",
	)
}

func (c *ControlPlane) scheduler() (*process.Process, error) {
	kubeconfig, err := c.kubeconfigFile("scheduler", "system:kube-scheduler")
	if err != nil {
		return nil, err
	}
	serving, err := c.servingPair()
	if err != nil {
		return nil, err
	}
	return c.run(Scheduler,
		"--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--bind-address="+localhost, "--secure-port="+strconv.Itoa(c.config.Ports.Scheduler),
		"--tls-cert-file="+serving.Cert, "--tls-private-key-file="+serving.Key,
		"--leader-elect=false",
		// With the default of 50 pods bind at 52 a second.
		"--kube-api-qps=1000", "--kube-api-burst=1000",
	)
}
