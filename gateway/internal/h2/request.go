package h2

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
)

// newStream makes a stream of the header of a request. mu is held.
func (c *conn) newStream(f *http2.MetaHeadersFrame) (*stream, error) {
	s := &stream{id: f.StreamID, conn: c, in: streamWindow, out: c.outStart, expected: -1, received: f.StreamEnded(), woken: make(chan struct{}, 1)}
	r := &http.Request{Proto: "HTTP/2.0", ProtoMajor: 2, RemoteAddr: c.remote, TLS: &c.state}
	bad := http2.StreamError{StreamID: s.id, Code: http2.ErrCodeProtocol}
	if s.tooLarge = f.Truncated; s.tooLarge {
		// What is missing cannot be judged, and is not: see [conn.run].
		r.Method, r.Header, r.URL = http.MethodGet, http.Header{}, &url.URL{}
	} else if !readHeader(r, f) {
		return nil, bad
	}
	lengths, has := r.Header["Content-Length"]
	switch {
	case has && len(lengths) != 1:
		return nil, bad
	case has:
		n, err := strconv.ParseUint(lengths[0], 10, 63)
		if err != nil || s.received && n != 0 {
			return nil, bad
		}
		r.ContentLength, s.expected = int64(n), int64(n) //nolint:gosec // 63 bits
	case !s.received:
		r.ContentLength = -1
	}
	r.Body = http.NoBody
	s.body.stream = s
	if !s.received {
		s.body.ready = make(chan struct{}, 1)
		r.Body = &s.body
		if httpguts.HeaderValuesContainsToken(r.Header["Expect"], "100-continue") {
			s.body.proceed.Store(true)
			delete(r.Header, "Expect")
		}
	}
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	s.request = r.WithContext(s.ctx)
	return s, nil
}

// readHeader fills in what the header of a request says, unless it is malformed. See RFC 9113, section 8.2 and 8.3.
func readHeader(r *http.Request, f *http2.MetaHeadersFrame) bool {
	var scheme, path, authority string
	regular := 0
	for _, field := range f.Fields {
		switch field.Name {
		case ":method":
			r.Method = field.Value
		case ":scheme":
			scheme = field.Value
		case ":path":
			path = field.Value
		case ":authority":
			authority = field.Value
		default:
			if strings.HasPrefix(field.Name, ":") {
				return false
			}
			regular++
		}
	}
	r.Header = make(http.Header, regular)
	// One slice for all values, as most names have one.
	values := make([]string, regular)
	for _, field := range f.Fields[len(f.Fields)-regular:] {
		switch field.Name {
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
			return false
		case "te":
			if field.Value != "trailers" {
				return false
			}
		}
		name := http.CanonicalHeaderKey(field.Name)
		if had := r.Header[name]; had != nil {
			r.Header[name] = append(had, field.Value)
			continue
		}
		values[0] = field.Value
		r.Header[name], values = values[:1:1], values[1:]
	}
	if cookies := r.Header["Cookie"]; len(cookies) > 1 {
		r.Header["Cookie"] = []string{strings.Join(cookies, "; ")}
	}
	if authority == "" {
		authority = r.Header.Get("Host")
	}
	delete(r.Header, "Host")
	delete(r.Header, "Trailer")
	r.Host, r.RequestURI = authority, path
	if r.Method == http.MethodConnect {
		r.URL, r.RequestURI = &url.URL{Host: authority}, authority
		return path == "" && scheme == "" && authority != ""
	}
	if r.Method == "" || path == "" || scheme != "http" && scheme != "https" || !httpguts.ValidHostHeader(authority) {
		return false
	}
	var err error
	r.URL, err = url.ParseRequestURI(path)
	return err == nil
}
