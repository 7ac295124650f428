package h2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// serve serves a handler over TLS, as the listener does, to the standard library's client.
func serve(t *testing.T, handler http.HandlerFunc) (*http.Client, string) {
	t.Helper()
	two := newServer()
	two.MaxStreams = 250
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		"h2": func(_ *http.Server, c *tls.Conn, h http.Handler) { two.Serve(context.Background(), c, h) }, //nolint:forbidigo // a connection's root
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	client := server.Client()
	t.Cleanup(client.CloseIdleConnections)
	return client, server.URL
}

func do(t *testing.T, client *http.Client, method, url string, body io.Reader) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil || res.ProtoMajor != 2 {
		t.Fatalf("%s %s: %s, %v", method, url, res.Proto, err)
	}
	return res, string(raw)
}

// TestAnswers checks what a client is told by handlers of all kinds, in the words that net/http's server has for it.
func TestAnswers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789abcdef", 20<<10)
	for name, c := range map[string]struct {
		method string
		do     func(w http.ResponseWriter, r *http.Request)
		code   int
		body   string
		header map[string]string // "-": there is none
	}{
		"nothing": {do: func(http.ResponseWriter, *http.Request) {}, code: 200, header: map[string]string{"Content-Length": "0", "Content-Type": "-"}},
		"short":   {do: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }, code: 200, body: "hello", header: map[string]string{"Content-Length": "5", "Content-Type": "text/plain; charset=utf-8"}},
		"in parts": {do: func(w http.ResponseWriter, _ *http.Request) {
			for range 3 {
				_, _ = io.WriteString(w, "ab")
			}
		}, code: 200, body: "ababab", header: map[string]string{"Content-Length": "6"}},
		"long": {do: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, long) }, code: 200, body: long, header: map[string]string{"Content-Length": "-"}},
		"long in parts": {do: func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(long); i += 1000 {
				_, _ = io.WriteString(w, long[i:min(i+1000, len(long))])
			}
		}, code: 200, body: long},
		"of a known length": {do: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "4")
			w.Header().Set("Content-Type", "x/y")
			w.WriteHeader(http.StatusCreated)
			w.Header().Set("Late", "x")
			_, _ = io.WriteString(w, "four")
			if _, err := io.WriteString(w, "!"); !errors.Is(err, http.ErrContentLength) {
				panic(err)
			}
		}, code: 201, body: "four", header: map[string]string{"Content-Length": "4", "Content-Type": "x/y", "Late": "-"}},
		"flushed": {do: func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush() //nolint:forcetypeassert // what is tested
			_, _ = io.WriteString(w, "a")
			_ = http.NewResponseController(w).Flush()
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "b")
		}, code: 200, body: "ab", header: map[string]string{"Content-Length": "-"}},
		"no content": {do: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNoContent)
			if _, err := io.WriteString(w, "x"); !errors.Is(err, http.ErrBodyNotAllowed) {
				panic(err)
			}
		}, code: 204, header: map[string]string{"Content-Length": "-"}},
		"not modified": {do: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }, code: 304},
		"HEAD":         {method: "HEAD", do: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }, code: 200, header: map[string]string{"Content-Length": "5"}},
		"HEAD, told":   {method: "HEAD", do: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "77") }, code: 200, header: map[string]string{"Content-Length": "77"}},
		"fields of the connection, and bad ones": {do: func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Connection"], w.Header()["Transfer-Encoding"] = []string{"x"}, []string{"chunked"}
			w.Header()["Good"], w.Header()["B d"], w.Header()["Bad"] = []string{"a", "b"}, []string{"x"}, []string{"a\nb"}
		}, code: 200, header: map[string]string{"Connection": "-", "Transfer-Encoding": "-", "Good": "a", "B d": "-", "Bad": "-"}},
		"a header of many frames": {do: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Long", long[:100<<10]) }, code: 200, header: map[string]string{"Long": long[:100<<10]}},
		"two codes": {do: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			w.WriteHeader(http.StatusOK)
		}, code: 418},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, url := serve(t, c.do)
			res, body := do(t, client, c.method, url, nil)
			if res.StatusCode != c.code || body != c.body {
				t.Errorf("%d, %d bytes; want %d, %d", res.StatusCode, len(body), c.code, len(c.body))
			}
			if _, err := http.ParseTime(res.Header.Get("Date")); err != nil {
				t.Error(err)
			}
			for name, want := range c.header {
				if got, has := res.Header[name]; has != (want != "-") || has && got[0] != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

// TestRequests checks what a handler is told.
func TestRequests(t *testing.T) {
	t.Parallel()
	client, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		_, _ = fmt.Fprintln(w, r.Method, r.RequestURI, r.URL.Path, r.URL.RawQuery, r.Proto, r.ContentLength, len(body), err)
		_, _ = fmt.Fprintln(w, r.Header["Accept"], r.Header["X-Y"], r.Header["Cookie"], r.Header["Host"], strings.HasPrefix(r.RemoteAddr, "127.0.0.1:"), r.TLS.HandshakeComplete, r.Header["Trailer"])
		_, _ = fmt.Fprintln(w, r.Host, http.NewResponseController(w).EnableFullDuplex())
	})
	for name, c := range map[string]struct {
		body io.Reader
		want string
	}{
		"none":    {nil, "POST /a%2fb?c=d /a/b c=d HTTP/2.0 0 0 <nil>"},
		"known":   {strings.NewReader("hello"), "POST /a%2fb?c=d /a/b c=d HTTP/2.0 5 5 <nil>"},
		"unknown": {io.MultiReader(strings.NewReader("hello")), "POST /a%2fb?c=d /a/b c=d HTTP/2.0 -1 5 <nil>"},
		"large":   {bytes.NewReader(make([]byte, 5<<20)), fmt.Sprintf("POST /a%%2fb?c=d /a/b c=d HTTP/2.0 %d %d <nil>", 5<<20, 5<<20)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/a%2fb?c=d", c.body)
			if err != nil {
				t.Fatal(err)
			}
			r.Header = http.Header{"Accept": {"x", "y"}, "X-Y": {"z"}, "Cookie": {"a=b; c=d"}}
			r.Host = "example.com"
			res, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			got, err := io.ReadAll(res.Body)
			if want := c.want + "\n[x y] [z] [a=b; c=d] [] true true []\nexample.com <nil>\n"; err != nil || string(got) != want {
				t.Errorf("%s%v, want\n%s", got, err, want)
			}
		})
	}
}

