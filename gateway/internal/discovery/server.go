package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/handler3"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/gateway/internal/route"
	"vivarium.io/vivarium/internal/boot"
)

const (
	aggregatedType = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	jsonType       = "application/json"
	protoV2        = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	protoV3        = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
)

// Config says what a [Server] needs. Everything but Now is required.
type Config struct {
	Fetch Fetcher
	Table *kinds.Table
	// Address is the host and port that clients reach this API by.
	Address string
	// Ready says whether requests are served.
	Ready func() error
	// Now is time.Now unless a test says otherwise.
	Now func() time.Time
}

// Server answers discovery. Safe for concurrent use.
type Server struct {
	config   Config
	core     *source[groups]
	named    *source[groups]
	version  *source[[]byte]
	v2       *source[*openAPI]
	v3       *source[index]
	versions map[string]*source[*openAPI]
	// customV2 and customV3 are the documents of tenants with custom kinds.
	customV2, customV3 documents
	// issuer and keys are what it says of those who sign ServiceAccounts' tokens.
	issuer, keys *source[[]byte]

	// mu guards versions.
	mu sync.Mutex
}

// New makes a Server; it fetches nothing before it is asked.
func New(c Config) (*Server, error) {
	if c.Fetch == nil || c.Table == nil || c.Ready == nil {
		return nil, errors.New("discovery: Fetch, Table and Ready are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	// A document of all kinds is megabytes, one of a group's version a few kilobytes.
	customV2, err := newDocuments(16)
	if err != nil {
		return nil, err
	}
	customV3, err := newDocuments(512)
	if err != nil {
		return nil, err
	}
	return &Server{
		config: c, customV2: customV2, customV3: customV3,
		core: newSource(c, "/api", aggregatedType, func(raw []byte) (groups, error) {
			return newGroups(raw, c.Table, true, c.Address)
		}),
		named: newSource(c, "/apis", aggregatedType, func(raw []byte) (groups, error) {
			return newGroups(raw, c.Table, false, c.Address)
		}),
		version: newSource(c, "/version", jsonType, func(raw []byte) ([]byte, error) { return raw, nil }),
		v2: newSource(c, "/openapi/v2", jsonType, func(raw []byte) (*openAPI, error) {
			cut, err := cutV2(raw, c.Table)
			return newOpenAPI(cut, protoV2, handler.ToProtoBinary), err
		}),
		v3:       newSource(c, "/openapi/v3", jsonType, func(raw []byte) (index, error) { return newIndex(raw, c.Table) }),
		versions: map[string]*source[*openAPI]{},
		issuer:   newSource(c, issuerPath, jsonType, func(raw []byte) ([]byte, error) { return cutIssuer(raw, c.Address) }),
		keys:     newSource(c, keysPath, keysType, cutKeys),
	}, nil
}

func newSource[T any](c Config, path, accept string, parse func([]byte) (T, error)) *source[T] {
	return &source[T]{fetch: c.Fetch, path: path, accept: accept, now: c.Now, make: parse}
}

// openAPI is one document in the forms that clients ask for; protobuf is made when somebody does.
type openAPI struct {
	json      []byte
	etag      string
	protoType string
	proto     func() ([]byte, error)
}

func newOpenAPI(raw []byte, protoType string, convert func([]byte) ([]byte, error)) *openAPI {
	return &openAPI{json: raw, etag: tag(raw), protoType: protoType, proto: sync.OnceValues(func() ([]byte, error) { return convert(raw) })}
}

// Serve answers a request that is for no resource. Its error is an API error or kinds.ErrNoSuchPath.
func (s *Server) Serve(w http.ResponseWriter, r *http.Request, req *route.Request, world World) error {
	answer := s.find(req.Segments)
	if answer == nil {
		return kinds.ErrNoSuchPath
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return route.MethodNotAllowed(req.Verb)
	}
	if timeout, given := req.Query["timeout"]; given {
		// It is not waited for anything here, but a client that gets the form wrong is told so, as everywhere.
		if _, err := time.ParseDuration(timeout[0]); err != nil && timeout[0] != "" {
			return apierrors.NewBadRequest("invalid timeout specified in the request URL - " + err.Error())
		}
	}
	err := answer(w, r, req, world)
	var status apierrors.APIStatus
	if err == nil || errors.As(err, &status) || errors.Is(err, kinds.ErrNoSuchPath) {
		return err
	}
	if errors.Is(err, context.Canceled) {
		// Whoever asked has gone.
		return err
	}
	boot.Logger(r.Context()).Error("Discovery cannot be served", "path", req.Path(), "error", err)
	return control.Unavailable()
}

type answerer func(w http.ResponseWriter, r *http.Request, req *route.Request, world World) error

func (s *Server) find(segments []string) answerer {
	if len(segments) == 0 {
		return s.serveRoot
	}
	switch segments[0] {
	case "api":
		if len(segments) <= 2 {
			return s.serveGroups(s.core)
		}
	case "apis":
		if len(segments) <= 3 {
			return s.serveGroups(s.named)
		}
	case "openapi":
		switch {
		case len(segments) == 2 && segments[1] == "v2":
			return s.serveV2
		case len(segments) == 2 && segments[1] == "v3":
			return s.serveIndex
		case len(segments) > 2 && segments[1] == "v3":
			return s.serveV3
		}
	case "openid":
		if len(segments) == 3 && segments[1] == "v1" && segments[2] == "jwks" {
			return serveIssuer(s.keys, keysType)
		}
	case ".well-known":
		if len(segments) == 2 && segments[1] == "openid-configuration" {
			return serveIssuer(s.issuer, jsonType)
		}
	case "version":
		if len(segments) == 1 {
			return s.serveVersion
		}
	case "healthz", "livez", "readyz":
		if len(segments) == 1 {
			return s.serveHealth
		}
	}
	return nil
}

func (s *Server) serveRoot(w http.ResponseWriter, r *http.Request, _ *route.Request, _ World) error {
	paths := []string{"/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"}
	if _, err := s.issuer.get(r.Context()); err == nil {
		paths = append([]string{issuerPath}, slices.Insert(paths, len(paths)-2, keysPath)...)
	}
	b, err := newBody(metav1.RootPaths{Paths: paths})
	if err != nil {
		return err
	}
	write(w, r, jsonType, b.json, b.etag)
	return nil
}

func (s *Server) serveGroups(from *source[groups]) answerer {
	return func(w http.ResponseWriter, r *http.Request, req *route.Request, world World) error {
		known, err := from.get(r.Context())
		if err != nil {
			return err
		}
		path := strings.Join(req.Segments[1:], "/")
		if path == "" {
			aggregated, list := known.aggregated, known.list
			if from == s.named {
				if aggregated, list, err = known.withCustoms(world.groups()); err != nil {
					return err
				}
			}
			switch chooseDiscovery(r.Header.Values("Accept")) {
			case aggregatedType:
				write(w, r, aggregatedType, aggregated.json, aggregated.etag)
				return nil
			case "":
				return notAcceptable(jsonType)
			}
			write(w, r, jsonType, list.json, list.etag)
			return nil
		}
		answer, ok := known.byVersion[path]
		if !ok {
			answer, ok = known.byGroup[path]
		}
		if !ok && from == s.named {
			name, version, _ := strings.Cut(path, "/")
			if g, has := world.group(name); has {
				if answer, ok, err = customPath(g, version); err != nil {
					return err
				}
			}
		}
		if !ok {
			return kinds.ErrNoSuchPath
		}
		if _, err := control.Accept(r.Header.Values("Accept"), control.Plain); err != nil {
			return err
		}
		write(w, r, jsonType, answer.json, answer.etag)
		return nil
	}
}

// chooseDiscovery picks the first form that a client names and that is served.
func chooseDiscovery(accept []string) string {
	if len(accept) == 0 {
		return jsonType
	}
	for _, value := range accept {
		for element := range strings.SplitSeq(value, ",") {
			parameters := map[string]string{}
			mediaType, rest, _ := strings.Cut(element, ";")
			for parameter := range strings.SplitSeq(rest, ";") {
				key, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
				parameters[key] = value
			}
			switch strings.TrimSpace(mediaType) {
			case jsonType, "*/*", "application/*", "":
			default:
				continue
			}
			switch parameters["as"] {
			case "":
				return jsonType
			case "APIGroupDiscoveryList":
				if parameters["g"] == "apidiscovery.k8s.io" && parameters["v"] == "v2" {
					return aggregatedType
				}
			}
		}
	}
	return ""
}

func notAcceptable(types string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: http.StatusNotAcceptable,
		Reason: metav1.StatusReasonNotAcceptable, Message: "only the following media types are accepted: " + types,
	}}
}

