package tenants

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"vivarium.io/vivarium/internal/names"
)

// Lifetimes of a tenant's certificate.
const (
	certificateLife = 365 * 24 * time.Hour
	// certificateRenewal is how long before its end a certificate is replaced; a third of its life where that is shorter.
	certificateRenewal = 30 * 24 * time.Hour
	// certificateSkew is how far the clock of another replica may be behind.
	certificateSkew = 5 * time.Minute
	// adminUser is who a tenant's kubeconfig is for, in the tenant's words.
	adminUser = "admin"
)

// Authority signs tenants' client certificates.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// LoadAuthority reads the authority's certificate and key.
func LoadAuthority(certFile, keyFile string) (*Authority, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the tenant CA: %w", err)
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("read the tenant CA from %s: %w", certFile, err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	switch {
	case !ok:
		return nil, fmt.Errorf("read the tenant CA from %s: its key cannot sign", keyFile)
	case !cert.IsCA:
		return nil, fmt.Errorf("read the tenant CA from %s: it is no certificate authority", certFile)
	}
	return &Authority{cert: cert, key: key}, nil
}

// principal is who a certificate speaks for: a tenant by its ID and, because IDs are used again, by its UID.
type principal struct {
	id  names.TenantID
	uid types.UID
}

func (p principal) subject() pkix.Name {
	return pkix.Name{
		CommonName:         adminUser,
		Organization:       []string{mastersGroup},
		OrganizationalUnit: []string{string(p.id)},
		SerialNumber:       string(p.uid),
	}
}

// issue makes a key and a client certificate for a tenant's administrator, valid from notBefore at the earliest.
func (a *Authority) issue(p principal, notBefore, now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the key of tenant %s: %w", p.id, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, fmt.Errorf("make the certificate of tenant %s: %w", p.id, err)
	}
	from, to := a.validity(notBefore, now, certificateLife)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber:          serial,
		Subject:               p.subject(),
		NotBefore:             from,
		NotAfter:              to,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign the certificate of tenant %s: %w", p.id, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the key of tenant %s: %w", p.id, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// validity is from when to when a certificate made now is good.
func (a *Authority) validity(notBefore, now time.Time, life time.Duration) (from, to time.Time) {
	from, to = now.Add(-certificateSkew), now.Add(life)
	if from.Before(notBefore) {
		// A certificate from before the revocation of all earlier ones would be refused with them.
		from = notBefore
	}
	if to.After(a.cert.NotAfter) {
		to = a.cert.NotAfter
	}
	return from, to
}

// good tells why a certificate is not one to go on with, nil when it is.
func (a *Authority) good(cert *x509.Certificate, p principal, notBefore, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: latest(now, cert.NotBefore), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return err
	}
	want := p.subject()
	switch {
	case cert.Subject.String() != want.String():
		return errors.New("it is somebody else's")
	case cert.NotBefore.Before(notBefore.Truncate(time.Second)):
		return errors.New("it is revoked")
	case now.After(renewAt(cert)):
		return errors.New("it expires soon")
	default:
		return nil
	}
}

// renewAt is when a certificate is to be replaced.
func renewAt(cert *x509.Certificate) time.Time {
	return cert.NotAfter.Add(-min(certificateRenewal, cert.NotAfter.Sub(cert.NotBefore)/3))
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// access is how a tenant reaches its API.
type access struct {
	server    string
	servingCA []byte
}

// kubeconfig writes a tenant's kubeconfig. Everything in it is named after the tenant, so that it can be merged with
// others.
func (a access) kubeconfig(id names.TenantID, certPEM, keyPEM []byte) ([]byte, error) {
	name, user := string(id), string(id)+"-"+adminUser
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: a.server, CertificateAuthorityData: a.servingCA}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: certPEM, ClientKeyData: keyPEM}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: user, Namespace: defaultNamespace}
	config.CurrentContext = name
	raw, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("write the kubeconfig of tenant %s: %w", id, err)
	}
	return raw, nil
}

// credentials is a tenant's kubeconfig as it was issued.
type credentials struct {
	cert            *x509.Certificate
	certPEM, keyPEM []byte
	server          string
	servingCA       []byte
}

// parseCredentials reads back what access.kubeconfig wrote, from the annotation.
func parseCredentials(annotation string) (credentials, error) {
	raw, err := base64.StdEncoding.DecodeString(annotation)
	if err != nil {
		return credentials{}, err
	}
	config, err := clientcmd.Load(raw)
	if err != nil {
		return credentials{}, err
	}
	context, ok := config.Contexts[config.CurrentContext]
	if !ok {
		return credentials{}, errors.New("no current context")
	}
	cluster, user := config.Clusters[context.Cluster], config.AuthInfos[context.AuthInfo]
	if cluster == nil || user == nil {
		return credentials{}, errors.New("no cluster or no user")
	}
	pair, err := tls.X509KeyPair(user.ClientCertificateData, user.ClientKeyData)
	if err != nil {
		return credentials{}, err
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return credentials{}, err
	}
	return credentials{
		cert: cert, certPEM: user.ClientCertificateData, keyPEM: user.ClientKeyData,
		server: cluster.Server, servingCA: cluster.CertificateAuthorityData,
	}, nil
}

// refresh gives the annotation that a tenant is to have and when its certificate ends. The certificate is kept while it is
// good; a new address or CA of the gateway changes the rest of the kubeconfig around it. An annotation that is right stays
// byte for byte.
func (a *Authority) refresh(annotation string, p principal, to access, notBefore, now time.Time) (_ string, expiry time.Time, err error) {
	have, err := parseCredentials(annotation)
	if err == nil {
		err = a.good(have.cert, p, notBefore, now)
	}
	switch {
	case err != nil:
		have.certPEM, have.keyPEM, err = a.issue(p, notBefore, now)
		if err != nil {
			return "", time.Time{}, err
		}
	case have.server == to.server && bytes.Equal(have.servingCA, to.servingCA):
		return annotation, have.cert.NotAfter, nil
	}
	raw, err := to.kubeconfig(p.id, have.certPEM, have.keyPEM)
	if err != nil {
		return "", time.Time{}, err
	}
	block, _ := pem.Decode(have.certPEM)
	if block == nil {
		return "", time.Time{}, fmt.Errorf("read back the certificate of tenant %s: no PEM", p.id)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("read back the certificate of tenant %s: %w", p.id, err)
	}
	return base64.StdEncoding.EncodeToString(raw), cert.NotAfter, nil
}
