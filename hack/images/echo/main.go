// Program echo is an HTTP server for trying things out: it answers every request with the request, as text, and prints a
// line about it. It listens on $PORT, 8080 unless set, and answers /healthz with "ok" without a line. With -version it
// says what it is and ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	version := flag.Bool("version", false, "say what this is and end")
	flag.Parse()
	if *version {
		fmt.Println("echo v1")
		return
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, ":"+port); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, addr string) error {
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println("listening on", listener.Addr())
	server := &http.Server{Handler: handler(hostname), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	fmt.Println("stopping")
	shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(shutdown); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func handler(hostname string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(time.Now().UTC().Format(time.RFC3339), r.Method, r.URL, r.RemoteAddr)
		var answer strings.Builder
		fmt.Fprintf(&answer, "hostname: %s\nmethod: %s\npath: %s\nremote: %s\nhost: %s\n", hostname, r.Method, r.URL, r.RemoteAddr, r.Host)
		var names []string
		for name := range r.Header {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(&answer, "%s: %s\n", name, strings.Join(r.Header[name], ", "))
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		// With its length known, even the simplest client knows where the answer ends.
		w.Header().Set("Content-Length", fmt.Sprint(answer.Len()))
		if r.Method != http.MethodHead {
			fmt.Fprint(w, answer.String())
		}
	})
	return mux
}
