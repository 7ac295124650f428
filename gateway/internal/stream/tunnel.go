package stream

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// IsUpgrade reports whether a request wants another protocol on its connection.
func IsUpgrade(r *http.Request) bool {
	if r.ProtoMajor != 1 || len(r.Header.Values("Upgrade")) != 1 {
		return false
	}
	switch strings.ToLower(r.Header.Get("Upgrade")) {
	case "websocket", "spdy/3.1":
	default:
		return false
	}
	for _, value := range r.Header.Values("Connection") {
		for token := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				return true
			}
		}
	}
	return false
}

// SameOrigin reports whether an upgrade was not started by a page of somebody else: a browser would send the user's
// certificate along for any page that asks. A page that the user's own machine serves may; client libraries that have to
// name an origin name that one.
func SameOrigin(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	u, err := url.Parse(origins[0])
	if err != nil || len(origins) != 1 || u.Host == "" {
		return false
	}
	address, err := netip.ParseAddr(u.Hostname())
	return strings.EqualFold(u.Host, r.Host) || strings.EqualFold(u.Hostname(), "localhost") || err == nil && address.IsLoopback()
}

// passed are the headers of a switch of protocols.
var passed = [...]string{
	"Upgrade", "X-Stream-Protocol-Version", "Sec-Websocket-Accept", "Sec-Websocket-Protocol", "Sec-Websocket-Extensions",
}

// Tunnel joins the client's connection with the control cluster's after res said 101, until either ends or ctx does. It
// closes both, always. It fails only before it has taken the client's connection over.
func Tunnel(ctx context.Context, w http.ResponseWriter, res *http.Response) error {
	control, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		_ = res.Body.Close()
		return fmt.Errorf("switch protocols: the control connection cannot be written to")
	}
	defer control.Close()
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("switch protocols: %w", err)
	}
	defer client.Close()
	if err := client.SetDeadline(time.Time{}); err != nil {
		return nil
	}
	if err := writeSwitch(buffered.Writer, res); err != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// What the client sent before it was answered is in the server's buffer.
	early := io.LimitReader(buffered.Reader, int64(buffered.Reader.Buffered()))
	over := make(chan struct{}, 2)
	go func() { defer func() { over <- struct{}{} }(); _, _ = io.Copy(control, io.MultiReader(early, client)) }()
	go func() { defer func() { over <- struct{}{} }(); _, _ = io.Copy(client, control) }()
	waiting := 2
	select {
	case <-ctx.Done():
	case <-over:
		waiting--
	}
	_ = client.Close()
	_ = control.Close()
	for range waiting {
		<-over
	}
	return nil
}

func writeSwitch(w *bufio.Writer, res *http.Response) error {
	h := http.Header{"Connection": {"Upgrade"}}
	for _, name := range passed {
		if values := res.Header.Values(name); len(values) > 0 {
			h[name] = values
		}
	}
	if _, err := w.WriteString("HTTP/1.1 101 Switching Protocols\r\n"); err != nil {
		return err
	}
	if err := h.Write(w); err != nil {
		return err
	}
	if _, err := w.WriteString("\r\n"); err != nil {
		return err
	}
	return w.Flush()
}
