package operator

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"vivarium.io/vivarium/internal/pools"
)

// ReadKubeconfig reads the kubeconfig of a pool from the operator's own machine and checks that it can be used from
// elsewhere: what it names as files is put into it, what would run programs is refused. The result holds the current
// context and nothing else.
func ReadKubeconfig(file string) ([]byte, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	config, err := clientcmd.Load(raw)
	if err != nil || len(config.Clusters) == 0 && len(config.Contexts) == 0 {
		return nil, fmt.Errorf("--kubeconfig: %s is not a kubeconfig", file)
	}
	if config.CurrentContext == "" && len(config.Contexts) == 1 {
		for name := range config.Contexts {
			config.CurrentContext = name
		}
	}
	if config.CurrentContext != "" && config.Contexts[config.CurrentContext] != nil {
		if err := clientcmdapi.MinifyConfig(config); err != nil {
			return nil, fmt.Errorf("--kubeconfig: %s: %w", file, err)
		}
		for _, cluster := range config.Clusters {
			cluster.LocationOfOrigin = file
		}
		for _, user := range config.AuthInfos {
			user.LocationOfOrigin = file
		}
		if err := embed(config, filepath.Dir(file)); err != nil {
			return nil, fmt.Errorf("--kubeconfig: %s: %w", file, err)
		}
	}
	flat, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %s: %w", file, err)
	}
	if _, err := pools.ParseKubeconfig(flat); err != nil {
		return nil, fmt.Errorf("--kubeconfig: %s: %s", file, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return flat, nil
}

// embed replaces the files that a kubeconfig names by their contents. It is safe here and only here: the operator's
// kubeconfig names the operator's own files.
func embed(config *clientcmdapi.Config, dir string) error {
	read := func(file *string, into *[]byte) error {
		if *file == "" || len(*into) > 0 {
			*file = ""
			return nil
		}
		path := *file
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		raw, err := os.ReadFile(path)
		*into, *file = raw, ""
		return err
	}
	var problems []error
	for _, cluster := range config.Clusters {
		problems = append(problems, read(&cluster.CertificateAuthority, &cluster.CertificateAuthorityData))
	}
	for _, user := range config.AuthInfos {
		problems = append(problems, read(&user.ClientCertificate, &user.ClientCertificateData), read(&user.ClientKey, &user.ClientKeyData))
		token := []byte(user.Token)
		problems = append(problems, read(&user.TokenFile, &token))
		user.Token = strings.TrimSpace(string(token))
	}
	return errors.Join(problems...)
}

// withToken is a kubeconfig for the same cluster and another user.
func withToken(kubeconfig []byte, name, token string) ([]byte, error) {
	from, err := clientcmd.Load(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig again: %w", err)
	}
	cluster := from.Clusters[from.Contexts[from.CurrentContext].Cluster]
	made := clientcmdapi.NewConfig()
	made.Clusters[name] = cluster
	made.AuthInfos["vivarium"] = &clientcmdapi.AuthInfo{Token: token}
	made.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: "vivarium"}
	made.CurrentContext = name
	return clientcmd.Write(*made)
}
