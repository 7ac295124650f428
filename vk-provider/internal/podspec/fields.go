package podspec

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/netkeys"
)

// The downward API below would show the pool pod. Where that differs from the control pod in its tenant's words:
//   - an environment variable becomes a literal, for nothing it may name changes while the pod lives;
//   - a file becomes a reference to an annotation of ours that carries the text, so that it still follows changes.

// fieldPrefix starts the annotations that carry text for the downward API.
const fieldPrefix = names.Domain + "/field."

// envField gives the literal for a field in an environment variable; rewrite is non-nil when the reference stays one.
func (t *translator) envField(path string) (literal string, rewrite *string) {
	switch path {
	case "metadata.namespace":
		return string(t.at.Namespace), nil
	case "metadata.uid":
		return string(t.control.UID), nil
	case "spec.nodeName":
		return t.at.Node.Name, nil
	case "spec.serviceAccountName":
		return t.control.Spec.ServiceAccountName, nil
	case "status.hostIP":
		if len(t.at.Node.Addresses) > 0 {
			return t.at.Node.Addresses[0], nil
		}
		return "", nil
	case "status.hostIPs":
		return strings.Join(t.at.Node.Addresses, ","), nil
	case "status.podIP", "status.podIPs":
		if vpc := t.at.VPC; vpc != nil && vpc.Hidden && len(vpc.IPs) > 0 {
			if path == "status.podIP" {
				return vpc.IPs[0], nil
			}
			return strings.Join(vpc.IPs, ","), nil
		}
		return "", &path
	case "metadata.name":
		return "", &path
	}
	below := t.mapField(path)
	return "", &below
}

// fileField gives the path to refer to from a file.
func (t *translator) fileField(path string) string {
	switch path {
	case "metadata.name":
		return path
	case "metadata.namespace":
		return t.carry("namespace", string(t.at.Namespace))
	case "metadata.uid":
		return t.carry("uid", string(t.control.UID))
	case "metadata.labels":
		return t.carry("labels", formatMap(t.control.Labels))
	case "metadata.annotations":
		return t.carry("annotations", formatMap(t.control.Annotations))
	}
	return t.mapField(path)
}

// mapField gives the path for one label or annotation: its own where the key crosses, else an annotation that carries
// its value. Any other path is one that we do not know.
func (t *translator) mapField(path string) string {
	field, key, ok := subscript(path)
	switch {
	case ok && field == "metadata.labels":
		if labelCrosses(key) {
			return path
		}
		return t.carry("label-"+digest(key), visible(t.control.Labels, key))
	case ok && field == "metadata.annotations":
		if annotationCrosses(key) {
			return path
		}
		return t.carry("annotation-"+digest(key), visible(t.control.Annotations, key))
	}
	t.refuse("the downward API field %q is not supported", path)
	return path
}

func (t *translator) carry(name, text string) string {
	t.fields[fieldPrefix+name] = text
	return "metadata.annotations['" + fieldPrefix + name + "']"
}

// subscript splits "metadata.labels['key']".
func subscript(path string) (field, key string, ok bool) {
	field, rest, ok := strings.Cut(path, "['")
	if !ok {
		return "", "", false
	}
	key, ok = strings.CutSuffix(rest, "']")
	return field, key, ok
}

// visible reads a key of a map as its tenant does: the platform's keys are not there.
func visible(m map[string]string, key string) string {
	if hidden(key) {
		return ""
	}
	return m[key]
}

// formatMap spells a map as the kubelet's downward API does: a sorted line of key="value" each.
func formatMap(m map[string]string) string {
	var lines []string
	for key, value := range m {
		if !hidden(key) {
			lines = append(lines, key+"="+strconv.Quote(value))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// hidden reports whether a key is none of the tenant's affairs: the platform's, but for the network keys that tenants set.
func hidden(key string) bool { return names.Reserved(key) && !netkeys.OfTenant(key) }

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}

// env gives a container's environment. Ours comes first: a later entry wins, and $(VAR) sees only earlier ones. The
// kubelet adds the addresses of the pool's own API to every container, whatever enableServiceLinks says, unless the
// variables are there already; so all of them are.
func (t *translator) env(container *corev1.Container) []corev1.EnvVar {
	in := container.Env
	taken := map[string]bool{}
	for i := range in {
		taken[in[i].Name] = true
	}
	var out []corev1.EnvVar
	for _, e := range append(t.links(container), t.apiEnv()...) {
		if !taken[e.Name] {
			out = append(out, e)
		}
	}
	for _, e := range in {
		out = append(out, t.envVar(e))
	}
	return out
}

func (t *translator) apiEnv() []corev1.EnvVar {
	host, port := t.at.Gateway.Host, t.at.Gateway.Port
	bracketed := host
	if strings.Contains(host, ":") {
		bracketed = "[" + host + "]"
	}
	url := "tcp://" + bracketed + ":" + port
	return []corev1.EnvVar{
		{Name: "KUBERNETES_SERVICE_HOST", Value: host},
		{Name: "KUBERNETES_SERVICE_PORT", Value: port},
		{Name: "KUBERNETES_SERVICE_PORT_HTTPS", Value: port},
		{Name: "KUBERNETES_PORT", Value: url},
		{Name: "KUBERNETES_PORT_443_TCP", Value: url},
		{Name: "KUBERNETES_PORT_443_TCP_PROTO", Value: "tcp"},
		{Name: "KUBERNETES_PORT_443_TCP_PORT", Value: port},
		{Name: "KUBERNETES_PORT_443_TCP_ADDR", Value: host},
	}
}

func (t *translator) envVar(in corev1.EnvVar) corev1.EnvVar {
	out := corev1.EnvVar{Name: in.Name, Value: in.Value}
	from := in.ValueFrom
	if from == nil {
		return out
	}
	to := &corev1.EnvVarSource{
		ResourceFieldRef: from.ResourceFieldRef,
		SecretKeyRef:     from.SecretKeyRef,
		FileKeyRef:       from.FileKeyRef,
	}
	if to.SecretKeyRef != nil {
		t.checkSecret(to.SecretKeyRef.Name)
	}
	if ref := from.ConfigMapKeyRef; ref != nil {
		ref.Name = t.configMap(ref.Name)
		to.ConfigMapKeyRef = ref
	}
	if ref := from.FieldRef; ref != nil {
		literal, path := t.envField(ref.FieldPath)
		if path == nil {
			return corev1.EnvVar{Name: in.Name, Value: literal}
		}
		to.FieldRef = &corev1.ObjectFieldSelector{APIVersion: ref.APIVersion, FieldPath: *path}
	}
	out.ValueFrom = to
	return out
}

func (t *translator) envFrom(in []corev1.EnvFromSource) []corev1.EnvFromSource {
	var out []corev1.EnvFromSource
	for _, e := range in {
		to := corev1.EnvFromSource{Prefix: e.Prefix, ConfigMapRef: e.ConfigMapRef, SecretRef: e.SecretRef}
		if to.ConfigMapRef != nil {
			to.ConfigMapRef.Name = t.configMap(to.ConfigMapRef.Name)
		}
		if to.SecretRef != nil {
			t.checkSecret(to.SecretRef.Name)
		}
		out = append(out, to)
	}
	return out
}
