package translate

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"vivarium.io/vivarium/internal/netkeys"
)

// oracle is a second implementation of what the translation means, written from the description of the API and not from the
// rule table: it changes typed objects by reflection, knows nothing of wires and shares no code with the rewriters. It is
// slow and forgets fields that are newer than its types, which is why it is for tests alone.
type oracle struct {
	gvk                  schema.GroupVersionKind
	namespaced, prefixed bool
	// control says which way: to the control cluster, or to the tenant.
	control bool
	// namespace is that of the tenant's URL; create says that the request is one.
	namespace string
	create    bool
	// name is that of the object, in the tenant's words.
	name string

	refused error // to control: the tenant is told no
	foreign error // to tenant: the object is somebody else's
}

const (
	oracleID     = "zq7x9k"
	oraclePrefix = oracleID + "-"
)

func (o *oracle) refuse(why string) {
	if o.refused == nil {
		o.refused = errors.New(why)
	}
}

func (o *oracle) exported(kind, name string) bool {
	return kind == "StorageClass" && name == "shared-disk"
}

// object translates an object in place.
func (o *oracle) object(obj runtime.Object) {
	m, err := meta.Accessor(obj)
	if err != nil {
		panic(err)
	}
	if o.namespaced {
		o.name = m.GetName()
	}
	root := reflect.ValueOf(obj).Elem().FieldByName("ObjectMeta").Addr().Interface().(*metav1.ObjectMeta)
	o.rootMeta(root)
	o.visit(reflect.ValueOf(obj).Elem(), root)
}

func (o *oracle) rootMeta(m *metav1.ObjectMeta) {
	switch {
	case o.namespaced && o.control:
		if m.Namespace != "" {
			if m.Namespace != o.namespace {
				o.refuse("namespace of the body")
			}
			o.ns(&m.Namespace)
		}
	case o.namespaced:
		own, ok := cut(m.Namespace)
		if !ok {
			o.foreign = errors.New("namespace " + m.Namespace)
		}
		m.Namespace = own
	case o.prefixed:
		o.ns(&m.Namespace)
		switch {
		case !o.control && o.exported(o.gvk.Kind, m.Name):
		case !o.control:
			own, ok := cut(m.Name)
			if !ok {
				o.foreign = errors.New("name " + m.Name)
			}
			m.Name = own
		case o.gvk.Kind == "Namespace":
			o.ns(&m.Name)
		case m.Name != "" && !o.exported(o.gvk.Kind, m.Name):
			m.Name = oraclePrefix + m.Name
		}
		if o.control && m.GenerateName != "" {
			m.GenerateName = oraclePrefix + m.GenerateName
		} else if own, ok := cut(m.GenerateName); ok {
			m.GenerateName = own
		}
	default:
		o.ns(&m.Namespace)
	}
	o.metadata(m, o.gvk.Kind)
	if !o.control {
		return
	}
	injected := map[string]string{}
	switch o.gvk.Kind {
	case "Namespace":
		injected["pod-security.kubernetes.io/enforce"] = "baseline"
		if m.Labels["pod-security.vivarium.io/enforce"] == "restricted" {
			injected["pod-security.kubernetes.io/enforce"] = "restricted"
		}
		injected["pod-security.kubernetes.io/enforce-version"] = "latest"
		fallthrough
	case "ClusterRole", "Role":
		if o.gvk.Kind == "Role" {
			break
		}
		injected["vivarium.io/tenant"] = oracleID
	}
	for k, v := range injected {
		if m.Labels == nil {
			m.Labels = map[string]string{}
		}
		m.Labels[k] = v
	}
}

// cut takes the prefix off a whole name.
func cut(s string) (string, bool) {
	if !strings.HasPrefix(s, oraclePrefix) || len(s) == len(oraclePrefix) {
		return "", false
	}
	return s[len(oraclePrefix):], true
}

