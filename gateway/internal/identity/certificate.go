package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/names"
)

const (
	// maxChain bounds the certificates that a client may send besides its own.
	maxChain = 3
	// verifiedCertificates bounds how many certificates need not be verified again for each request.
	verifiedCertificates = 16384
)

// certificates knows people by their client certificates. The handshake has proved that the client holds the key; who
// signed the certificate is checked here, where an answer can say 401 instead of a TLS alert.
type certificates struct {
	ca  *x509.CertPool
	now func() time.Time
	// verified holds the identities of chains that were good once; their times are checked for each request.
	verified *lru.Cache[[sha256.Size]byte, Identity]
}

func newCertificates(ca *x509.CertPool, now func() time.Time) (*certificates, error) {
	cache, err := lru.New[[sha256.Size]byte, Identity](verifiedCertificates)
	if err != nil {
		return nil, fmt.Errorf("make the cache of certificates: %w", err)
	}
	return &certificates{ca: ca, now: now, verified: cache}, nil
}

func (c *certificates) identify(chain []*x509.Certificate) (Identity, error) {
	leaf := chain[0]
	now := c.now()
	if len(chain) > maxChain+1 || now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return Identity{}, errUnauthorized()
	}
	key := sha256.Sum256(leaf.Raw)
	if id, ok := c.verified.Get(key); ok {
		return id, nil
	}
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: c.ca, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return Identity{}, errUnauthorized()
	}
	id, ok := fromSubject(leaf)
	if !ok {
		return Identity{}, errUnauthorized()
	}
	for _, cert := range chains[0] {
		if cert.NotAfter.Before(id.NotAfter) {
			id.NotAfter = cert.NotAfter
		}
	}
	c.verified.Add(key, id)
	return id, nil
}

// fromSubject reads the identity out of a certificate. Nothing is guessed: a subject that does not say exactly one tenant
// is nobody's, above all not the operator's.
func fromSubject(leaf *x509.Certificate) (Identity, bool) {
	subject := leaf.Subject
	if len(subject.OrganizationalUnit) != 1 || subject.SerialNumber == "" || !names.IsPrincipal(subject.CommonName) {
		return Identity{}, false
	}
	// x509.VerifyOptions takes a certificate without any extended usage for one with all of them.
	if len(leaf.ExtKeyUsage) == 0 {
		return Identity{}, false
	}
	tenant, err := names.ParseTenantID(subject.OrganizationalUnit[0])
	if err != nil {
		return Identity{}, false
	}
	for _, group := range subject.Organization {
		if !names.IsPrincipal(group) {
			return Identity{}, false
		}
	}
	return Identity{
		Tenant: tenant, TenantUID: types.UID(subject.SerialNumber),
		User: subject.CommonName, Groups: everybody(subject.Organization),
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
	}, true
}
