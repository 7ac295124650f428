package discovery

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"regexp"
	"time"

	"vivarium.io/vivarium/gateway/internal/route"
	"vivarium.io/vivarium/internal/boot"
)

// checkLine is one check as an API server lists it: its name and whether it is well. Why it is not, no API server says.
var checkLine = regexp.MustCompile(`^\[[+-]\][A-Za-z0-9./_-]{1,200} (ok|failed: reason withheld|excluded: ok)$`)

// checksTimeout bounds the asking of the control cluster.
const checksTimeout = 10 * time.Second

// serveHealth says whether this API is well: the gateway, and in the verbose form also each check of the API server behind
// it, which tenants' requests go through.
func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request, req *route.Request, _ World) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	what := req.Segments[0]
	err := s.config.Ready()
	if err != nil {
		boot.Logger(r.Context()).Info("Not ready", "error", err)
	}
	well := err == nil || what != "readyz"
	if _, verbose := req.Query["verbose"]; verbose {
		return s.serveChecks(w, r, what, well)
	}
	if !well {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "not ready")
		return nil
	}
	_, _ = io.WriteString(w, "ok")
	return nil
}

// serveChecks lists the checks. Lines of the control cluster that are none are left out.
func (s *Server) serveChecks(w http.ResponseWriter, r *http.Request, what string, well bool) error {
	ctx, cancel := context.WithTimeout(r.Context(), checksTimeout)
	defer cancel()
	var out bytes.Buffer
	check := func(name string, ok bool) {
		if ok {
			out.WriteString("[+]" + name + " ok\n")
			return
		}
		out.WriteString("[-]" + name + " failed: reason withheld\n")
	}
	check("gateway", well)
	document, err := s.config.Fetch(ctx, "/"+what+"?verbose=1", "*/*", "")
	if err != nil {
		boot.Logger(r.Context()).Info("The control cluster does not say that it is well", "error", err)
		check("apiserver", false)
	}
	for line := range bytes.SplitSeq(document.Body, []byte("\n")) {
		if checkLine.Match(line) {
			out.Write(line)
			out.WriteByte('\n')
		}
	}
	if well && err == nil {
		out.WriteString(what + " check passed\n")
	} else {
		w.WriteHeader(http.StatusInternalServerError)
		out.WriteString(what + " check failed\n")
	}
	_, _ = w.Write(out.Bytes())
	return nil
}
