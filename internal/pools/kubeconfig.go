package pools

import (
	"errors"
	"fmt"
	"net/url"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// KubeconfigKey is the key of a pool's kubeconfig in its Secret.
const KubeconfigKey = "kubeconfig"

// Client limits towards one pool. Fairness between tenants is the caller's queue; these only keep one component from
// drowning a pool's API server.
const (
	clientQPS   = 400
	clientBurst = 800
)

// ParseKubeconfig reads the kubeconfig of a pool: the cluster and the user of its current context. It refuses what
// would make this process run a program, read a file, send credentials in the clear or talk to whoever answers, because
// a kubeconfig is data that somebody else wrote: exec plugins, auth providers, references to files, passwords,
// impersonation, plain http and insecure-skip-tls-verify. Every problem is named, for whoever wrote the file. It never
// dials and never touches the file system.
func ParseKubeconfig(raw []byte) (*rest.Config, error) {
	if len(raw) == 0 {
		return nil, errors.New("kubeconfig is empty")
	}
	file, err := clientcmd.Load(raw)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig is not readable: %w", err)
	}
	cluster, user, err := current(file)
	if err != nil {
		return nil, err
	}
	if problems := append(clusterProblems(cluster), userProblems(user)...); len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	config, err := clientcmd.NewNonInteractiveClientConfig(*file, file.CurrentContext, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig is not usable: %w", err)
	}
	config.QPS, config.Burst = clientQPS, clientBurst
	return config, nil
}

func current(file *clientcmdapi.Config) (*clientcmdapi.Cluster, *clientcmdapi.AuthInfo, error) {
	if file.CurrentContext == "" {
		return nil, nil, errors.New("kubeconfig has no current-context")
	}
	context := file.Contexts[file.CurrentContext]
	if context == nil {
		return nil, nil, fmt.Errorf("kubeconfig has no context %q, its current-context", file.CurrentContext)
	}
	cluster, user := file.Clusters[context.Cluster], file.AuthInfos[context.AuthInfo]
	if cluster == nil {
		return nil, nil, fmt.Errorf("kubeconfig has no cluster %q, which context %q names", context.Cluster, file.CurrentContext)
	}
	if user == nil {
		return nil, nil, fmt.Errorf("kubeconfig has no user %q, which context %q names", context.AuthInfo, file.CurrentContext)
	}
	return cluster, user, nil
}

func clusterProblems(cluster *clientcmdapi.Cluster) []error {
	var problems []error
	refuse := func(when bool, text string) {
		if when {
			problems = append(problems, errors.New(text))
		}
	}
	server, err := url.Parse(cluster.Server)
	refuse(err != nil || server.Host == "" || server.Scheme != "https", fmt.Sprintf("server %q: must be an https URL", cluster.Server))
	refuse(cluster.InsecureSkipTLSVerify, "insecure-skip-tls-verify is refused: anybody could answer in the pool's name; give certificate-authority-data")
	refuse(cluster.CertificateAuthority != "", "certificate-authority names a file: embed it as certificate-authority-data (kubectl config view --flatten --minify)")
	return problems
}

func userProblems(user *clientcmdapi.AuthInfo) []error {
	var problems []error
	refuse := func(when bool, text string) {
		if when {
			problems = append(problems, errors.New(text))
		}
	}
	refuse(user.Exec != nil, "exec plugins are refused: the kubeconfig would choose a program to run here; use a token or a client certificate")
	refuse(user.AuthProvider != nil, "auth-provider is refused: use a token or a client certificate")
	refuse(user.TokenFile != "", "tokenFile names a file: embed the token")
	refuse(user.ClientCertificate != "", "client-certificate names a file: embed it as client-certificate-data (kubectl config view --flatten --minify)")
	refuse(user.ClientKey != "", "client-key names a file: embed it as client-key-data (kubectl config view --flatten --minify)")
	refuse(user.Username != "" || user.Password != "", "username and password are refused: no API server accepts them; use a token or a client certificate")
	refuse(user.Impersonate != "" || user.ImpersonateUID != "" || len(user.ImpersonateGroups) > 0 || len(user.ImpersonateUserExtra) > 0,
		"impersonation is refused: bind the rights to the user itself")
	if len(problems) == 0 && user.Token == "" && (len(user.ClientCertificateData) == 0 || len(user.ClientKeyData) == 0) {
		refuse(true, "the user has neither a token nor client-certificate-data with client-key-data")
	}
	return problems
}