func (s *Server) serveVersion(w http.ResponseWriter, r *http.Request, _ *route.Request, _ World) error {
	raw, err := s.version.get(r.Context())
	if err != nil {
		return err
	}
	write(w, r, jsonType, raw, "")
	return nil
}

func (s *Server) serveV2(w http.ResponseWriter, r *http.Request, _ *route.Request, world World) error {
	document, err := s.v2.get(r.Context())
	if err != nil {
		return err
	}
	if document, err = s.customV2For(r.Context(), document, world); err != nil {
		return err
	}
	return document.serve(w, r)
}

func (s *Server) serveIndex(w http.ResponseWriter, r *http.Request, _ *route.Request, world World) error {
	known, err := s.v3.get(r.Context())
	if err != nil {
		return err
	}
	contents, err := known.withCustoms(world.groups())
	if err != nil {
		return err
	}
	write(w, r, jsonType, contents.json, contents.etag)
	return nil
}

func (s *Server) serveV3(w http.ResponseWriter, r *http.Request, req *route.Request, world World) error {
	path := strings.Join(req.Segments[2:], "/")
	known, err := s.v3.get(r.Context())
	if err != nil {
		return err
	}
	hash, ok := known.versions[path]
	if !ok {
		if parts := req.Segments[2:]; len(parts) == 3 && parts[0] == "apis" {
			if g, has := world.group(parts[1]); has && slices.Contains(g.Versions, parts[2]) {
				return s.serveCustomV3(w, r, world, g, parts[2], req.Query.Get("hash"))
			}
		}
		return kinds.ErrNoSuchPath
	}
	document, err := s.document(path).get(r.Context())
	if err != nil {
		return err
	}
	if req.Query.Get("hash") == hash {
		s.keep(w)
	}
	return document.serve(w, r)
}

