package gateway

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"vivarium.io/vivarium/internal/names"
)

// leaks stands between the gateway and its tenants and reads every byte that goes out: status lines, headers, trailers and
// bodies of every form, compressed or not. No answer may name another tenant, nor show a tenant its own prefix, unless the
// tenant itself said the word before. What containers say (logs, streams) is theirs and is not read; nor are tokens, which
// are signed by the control cluster and name the control namespace.
type leaks struct {
	mu      sync.Mutex
	tenants map[string]bool
	// said are the words with an ID in them that each tenant has used.
	said  map[string]map[string]bool
	found []string
}

func newLeaks(tenants ...string) *leaks {
	l := &leaks{tenants: map[string]bool{}, said: map[string]map[string]bool{}}
	for _, id := range tenants {
		l.know(id)
	}
	return l
}

// know adds a tenant to those that must not show.
func (l *leaks) know(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tenants[id] = true
}

// check fails the test if something has shown since the last time.
func (l *leaks) check(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, one := range l.found {
		if i == 10 {
			t.Errorf("and %d more", len(l.found)-i)
			break
		}
		t.Error(one)
	}
	l.found = nil
}

// watch reads what a handler is told and what it says.
func (l *leaks) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := sender(r)
		l.hear(to, r.RequestURI)
		if plain, err := url.QueryUnescape(r.RequestURI); err == nil {
			l.hear(to, plain)
		}
		for name, values := range r.Header {
			l.hear(to, name+" "+strings.Join(values, " "))
		}
		if r.Body != nil {
			r.Body = &heard{r.Body, func(b []byte) { l.hear(to, string(b)) }, nil}
		}
		path, _, _ := strings.Cut(r.RequestURI, "?")
		out := &scanned{ResponseWriter: w, leaks: l, to: to, what: r.Method + " " + r.RequestURI, opaque: strings.HasSuffix(path, "/log")}
		defer out.end()
		next.ServeHTTP(out, r)
	})
}

// sender says for which tenant a request is, by its credential; empty for a stranger.
func sender(r *http.Request) string {
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		var claims struct{ Sub string }
		if parts := strings.Split(bearer, "."); len(parts) == 3 {
			raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
			_ = json.Unmarshal(raw, &claims)
		}
		id, _ := names.SplitServiceAccount(claims.Sub)
		return string(id)
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && len(r.TLS.PeerCertificates[0].Subject.OrganizationalUnit) == 1 {
		return r.TLS.PeerCertificates[0].Subject.OrganizationalUnit[0]
	}
	return ""
}

// heard is a body that is listened to; what it has read is kept until a word cannot go on.
type heard struct {
	io.ReadCloser
	hear func([]byte)
	kept []byte
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	if h.kept = append(h.kept, p[:n]...); err != nil || len(h.kept) > 1<<16 {
		h.hear(h.kept)
		h.kept = append([]byte(nil), h.kept[max(0, len(h.kept)-longWord):]...)
	}
	return n, err
}

// longWord is longer than any name.
const longWord = 600

func inWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == ':' || c == '_' || c == '@'
}

// word is the word around a place in a text.
func word(text string, at int) string {
	from, to := at, at
	for from > 0 && inWord(text[from-1]) {
		from--
	}
	for to < len(text) && inWord(text[to]) {
		to++
	}
	return text[from:to]
}

// each calls f for every place of a needle.
func each(text, needle string, f func(at int)) {
	for from := 0; ; {
		i := strings.Index(text[from:], needle)
		if i < 0 {
			return
		}
		f(from + i)
		from += i + len(needle)
	}
}

func (l *leaks) hear(who, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.tenants {
		each(text, id, func(at int) {
			if l.said[who] == nil {
				l.said[who] = map[string]bool{}
			}
			l.said[who][strings.Trim(word(text, at), ".:")] = true
		})
	}
}

// excused reports whether a word is one that the tenant used, or a name that was made of one.
func (l *leaks) excused(to, shown string) bool {
	for said := range l.said[to] {
		if strings.Contains(said, shown) || strings.HasPrefix(shown, said+"-") || strings.HasSuffix(shown, ":"+said) {
			return true
		}
	}
	return false
}

// scan looks at the part of a text that starts before end.
func (l *leaks) scan(to, what, text string, end int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.tenants {
		needle := id
		if id == to {
			needle += "-"
		}
		each(text, needle, func(at int) {
			if shown := strings.Trim(word(text, at), ".:"); at < end && !l.excused(to, shown) {
				l.found = append(l.found, fmt.Sprintf("%s shows tenant %q the word %q: …%s…", what, to, shown, text[max(0, at-80):min(len(text), at+80)]))
			}
		})
	}
}

