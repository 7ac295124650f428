package offers

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/internal/names"
)

// Viewer is a tenant that looks at an object.
type Viewer struct {
	ID names.TenantID
	// Labels are those of the Tenant object, as labels.Set.String writes them.
	Labels string
	// Beginning is the resource version of the control cluster from which on what has the tenant's ID is the tenant's.
	Beginning uint64
}

// Object is one object of the control cluster, without what no tenant shall know. It is immutable.
type Object struct {
	// Name is that of the control cluster, or of the admin API.
	Name string
	// TenantName is the name that the tenant sees, where that is another one.
	TenantName string
	Version    uint64
	Labels     labels.Set
	Created    time.Time
	// JSON is the object, beginning with its kind and apiVersion.
	JSON []byte
	// Cells are those of the control cluster's table, one for each column, in JSON.
	Cells [][]byte

	// exported says that it is a class that somebody may use; to says who, nil everybody.
	exported bool
	to       labels.Selector
	// network says that it is a VPC or a subnet, owner whose.
	network bool
	owner   names.TenantID
	// claimed is the namespace of the claim that a volume is bound to, or was when it is released; bound is the resource version
	// of the claim then.
	claimed  names.ControlNamespace
	released bool
	bound    uint64
}

// Visible reports whether a tenant may know of the object.
func (o *Object) Visible(v Viewer) bool {
	if o == nil {
		return false
	}
	if o.network {
		return o.owner == v.ID
	}
	if owner, _, shaped := names.SplitNamespace(names.ControlNamespace(o.Name)); shaped && o.exported && owner == v.ID {
		// The name would mean a class of the tenant's own, which is another one.
		return false
	} else if shaped && !o.exported && owner != v.ID {
		// The name of a volume may spell a tenant.
		return false
	}
	if o.exported {
		if o.to == nil {
			return true
		}
		set, err := labels.ConvertSelectorToLabelsMap(v.Labels)
		return err == nil && o.to.Matches(set)
	}
	if o.released && o.bound < v.Beginning {
		// An earlier tenant of the same ID has left it behind.
		return false
	}
	return v.ID.Owns(string(o.claimed))
}

// ShownName is the name that tenants see.
func (o *Object) ShownName() string {
	if o.TenantName != "" {
		return o.TenantName
	}
	return o.Name
}

// kept are the members of an object's metadata that tenants see.
var kept = words("name uid resourceVersion generation creationTimestamp deletionTimestamp deletionGracePeriodSeconds labels annotations finalizers")

// keptAnnotations are the annotations that say something to a tenant.
var keptAnnotations = words(`storageclass.kubernetes.io/is-default-class storageclass.beta.kubernetes.io/is-default-class
	ingressclass.kubernetes.io/is-default-class kubernetes.io/description pv.kubernetes.io/bound-by-controller
	pv.kubernetes.io/provisioned-by`)

// keptMembers are the members that tenants see besides, by kind; what is nested is cut further below. What a volume or a
// class is made of (addresses, handles, secrets, topology) belongs to the operator.
var keptMembers = map[string]map[string]bool{
	"StorageClass":          words("provisioner reclaimPolicy mountOptions allowVolumeExpansion volumeBindingMode parameters"),
	"VolumeAttributesClass": words("driverName parameters"),
	"PriorityClass":         words("value globalDefault description preemptionPolicy"),
	"RuntimeClass":          words("handler overhead scheduling"),
	"IngressClass":          words("spec"),
	"DeviceClass":           words("spec"),
	"PersistentVolume":      words("spec status"),
}

// keptSpec are the members of spec, by kind.
var keptSpec = map[string]map[string]bool{
	"IngressClass": words("controller"),
	"DeviceClass":  words("selectors extendedResourceName"),
	"PersistentVolume": words(`capacity accessModes claimRef persistentVolumeReclaimPolicy storageClassName volumeAttributesClassName
		mountOptions volumeMode csi`),
}

func words(list string) map[string]bool {
	out := map[string]bool{}
	for word := range strings.FieldsSeq(list) {
		out[word] = true
	}
	return out
}

func keep(v *jsonwire.Value, known map[string]bool) {
	if v.Kind() == jsonwire.Object {
		v.Filter(func(m *jsonwire.Member) bool { return known[m.Key] })
	}
}

// present makes an Object of a row of a table with the whole object in it. An error in the object's selector is returned
// besides the object: it exports to nobody.
func present(kind string, row *jsonwire.Value) (*Object, error) {
	object := row.Get("object")
	members, known := keptMembers[kind]
	meta := object.Get("metadata")
	if object.Get("kind").Text() != kind || !known || meta.Kind() != jsonwire.Object {
		return nil, fmt.Errorf("a row with an object of kind %q where %s was asked for", object.Get("kind").Text(), kind)
	}
	o := &Object{Name: meta.Get("name").Text(), Labels: labels.Set{}}
	for _, cell := range row.Get("cells").Elems() {
		o.Cells = append(o.Cells, cell.Append(nil))
	}
	var err error
	if o.Version, err = strconv.ParseUint(meta.Get("resourceVersion").Text(), 10, 64); err != nil {
		return nil, fmt.Errorf("%s %q: resource version: %w", kind, o.Name, err)
	}
	// An object without a time is as old as can be.
	o.Created, _ = time.Parse(time.RFC3339, meta.Get("creationTimestamp").Text())
	var selectorErr error
	if kind == "PersistentVolume" {
		claim := object.At("spec", "claimRef")
		o.claimed = names.ControlNamespace(claim.Get("namespace").Text())
		phase := corev1.PersistentVolumePhase(object.At("status", "phase").Text())
		o.released = phase == corev1.VolumeReleased || phase == corev1.VolumeFailed
		// Without a version it may be anybody's who had the ID.
		o.bound, _ = strconv.ParseUint(claim.Get("resourceVersion").Text(), 10, 64)
	} else {
		o.exported, o.to, selectorErr = export(meta)
	}
	all := words("kind apiVersion metadata")
	for key := range members {
		all[key] = true
	}
	keep(object, all)
	keep(meta, kept)
	keep(meta.Get("annotations"), keptAnnotations)
	if own := meta.Get("labels"); own.Kind() == jsonwire.Object {
		own.Filter(func(m *jsonwire.Member) bool { return !names.Reserved(m.Key) })
		for _, m := range own.Members() {
			o.Labels[m.Key] = m.Value.Text()
		}
	}
	if spec, ok := keptSpec[kind]; ok {
		keep(object.Get("spec"), spec)
		keep(object.At("spec", "csi"), words("driver fsType readOnly"))
		keep(object.At("spec", "claimRef"), words("apiVersion kind namespace name uid resourceVersion"))
	}
	if parameters := object.Get("parameters"); parameters.Kind() == jsonwire.Object {
		parameters.Filter(func(m *jsonwire.Member) bool { return !secretive(m.Key) })
	}
	o.JSON = object.Append(nil)
	return o, selectorErr
}

// secretive reports whether a parameter of a class leads to a Secret or is one.
func secretive(key string) bool {
	key = strings.ToLower(key)
	return strings.HasPrefix(key, "csi.storage.k8s.io/") && key != "csi.storage.k8s.io/fstype" ||
		strings.Contains(key, "secret") || strings.Contains(key, "password") || strings.Contains(key, "token") || strings.Contains(key, "key")
}

// export reads whom a class is exported to.
func export(meta *jsonwire.Value) (exported bool, to labels.Selector, err error) {
	if meta.At("labels", names.LabelExported).Text() != "true" {
		return false, nil, nil
	}
	text := meta.At("annotations", names.AnnotationExportedTo)
	if text == nil {
		return true, nil, nil
	}
	if to, err = labels.Parse(text.Text()); err != nil {
		return false, nil, fmt.Errorf("annotation %s of %q: %w", names.AnnotationExportedTo, meta.Get("name").Text(), err)
	}
	return true, to, nil
}
