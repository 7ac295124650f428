package translate

import (
	"slices"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
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
		if prefixedKind(apiVersion.Text(), kind.Text()) {
			control, err := q.nameToControl(kind.Text(), name.Text(), path+".name")
			if err != nil {
				return err
			}
			name.SetText(control)
		}
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
		if name := ref.Get("name"); name.Text() != "" && prefixedKind(gv, kind.Text()) {
			own, ok := r.view.objectToTenant(kind.Text(), name.Text())
			if !ok {
				return false
			}
			name.SetText(own)
		}
		apiVersion.SetText(tenant)
	} else if name := ref.Get("name"); name.Text() != "" && prefixedKind("", kind.Text()) {
		own, ok := r.view.objectToTenant(kind.Text(), name.Text())
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
	cluster := clusterKind(ref.Get("apiVersion").Text(), ref.Get("kind").Text())
	if !r.referenceToTenant(ref) {
		*ref = *jsonwire.NewObject()
		return
	}
	if cluster {
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
