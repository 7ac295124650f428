// Package services turns the Services of one tenant and their EndpointSlices into what drivers lead pods by: values that need
// nothing looked up. What they mean is what upstream Kubernetes says that they mean to kube-proxy and to a cluster's DNS, with
// every node and zone alike: internalTrafficPolicy, trafficDistribution and hints are of no matter.
//
// It is pure: objects in, values out. It must never look beyond the namespaces of the tenant that it is asked about, and never
// lead to a pod's own machine or to the platform's addresses, whatever a hand-made EndpointSlice says. Start at [Compile].
package services

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/ranges"
	"vivarium.io/vivarium/network"
)

const (
	// labelProxy is on a Service that another proxy than the cluster's leads to.
	labelProxy = "service.kubernetes.io/service-proxy-name"
	// apiNamespace and apiName are of the Service that stands for the tenant's API.
	apiNamespace, apiName = "default", "kubernetes"
	// most is how many places one Service leads to in a family, its ports taken together: a hand-made EndpointSlice can say a
	// hundred times more than it is long, and every node of the VPC would keep that.
	most = 10_000
)

// Compile gives a tenant's Services, from those that there are in the control cluster and their EndpointSlices. What is not the
// tenant's is left out, and so is what nobody can lead to: Services that have no address yet, and of two with one address
// and port the latter. The result is in an order that depends on nothing but what is in it.
func Compile(tenant names.TenantID, objects []*corev1.Service, parts []*discoveryv1.EndpointSlice) []network.Service {
	type key struct{ namespace, name string }
	of := map[key][]*discoveryv1.EndpointSlice{}
	for _, part := range slices.SortedFunc(slices.Values(parts), func(a, b *discoveryv1.EndpointSlice) int { return strings.Compare(a.Name, b.Name) }) {
		k := key{part.Namespace, part.Labels[discoveryv1.LabelServiceName]}
		of[k] = append(of[k], part)
	}
	objects = slices.SortedFunc(slices.Values(objects), func(a, b *corev1.Service) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	var out []network.Service
	taken := map[address]bool{}
	for _, object := range objects {
		namespace, err := tenant.NamespaceToTenant(names.ControlNamespace(object.Namespace))
		if err != nil {
			continue
		}
		s, ok := compile(string(namespace), object, of[key{object.Namespace, object.Name}])
		if !ok {
			continue
		}
		s.Ports = slices.DeleteFunc(s.Ports, func(p network.ServicePort) bool {
			var twice bool
			for _, ip := range s.IPs {
				at := address{netip.AddrPortFrom(ip, p.Port), p.Protocol}
				twice, taken[at] = twice || taken[at], true
			}
			return twice
		})
		if s.Validate() == nil {
			out = append(out, s)
		}
	}
	return out
}

// address is where a Service can be asked.
type address struct {
	at       netip.AddrPort
	protocol string
}

// compile gives one Service; false while it has no address and needs one.
func compile(namespace string, o *corev1.Service, parts []*discoveryv1.EndpointSlice) (network.Service, bool) {
	s := network.Service{Namespace: namespace, Name: o.Name}
	if o.Spec.Type == corev1.ServiceTypeExternalName {
		s.External = strings.TrimSuffix(o.Spec.ExternalName, ".")
		return s, s.External != ""
	}
	var headless bool
	for _, text := range addresses(&o.Spec) {
		ip, err := netip.ParseAddr(text)
		switch {
		case text == corev1.ClusterIPNone:
			headless = true
		case err == nil:
			s.IPs = append(s.IPs, ip)
		}
	}
	if !headless && len(s.IPs) == 0 {
		return s, false
	}
	isAPI := namespace == apiNamespace && o.Name == apiName
	if isAPI {
		parts = nil
	}
	if o.Spec.SessionAffinity == corev1.ServiceAffinityClientIP && !headless {
		s.Sticky = time.Duration(corev1.DefaultClientIPServiceAffinitySeconds) * time.Second
		if c := o.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			s.Sticky = time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
		}
	}
	_, another := o.Labels[labelProxy]
	_, unled := o.Labels[corev1.IsHeadlessService]
	for _, p := range o.Spec.Ports {
		port := network.ServicePort{Name: p.Name, Protocol: string(cmp.Or(p.Protocol, corev1.ProtocolTCP)), Port: uint16(p.Port)}
		for _, ip := range s.IPs {
			switch {
			case another || unled:
			case isAPI && port.Protocol == string(corev1.ProtocolTCP):
				port.Backends = append(port.Backends, api(ip))
			default:
				port.Backends = append(port.Backends, backends(o, &port, ip.Is4(), parts)...)
			}
		}
		slices.SortFunc(port.Backends, netip.AddrPort.Compare)
		s.Ports = append(s.Ports, port)
	}
	if headless {
		s.Hosts = hosts(o, slices.DeleteFunc(slices.Clone(s.Ports), func(p network.ServicePort) bool { return p.Name == "" }), parts)
	}
	return s, true
}