// ns translates a namespace; foreign ones vanish.
func (o *oracle) ns(s *string) {
	switch {
	case *s == "":
	case !o.control:
		*s, _ = cut(*s)
	case len(*s) > 56 || len(validation.IsDNS1123Label(*s)) > 0:
		o.refuse("namespace " + *s)
	default:
		*s = oraclePrefix + *s
	}
}

var oracleGroups = strings.Fields(`admissionregistration.k8s.io apiextensions.k8s.io apiregistration.k8s.io apidiscovery.k8s.io apps authentication.k8s.io
	authorization.k8s.io autoscaling batch certificates.k8s.io coordination.k8s.io custom.metrics.k8s.io discovery.k8s.io events.k8s.io extensions
	external.metrics.k8s.io flowcontrol.apiserver.k8s.io internal.apiserver.k8s.io meta.k8s.io metrics.k8s.io networking.k8s.io node.k8s.io policy
	rbac.authorization.k8s.io resource.k8s.io scheduling.k8s.io storage.k8s.io storagemigration.k8s.io`)

// group translates an API group; false if it is not the tenant's to see.
func (o *oracle) group(s string) (string, bool) {
	if s == "" || s == "*" || slices.Contains(oracleGroups, s) {
		return s, true
	}
	if o.control {
		return oraclePrefix + s, true
	}
	own, ok := cut(s)
	if !ok || slices.Contains(oracleGroups, own) || own == "*" {
		return "", false
	}
	return own, true
}

func (o *oracle) groupVersion(s string) (string, bool) {
	group, version, ok := strings.Cut(s, "/")
	if !ok {
		return s, true
	}
	group, ok = o.group(group)
	return group + "/" + version, ok
}

// clusterScoped are the kinds whose names are the tenant's own in the control cluster (true) or the platform's (false).
var clusterScoped = map[string]bool{
	"/Namespace": true, "/Node": false, "/PersistentVolume": false, "/ComponentStatus": false,
	"rbac.authorization.k8s.io/ClusterRole": true, "rbac.authorization.k8s.io/ClusterRoleBinding": true,
	"storage.k8s.io/StorageClass": true, "storage.k8s.io/VolumeAttributesClass": true, "storage.k8s.io/VolumeAttachment": false,
	"storage.k8s.io/CSIDriver": false, "storage.k8s.io/CSINode": false, "scheduling.k8s.io/PriorityClass": true,
	"node.k8s.io/RuntimeClass": true, "networking.k8s.io/IngressClass": true, "resource.k8s.io/DeviceClass": true,
	"apiextensions.k8s.io/CustomResourceDefinition": true, "admissionregistration.k8s.io/ValidatingWebhookConfiguration": true,
	"admissionregistration.k8s.io/MutatingWebhookConfiguration": true, "apiregistration.k8s.io/APIService": true,
	"certificates.k8s.io/CertificateSigningRequest": true,

	"admissionregistration.k8s.io/ValidatingAdmissionPolicy": true, "admissionregistration.k8s.io/ValidatingAdmissionPolicyBinding": true,
	"admissionregistration.k8s.io/MutatingAdmissionPolicy": true, "admissionregistration.k8s.io/MutatingAdmissionPolicyBinding": true,
}

func scopeOfKind(apiVersion, kind string) (cluster, prefixed bool) {
	group, _, ok := strings.Cut(apiVersion, "/")
	if !ok {
		group = ""
	}
	prefixed, cluster = clusterScoped[group+"/"+kind]
	if apiVersion == "" && !cluster {
		prefixed, cluster = clusterScoped["rbac.authorization.k8s.io/"+kind]
	}
	return cluster, prefixed
}