// TestInformation checks answers that come before the answer, and what comes behind it.
func TestInformation(t *testing.T) {
	t.Parallel()
	client, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "x")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Set("Trailer", "Behind, Never")
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
		w.Header().Set("Behind", "it")
		w.Header().Set(http.TrailerPrefix+"Unsaid", "too")
	})
	var codes []int
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		codes = append(codes, code)
		if code == http.StatusEarlyHints && header.Get("Link") != "x" {
			t.Error(header)
		}
		return nil
	}})
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Expect", "100-continue")
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); string(body) != "body" || err != nil {
		t.Errorf("%q %v", body, err)
	}
	if !slices.Contains(codes, 103) || res.Trailer.Get("Behind") != "it" || res.Trailer.Get("Unsaid") != "too" {
		t.Error(codes, res.Trailer)
	}
}

// TestBothWays checks that bodies flow both ways at once, and that a request ends when its client does not want it any more.
func TestBothWays(t *testing.T) {
	t.Parallel()
	over := make(chan error, 1)
	client, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.Flush()
		buffer := make([]byte, 10)
		for {
			n, err := r.Body.Read(buffer)
			if err != nil {
				<-r.Context().Done()
				over <- err
				return
			}
			_, _ = w.Write(buffer[:n])
			_ = control.Flush()
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	in, out := io.Pipe()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, in)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got := make([]byte, 5)
	for range 5 {
		_, _ = io.WriteString(out, "hello")
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != "hello" {
			t.Fatalf("%q %v", got, err)
		}
	}
	cancel()
	_ = res.Body.Close()
	if err := <-over; err == nil || errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// TestBroken checks that an answer that is not whole looks like that, and that the connection goes on.
func TestBroken(t *testing.T) {
	t.Parallel()
	client, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/short" {
			w.Header().Set("Content-Length", "9")
		}
		_, _ = io.WriteString(w, "begun")
		_ = http.NewResponseController(w).Flush()
		switch r.URL.Path {
		case "/abort":
			panic(http.ErrAbortHandler)
		case "/panic":
			panic("on purpose")
		}
	})
	for _, path := range []string{"/abort", "/panic", "/short"} {
		res, err := client.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err == nil || string(body) != "begun" {
			t.Errorf("%s: %q %v", path, body, err)
		}
		_ = res.Body.Close()
	}
	if _, body := do(t, client, http.MethodGet, url+"/", nil); body != "begun" {
		t.Error(body)
	}
}

// TestDeadlines checks that a deadline for reading ends a read that waits, and one for writing no answer that has nothing to
// say for longer.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	client, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if err := errors.Join(control.SetReadDeadline(time.Now().Add(time.Millisecond)), control.SetWriteDeadline(time.Now().Add(time.Millisecond))); err != nil {
			panic(err)
		}
		_, err := io.ReadAll(r.Body)
		time.Sleep(10 * time.Millisecond)
		_ = control.SetReadDeadline(time.Time{})
		_ = control.SetWriteDeadline(time.Now().Add(patience))
		_, _ = fmt.Fprint(w, errors.Is(err, os.ErrDeadlineExceeded))
	})
	in, out := io.Pipe()
	defer out.Close()
	if _, body := do(t, client, http.MethodPost, url, in); body != "true" {
		t.Error(body)
	}
}

// TestManyAtOnce checks that nothing gets lost or mixed up among many streams of one connection, with bodies both ways that are
// larger than all windows.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	client, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	})
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			sent := bytes.Repeat([]byte{byte(i)}, (i%7)*100<<10+i)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(sent))
			if err != nil {
				t.Error(err)
				return
			}
			res, err := client.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if got, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d: %d bytes of %d, %v", i, len(got), len(sent), err)
			}
		})
	}
	all.Wait()
}

// TestUpload checks that what a handler does not read is not waited for.
func TestUpload(t *testing.T) {
	t.Parallel()
	client, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/close" {
			_ = r.Body.Close()
			if _, err := r.Body.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
				t.Error(err)
			}
		}
		_, _ = io.WriteString(w, "no thanks")
	})
	for range 10 {
		for _, path := range []string{"/", "/close"} {
			if _, body := do(t, client, http.MethodPost, url+path, bytes.NewReader(make([]byte, 3<<20))); body != "no thanks" {
				t.Error(body)
			}
		}
	}
}
