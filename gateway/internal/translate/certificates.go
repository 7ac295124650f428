package translate

import (
	"strings"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
)

// A CertificateSigningRequest names a signer, and whoever watches for that name in the control cluster signs what is
// approved. The control cluster's own controllers would do so with the control cluster's CA, for any user that a tenant
// asks for and approves itself. So a tenant's signers are its own: their names carry its prefix, in requests and in the
// rules that say who may approve and sign, and nothing in the control cluster answers to them.

const (
	// clusterSigners are the signers that every cluster has. A tenant has one of them, which the gateway is, and is told so
	// where it asks for another.
	clusterSigners = "kubernetes.io/"
	userSigner     = "kubernetes.io/kube-apiserver-client"
)

func isSigningRequest(k Kind) bool {
	return k.Group == "certificates.k8s.io" && k.Resource == "certificatesigningrequests"
}

func (q *request) signingRequestToControl(spec *jsonwire.Value, path string) error {
	if signer := spec.Get("signerName"); signer.Text() != "" {
		if strings.HasPrefix(signer.Text(), clusterSigners) && signer.Text() != userSigner {
			return forbidden(path+".signerName", "there is no signer %q here: users of this cluster get certificates from %q, and signers of other domains are yours", signer.Text(), userSigner)
		}
		signer.SetText(q.view.Tenant.NameToControl(signer.Text()))
	}
	if user := spec.Get("username"); user.Text() != "" {
		user.SetText(q.view.Tenant.UserToControl(user.Text()))
	}
	for _, group := range spec.Get("groups").Elems() {
		if group.Text() != "" {
			group.SetText(q.view.Tenant.UserGroupToControl(group.Text()))
		}
	}
	return nil
}

// signingRequestToTenant is the inverse; false means that the request leads out of the tenant's world.
func (r *response) signingRequestToTenant(spec *jsonwire.Value) bool {
	if signer := spec.Get("signerName"); signer.Text() != "" {
		own, err := r.view.Tenant.NameToTenant(signer.Text())
		if err != nil {
			return false
		}
		signer.SetText(own)
	}
	return r.userInfoToTenant(spec)
}