// reference translates a reference to any object; false if it leads to another world.
func (o *oracle) reference(apiVersion *string, kind string, name, namespace *string) bool {
	_, prefixed := scopeOfKind(*apiVersion, kind)
	ok := true
	if *apiVersion, ok = o.groupVersion(*apiVersion); !ok {
		return false
	}
	if *name != "" && prefixed {
		switch {
		case o.exported(kind, *name):
		case o.control && kind == "Namespace":
			o.ns(name)
		case o.control:
			*name = oraclePrefix + *name
		default:
			if *name, ok = cut(*name); !ok {
				return false
			}
		}
	}
	if *namespace != "" {
		o.ns(namespace)
		return *namespace != ""
	}
	return true
}

func reserved(key string) bool {
	domain, _, ok := strings.Cut(key, "/")
	return ok && (domain == "vivarium.io" || strings.HasSuffix(domain, ".vivarium.io"))
}

// keys translates labels or annotations.
func (o *oracle) keys(m map[string]string, podKeys, namespaceLabels, clusterRole, classes bool) {
	o.keysWith(m, podKeys, namespaceLabels, clusterRole, classes, false)
}

// tenants are the network keys that a tenant in a VPC may set where networks says so.
var tenants = map[string]bool{"network.vivarium.io/subnets": true, "network.vivarium.io/ip": true, "network.vivarium.io/security-groups": true, "network.vivarium.io/bandwidth": true}

func (o *oracle) keysWith(m map[string]string, podKeys, namespaceLabels, clusterRole, classes, networks bool) {
	for key, value := range maps.Clone(m) {
		protected := strings.HasPrefix(key, "scheduler.alpha.kubernetes.io/")
		to := key
		switch {
		case namespaceLabels && o.control && key == "pod-security.kubernetes.io/enforce":
			// Never weaker than the platform's own level; what the tenant wrote is kept beside it.
			if value != "privileged" && value != "baseline" && value != "restricted" {
				o.refuse("level " + value)
			}
			to = "pod-security.vivarium.io/enforce"
		case namespaceLabels && !o.control && key == "pod-security.vivarium.io/enforce":
			to = "pod-security.kubernetes.io/enforce"
		case namespaceLabels && !o.control && key == "pod-security.kubernetes.io/enforce-version":
			to = ""
		case namespaceLabels && !o.control && key == "pod-security.kubernetes.io/enforce":
			to = ""
			if _, ok := m["pod-security.vivarium.io/enforce"]; ok {
				continue
			}
		case !o.control && clusterRole && strings.HasPrefix(key, "rbac.authorization.k8s.io/aggregate-to-"):
			// Only the platform's key is the tenant's doing.
			to = ""
			if _, ok := m["rbac.vivarium.io/aggregate-to-"+strings.TrimPrefix(key, "rbac.authorization.k8s.io/aggregate-to-")]; ok {
				continue
			}
		case networks && tenants[key]:
			if o.control && (netkeys.Check(key, value) != nil || o.gvk.Kind == "Namespace" && key == "network.vivarium.io/ip") {
				o.refuse("value of " + key)
			}
		case o.control && reserved(key):
			o.refuse("key " + key)
		case o.control && protected && (namespaceLabels || podKeys && o.gvk.Kind == "Namespace"):
			o.refuse("key " + key)
		case o.control && (podKeys || namespaceLabels) && netkeys.Forbidden(key):
			o.refuse("key " + key)
		case o.control && clusterRole:
			if rest, ok := strings.CutPrefix(key, "rbac.authorization.k8s.io/aggregate-to-"); ok {
				to = "rbac.vivarium.io/aggregate-to-" + rest
			}
		case !o.control && clusterRole && strings.HasPrefix(key, "rbac.vivarium.io/aggregate-to-"):
			to = "rbac.authorization.k8s.io/aggregate-to-" + strings.TrimPrefix(key, "rbac.vivarium.io/aggregate-to-")
		case !o.control && (reserved(key) || namespaceLabels && protected):
			to = ""
		}
		if namespaceLabels && key == "kubernetes.io/metadata.name" {
			o.ns(&value)
		}
		if classes && key == "volume.beta.kubernetes.io/storage-class" {
			o.class("StorageClass", &value)
		}
		if classes && key == "kubernetes.io/ingress.class" {
			o.class("IngressClass", &value)
		}
		if to != key {
			delete(m, key)
		}
		if to != "" {
			m[to] = value
		}
	}
}

