package policies

import (
	"reflect"
	"slices"
	"strings"
)

// operation is one of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// withValue writes the value also where it is null, which is one.
func (o operation) withValue() any {
	if o.Op == "remove" {
		return o
	}
	return struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}{o.Op, o.Path, o.Value}
}

// diff says how an object becomes another, both in the tenant's words. control is the object as the control cluster has it,
// in which a map may hold more than the tenant sees: then the members of a new map are added one by one. Lists that differ
// are replaced.
func diff(path string, from, to, control map[string]any) []operation {
	var out []operation
	for _, key := range sortedKeys(from) {
		if _, stays := to[key]; !stays {
			out = append(out, operation{Op: "remove", Path: pointer(path, key)})
		}
	}
	for _, key := range sortedKeys(to) {
		old, had := from[key]
		value := to[key]
		if had && reflect.DeepEqual(old, value) {
			continue
		}
		hidden, _ := control[key].(map[string]any)
		before, wasMap := old.(map[string]any)
		after, isMap := value.(map[string]any)
		switch {
		case isMap && (wasMap || !had && hidden != nil):
			out = append(out, diff(pointer(path, key), before, after, hidden)...)
		case had:
			out = append(out, operation{Op: "replace", Path: pointer(path, key), Value: value})
		default:
			out = append(out, operation{Op: "add", Path: pointer(path, key), Value: value})
		}
	}
	return out
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func pointer(path, key string) string {
	return path + "/" + strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
}