// keep lets a client keep a document: what its hash names never changes, and is the client's alone.
func (s *Server) keep(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "private, immutable")
	w.Header().Set("Expires", s.config.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
}

// document gives the source of one group and version, which the index is known to have: there are no more than it names.
func (s *Server) document(path string) *source[*openAPI] {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, ok := s.versions[path]
	if !ok {
		from = newSource(s.config, "/openapi/v3/"+path, jsonType, func(raw []byte) (*openAPI, error) {
			cut, err := cutV3(raw, s.config.Table)
			return newOpenAPI(cut, protoV3, handler3.ToV3ProtoBinary), err
		})
		s.versions[path] = from
	}
	return from
}

func (o *openAPI) serve(w http.ResponseWriter, r *http.Request) error {
	switch o.choose(r.Header.Values("Accept")) {
	case jsonType:
		write(w, r, jsonType, o.json, o.etag)
		return nil
	case o.protoType:
		raw, err := o.proto()
		if err != nil {
			return fmt.Errorf("write OpenAPI as protobuf: %w", err)
		}
		write(w, r, o.protoType, raw, o.etag+"-p")
		return nil
	}
	return notAcceptable(jsonType + ", " + o.protoType)
}

func (o *openAPI) choose(accept []string) string {
	if len(accept) == 0 {
		return jsonType
	}
	for _, value := range accept {
		for element := range strings.SplitSeq(value, ",") {
			mediaType, _, _ := strings.Cut(element, ";")
			switch mediaType = strings.TrimSpace(mediaType); mediaType {
			case jsonType, "*/*", "application/*", "":
				return jsonType
			case o.protoType, strings.Replace(o.protoType, ".v1.0", "@v1.0", 1):
				return o.protoType
			}
		}
	}
	return ""
}

// write sends a document, or says that the client's copy is still good.
func write(w http.ResponseWriter, r *http.Request, contentType string, raw []byte, etag string) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Add("Vary", "Accept")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-cache, private")
	}
	if etag != "" {
		etag = strconv.Quote(etag)
		h.Set("Etag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	_, _ = io.Copy(w, bytes.NewReader(raw))
}

// Warm fetches what every client asks for first.
func (s *Server) Warm(ctx context.Context) error {
	if _, err := s.core.get(ctx); err != nil {
		return err
	}
	_, err := s.named.get(ctx)
	return err
}