func (o *oracle) metadata(m *metav1.ObjectMeta, of string) {
	pod := of == "Pod" || of == "Service" || of == "PodTemplateSpec"
	o.keys(m.Labels, pod, of == "Namespace", of == "ClusterRole", false)
	o.keysWith(m.Annotations, pod || of == "Namespace", false, false, of == "Ingress" || of == "PersistentVolumeClaim", pod && of != "Service" || of == "Namespace")
	kept := m.OwnerReferences[:0]
	for _, r := range m.OwnerReferences {
		none := ""
		if o.reference(&r.APIVersion, r.Kind, &r.Name, &none) || o.control {
			kept = append(kept, r)
		}
	}
	m.OwnerReferences = kept
	for i := range m.ManagedFields {
		f := &m.ManagedFields[i]
		f.APIVersion, _ = o.groupVersion(f.APIVersion)
		if f.FieldsV1 == nil || len(f.FieldsV1.Raw) == 0 {
			continue
		}
		var fields map[string]any
		if json.Unmarshal(f.FieldsV1.Raw, &fields) != nil {
			// No object.
			continue
		}
		o.fields(fields)
		f.FieldsV1.Raw, _ = json.Marshal(fields)
	}
}

// fields translates the record of who owns which field.
func (o *oracle) fields(m map[string]any) {
	for key, value := range maps.Clone(m) {
		to, drop := key, false
		if name, ok := strings.CutPrefix(key, "f:"); ok {
			const tenantForm, controlForm = "rbac.authorization.k8s.io/aggregate-to-", "rbac.vivarium.io/aggregate-to-"
			protected := name == "pod-security.kubernetes.io/enforce" || strings.HasPrefix(name, "scheduler.alpha.kubernetes.io/")
			switch {
			case !o.control && o.gvk.Kind == "Namespace" && name == "pod-security.vivarium.io/enforce":
				to = "f:pod-security.kubernetes.io/enforce"
			case !o.control && strings.HasPrefix(name, controlForm):
				to = "f:" + tenantForm + strings.TrimPrefix(name, controlForm)
			case reserved(name) && !tenants[name], !o.control && o.gvk.Kind == "Namespace" && protected:
				drop = true
			case o.control && o.gvk.Kind == "ClusterRole" && strings.HasPrefix(name, tenantForm):
				to = "f:" + controlForm + strings.TrimPrefix(name, tenantForm)
			case o.gvk.Kind == "Namespace" && o.control && name == "pod-security.kubernetes.io/enforce":
				to = "f:pod-security.vivarium.io/enforce"
			case o.gvk.Kind == "ResourceQuota":
				key, ok := o.quotaKey(name)
				to, drop = "f:"+key, !ok
			}
		}
		if inner, ok := value.(map[string]any); ok {
			o.fields(inner)
		}
		if drop || to != key {
			delete(m, key)
		}
		if !drop {
			m[to] = value
		}
	}
}

// class translates the name of a class.
func (o *oracle) class(kind string, s *string) {
	if *s == "" || o.exported(kind, *s) {
		return
	}
	if o.control {
		*s = oraclePrefix + *s
		return
	}
	if own, ok := cut(*s); ok {
		*s = own
	} else if len(*s) > 7 && (*s)[6] == '-' && isSix((*s)[:6]) {
		// Could be another tenant's.
		*s = ""
	}
}

