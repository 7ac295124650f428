package translate

import (
	"strings"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
	"vivarium.io/vivarium/internal/names"
)

// Classes (of storage, priority, runtime, ingress) belong to the operator: one of them is a driver, a right to preempt or
// somebody's load balancer. A tenant's word for one means a class of its own, which may not exist, unless the operator
// exports the class to it.

// classKinds are the kinds of classes that fields name.
var classKinds = map[rules.Op]string{
	rules.StorageClass: "StorageClass", rules.VolumeAttributesClass: "VolumeAttributesClass",
	rules.PriorityClass: "PriorityClass", rules.RuntimeClass: "RuntimeClass", rules.IngressClass: "IngressClass",
}

// classAnnotations are annotations whose value names a class.
var classAnnotations = map[string]string{
	"volume.beta.kubernetes.io/storage-class": "StorageClass",
	"kubernetes.io/ingress.class":             "IngressClass",
}

func (v View) exported(kind, name string) bool { return v.Exported != nil && v.Exported(kind, name) }

func (v View) classToControl(kind, name string) string {
	if name == "" || v.exported(kind, name) {
		return name
	}
	return v.Tenant.NameToControl(name)
}

// classToTenant is the inverse. The control cluster writes names of its own where it has a default; they show as they are,
// unless they could be another tenant's.
func (v View) classToTenant(kind, name string) string {
	if v.exported(kind, name) {
		return name
	}
	if own, err := v.Tenant.NameToTenant(name); err == nil {
		return own
	}
	if _, _, tenants := names.SplitNamespace(names.ControlNamespace(name)); tenants {
		return ""
	}
	return name
}

// objectToTenant gives the tenant's name of a cluster-scoped object whose name is the tenant's own or exported to it.
func (v View) objectToTenant(kind, name string) (string, bool) {
	if v.exported(kind, name) {
		return name, true
	}
	own, err := v.Tenant.NameToTenant(name)
	return own, err == nil
}

// scopeKinds are the quota scopes whose values are classes.
var scopeKinds = map[string]string{"PriorityClass": "PriorityClass", "VolumeAttributesClass": "VolumeAttributesClass"}

func (v View) scopeToControl(requirement *jsonwire.Value) {
	if kind, ok := scopeKinds[requirement.Get("scopeName").Text()]; ok {
		for _, value := range requirement.Get("values").Elems() {
			value.SetText(v.classToControl(kind, value.Text()))
		}
	}
}

func (v View) scopeToTenant(requirement *jsonwire.Value) {
	if kind, ok := scopeKinds[requirement.Get("scopeName").Text()]; ok {
		for _, value := range requirement.Get("values").Elems() {
			value.SetText(v.classToTenant(kind, value.Text()))
		}
	}
}

// quotaClasses are the middle of quota resources that count by class: "gold.storageclass.storage.k8s.io/requests.storage".
var quotaClasses = map[string]string{
	".storageclass.storage.k8s.io/":          "StorageClass",
	".volumeattributesclass.storage.k8s.io/": "VolumeAttributesClass",
}

// cutClass splits a quota resource that counts by class.
func cutClass(key string) (kind, class, rest string, ok bool) {
	for middle, kind := range quotaClasses {
		if i := strings.Index(key, middle); i > 0 {
			return kind, key[:i], key[i:], true
		}
	}
	return "", "", "", false
}