func addresses(spec *corev1.ServiceSpec) []string {
	if len(spec.ClusterIPs) > 0 {
		return spec.ClusterIPs
	}
	return []string{spec.ClusterIP}
}

// api is where the tenant's API is found in its VPC, in the family of a Service's address.
func api(ip netip.Addr) netip.AddrPort {
	if ip.Is4() {
		return netip.AddrPortFrom(netip.MustParseAddr(network.APIAddress), network.APIPort)
	}
	return netip.AddrPortFrom(netip.MustParseAddr(network.APIAddress6), network.APIPort)
}

// backends gives where a port leads in one family: what is ready, or, while nothing is, what still serves until it ends. Of
// more than there may be it is the first, by the names of slices.
func backends(o *corev1.Service, port *network.ServicePort, four bool, parts []*discoveryv1.EndpointSlice) []netip.AddrPort {
	readies, last := map[netip.AddrPort]bool{}, map[netip.AddrPort]bool{}
	add := func(to map[netip.AddrPort]bool, at netip.AddrPort) {
		if len(to) < most/len(o.Spec.Ports) {
			to[at] = true
		}
	}
	for _, part := range parts {
		for _, number := range numbers(part, port) {
			for i := range part.Endpoints {
				e := &part.Endpoints[i]
				ip, ok := reached(part, e)
				switch at := netip.AddrPortFrom(ip, number); {
				case !ok || ip.Is4() != four:
				case ready(o, e):
					add(readies, at)
				case serves(e) && ends(e):
					add(last, at)
				}
			}
		}
	}
	if len(readies) == 0 {
		readies = last
	}
	return slices.Collect(maps.Keys(readies))
}

// numbers gives what a Service's port is at the endpoints of a slice. One without a number says all ports, and is for others
// than Services.
func numbers(part *discoveryv1.EndpointSlice, port *network.ServicePort) []uint16 {
	var list []uint16
	for i := range part.Ports {
		p := &part.Ports[i]
		if p.Port != nil && 0 < *p.Port && *p.Port <= 65535 && ptr.Deref(p.Name, "") == port.Name && string(ptr.Deref(p.Protocol, corev1.ProtocolTCP)) == port.Protocol {
			list = append(list, uint16(*p.Port))
		}
	}
	return list
}