// scanned is an answer on its way out.
type scanned struct {
	http.ResponseWriter
	leaks    *leaks
	to, what string
	opaque   bool
	begun    bool
	packed   bool
	kept     []byte
	hijacked bool
}

func (s *scanned) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *scanned) headers(h http.Header) {
	for name, values := range h {
		text := name + ": " + strings.Join(values, ", ")
		s.leaks.scan(s.to, "a header of "+s.what, text, len(text))
	}
}

func (s *scanned) WriteHeader(code int) {
	s.headers(s.Header())
	s.begun, s.packed = code >= 200, s.Header().Get("Content-Encoding") == "gzip"
	s.ResponseWriter.WriteHeader(code)
}

func (s *scanned) Write(p []byte) (int, error) {
	if !s.begun {
		s.WriteHeader(http.StatusOK)
	}
	if !s.opaque {
		s.kept = append(s.kept, p...)
		if !s.packed && len(s.kept) > 1<<16 {
			s.leaks.scan(s.to, s.what, string(s.kept), len(s.kept)-longWord)
			s.kept = append([]byte(nil), s.kept[len(s.kept)-2*longWord:]...)
		}
	}
	return s.ResponseWriter.Write(p)
}

// Flush sends a frame of a watch, which is looked at when it goes.
func (s *scanned) FlushError() error {
	if !s.packed && !s.opaque {
		s.leaks.scan(s.to, s.what, string(s.kept), len(s.kept))
		s.kept = s.kept[max(0, len(s.kept)-longWord):]
	}
	return http.NewResponseController(s.ResponseWriter).Flush()
}

func (s *scanned) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(s.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	s.hijacked = true
	head := &head{Conn: conn, scanned: s}
	return head, bufio.NewReadWriter(rw.Reader, bufio.NewWriter(head)), nil
}

// head reads what is written to a connection up to the end of the headers; what follows is between a client and a container.
type head struct {
	net.Conn
	scanned *scanned
	kept    []byte
	over    bool
}

func (h *head) Write(p []byte) (int, error) {
	if !h.over {
		h.kept = append(h.kept, p...)
		if head, _, ok := bytes.Cut(h.kept, []byte("\r\n\r\n")); ok {
			h.over = true
			h.scanned.leaks.scan(h.scanned.to, "a header of "+h.scanned.what, string(head), len(head))
		}
	}
	return h.Conn.Write(p)
}

// end looks at what is left, and at trailers, which stand among the headers by then.
func (s *scanned) end() {
	if s.hijacked {
		return
	}
	s.headers(s.Header())
	if s.packed {
		r, err := gzip.NewReader(bytes.NewReader(s.kept))
		if err != nil {
			return
		}
		s.kept, _ = io.ReadAll(r)
	}
	s.leaks.scan(s.to, s.what, string(s.kept), len(s.kept))
}

// TestLeaksAreFound checks the net itself: every way in which an answer could name somebody is seen.
func TestLeaksAreFound(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	for name, tc := range map[string]struct {
		request string
		answer  http.HandlerFunc
		want    int
	}{
		"Nothing":   {"GET /a", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "default abc123") }, 0},
		"Body":      {"GET /a", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `"zzz999-default"`) }, 1},
		"OwnPrefix": {"GET /a", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `"abc123-default"`) }, 1},
		"Bare":      {"GET /a", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `tenant zzz999`) }, 1},
		"Header": {"GET /a", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Warning", "299 - zzz999")
			w.WriteHeader(204)
		}, 2},
		"Trailer": {"GET /a", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			w.Header().Set(http.TrailerPrefix+"X", "zzz999")
		}, 1},
		"Split": {"GET /a", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, long+"zzz")
			_, _ = io.WriteString(w, "999"+long)
		}, 1},
		"Flushed": {"GET /a", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "zzz999")
			_ = http.NewResponseController(w).Flush()
		}, 2},
		"Compressed": {"GET /a", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, long+"zzz999")
			_ = z.Close()
		}, 1},
		"Said":        {"GET /a/zzz999-default", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `"zzz999-default" not found`) }, 0},
		"SaidAnother": {"GET /a/zzz999-default", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `"zzz999-web" not found`) }, 1},
		"Log":         {"GET /a/log?x=y", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "zzz999") }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			l := newLeaks(tenantA, tenantB)
			h.server.Config.Handler = l.watch(tc.answer)
			h.raw(request(tc.request), h.client(tenantA, nil))
			h.server.Close()
			if len(l.found) < min(tc.want, 1) || len(l.found) > tc.want {
				t.Errorf("found %q, want %d", l.found, tc.want)
			}
		})
	}
}
