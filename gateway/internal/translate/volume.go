package translate

import (
	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/internal/names"
)

// VolumeToTenant translates, in place, a PersistentVolume of which only what a tenant may know is left: the claim that it
// is bound to, its classes, and what the control cluster says of it. False means that it is bound to nobody's claim here.
func (v View) VolumeToTenant(volume *jsonwire.Value) bool {
	ns := volume.At("spec", "claimRef", "namespace")
	own, err := v.Tenant.NamespaceToTenant(names.ControlNamespace(ns.Text()))
	if err != nil {
		return false
	}
	ns.SetText(string(own))
	for key, kind := range map[string]string{"storageClassName": "StorageClass", "volumeAttributesClassName": "VolumeAttributesClass"} {
		if class := volume.At("spec", key); class.Text() != "" {
			class.SetText(v.classToTenant(kind, class.Text()))
		}
	}
	for _, key := range [...]string{"message", "reason"} {
		if text := volume.At("status", key); text.Text() != "" {
			text.SetText(v.TextToTenant(text.Text()))
		}
	}
	return true
}
