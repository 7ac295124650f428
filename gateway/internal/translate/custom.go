package translate

import (
	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// Custom resources come from an encoder that knows no type: keys stand in alphabetical order, so kind comes behind items
// and may come behind any other member. What a document is about is known from the URL; what it says of itself is checked
// when it comes, and a document that turns out to be something else breaks.

// customRoot makes the table of a custom kind: its metadata and nothing else.
func (v View) customRoot(k Kind) (rules.Root, bool) {
	// Kinds whose metadata has no rules of their own.
	like, ok := rules.For("", "v1", "ConfigMap")
	if !k.Namespaced {
		like, ok = rules.For("storage.k8s.io", "v1", "VolumeAttributesClass")
	}
	metadata := like.Child([]byte("metadata"))
	if k.Subresource != "" && k.Subresource != "status" || !ok || metadata == nil {
		return rules.Root{}, false
	}
	place := &rules.Place{
		Shape: rules.Object, Value: rules.WireOpaque,
		Fields: []rules.Field{{JSON: "apiVersion", Place: &groupVersionPlace}, {JSON: "metadata", Place: metadata}},
		Wire:   []rules.WireField{{Number: 1, JSON: "metadata", Place: metadata}},
	}
	return rules.Root{
		Group: v.groupToControl(k.Group), Version: k.Version, Kind: k.Kind, Namespaced: k.Namespaced, Prefixed: !k.Namespaced, Place: place, ToTenant: place,
	}.Named(), true
}

var groupVersionPlace = rules.Place{Op: rules.GroupVersion, Value: rules.WireString}

// listKind is what lists of the kind are called.
func (r *response) listKind() string {
	if r.kind.ListKind != "" {
		return r.kind.ListKind
	}
	return r.root.List
}

// assume fills in what a document has not said of itself yet.
func (r *response) assume(kind, apiVersion string) (string, string) {
	if kind == "" {
		kind = r.root.Kind
		if r.kind.Collection {
			kind = r.listKind()
		}
	}
	if apiVersion == "" {
		apiVersion = r.groupVersion()
	}
	return kind, apiVersion
}

// late is a member handler that checks what a document says of itself in the middle.
func (r *response) late(kind, apiVersion string, f member) member {
	return func(r *response, key string) error {
		if key != "kind" && key != "apiVersion" {
			return f(r, key)
		}
		text, err := r.captureText()
		if err != nil {
			return err
		}
		if key == "kind" && text != kind || key == "apiVersion" && text != apiVersion {
			return foreign("%s %q where %s %s was asked for", key, text, apiVersion, kind)
		}
		if key == "apiVersion" {
			text, _ = r.view.groupVersionToTenant(text)
		}
		return r.emitText(text)
	}
}

func (r *response) emitText(s string) error {
	r.scratch = jsonwire.AppendQuoted(r.scratch[:0], s)
	return r.Emit(r.scratch)
}
