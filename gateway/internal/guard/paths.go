package guard

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"vivarium.io/vivarium/internal/names"
)

// split cuts an escaped path into decoded segments and refuses whatever could be cut in two ways.
func split(escaped, base string) ([]string, error) {
	rest, ok := strings.CutPrefix(escaped, base+"/")
	if !ok {
		return nil, refuse("path %q is outside the control API", escaped)
	}
	parts := strings.Split(rest, "/")
	for i, part := range parts {
		decoded, err := url.PathUnescape(part)
		if err != nil || decoded == "" || decoded == "." || decoded == ".." || strings.ContainsAny(decoded, "/\\%;") || hasControl(decoded) {
			return nil, refuse("path %q is ambiguous", escaped)
		}
		parts[i] = decoded
	}
	return parts, nil
}

func hasControl(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0
}

func parseQuery(raw string) (url.Values, error) {
	if raw == "" {
		return nil, nil
	}
	if strings.Contains(raw, ";") {
		return nil, refuse("the query has a semicolon")
	}
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, refuse("the query cannot be parsed")
	}
	for key, values := range query {
		if len(values) > 1 && key != "command" && key != "ports" {
			return nil, refuse("query parameter %q is repeated", key)
		}
	}
	return query, nil
}

// want is what a request asks of the control cluster.
type want struct {
	id     names.TenantID
	method string
	query  url.Values
	body   *http.Request
	// shared is Guard.Shared.
	shared func(id names.TenantID, group, resource string) bool
	// tunnel is set by check for the few paths that may be upgraded to another protocol.
	tunnel bool
	// isCustom is set by check for kinds that are not built in.
	isCustom bool
}

// inNamespaces are the kinds that live in namespaces, by group.
func inNamespaces(group, resource string) bool {
	var known string
	switch group {
	case "":
		known = "configmaps endpoints events limitranges persistentvolumeclaims pods podtemplates replicationcontrollers resourcequotas secrets serviceaccounts services"
	case "apps":
		known = "controllerrevisions daemonsets deployments replicasets statefulsets"
	case "batch":
		known = "cronjobs jobs"
	case "autoscaling":
		known = "horizontalpodautoscalers"
	case "metrics.k8s.io":
		known = "pods"
	case "policy":
		known = "poddisruptionbudgets"
	case "networking.k8s.io":
		known = "ingresses networkpolicies"
	case "discovery.k8s.io":
		known = "endpointslices"
	case "coordination.k8s.io":
		known = "leases"
	case "events.k8s.io":
		known = "events"
	case "rbac.authorization.k8s.io":
		known = "roles rolebindings"
	case "authorization.k8s.io":
		known = "localsubjectaccessreviews"
	}
	return among(known, resource)
}

// byName are the cluster-scoped kinds whose names carry the tenant, by group.
func byName(group, resource string) bool {
	var known string
	switch group {
	case "":
		known = "namespaces"
	case "rbac.authorization.k8s.io":
		known = "clusterroles clusterrolebindings"
	case "certificates.k8s.io":
		known = "certificatesigningrequests"
	case "flowcontrol.apiserver.k8s.io":
		known = "flowschemas prioritylevelconfigurations"
	case "admissionregistration.k8s.io":
		known = "validatingadmissionpolicies mutatingadmissionpolicies " + policyBindings
	}
	return among(known, resource)
}

// policyBindings are the kinds whose spec says which admission policy of the control cluster applies to everybody.
const policyBindings = "validatingadmissionpolicybindings mutatingadmissionpolicybindings"

// reviews are kinds that store nothing: a question in the body, about the tenant's own principals.
func reviews(group, resource string) bool {
	switch group {
	case "authorization.k8s.io":
		return among("selfsubjectaccessreviews selfsubjectrulesreviews subjectaccessreviews", resource)
	case "authentication.k8s.io":
		return among("selfsubjectreviews tokenreviews", resource)
	}
	return false
}

func among(list, word string) bool {
	for known := range strings.FieldsSeq(list) {
		if known == word {
			return true
		}
	}
	return false
}

func (w *want) check(parts []string) error {
	var group string
	switch {
	case len(parts) >= 3 && parts[0] == "api" && parts[1] == "v1":
		parts = parts[2:]
	case len(parts) >= 4 && parts[0] == "apis":
		group, parts = parts[1], parts[3:]
	default:
		return refuse("path %q is no path of a resource", strings.Join(parts, "/"))
	}
	if len(parts) >= 3 && parts[0] == "namespaces" && (group != "" || !among("status finalize", parts[2])) {
		return w.checkInside(group, parts[1], parts[2:])
	}
	resource := parts[0]
	if group == "admissionregistration.k8s.io" && among(policyBindings, resource) && w.method != http.MethodGet && w.method != http.MethodDelete {
		if err := w.checkBinding(); err != nil {
			return err
		}
	}
	switch {
	case len(parts) == 1 && w.method == http.MethodPost && reviews(group, resource):
		return nil
	case (group == "" || group == "metrics.k8s.io") && resource == "nodes":
		return w.checkNodes(parts)
	case inNamespaces(group, resource) && len(parts) == 1:
		return w.checkEverywhere(resource)
	case byName(group, resource):
		return w.checkNamed(resource, parts[1:])
	case group == "apiextensions.k8s.io" && resource == "customresourcedefinitions":
		return w.checkDefinition(parts[1:])
	case w.custom(group, resource):
		// Whether the kind is namespaced is not known here: a name must be the tenant's, and a list begin there.
		return w.checkNamed(resource, parts[1:])
	}
	return refuse("%s %s of group %q", w.method, strings.Join(parts, "/"), group)
}

