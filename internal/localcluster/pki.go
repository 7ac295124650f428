package localcluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Local certificates live for a year: longer than any instance, and nobody has to renew them.
const certificateLife = 365 * 24 * time.Hour

// Pair names the files of a certificate and its key.
type Pair struct{ Cert, Key string }

// CA is a certificate authority whose files lie in a directory. It is safe for concurrent use.
type CA struct {
	Pair
	dir  string
	cert *x509.Certificate
	key  crypto.Signer

	issuing sync.Mutex // so that a certificate and its key stay a pair
}

// Request describes a certificate.
type Request struct {
	// Name is the file name without its ending.
	Name string
	// User and Groups are the subject's common name and organizations.
	User   string
	Groups []string
	// Hosts are the DNS names and IP addresses of a server. A certificate with hosts is good for a server, any for a client.
	Hosts []string
}

// OpenCA gives the certificate authority of that name in dir, made on first use. The directory is private to the user.
func OpenCA(dir, name string) (*CA, error) {
	ca := &CA{dir: dir, Pair: pairIn(dir, name)}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory for certificates: %w", err)
	}
	var err error
	ca.cert, ca.key, err = ca.Pair.load()
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return ca, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if err := ca.Pair.issue(template, nil, nil); err != nil {
		return nil, err
	}
	ca.cert, ca.key, err = ca.Pair.load()
	return ca, err
}

// Issue gives the files of the certificate that r describes, made anew when they are absent, from another authority, for
// other hosts or a day from expiry.
func (ca *CA) Issue(r Request) (Pair, error) {
	ca.issuing.Lock()
	defer ca.issuing.Unlock()
	pair := pairIn(ca.dir, r.Name)
	if old, _, err := pair.load(); err == nil && ca.stillGood(old, r) {
		return pair, nil
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: r.User, Organization: r.Groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, host := range r.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	if len(r.Hosts) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	return pair, pair.issue(template, ca.cert, ca.key)
}

func (ca *CA) stillGood(old *x509.Certificate, r Request) bool {
	covers := func(host string) bool { return old.VerifyHostname(host) == nil }
	same := func(a, b []string) bool {
		return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
	}
	return old.CheckSignatureFrom(ca.cert) == nil && time.Until(old.NotAfter) > 24*time.Hour &&
		old.Subject.CommonName == r.User && same(old.Subject.Organization, r.Groups) &&
		len(r.Hosts) == len(old.DNSNames)+len(old.IPAddresses) && !slices.ContainsFunc(r.Hosts, func(h string) bool { return !covers(h) })
}

func pairIn(dir, name string) Pair {
	return Pair{Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
}

// issue writes a new key and the certificate for it, signed by parent or, without one, by itself.
func (p Pair) issue(template, parent *x509.Certificate, signer crypto.Signer) error {
	key, err := newKeyFile(p.Key)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return fmt.Errorf("issue %s: %w", p.Cert, err)
	}
	template.SerialNumber = serial
	// An hour back, for clocks that differ a little.
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(certificateLife)
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return fmt.Errorf("issue %s: %w", p.Cert, err)
	}
	return writeFile(p.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// newKeyFile writes a new private key.
func newKeyFile(path string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key %s: %w", path, err)
	}
	// Kubernetes finds the public half of a key that signs tokens in this encoding only.
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make key %s: %w", path, err)
	}
	return key, writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

func (p Pair) load() (*x509.Certificate, crypto.Signer, error) {
	certDER, err := readPEM(p.Cert)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", p.Cert, err)
	}
	keyDER, err := readPEM(p.Key)
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParseECPrivateKey(keyDER)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", p.Key, err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, fmt.Errorf("read %s: not the key of %s", p.Key, p.Cert)
	}
	return cert, key, nil
}

func readPEM(path string) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("read %s: no PEM block", path)
	}
	return block.Bytes, nil
}

// serviceAccountKey gives the file with the key that signs ServiceAccount tokens, made on first use.
func serviceAccountKey(dir string) (string, error) {
	path := filepath.Join(dir, "service-accounts.key")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	_, err := newKeyFile(path)
	return path, err
}

// writeFile replaces a file at once: a reader, or a later start after this one was killed, sees the old or the new one.
func writeFile(path string, content []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(content)
	if err := errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
