package control

import (
	"net/http"
	"strings"

	"vivarium.io/vivarium/gateway/internal/identity"
)

var uncompressed = []string{"identity"}

// maxUserAgent bounds the only text of a client that the control cluster stores (as the default field manager).
const maxUserAgent = 512

// Headers makes the headers of a request for the control cluster out of a client's. accept and contentType have been
// decided before; everything else that is not named here is left behind.
func Headers(client http.Header, accept, contentType string) http.Header {
	h := make(http.Header, 8)
	// Bodies are read on the way; compressing them for that would be work for nothing.
	h["Accept-Encoding"] = uncompressed
	if accept != "" {
		h["Accept"] = []string{accept}
	}
	if contentType != "" {
		h["Content-Type"] = []string{contentType}
	}
	agent := client.Get("User-Agent")
	if len(agent) > maxUserAgent {
		agent = agent[:maxUserAgent]
	}
	if agent == "" || strings.IndexFunc(agent, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
		agent = "unknown"
	}
	h["User-Agent"] = []string{agent}
	return h
}

// UpgradeHeaders adds to h what a client needs to change the protocol of its connection. The subprotocol by which
// browsers send a token is left behind.
func UpgradeHeaders(h, client http.Header) {
	h["Connection"] = []string{"Upgrade"}
	h["Upgrade"] = []string{client.Get("Upgrade")}
	for _, name := range []string{"X-Stream-Protocol-Version", "Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Extensions"} {
		if values := client[name]; len(values) > 0 {
			h[name] = append([]string(nil), values...)
		}
	}
	if protocols := withoutBearer(client); len(protocols) > 0 {
		h["Sec-Websocket-Protocol"] = []string{strings.Join(protocols, ", ")}
	}
}

// StripBearer takes the subprotocol by which browsers send a token out of h.
func StripBearer(h http.Header) {
	if h["Sec-Websocket-Protocol"] == nil {
		return
	}
	protocols := withoutBearer(h)
	delete(h, "Sec-Websocket-Protocol")
	if len(protocols) > 0 {
		h["Sec-Websocket-Protocol"] = []string{strings.Join(protocols, ", ")}
	}
}

func withoutBearer(client http.Header) []string {
	var protocols []string
	for _, value := range client["Sec-Websocket-Protocol"] {
		for protocol := range strings.SplitSeq(value, ",") {
			if protocol = strings.TrimSpace(protocol); protocol != "" && !strings.HasPrefix(protocol, identity.WebSocketBearer) {
				protocols = append(protocols, protocol)
			}
		}
	}
	return protocols
}