func isSix(s string) bool {
	return len(s) == 6 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// text takes the prefix out of prose, or puts a second one where the tenant wrote it itself.
func (o *oracle) text(s *string) {
	var out strings.Builder
	rest, before := *s, byte(' ')
	for rest != "" {
		if strings.HasPrefix(rest, oraclePrefix) && !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", rune(before)) && before < 0x80 &&
			(!strings.Contains(o.name, oraclePrefix) || !strings.HasPrefix(rest, o.name)) {
			if o.control {
				out.WriteString(oraclePrefix + oraclePrefix)
			}
			rest, before = rest[len(oraclePrefix):], '-'
			continue
		}
		out.WriteByte(rest[0])
		rest, before = rest[1:], rest[0]
	}
	*s = out.String()
}

func (o *oracle) principal(s, marker string) (string, bool) {
	rest, account := strings.CutPrefix(s, marker)
	switch {
	case o.control && account && rest != "":
		return marker + oraclePrefix + rest, true
	case o.control:
		return oraclePrefix + s, true
	case account:
		own, ok := cut(rest)
		return marker + own, ok
	}
	return cut(s)
}

func (o *oracle) user(s string) (string, bool) { return o.principal(s, "system:serviceaccount:") }
func (o *oracle) userGroup(s string) (string, bool) {
	return o.principal(s, "system:serviceaccounts:")
}

// quotaKey translates the name of a quota's resource.
func (o *oracle) quotaKey(key string) (string, bool) {
	for middle, kind := range map[string]string{".storageclass.storage.k8s.io/": "StorageClass", ".volumeattributesclass.storage.k8s.io/": "VolumeAttributesClass"} {
		if at := strings.Index(key, middle); at > 0 {
			class := key[:at]
			if own, ok := cut(class); !o.control && !ok && !o.exported(kind, class) {
				return own, false
			}
			o.class(kind, &class)
			return class + key[at:], true
		}
	}
	resource, group, ok := strings.Cut(strings.TrimPrefix(key, "count/"), ".")
	if !strings.HasPrefix(key, "count/") || !ok || group == "" {
		return key, true
	}
	group, ok = o.group(group)
	return "count/" + resource + "." + group, ok
}

// visit walks everything below an object. root is the object's own metadata, which is done.
func (o *oracle) visit(v reflect.Value, root *metav1.ObjectMeta) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			o.visit(v.Elem(), root)
		}
	case reflect.Slice:
		for i := range v.Len() {
			o.visit(v.Index(i), root)
		}
	case reflect.Struct:
		if o.known(v, root) {
			return
		}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if !f.IsExported() {
				continue
			}
			// Prose has telling names.
			if f.Type.Kind() == reflect.String && isProse(v.Type(), f.Name) {
				s := v.Field(i).String()
				o.text(&s)
				v.Field(i).SetString(s)
				continue
			}
			if f.Type == reflect.TypeFor[*string]() && isProse(v.Type(), f.Name) && !v.Field(i).IsNil() {
				o.text(v.Field(i).Interface().(*string))
				continue
			}
			o.visit(v.Field(i), root)
		}
	}
}

func isProse(t reflect.Type, field string) bool {
	switch field {
	case "Message", "Note", "EvaluationError":
		// What a policy says is its author's word.
		return t != reflect.TypeFor[admissionregistrationv1.Validation]()
	case "Warning":
		return t == reflect.TypeFor[admissionregistrationv1.ExpressionWarning]()
	case "Reason":
		return t == reflect.TypeFor[authorizationv1.SubjectAccessReviewStatus]()
	case "Error":
		return t != reflect.TypeFor[authenticationv1.TokenReviewStatus]()
	}
	return false
}

// optional is a pointer to a string that may not be there.
func optional(s *string) *string {
	if s == nil {
		return new(string)
	}
	return s
}

