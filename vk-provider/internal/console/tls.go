package console

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Files are the paths of what the listener shows and whom it believes.
type Files struct{ Cert, Key, ClientCA string }

// lookEvery is how often the files are looked at for a change.
const lookEvery = 10 * time.Second

// TLS makes the listener's configuration. The files are read anew when they change, so that certificates can be rotated
// under a running process; a new file that cannot be used leaves the old one in force.
func TLS(files Files) (*tls.Config, error) {
	k := &keys{files: files}
	config, err := k.load()
	if err != nil {
		return nil, err
	}
	k.current, k.stamp, k.looked = config, k.stampNow(), time.Now()
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return k.get(), nil },
	}, nil
}

type keys struct {
	files Files

	mu      sync.Mutex // guards the rest
	current *tls.Config
	stamp   string
	looked  time.Time
}

func (k *keys) get() *tls.Config {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.looked) < lookEvery {
		return k.current
	}
	k.looked = time.Now()
	if stamp := k.stampNow(); stamp != k.stamp {
		if config, err := k.load(); err == nil {
			k.current, k.stamp = config, stamp
		}
	}
	return k.current
}

// stampNow changes when a file does.
func (k *keys) stampNow() string {
	var stamp string
	for _, path := range []string{k.files.Cert, k.files.Key, k.files.ClientCA} {
		if info, err := os.Stat(path); err == nil {
			stamp += fmt.Sprintf("%d/%d;", info.ModTime().UnixNano(), info.Size())
		}
	}
	return stamp
}

func (k *keys) load() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(k.files.Cert, k.files.Key)
	if err != nil {
		return nil, fmt.Errorf("read the serving certificate: %w", err)
	}
	pem, err := os.ReadFile(k.files.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("read the client CA: %w", err)
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(pem) {
		return nil, errors.New("read the client CA: no certificate in " + k.files.ClientCA)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		ClientCAs:    authorities,
		// Without a certificate the answer is a clear 401 instead of a broken handshake.
		ClientAuth: tls.VerifyClientCertIfGiven,
		NextProtos: []string{"h2", "http/1.1"},
	}, nil
}
