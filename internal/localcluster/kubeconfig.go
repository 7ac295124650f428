package localcluster

import (
	"fmt"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// kubeconfig is what a client needs to know.
type kubeconfig struct {
	// context names the cluster, the user and the context.
	context string
	server  string
	ca      string
	client  Pair
}

// bytes gives a kubeconfig that stands alone: it holds the certificates rather than their paths.
func (k kubeconfig) bytes() ([]byte, error) {
	var read error
	file := func(path string) []byte {
		raw, err := os.ReadFile(path)
		if err != nil {
			read = err
		}
		return raw
	}
	config := clientcmdapi.NewConfig()
	config.Clusters[k.context] = &clientcmdapi.Cluster{Server: k.server, CertificateAuthorityData: file(k.ca)}
	config.AuthInfos[k.context] = &clientcmdapi.AuthInfo{ClientCertificateData: file(k.client.Cert), ClientKeyData: file(k.client.Key)}
	config.Contexts[k.context] = &clientcmdapi.Context{Cluster: k.context, AuthInfo: k.context}
	config.CurrentContext = k.context
	if read != nil {
		return nil, fmt.Errorf("make kubeconfig %s: %w", k.context, read)
	}
	return clientcmd.Write(*config)
}

// write makes the file, readable by the user alone.
func (k kubeconfig) write(path string) error {
	raw, err := k.bytes()
	if err != nil {
		return err
	}
	return writeFile(path, raw, 0o600)
}