// known translates what is more than its fields; true if nothing is left to visit.
func (o *oracle) known(v reflect.Value, root *metav1.ObjectMeta) bool {
	if !v.CanAddr() {
		return false
	}
	switch x := v.Addr().Interface().(type) {
	case *metav1.ObjectMeta:
		if x != root {
			o.embedded(x, "")
		}
		return true
	case *corev1.PodTemplateSpec:
		o.metadata(&x.ObjectMeta, "PodTemplateSpec")
		o.ns(&x.Namespace)
		o.visit(reflect.ValueOf(&x.Spec).Elem(), root)
		return true
	case *corev1.PersistentVolumeClaim:
		if &x.ObjectMeta != root {
			o.embedded(&x.ObjectMeta, "PersistentVolumeClaim")
			o.visit(reflect.ValueOf(&x.Spec).Elem(), root)
			o.visit(reflect.ValueOf(&x.Status).Elem(), root)
			return true
		}
	case *corev1.PersistentVolumeClaimTemplate:
		o.embedded(&x.ObjectMeta, "PersistentVolumeClaim")
		o.visit(reflect.ValueOf(&x.Spec).Elem(), root)
		return true
	case *corev1.PodSpec:
		if o.control {
			if x.NodeName != "" && (o.gvk.Kind != "Pod" || o.create) {
				o.refuse("nodeName")
			}
			if x.SchedulerName != "" && x.SchedulerName != "default-scheduler" {
				o.refuse("schedulerName")
			}
			if strings.HasPrefix(x.PriorityClassName, "system-") {
				o.refuse("priorityClassName")
			}
		}
		o.class("PriorityClass", &x.PriorityClassName)
		o.class("RuntimeClass", optional(x.RuntimeClassName))
	case *corev1.ServiceAccountTokenProjection:
		if o.control && x.Audience == "https://kubernetes.default.svc" {
			o.refuse("audience")
		}
	case *corev1.PodAffinityTerm:
		for i := range x.Namespaces {
			o.ns(&x.Namespaces[i])
		}
		o.selector(x.NamespaceSelector)
	case *networkingv1.NetworkPolicyPeer:
		o.selector(x.NamespaceSelector)
	case *corev1.PersistentVolumeClaimSpec:
		o.class("StorageClass", optional(x.StorageClassName))
		o.class("VolumeAttributesClass", optional(x.VolumeAttributesClassName))
	case *corev1.PersistentVolumeClaimStatus:
		o.class("VolumeAttributesClass", optional(x.CurrentVolumeAttributesClassName))
	case *corev1.ModifyVolumeStatus:
		o.class("VolumeAttributesClass", &x.TargetVolumeAttributesClassName)
	case *networkingv1.IngressSpec:
		o.class("IngressClass", optional(x.IngressClassName))
	case *corev1.TypedLocalObjectReference:
		o.groupField(optional(x.APIGroup))
	case *corev1.TypedObjectReference:
		o.groupField(optional(x.APIGroup))
		o.ns(optional(x.Namespace))
	case *networkingv1.IngressClassParametersReference:
		o.groupField(optional(x.APIGroup))
		o.ns(optional(x.Namespace))
	case *corev1.StorageOSVolumeSource:
		o.ns(&x.VolumeNamespace)
	case *autoscalingv1.CrossVersionObjectReference:
		x.APIVersion, _ = o.groupVersionField(x.APIVersion)
	case *autoscalingv2.CrossVersionObjectReference:
		x.APIVersion, _ = o.groupVersionField(x.APIVersion)
	case *corev1.ObjectReference:
		if !o.reference(&x.APIVersion, x.Kind, &x.Name, &x.Namespace) && !o.control {
			*x = corev1.ObjectReference{}
		}
	case *corev1.Event:
		o.about(&x.InvolvedObject)
		o.visit(reflect.ValueOf(&x.Related).Elem(), root)
		o.text(&x.Message)
		return true
	case *eventsv1.Event:
		o.about(&x.Regarding)
		o.visit(reflect.ValueOf(&x.Related).Elem(), root)
		o.text(&x.Note)
		return true
	case *corev1.Secret:
		if o.control && x.Type == corev1.SecretTypeServiceAccountToken {
			o.refuse("token secret")
		}
	case *corev1.ConfigMap:
		if !o.control && x.Name == "kube-root-ca.crt" && len(x.Data) > 0 {
			x.Data["ca.crt"] = "GATEWAY CA\n"
		}
	case *corev1.ServiceSpec:
		if o.control && len(x.ExternalIPs) > 0 {
			o.refuse("externalIPs")
		}
	case *corev1.ResourceQuotaSpec:
		o.quota(x.Hard)
	case *corev1.ResourceQuotaStatus:
		o.quota(x.Hard)
		o.quota(x.Used)
	case *corev1.ScopedResourceSelectorRequirement:
		if kind := string(x.ScopeName); kind == "PriorityClass" || kind == "VolumeAttributesClass" {
			for i := range x.Values {
				o.class(kind, &x.Values[i])
			}
		}
	default:
		return o.knownRights(x)
	}
	return false
}

