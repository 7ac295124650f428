package translate

import (
	"strings"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/internal/names"
)

// annotationLastApplied is where kubectl keeps what it applied. It is the client's own text, which passes as it is; but the
// API server writes it as well, from what it was given, when kubectl applies on the server side: then it is an object in
// the control cluster's names.
const annotationLastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// lastAppliedToTenant translates the annotation if the control cluster wrote it; false means that it cannot be shown. The
// annotation of a client names the object as the tenant does, which starts with the prefix only if the object's own name
// does so on the tenant's side.
func (r *response) lastAppliedToTenant(text *jsonwire.Value) bool {
	prefix := r.view.Tenant.Prefix()
	if !strings.Contains(text.Text(), prefix) {
		return true
	}
	applied, err := jsonwire.Parse([]byte(text.Text()))
	if err != nil || applied.Kind() != jsonwire.Object {
		return true
	}
	own := applied.At("metadata", "namespace").Text()
	if !r.root.Namespaced {
		own = applied.At("metadata", "name").Text()
	}
	if isDefinition(r.kind) {
		_, own, _ = names.SplitDefinition(own)
	}
	if rest, ok := strings.CutPrefix(own, prefix); !ok || r.twice && !strings.HasPrefix(rest, prefix) {
		return true
	}
	// Of its own, so that nothing in the text can say whose the object is.
	inner := &response{view: r.view, kind: r.kind, root: r.root, prefix: r.prefix}
	if inner.treeToTenant(r.root.Place, applied) != nil {
		return false
	}
	if gv := applied.Get("apiVersion"); gv.Text() != "" && !r.root.Custom {
		own, _ := r.view.groupVersionToTenant(gv.Text())
		gv.SetText(own)
	}
	text.SetText(string(applied.Append(nil)) + "\n")
	return true
}
