package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// The lanes.
const (
	laneDirect  = "direct"
	laneProxy   = "plain proxy"
	laneGateway = "gateway"
	// laneBeside is another build of the gateway.
	laneBeside = "gateway beside"
)

// everyNamespace is no name of one.
const everyNamespace = "*"

// lane is a way to the control cluster.
type lane struct {
	name string
	base string
	// prefix is what namespaces begin with in this lane: the tenant's in the control cluster's names, nothing in its own.
	prefix string
	tls    *tls.Config
	// fixed takes the place of every request's namespace; everyNamespace asks for all.
	fixed string
	// pid is the process that the lane is about, controlPID kube-apiserver's.
	pid, controlPID func() int
}

// request is the same in every lane but for the namespace.
type request struct {
	method string
	// group is "/api/v1" or "/apis/GROUP/VERSION"; an empty namespace asks for all of them.
	group, namespace, rest string
	accept, contentType    string
	body                   []byte
	// gzip accepts compressed answers, as client-go does. They are not decompressed: that would be the same in each lane.
	gzip bool
}

// client is one client with a connection of its own.
type client struct {
	lane *lane
	http *http.Client
	buf  []byte
}

// newClient has the settings that client-go's have, save for compression, which requests ask for by themselves.
func (l *lane) newClient() *client {
	return &client{lane: l, buf: make([]byte, 64<<10), http: &http.Client{Transport: &http.Transport{
		TLSClientConfig: l.tls.Clone(), ForceAttemptHTTP2: true, DisableCompression: true, MaxIdleConnsPerHost: 25, IdleConnTimeout: 90 * time.Second,
	}}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// open sends a request and gives its answer if that is a success.
func (c *client) open(ctx context.Context, r request) (*http.Response, error) {
	url := c.lane.base + r.group
	if c.lane.fixed != "" {
		r.namespace = strings.TrimPrefix(c.lane.fixed, everyNamespace)
	}
	if r.namespace != "" {
		url += "/namespaces/" + c.lane.prefix + r.namespace
	}
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	out, err := http.NewRequestWithContext(ctx, r.method, url+r.rest, body)
	if err != nil {
		return nil, err
	}
	out.Header.Set("User-Agent", "bench")
	out.Header.Set("Accept", r.accept)
	if r.contentType != "" {
		out.Header.Set("Content-Type", r.contentType)
	}
	if r.gzip {
		out.Header.Set("Accept-Encoding", "gzip")
	}
	response, err := c.http.Do(out)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.lane.name, err)
	}
	if response.StatusCode >= 300 {
		defer response.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return nil, fmt.Errorf("%s: %s %s: %s: %s", c.lane.name, r.method, url+r.rest, response.Status, text)
	}
	return response, nil
}

// do sends a request, reads its answer to the end and gives its length.
func (c *client) do(ctx context.Context, r request) (int64, error) {
	response, err := c.open(ctx, r)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	// Not io.Copy to io.Discard, which would choose its own buffer.
	var total int64
	for {
		n, err := response.Body.Read(c.buf)
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, fmt.Errorf("%s: read the answer: %w", c.lane.name, err)
		}
	}
}
