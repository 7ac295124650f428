package podspec

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Service is what a pod is told about a Service of its namespace.
type Service struct {
	Name, ClusterIP string
	Ports           []corev1.ServicePort
}

// maxLinks is for how many Services pods get variables. A pod's spec has to hold them here; a kubelet adds them where no
// limit applies.
const maxLinks = 100

// apiService is the name of the Service that stands for the API. Its variables are the gateway's.
const apiService = "kubernetes"

// links gives the variables that a kubelet makes of the Services that there are when a pod is made. A kubelet lets envFrom
// win over them, and that cannot be said in a pod; so a container with envFrom gets none.
func (t *translator) links(in *corev1.Container) []corev1.EnvVar {
	if want := t.control.Spec.EnableServiceLinks; want != nil && !*want || len(in.EnvFrom) > 0 || len(t.at.Services) > maxLinks {
		return nil
	}
	services := slices.SortedFunc(slices.Values(t.at.Services), func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
	var out []corev1.EnvVar
	for _, s := range services {
		if s.ClusterIP != "" && s.ClusterIP != corev1.ClusterIPNone && s.Name != apiService && len(s.Ports) > 0 {
			out = append(out, link(s)...)
		}
	}
	return out
}

// link spells one Service as a kubelet does.
func link(s Service) []corev1.EnvVar {
	name := variable(s.Name)
	out := []corev1.EnvVar{
		{Name: name + "_SERVICE_HOST", Value: s.ClusterIP},
		{Name: name + "_SERVICE_PORT", Value: strconv.Itoa(int(s.Ports[0].Port))},
	}
	for _, p := range s.Ports {
		if p.Name != "" {
			out = append(out, corev1.EnvVar{Name: name + "_SERVICE_PORT_" + variable(p.Name), Value: strconv.Itoa(int(p.Port))})
		}
	}
	for i, p := range s.Ports {
		protocol, port := string(cmp.Or(p.Protocol, corev1.ProtocolTCP)), strconv.Itoa(int(p.Port))
		url := strings.ToLower(protocol) + "://" + net.JoinHostPort(s.ClusterIP, port)
		if i == 0 {
			out = append(out, corev1.EnvVar{Name: name + "_PORT", Value: url})
		}
		prefix := name + "_PORT_" + port + "_" + strings.ToUpper(protocol)
		out = append(out,
			corev1.EnvVar{Name: prefix, Value: url},
			corev1.EnvVar{Name: prefix + "_PROTO", Value: strings.ToLower(protocol)},
			corev1.EnvVar{Name: prefix + "_PORT", Value: port},
			corev1.EnvVar{Name: prefix + "_ADDR", Value: s.ClusterIP},
		)
	}
	return out
}

func variable(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }
