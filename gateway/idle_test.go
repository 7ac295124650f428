package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// idleClients, an environment variable, makes another process of this program: one that opens watches and holds them.
// What a client takes is none of the gateway's memory.
const idleClients = "VIVARIUM_IDLE_CLIENTS"

// BenchmarkIdleWatch measures what the gateway holds for each of 1,000 watches over all namespaces that have nothing to
// say: 30 on a connection, as the informers of a controller are, and 240, where the connections hardly count. Those with a
// selector know besides which objects match.
func BenchmarkIdleWatch(b *testing.B) {
	const watches = 1000
	for name, one := range map[string]struct {
		perConnection, matching int
		selector                string
	}{
		"connection=30": {perConnection: 30}, "connection=240": {perConnection: 240},
		"connection=240,matching=0":   {perConnection: 240, selector: "&labelSelector=app%3Dweb"},
		"connection=240,matching=20":  {perConnection: 240, selector: "&labelSelector=app%3Dweb", matching: 20},
		"connection=240,matching=100": {perConnection: 240, selector: "&labelSelector=app%3Dweb", matching: 100},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				h := newHarness(b)
				shareable(h).matching = one.matching
				// One watch starts the feed and whatever else there is once.
				warm := h.idleClients(b, 1, 1, one.selector)
				before := takes()
				stop := h.idleClients(b, watches, one.perConnection, one.selector)
				eventually(b, "all watches are open", func() bool { return h.front.fanout.Stats().Subscribers == watches+1 })
				after := takes()
				stop()
				warm()
				b.ReportMetric(float64(after.heap-before.heap+after.stacks-before.stacks)/watches, "bytes/watch")
				b.ReportMetric(float64(after.stacks-before.stacks)/watches, "stack-bytes/watch")
				b.ReportMetric(float64(after.goroutines-before.goroutines)/watches, "goroutines/watch")
			}
		})
	}
}

type footprint struct{ heap, stacks, goroutines int64 }

func takes() footprint {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return footprint{int64(m.HeapAlloc), int64(m.StackInuse), int64(runtime.NumGoroutine())} //nolint:gosec // far below
}

// idleClients opens watches from another process.
func (h *harness) idleClients(b testing.TB, n, perConnection int, selector string) (stop func()) {
	b.Helper()
	dir := b.TempDir()
	certificate := h.client(tenantA, nil)
	key, err := x509.MarshalECPrivateKey(h.ca.key)
	if err != nil {
		b.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"cert": {Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}, "key": {Type: "EC PRIVATE KEY", Bytes: key},
		"ca": {Type: "CERTIFICATE", Bytes: h.server.Certificate().Raw},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(b.Context())
	cmd := exec.CommandContext(ctx, os.Args[0]) //nolint:gosec // this program
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d %s %s", idleClients, h.server.URL, n, perConnection, dir, selector))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		b.Fatalf("%q %v", line, err)
	}
	return func() {
		cancel()
		_ = cmd.Wait()
	}
}

// beIdleClients opens watches, says so, and holds them until it is killed.
func beIdleClients(spec string) error {
	words := append(strings.Fields(spec), "")
	n, err := strconv.Atoi(words[1])
	if err != nil {
		return err
	}
	perConnection, err := strconv.Atoi(words[2])
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(words[3], "cert"), filepath.Join(words[3], "key"))
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(words[3], "ca"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	var client *http.Client
	for i := range n {
		if i%perConnection == 0 {
			client = &http.Client{Transport: &http.Transport{
				TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, ServerName: "example.com"}, ForceAttemptHTTP2: true,
			}}
		}
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, words[0]+"/api/v1/pods?watch=true&resourceVersion=100&allowWatchBookmarks=true"+words[4], nil)
		if err != nil {
			return err
		}
		res, err := client.Do(r) //nolint:bodyclose // held until the end
		if err != nil || res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
			return fmt.Errorf("%v: %w", res, err)
		}
		go func() { _, _ = io.Copy(io.Discard, res.Body) }()
	}
	fmt.Println("open")
	select {}
}
