package translate

import (
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// AdmittedToTenant translates an object that is about to be stored. Unlike what comes out of storage it may not have a name
// yet, and it may be of a kind that no tenant can ask for, such as the binding of a pod: of that only the metadata is
// understood, which is where names are. Whose the object is the caller has found out; one that tells otherwise is an error.
func (v View) AdmittedToTenant(k Kind, raw []byte) ([]byte, error) {
	doc, err := parseTrusted(raw)
	if err != nil {
		return nil, err
	}
	if doc.Kind() != jsonwire.Object {
		return nil, foreign("an object that is %s", doc.Kind())
	}
	root, ok := v.bodyRoot(k)
	r := &response{view: v, kind: k, root: root, prefix: []byte(v.Tenant.Prefix())}
	if ok && doc.Get("kind").Text() == root.Kind {
		if err := r.treeToTenant(root.Place, doc); err != nil {
			return nil, explain(err)
		}
		return doc.Append(nil), nil
	}
	meta := doc.Get("metadata")
	if ns := meta.Get("namespace"); ns.Text() != "" {
		if err := r.toTenant(rules.OwnNamespace, ns); err != nil {
			return nil, explain(err)
		}
	}
	for _, key := range []string{"labels", "annotations"} {
		if meta.Get(key).Kind() == jsonwire.Object {
			r.keysToTenant(rules.Keys, meta.Get(key))
		}
	}
	if meta.Kind() == jsonwire.Object {
		meta.Delete("managedFields")
		meta.Delete("ownerReferences")
	}
	return doc.Append(nil), nil
}

// MutationToControl translates a JSON patch that a policy of the tenant makes of an object in the tenant's words, which is
// being created or updated. It may do what the tenant may write itself by that verb.
func (v View) MutationToControl(k Kind, verb string, patch []byte, namespace, name string) ([]byte, error) {
	root, ok := v.bodyRoot(k)
	if !ok {
		return nil, foreign("no rules for %s.%s/%s %s", k.Resource, k.Group, k.Version, k.Subresource)
	}
	q := &request{view: v, kind: k, root: root, verb: verb, namespace: namespace, name: name, patch: true}
	q.speak(name)
	operations, err := jsonwire.Parse(patch)
	if err != nil {
		return nil, err
	}
	if err := q.operations(operations); err != nil {
		return nil, err
	}
	return operations.Append(nil), nil
}

// Writer is who writes an object of a tenant.
type Writer int

const (
	// Platform is everybody else: the platform and its operators, who have no name in a tenant's cluster.
	Platform Writer = iota
	// User is a user of the tenant's.
	User
	// StockPart is a part of the control cluster that every cluster has, by the name that it has in every cluster.
	StockPart
)

// WriterToTenant says who writes, in the tenant's words. Of the platform nothing is told.
func (v View) WriterToTenant(who authenticationv1.UserInfo) (authenticationv1.UserInfo, Writer) {
	if own, err := v.Tenant.UserToTenant(who.Username); err == nil {
		out := authenticationv1.UserInfo{Username: own, UID: who.UID}
		for _, group := range who.Groups {
			if own, err := v.Tenant.UserGroupToTenant(group); err == nil {
				out.Groups = append(out.Groups, own)
			}
		}
		return out, User
	}
	if stockWriter(who.Username) {
		out := authenticationv1.UserInfo{Username: who.Username, UID: who.UID}
		for _, group := range who.Groups {
			if strings.HasPrefix(group, "system:") {
				out.Groups = append(out.Groups, group)
			}
		}
		return out, StockPart
	}
	return authenticationv1.UserInfo{}, Platform
}

// stockWriter reports whether a user of the control cluster is a part that every cluster has.
func stockWriter(user string) bool {
	switch user {
	case "system:apiserver", "system:kube-controller-manager", "system:kube-scheduler":
		return true
	}
	return strings.HasPrefix(user, "system:serviceaccount:kube-system:")
}

// TextToControl is the inverse of [View.TextToTenant]: what is said in the tenant's words comes to the tenant as it is.
func (v View) TextToControl(text string) string { return v.textToControl(text) }

// GroupToTenant gives the tenant's word for an API group; false means that the group is not the tenant's to see.
func (v View) GroupToTenant(group string) (string, bool) { return v.groupToTenant(group) }

// NameOf gives the tenant's name of an object of a resource, whose group is in the tenant's words; false means that the
// object is not the tenant's.
func (v View) NameOf(group, resource, control string) (string, bool) {
	return v.resourceNameToTenant(v.nameClassOf(group, resource), control)
}
