package localcluster

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
)

func openCA(t *testing.T, dir, name string) *CA {
	t.Helper()
	ca, err := OpenCA(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t *testing.T, ca *CA, r Request) *x509.Certificate {
	t.Helper()
	pair, err := ca.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	cert, _, err := pair.load()
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestIssue(t *testing.T) {
	dir := t.TempDir()
	ca := openCA(t, dir, "ca")
	first := Request{Name: "server", User: "jane", Groups: []string{"a", "b"}, Hosts: []string{"127.0.0.1", "localhost"}}
	cases := map[string]struct {
		reason string
		again  Request
		same   bool
	}{
		"Same":        {"nothing has changed", first, true},
		"OtherOrder":  {"the order of hosts and groups means nothing", Request{Name: "server", User: "jane", Groups: []string{"b", "a"}, Hosts: []string{"localhost", "127.0.0.1"}}, true},
		"MoreHosts":   {"the certificate would not cover a host", Request{Name: "server", User: "jane", Groups: []string{"a", "b"}, Hosts: []string{"127.0.0.1", "localhost", "10.0.0.1"}}, false},
		"FewerHosts":  {"the certificate would cover a host that is no longer ours", Request{Name: "server", User: "jane", Groups: []string{"a", "b"}, Hosts: []string{"127.0.0.1"}}, false},
		"OtherUser":   {"the certificate would be for somebody else", Request{Name: "server", User: "joe", Groups: []string{"a", "b"}, Hosts: first.Hosts}, false},
		"FewerGroups": {"the certificate would give more than was asked for", Request{Name: "server", User: "jane", Groups: []string{"a"}, Hosts: first.Hosts}, false},
		"AnotherName": {"each name has a file of its own", Request{Name: "other", User: "jane", Groups: []string{"a", "b"}, Hosts: first.Hosts}, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			before := issue(t, ca, first)
			// Another run of the program opens the authority anew.
			after := issue(t, openCA(t, dir, "ca"), tc.again)
			if same := before.Equal(after); same != tc.same {
				t.Errorf("kept: %v, want %v: %s", same, tc.same, tc.reason)
			}
		})
	}
	t.Run("AnotherAuthority", func(t *testing.T) {
		before := issue(t, ca, first)
		if err := os.Remove(ca.Key); err != nil {
			t.Fatal(err)
		}
		if after := issue(t, openCA(t, dir, "ca"), first); before.Equal(after) {
			t.Error("a certificate of an authority that is no more was kept")
		}
	})
}

// TestHandshake lets a server and a client with issued certificates meet.
func TestHandshake(t *testing.T) {
	ca := openCA(t, t.TempDir(), "ca")
	stranger := openCA(t, t.TempDir(), "ca")
	load := func(ca *CA, r Request) tls.Certificate {
		t.Helper()
		pair, err := ca.Issue(r)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	server := load(ca, Request{Name: "server", User: "server", Hosts: []string{"127.0.0.1"}})
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	cases := map[string]struct {
		client tls.Certificate
		host   string
		ok     bool
	}{
		"Known":     {load(ca, Request{Name: "client", User: "jane"}), "127.0.0.1", true},
		"Stranger":  {load(stranger, Request{Name: "client", User: "jane"}), "127.0.0.1", false},
		"WrongHost": {load(ca, Request{Name: "client", User: "jane"}), "10.0.0.1", false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
				Certificates: []tls.Certificate{server}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			served := make(chan error, 1)
			go func() {
				conn, err := listener.Accept()
				if err == nil {
					err = conn.(*tls.Conn).Handshake()
					conn.Close()
				}
				served <- err
			}()
			conn, clientErr := tls.Dial("tcp", listener.Addr().String(), &tls.Config{
				Certificates: []tls.Certificate{tc.client}, RootCAs: pool, ServerName: tc.host,
			})
			if clientErr == nil {
				defer conn.Close()
			}
			if err := <-served; (err == nil && clientErr == nil) != tc.ok {
				t.Errorf("server: %v, client: %v, want success: %v", err, clientErr, tc.ok)
			}
		})
	}
}

func TestKubeconfig(t *testing.T) {
	dir := t.TempDir()
	ca := openCA(t, filepath.Join(dir, "pki"), "ca")
	client, err := ca.Issue(Request{Name: "client", User: "jane"})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "kubeconfig")
	if err := (kubeconfig{context: "pool-a", server: "https://127.0.0.1:1", ca: ca.Cert, client: client}).write(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others may read it: %v, %v", info.Mode(), err)
	}
	// It stands alone: nothing in it leads to the files it was made from.
	if err := os.RemoveAll(filepath.Join(dir, "pki")); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{config.Host, config.CertFile, config.KeyFile, config.CAFile}
	if diff := cmp.Diff([]string{"https://127.0.0.1:1", "", "", ""}, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if _, err := tls.X509KeyPair(config.CertData, config.KeyData); err != nil {
		t.Error(err)
	}
}
