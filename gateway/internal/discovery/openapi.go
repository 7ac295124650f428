package discovery

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"vivarium.io/vivarium/gateway/internal/kinds"
)

// verbOf tells which verb a documented method is.
func verbOf(method string, collection bool) string {
	switch method {
	case "get":
		if collection {
			return "list"
		}
		return "get"
	case "post":
		return "create"
	case "put":
		return "update"
	case "patch":
		return "patch"
	case "delete":
		if collection {
			return "deletecollection"
		}
		return "delete"
	}
	return ""
}

// cutPath leaves the methods of a documented path that are served; ok is false if nothing is left. A kind that can be read
// keeps all of its own methods: kubectl must understand what is written to let it be refused with the reason.
func cutPath(table *kinds.Table, path string, item map[string]json.RawMessage) (ok bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	var group, version string
	switch {
	case len(parts) >= 2 && parts[0] == "api":
		version, parts = parts[1], parts[2:]
	case len(parts) >= 3 && parts[0] == "apis":
		group, version, parts = parts[1], parts[2], parts[3:]
	default:
		return false
	}
	if !table.ServesVersion(group, version) {
		return false
	}
	if len(parts) == 0 {
		return true
	}
	if len(parts) > 2 && parts[0] == "namespaces" && parts[1] == "{namespace}" {
		parts = parts[2:]
	}
	if parts[0] == "watch" || len(parts) > 3 {
		return false
	}
	kind, known := table.Lookup(group, parts[0])
	if !known {
		return false
	}
	subresource := ""
	if len(parts) == 3 {
		subresource = parts[2]
	}
	for method := range item {
		if verb := verbOf(method, len(parts) == 1); verb != "" {
			if kind.Allows(subresource, verb) || subresource == "" && kind.Serves("") {
				ok = true
			} else {
				delete(item, method)
			}
		}
	}
	return ok
}

func cutPaths(table *kinds.Table, raw json.RawMessage) (json.RawMessage, error) {
	var paths map[string]map[string]json.RawMessage
	if err := json.Unmarshal(raw, &paths); err != nil {
		return nil, fmt.Errorf("read paths: %w", err)
	}
	for path, item := range paths {
		if !cutPath(table, path, item) {
			delete(paths, path)
		}
	}
	return json.Marshal(paths)
}

// reachable leaves the schemas that something in roots refers to, directly or not.
func reachable(schemas map[string]json.RawMessage, prefix string, roots json.RawMessage) map[string]json.RawMessage {
	reference := regexp.MustCompile(`"\$ref":\s*"` + regexp.QuoteMeta(prefix) + `([^"]+)"`)
	out := map[string]json.RawMessage{}
	pending := []json.RawMessage{roots}
	for len(pending) > 0 {
		next := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		for _, match := range reference.FindAllSubmatch(next, -1) {
			name := string(match[1])
			if schema, ok := schemas[name]; ok && out[name] == nil {
				out[name] = schema
				pending = append(pending, schema)
			}
		}
	}
	return out
}

// cutV2 cuts a Swagger 2.0 document down to what is served.
func cutV2(raw []byte, table *kinds.Table) ([]byte, error) {
	var document map[string]json.RawMessage
	if err := json.Unmarshal(raw, &document); err != nil {
		return nil, fmt.Errorf("read OpenAPI v2: %w", err)
	}
	paths, err := cutPaths(table, document["paths"])
	if err != nil {
		return nil, fmt.Errorf("read OpenAPI v2: %w", err)
	}
	var definitions map[string]json.RawMessage
	if err := json.Unmarshal(document["definitions"], &definitions); err != nil {
		return nil, fmt.Errorf("read OpenAPI v2: definitions: %w", err)
	}
	document["paths"] = paths
	if document["definitions"], err = json.Marshal(reachable(definitions, "#/definitions/", paths)); err != nil {
		return nil, fmt.Errorf("write OpenAPI v2: %w", err)
	}
	return json.Marshal(document)
}

// cutV3 does so for an OpenAPI 3.0 document of one group and version.
func cutV3(raw []byte, table *kinds.Table) ([]byte, error) {
	var document map[string]json.RawMessage
	if err := json.Unmarshal(raw, &document); err != nil {
		return nil, fmt.Errorf("read OpenAPI v3: %w", err)
	}
	paths, err := cutPaths(table, document["paths"])
	if err != nil {
		return nil, fmt.Errorf("read OpenAPI v3: %w", err)
	}
	var components map[string]json.RawMessage
	if err := json.Unmarshal(document["components"], &components); err != nil {
		return nil, fmt.Errorf("read OpenAPI v3: components: %w", err)
	}
	var schemas map[string]json.RawMessage
	if err := json.Unmarshal(components["schemas"], &schemas); err != nil {
		return nil, fmt.Errorf("read OpenAPI v3: schemas: %w", err)
	}
	document["paths"] = paths
	if components["schemas"], err = json.Marshal(reachable(schemas, "#/components/schemas/", paths)); err != nil {
		return nil, fmt.Errorf("write OpenAPI v3: %w", err)
	}
	if document["components"], err = json.Marshal(components); err != nil {
		return nil, fmt.Errorf("write OpenAPI v3: %w", err)
	}
	return json.Marshal(document)
}

// index is the table of contents of OpenAPI v3.
type index struct {
	body body
	// versions holds the hash of each document, by its path ("api/v1", "apis/apps/v1").
	versions map[string]string
	served   indexDocument
}

type indexDocument struct {
	Paths map[string]indexEntry `json:"paths"`
}

type indexEntry struct {
	ServerRelativeURL string `json:"serverRelativeURL"`
}

// newIndex leaves the documents of served groups. A document's hash becomes ours: clients keep what a hash names for
// good, and what is cut out of it changes with the table.
func newIndex(raw []byte, table *kinds.Table) (index, error) {
	var document indexDocument
	if err := json.Unmarshal(raw, &document); err != nil {
		return index{}, fmt.Errorf("read the index of OpenAPI v3: %w", err)
	}
	out := index{versions: map[string]string{}}
	served := indexDocument{Paths: map[string]indexEntry{}}
	for path, entry := range document.Paths {
		if !servesDocument(table, path) {
			continue
		}
		u, err := url.Parse(entry.ServerRelativeURL)
		if err != nil {
			return index{}, fmt.Errorf("read the index of OpenAPI v3: %w", err)
		}
		hash := strings.ToUpper(tag([]byte(u.Query().Get("hash")), []byte(table.Digest())))
		out.versions[path] = hash
		served.Paths[path] = indexEntry{ServerRelativeURL: "/openapi/v3/" + path + "?hash=" + hash}
	}
	var err error
	out.served = served
	out.body, err = newBody(served)
	return out, err
}

func servesDocument(table *kinds.Table, path string) bool {
	switch parts := strings.Split(path, "/"); {
	case len(parts) == 2 && parts[0] == "api":
		return table.ServesVersion("", parts[1])
	case len(parts) == 3 && parts[0] == "apis":
		return table.ServesVersion(parts[1], parts[2])
	}
	return false
}