// checkInside looks at a path under /namespaces/NAMESPACE.
func (w *want) checkInside(group, namespace string, parts []string) error {
	if !w.id.Owns(namespace) {
		return refuse("namespace %q for tenant %s", namespace, w.id)
	}
	if !inNamespaces(group, parts[0]) && !w.custom(group, parts[0]) || len(parts) > 3 {
		return refuse("%s %s of group %q", w.method, strings.Join(parts, "/"), group)
	}
	if len(parts) < 3 {
		return nil
	}
	switch parts[2] {
	case "status", "scale", "log", "eviction", "ephemeralcontainers", "resize", "token":
		return nil
	case "exec", "attach", "portforward":
		w.tunnel = group == "" && parts[0] == "pods"
		if w.tunnel {
			return nil
		}
	}
	return refuse("subresource %s", strings.Join(parts, "/"))
}

// checkNodes lets nodes, and what they use, be listed and watched with the selector that leaves the platform's virtual ones.
func (w *want) checkNodes(parts []string) error {
	selected := false
	for requirement := range strings.SplitSeq(w.query.Get("labelSelector"), ",") {
		selected = selected || requirement == names.LabelPool
	}
	if w.method != http.MethodGet || len(parts) != 1 || !selected {
		return refuse("%s %s without the platform's selector", w.method, strings.Join(parts, "/"))
	}
	return nil
}

// checkNamed looks at a cluster-scoped kind whose names carry the tenant; parts follow the resource.
func (w *want) checkNamed(resource string, parts []string) error {
	switch {
	case len(parts) == 0 && w.method == http.MethodPost:
		return w.checkBody(w.id.Owns)
	case len(parts) == 0:
		return w.checkEverywhere(resource)
	case !w.id.Owns(parts[0]):
		return refuse("%s %q for tenant %s", resource, parts[0], w.id)
	case len(parts) == 1:
		return nil
	case len(parts) == 2 && resource == "namespaces" && among("status finalize", parts[1]):
		return nil
	case len(parts) == 2 && resource == "certificatesigningrequests" && among("status approval", parts[1]):
		return nil
	case len(parts) == 2 && among("validatingadmissionpolicies flowschemas prioritylevelconfigurations", resource) && parts[1] == "status":
		return nil
	case len(parts) == 2 && among("status scale", parts[1]) && w.isCustom:
		return nil
	}
	return refuse("%s %s/%s", w.method, resource, strings.Join(parts, "/"))
}

// custom reports whether a resource is of a group of the tenant's own or one that is shared with it.
func (w *want) custom(group, resource string) bool {
	w.isCustom = w.id.Owns(group) || w.shared != nil && strings.Contains(group, ".") && w.shared(w.id, group, resource)
	return w.isCustom
}

// checkDefinition looks at CustomResourceDefinitions, whose names carry the tenant behind their first dot; parts follow the
// resource. A collection is cut down to the tenant's by its label.
func (w *want) checkDefinition(parts []string) error {
	switch {
	case len(parts) == 0 && w.method == http.MethodPost:
		return w.checkBody(w.ownsDefinition)
	case len(parts) == 0:
		only := names.LabelTenant + "=" + string(w.id)
		for requirement := range strings.SplitSeq(w.query.Get("labelSelector"), ",") {
			// A comma stands between requirements or between values in brackets, and no value has an equals sign.
			if requirement == only {
				return nil
			}
		}
		return refuse("%s of all definitions without the label of tenant %s", w.method, w.id)
	case !w.ownsDefinition(parts[0]):
		return refuse("definition %q for tenant %s", parts[0], w.id)
	case len(parts) == 1, len(parts) == 2 && parts[1] == "status":
		return nil
	}
	return refuse("%s of a definition: %s", w.method, strings.Join(parts, "/"))
}

func (w *want) ownsDefinition(name string) bool {
	_, group, ok := strings.Cut(name, ".")
	return ok && w.id.Owns(group)
}

// checkEverywhere looks at a collection that holds the objects of all tenants. A watch is filtered on its way back; a
// list must start at the tenant's first object and be cut into pages, so that it can be ended at the first foreign one.
func (w *want) checkEverywhere(resource string) error {
	if w.method != http.MethodGet {
		return refuse("%s of all %s", w.method, resource)
	}
	if watch := w.query.Get("watch"); watch == "true" || watch == "1" {
		return nil
	}
	limit, err := strconv.Atoi(w.query.Get("limit"))
	if err != nil || limit <= 0 || limit > 10000 {
		return refuse("list of all %s without a limit", resource)
	}
	// With a resource version a stock API server may ignore limit and continue, and answer with everything.
	if w.query.Has("resourceVersion") || w.query.Has("resourceVersionMatch") {
		return refuse("list of all %s at a resource version", resource)
	}
	if start, ok := startOf(w.query.Get("continue")); !ok || !strings.HasPrefix(start, w.id.Prefix()) {
		return refuse("list of all %s from %q for tenant %s", resource, start, w.id)
	}
	return nil
}

func startOf(token string) (string, bool) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", false
	}
	var decoded struct {
		Start string `json:"start"`
	}
	err = json.Unmarshal(raw, &decoded)
	// The API server's own tokens have a slash in front when they come from its watch cache, and none otherwise.
	return strings.TrimPrefix(decoded.Start, "/"), err == nil
}
