package route

import (
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"vivarium.io/vivarium/internal/names"
)

// Request is what a request asks for, in the tenant's names.
type Request struct {
	Method string
	// Verb is what RequestInfo of k8s.io/apiserver would say: get, list, watch, create, update, patch, delete or
	// deletecollection for a resource, the method in lower case for anything else.
	Verb string
	// IsResource tells a request for objects from one for discovery, OpenAPI, health or version.
	IsResource bool

	Group, Version, Resource, Subresource string
	// Namespace is where the object is; empty for cluster-scoped ones, Namespaces included (their name is in Name).
	Namespace names.TenantNamespace
	// Name is the object's, empty for a collection.
	Name string

	// Proxied is what a proxy subresource passes on: the rest of the path and the query, as the client wrote them. It starts
	// with a slash if the path has any rest.
	Proxied string

	// Segments is the path, decoded, without slashes; empty for "/".
	Segments []string
	// Query holds one value for each parameter, save for the few that may be repeated.
	Query url.Values
}

// Path is the path as a client would write it.
func (r *Request) Path() string { return join(r.Segments) }

// GroupResource names what is asked for, for error messages.
func (r *Request) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: r.Group, Resource: r.Resource}
}

// Parse reads a request line. Its errors are API errors: 400 for what is odd, 404 for what no API server serves any more,
// 414 for what is too long.
func Parse(method, uri string) (*Request, error) {
	path, rawQuery, _ := strings.Cut(uri, "?")
	path, proxied, isProxied := cutProxied(path)
	if isProxied {
		if len(uri) > maxQuery {
			return nil, tooLong("path", maxQuery)
		}
		if rawQuery != "" {
			proxied += "?" + rawQuery
		}
		rawQuery = ""
	}
	segments, err := parsePath(path)
	if err != nil {
		return nil, err
	}
	query, err := parseQuery(rawQuery)
	if err != nil {
		return nil, err
	}
	r := &Request{Method: method, Verb: strings.ToLower(method), Segments: segments, Query: query, Proxied: proxied}
	rest := r.parseGroup()
	if len(rest) == 0 {
		return r, nil
	}
	r.IsResource = true
	return r, r.parseResource(rest)
}

// parseGroup splits off /api/VERSION or /apis/GROUP/VERSION and returns what follows; nothing follows for a path that
// names no resource.
func (r *Request) parseGroup() []string {
	s := r.Segments
	switch {
	case len(s) >= 3 && s[0] == "api":
		r.Version = s[1]
		return s[2:]
	case len(s) >= 4 && s[0] == "apis":
		r.Group, r.Version = s[1], s[2]
		return s[3:]
	}
	return nil
}

// cutProxied cuts the path of a proxy subresource of a pod or a Service behind the word proxy. What follows is for whoever
// answers in the pod, who may have another idea of paths.
func cutProxied(path string) (head, rest string, ok bool) {
	parts := strings.SplitN(path, "/", 9)
	if len(parts) < 8 || parts[1] != "api" || parts[2] != "v1" || parts[3] != "namespaces" || parts[5] != "pods" && parts[5] != "services" || parts[7] != "proxy" {
		return path, "", false
	}
	head = strings.Join(parts[:8], "/")
	return head, path[len(head):], true
}

func (r *Request) parseResource(parts []string) error {
	// The verbs in the path of early releases: stock API servers still parse them, so that ignoring them would give one
	// path two meanings.
	if parts[0] == "watch" || parts[0] == "proxy" {
		return NotFound(r.Verb)
	}
	if parts[0] == "namespaces" && len(parts) > 2 && parts[2] != "status" && parts[2] != "finalize" {
		r.Namespace = names.TenantNamespace(parts[1])
		parts = parts[2:]
	}
	r.Resource = parts[0]
	if len(parts) > 1 {
		r.Name = parts[1]
	}
	if len(parts) > 2 {
		r.Subresource = parts[2]
	}
	if len(parts) > 3 {
		// Only proxy subresources have more, which is not the gateway's to read.
		return NotFound(r.Verb)
	}
	return r.parseVerb()
}

func (r *Request) parseVerb() error {
	switch r.Method {
	case http.MethodPost:
		r.Verb = "create"
	case http.MethodPut:
		r.Verb = "update"
	case http.MethodPatch:
		r.Verb = "patch"
	case http.MethodDelete:
		r.Verb = "delete"
		if r.Name == "" {
			r.Verb = "deletecollection"
		}
	case http.MethodHead:
		if r.Subresource != "proxy" {
			return MethodNotAllowed(r.Verb)
		}
		r.Verb = "get"
	case http.MethodGet:
		if r.Name != "" {
			r.Verb = "get"
			return nil
		}
		switch watch, given := r.Query["watch"]; {
		case !given || watch[0] == "false" || watch[0] == "0":
			r.Verb = "list"
		case watch[0] == "true" || watch[0] == "1":
			r.Verb = "watch"
		default:
			return apierrors.NewBadRequest("query parameter watch: must be true or false")
		}
	default:
		return MethodNotAllowed(r.Verb)
	}
	return nil
}

// NotFound is the error of a stock API server for a resource that it does not serve.
func NotFound(verb string) error {
	return apierrors.NewGenericServerResponse(http.StatusNotFound, verb, schema.GroupResource{}, "", "404 page not found", 0, false)
}

// MethodNotAllowed is the error of a stock API server for a method that a resource does not have.
func MethodNotAllowed(verb string) error {
	return apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, verb, schema.GroupResource{}, "", "405: Method Not Allowed", 0, false)
}

// Scope says which part of a path carries a tenant's name.
type Scope int

// The scopes.
const (
	// Literal paths are the same in both worlds: reviews, and reads that are confined by other means.
	Literal Scope = iota
	// Namespaced paths carry it in the namespace; without one they span all of them.
	Namespaced
	// Named paths carry it in the object's name.
	Named
	// Defined paths carry it in the group that the name of a CustomResourceDefinition ends with.
	Defined
)

// OwnGroup, added to a scope, says that the path's group carries it too.
const OwnGroup Scope = 1 << 8

// ControlPath is the path in the control cluster's names, with every segment escaped. It fails, in the tenant's words, on
// a namespace that cannot be one.
func (r *Request) ControlPath(id names.TenantID, scope Scope) (string, error) {
	s := append([]string(nil), r.Segments...)
	group := 2
	if r.Group != "" {
		group = 3
	}
	if scope&OwnGroup != 0 && r.Group != "" {
		own, err := id.GroupToControl(r.Group)
		if err != nil {
			return "", NotFound(r.Verb)
		}
		s[1] = own
	}
	switch scope &^ OwnGroup {
	case Namespaced:
		if r.Namespace == "" {
			break
		}
		ns, err := id.NamespaceToControl(r.Namespace)
		if err != nil {
			return "", apierrors.NewBadRequest(err.Error())
		}
		s[group+1] = string(ns)
	case Named:
		if r.Name == "" {
			break
		}
		s[group+1] = id.NameToControl(r.Name)
	case Defined:
		if r.Name == "" {
			break
		}
		name, err := id.DefinitionToControl(r.Name)
		if err != nil {
			// Nothing can have such a name.
			return "", apierrors.NewNotFound(r.GroupResource(), r.Name)
		}
		s[group+1] = name
	case Literal:
	}
	return join(s), nil
}

func join(segments []string) string {
	if len(segments) == 0 {
		return "/"
	}
	var b strings.Builder
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(s))
	}
	return b.String()
}
