// Program echo is a server for trying things out. On $PORT, 8080 unless set, it answers every HTTP request with the request,
// as text, and prints a line about it; /healthz with "ok" and gRPC's health check, both without a line; and every datagram,
// and every line of a connection that asked for /lines, with the name of the host and what it got. With -version it says
// what it is and ends.
//
// With -ask or -keep it is the other side instead: it asks who answers at the targets in its arguments, which are
// written tcp/ADDRESS:PORT and udp/ADDRESS:PORT. With -lookup it prints what is known of names. With -frames it sends its arguments, whatever they are, as frames of eth0.
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
	ask := flag.Bool("ask", false, "print for each target who answers there, or a dash")
	keep := flag.Bool("keep", false, "talk to every target on and on; end when a connection breaks")
	look := flag.Bool("lookup", false, "print for each host/NAME, srv/NAME, cname/NAME and addr/ADDRESS what is known of it, or a dash")
	frames := flag.Bool("frames", false, "send frames in hexadecimal digits")
	from := flag.Int("from", 0, "the port to ask from; of the first target, where they are kept")
	patience := flag.Duration("patience", 3*time.Second, "how long to wait for answers to -ask and -lookup")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := error(nil)
	switch {
	case *version:
		fmt.Println("echo v1")
	case (*ask || *keep || *look) && flag.NArg() == 0:
		err = errors.New("ask whom?")
	case *frames:
		err = sendFrames("eth0", flag.Args())
	case *ask:
		ctx, cancel := context.WithTimeout(ctx, *patience)
		defer cancel()
		err = askAll(ctx, os.Stdout, *from, flag.Args())
	case *look:
		ctx, cancel := context.WithTimeout(ctx, *patience)
		defer cancel()
		// Of what the image's system could know besides nothing is asked.
		err = lookupAll(ctx, os.Stdout, &net.Resolver{PreferGo: true}, flag.Args())
	case *keep:
		err = keepAll(ctx, os.Stdout, time.Second, *from, flag.Args())
	default:
		port := os.Getenv("PORT")
		if port == "" {
			port = "8080"
		}
		err = run(ctx, ":"+port)
	}
	if err != nil {
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
	packets, err := net.ListenPacket("udp", listener.Addr().String())
	if err != nil {
		return err
	}
	go datagrams(packets, hostname)
	fmt.Println("listening on", listener.Addr())
	// gRPC is HTTP/2 without TLS here.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: handler(hostname), ReadHeaderTimeout: 10 * time.Second, Protocols: protocols}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	fmt.Println("stopping")
	_ = packets.Close()
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
	mux.HandleFunc("/grpc.health.v1.Health/Check", grpcHealth)
	mux.HandleFunc("/lines", func(w http.ResponseWriter, _ *http.Request) { lines(w, hostname) })
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

// grpcHealth answers as gRPC's health service does: with a message whose field 1, the status, is SERVING.
func grpcHealth(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	_, _ = w.Write([]byte{0, 0, 0, 0, 2, 0x08, 1})
	w.Header().Set("Grpc-Status", "0")
}
