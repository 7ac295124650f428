package translate

import (
	"slices"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
	"vivarium.io/vivarium/internal/names"
)

// namespaceToControl translates a namespace that a tenant wrote at path. Empty stays empty: it means none.
func (v View) namespaceToControl(ns, path string) (string, error) {
	if ns == "" {
		return "", nil
	}
	control, err := v.Tenant.NamespaceToControl(names.TenantNamespace(ns))
	if err != nil {
		return "", invalid(path, "%s", err)
	}
	return string(control), nil
}

// namespaceToTenant is the inverse; a namespace that is not the tenant's is hidden.
func (r *response) namespaceToTenant(ns string) string {
	tenant, err := r.view.Tenant.NamespaceToTenant(names.ControlNamespace(ns))
	if err != nil {
		return ""
	}
	return string(tenant)
}

// nameToControl translates the name of a cluster-scoped object of the tenant. Empty stays empty.
func (q *request) nameToControl(kind, name, path string) (string, error) {
	if name == "" {
		return "", nil
	}
	if kind == "Namespace" {
		return q.view.namespaceToControl(name, path)
	}
	return q.view.classToControl(kind, name), nil
}

// kindNameToControl translates the name of an object by its kind. apiVersion is the tenant's.
func (q *request) kindNameToControl(apiVersion, kind, name, path string) (string, error) {
	switch class := q.view.kindClass(apiVersion, kind); {
	case class == crdNames:
		return q.definitionToControl(name, path)
	case class != prefixedNames:
		return name, nil
	}
	if group, _, given := cutGroupVersion(apiVersion); given && !rules.BuiltInGroup(group) {
		return q.view.Tenant.NameToControl(name), nil
	}
	return q.nameToControl(kind, name, path)
}

// ownerReferencesToControl translates owners: only cluster-scoped owners of the tenant have another name in control.
func (q *request) ownerReferencesToControl(v *jsonwire.Value, path string) error {
	for _, ref := range v.Elems() {
		if err := q.referenceToControl(ref, path); err != nil {
			return err
		}
	}
	return nil
}

// ownerReferencesToTenant is the inverse. An owner of another world is left out.
func (r *response) ownerReferencesToTenant(v *jsonwire.Value) {
	v.SetElems(slices.DeleteFunc(v.Elems(), func(ref *jsonwire.Value) bool { return !r.referenceToTenant(ref) }))
}

// referenceToControl translates an object reference of any kind. Whether its name is prefixed depends on its kind, so a
// part of a reference that holds one without the other is refused.
func (q *request) referenceToControl(ref *jsonwire.Value, path string) error {
	if ref.Kind() != jsonwire.Object {
		return nil
	}
	apiVersion, kind := ref.Get("apiVersion"), ref.Get("kind")
	if name := ref.Get("name"); name.Text() != "" {
		if kind.Text() == "" && q.patch {
			return invalid(path, "name an object together with its kind")
		}
		control, err := q.kindNameToControl(apiVersion.Text(), kind.Text(), name.Text(), path+".name")
		if err != nil {
			return err
		}
		name.SetText(control)
	}
	if apiVersion.Text() != "" {
		apiVersion.SetText(q.view.groupVersionToControl(apiVersion.Text()))
	}
	if ns := ref.Get("namespace"); ns.Text() != "" {
		control, err := q.view.namespaceToControl(ns.Text(), path+".namespace")
		if err != nil {
			return err
		}
		ns.SetText(control)
	}
	return nil
}

// referenceToTenant is the inverse; false means that the reference leads out of the tenant's world.
func (r *response) referenceToTenant(ref *jsonwire.Value) bool {
	apiVersion, kind := ref.Get("apiVersion"), ref.Get("kind")
	if gv := apiVersion.Text(); gv != "" {
		tenant, ok := r.view.groupVersionToTenant(gv)
		if !ok {
			return false
		}
		apiVersion.SetText(tenant)
	}
	if name := ref.Get("name"); name.Text() != "" {
		own, ok := r.view.kindNameToTenant(apiVersion.Text(), kind.Text(), name.Text())
		if !ok {
			return false
		}
		name.SetText(own)
	}
	if ns := ref.Get("namespace"); ns.Text() != "" {
		own := r.namespaceToTenant(ns.Text())
		if own == "" {
			return false
		}
		ns.SetText(own)
	}
	return true
}

// involvedObjectToControl translates what an Event is about. The API server wants Events about cluster-scoped objects in
// its own default namespace, which tenants do not have, so they are stored as if the object lived in the Event's.
func (q *request) involvedObjectToControl(ref *jsonwire.Value, path string) error {
	if ref.Kind() != jsonwire.Object {
		return nil
	}
	if q.namespace != "" && !q.patch && ref.Get("namespace").Text() == "" {
		ref.Set("namespace", jsonwire.NewString(q.namespace))
	}
	return q.referenceToControl(ref, path)
}

// involvedObjectToTenant is the inverse.
func (r *response) involvedObjectToTenant(ref *jsonwire.Value) {
	if !r.referenceToTenant(ref) {
		*ref = *jsonwire.NewObject()
		return
	}
	if r.view.clusterKind(ref.Get("apiVersion").Text(), ref.Get("kind").Text()) {
		ref.Delete("namespace")
	}
}

// rootCAToTenant shows a tenant the gateway's CA where the control cluster publishes its own.
func (r *response) rootCAToTenant(data *jsonwire.Value) {
	if r.view.RootCA == "" {
		data.Delete("ca.crt")
		return
	}
	data.Set("ca.crt", jsonwire.NewString(r.view.RootCA))
}