// reached gives the address of an endpoint, the first as upstream has it; false for one that may not be led to. It is the
// asking pod's own packets that go there, so that what is not in the VPC is for its walls to judge. But some addresses mean
// another thing in a pod than to whoever wrote them down, or are the platform's in every VPC.
func reached(part *discoveryv1.EndpointSlice, e *discoveryv1.Endpoint) (netip.Addr, bool) {
	if len(e.Addresses) == 0 {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(e.Addresses[0])
	if err != nil || !ip.IsGlobalUnicast() || ip.Is4In6() || ip.Zone() != "" {
		return netip.Addr{}, false
	}
	want := discoveryv1.AddressTypeIPv6
	if ip.Is4() {
		want = discoveryv1.AddressTypeIPv4
	}
	ours := slices.ContainsFunc(ranges.Platform, func(p netip.Prefix) bool { return p.Contains(ip) })
	return ip, part.AddressType == want && (!ours || ip == api(ip).Addr())
}

// ready says whether an endpoint is to be asked. Who does not say is.
func ready(o *corev1.Service, e *discoveryv1.Endpoint) bool {
	return o.Spec.PublishNotReadyAddresses || e.Conditions.Ready == nil || *e.Conditions.Ready
}

func serves(e *discoveryv1.Endpoint) bool {
	return e.Conditions.Serving == nil || *e.Conditions.Serving
}

func ends(e *discoveryv1.Endpoint) bool {
	return e.Conditions.Terminating != nil && *e.Conditions.Terminating
}

// hosts gives what a headless Service's name stands for: what is ready, with its named ports.
func hosts(o *corev1.Service, ports []network.ServicePort, parts []*discoveryv1.EndpointSlice) []network.ServiceHost {
	type key struct {
		ip   netip.Addr
		name string
	}
	found := map[key]map[network.NamedPort]bool{}
	for _, part := range parts {
		for i := range part.Endpoints {
			e := &part.Endpoints[i]
			ip, ok := reached(part, e)
			if !ok || !ready(o, e) {
				continue
			}
			k := key{ip, ptr.Deref(e.Hostname, "")}
			if found[k] == nil {
				if len(found) >= most/(1+len(o.Spec.Ports)) {
					continue
				}
				found[k] = map[network.NamedPort]bool{}
			}
			for _, port := range ports {
				for _, number := range numbers(part, &port) {
					found[k][network.NamedPort{Name: port.Name, Protocol: port.Protocol, Port: number}] = true
				}
			}
		}
	}
	var list []network.ServiceHost
	for k, ports := range found {
		list = append(list, network.ServiceHost{Name: k.name, IP: k.ip, Ports: slices.SortedFunc(maps.Keys(ports), func(a, b network.NamedPort) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
		})})
	}
	slices.SortFunc(list, func(a, b network.ServiceHost) int { return cmp.Or(a.IP.Compare(b.IP), strings.Compare(a.Name, b.Name)) })
	return list
}

// TrimService gives of a Service what [Compile] looks at.
func TrimService(o *corev1.Service) *corev1.Service {
	small := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion},
		Spec: corev1.ServiceSpec{
			Type: o.Spec.Type, ClusterIP: o.Spec.ClusterIP, ClusterIPs: o.Spec.ClusterIPs, ExternalName: o.Spec.ExternalName,
			PublishNotReadyAddresses: o.Spec.PublishNotReadyAddresses,
			SessionAffinity:          o.Spec.SessionAffinity, SessionAffinityConfig: o.Spec.SessionAffinityConfig,
		},
	}
	for _, p := range o.Spec.Ports {
		small.Spec.Ports = append(small.Spec.Ports, corev1.ServicePort{Name: p.Name, Protocol: p.Protocol, Port: p.Port})
	}
	for _, key := range []string{labelProxy, corev1.IsHeadlessService} {
		if value, ok := o.Labels[key]; ok {
			metav1.SetMetaDataLabel(&small.ObjectMeta, key, value)
		}
	}
	return small
}

// TrimSlice gives of an EndpointSlice what [Compile] looks at.
func TrimSlice(o *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	small := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: o.Namespace, Name: o.Name, UID: o.UID, ResourceVersion: o.ResourceVersion,
			Labels: map[string]string{discoveryv1.LabelServiceName: o.Labels[discoveryv1.LabelServiceName]},
		},
		AddressType: o.AddressType, Ports: o.Ports,
	}
	for i := range o.Endpoints {
		e := &o.Endpoints[i]
		small.Endpoints = append(small.Endpoints, discoveryv1.Endpoint{Addresses: e.Addresses[:min(1, len(e.Addresses))], Conditions: e.Conditions, Hostname: e.Hostname})
	}
	return small
}