// embedded translates the metadata of a template.
func (o *oracle) embedded(m *metav1.ObjectMeta, of string) {
	o.ns(&m.Namespace)
	o.metadata(m, of)
}

func (o *oracle) groupField(s *string) {
	if *s != "" {
		*s, _ = o.group(*s)
	}
}

func (o *oracle) groupVersionField(s string) (string, bool) {
	if s == "" {
		return "", true
	}
	gv, ok := o.groupVersion(s)
	return gv, ok
}

func (o *oracle) quota(m corev1.ResourceList) {
	was := maps.Clone(m)
	clear(m)
	for key, value := range was {
		if to, ok := o.quotaKey(string(key)); ok {
			m[corev1.ResourceName(to)] = value
		}
	}
}

// about translates what an Event is about: cluster-scoped objects live in the Event's namespace over there.
func (o *oracle) about(r *corev1.ObjectReference) {
	cluster, _ := scopeOfKind(r.APIVersion, r.Kind)
	if o.control && r.Namespace == "" {
		r.Namespace = o.namespace
	}
	if !o.reference(&r.APIVersion, r.Kind, &r.Name, &r.Namespace) && !o.control {
		*r = corev1.ObjectReference{}
	}
	if !o.control && cluster {
		r.Namespace = ""
	}
}

// selector keeps a selector over namespaces to those of the tenant.
func (o *oracle) selector(s *metav1.LabelSelector) {
	if s == nil {
		return
	}
	hidden := func(key string) bool {
		if o.control && (reserved(key) || strings.HasPrefix(key, "scheduler.alpha.kubernetes.io/")) {
			o.refuse("selector key " + key)
		}
		return !o.control && (reserved(key) && key != "pod-security.vivarium.io/enforce" || key == "pod-security.kubernetes.io/enforce")
	}
	// Which level a namespace asks for is kept under a key of the platform's.
	level := func(key string) string {
		switch {
		case o.control && key == "pod-security.kubernetes.io/enforce":
			return "pod-security.vivarium.io/enforce"
		case !o.control && key == "pod-security.vivarium.io/enforce":
			return "pod-security.kubernetes.io/enforce"
		}
		return key
	}
	for key, value := range maps.Clone(s.MatchLabels) {
		if hidden(key) {
			delete(s.MatchLabels, key)
		} else if to := level(key); to != key {
			delete(s.MatchLabels, key)
			s.MatchLabels[to] = value
		} else if key == "kubernetes.io/metadata.name" {
			o.ns(&value)
			s.MatchLabels[key] = value
		}
	}
	s.MatchExpressions = slices.DeleteFunc(s.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool { return hidden(r.Key) })
	for i := range s.MatchExpressions {
		r := &s.MatchExpressions[i]
		r.Key = level(r.Key)
		if r.Key != "kubernetes.io/metadata.name" {
			continue
		}
		for j := range r.Values {
			o.ns(&r.Values[j])
		}
		if !o.control {
			r.Values = slices.DeleteFunc(r.Values, func(s string) bool { return s == "" })
		}
	}
	if o.control {
		if s.MatchLabels == nil {
			s.MatchLabels = map[string]string{}
		}
		s.MatchLabels["vivarium.io/tenant"] = oracleID
	}
}
