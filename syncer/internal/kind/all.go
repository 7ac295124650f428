package kind

import "k8s.io/client-go/kubernetes"

// Kinds are all kinds, by name.
type Kinds map[Name]Kind

// All makes every kind. rootCA gives the PEM certificates that a pod checks the gateway with.
func All(control kubernetes.Interface, rootCA func() string, tokens TokenConfig) Kinds {
	kinds := Kinds{}
	for _, k := range []Kind{ConfigMaps(control, rootCA), Secrets(control), Tokens(control, tokens)} {
		kinds[k.Name] = k
	}
	return kinds
}
