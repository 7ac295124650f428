package services

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"vivarium.io/vivarium/network"
)

var compared = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}), cmpopts.EquateEmpty()}

// read gives the objects that a text has, several of them separated by ---.
func read(t *testing.T, text string) (objects []*corev1.Service, parts []*discoveryv1.EndpointSlice) {
	t.Helper()
	for _, document := range strings.Split(text, "---\n") {
		if strings.Contains(document, "addressType:") {
			part := &discoveryv1.EndpointSlice{}
			if err := yaml.UnmarshalStrict([]byte(document), part); err != nil {
				t.Fatal(err)
			}
			parts = append(parts, part)
			continue
		}
		object := &corev1.Service{}
		if err := yaml.UnmarshalStrict([]byte(document), object); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, object)
	}
	return objects, parts
}

// service spells a Service of the tenant's namespace web, part one of its slices.
func service(name, spec string) string {
	return "metadata: {namespace: abc123-web, name: " + name + "}\nspec: {" + spec + "}\n"
}

func part(service, kind, ports, endpoints string) string {
	return "---\nmetadata: {namespace: abc123-web, name: any, labels: {kubernetes.io/service-name: " + service + "}}\n" +
		"addressType: " + kind + "\nports: [" + ports + "]\nendpoints: [" + endpoints + "]\n"
}

func backendsOf(list ...string) (out []netip.AddrPort) {
	for _, s := range list {
		out = append(out, netip.MustParseAddrPort(s))
	}
	return out
}

func TestCompile(t *testing.T) {
	const (
		one  = "clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9], ports: [{port: 80, protocol: TCP}]"
		both = "clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9, 'fd00:96::9'], ports: [{port: 80, protocol: TCP}]"
		http = "{name: '', port: 8080, protocol: TCP}"
		none = "clusterIP: None, clusterIPs: [None], ports: [{name: http, port: 80, protocol: TCP}]"
	)
	four := netip.MustParseAddr("10.96.0.9")
	led := func(backends ...string) []network.Service {
		return []network.Service{{Namespace: "web", Name: "a", IPs: []netip.Addr{four}, Ports: []network.ServicePort{{Protocol: "TCP", Port: 80, Backends: backendsOf(backends...)}}}}
	}
	cases := map[string]struct {
		reason string
		text   string
		want   []network.Service
	}{
		"Ready": {
			"what is ready is asked, and who does not say is", service("a", one) + part("a", "IPv4", http, "{addresses: [10.0.0.2], conditions: {ready: true}}, {addresses: [10.0.0.1]}, {addresses: [10.0.0.3], conditions: {ready: false}}"),
			led("10.0.0.1:8080", "10.0.0.2:8080"),
		},
		"NotReady": {"nobody", service("a", one) + part("a", "IPv4", http, "{addresses: [10.0.0.3], conditions: {ready: false, serving: false, terminating: true}}"), led()},
		"Ending": {
			"the last ones, while nothing is ready", service("a", one) + part("a", "IPv4", http,
				"{addresses: [10.0.0.3], conditions: {ready: false, serving: true, terminating: true}}, {addresses: [10.0.0.4], conditions: {ready: false, serving: true, terminating: false}}"),
			led("10.0.0.3:8080"),
		},
		"EndingBesideReady": {
			"not while one is", service("a", one) + part("a", "IPv4", http,
				"{addresses: [10.0.0.3], conditions: {ready: false, serving: true, terminating: true}}, {addresses: [10.0.0.4], conditions: {ready: true}}"),
			led("10.0.0.4:8080"),
		},
		"Published": {"who wants them is told of all", service("a", one+", publishNotReadyAddresses: true") + part("a", "IPv4", http, "{addresses: [10.0.0.3], conditions: {ready: false}}"), led("10.0.0.3:8080")},
		"Slices": {
			"several, one endpoint twice, and one of another Service", service("a", one) + part("a", "IPv4", http, "{addresses: [10.0.0.3]}") +
				part("a", "IPv4", http, "{addresses: [10.0.0.3], conditions: {ready: false}}, {addresses: [10.0.0.1]}") + part("b", "IPv4", http, "{addresses: [10.0.0.7]}"),
			led("10.0.0.1:8080", "10.0.0.3:8080"),
		},
		"FirstAddress": {"upstream gives no meaning to more", service("a", one) + part("a", "IPv4", http, "{addresses: [10.0.0.3, 10.0.0.4]}"), led("10.0.0.3:8080")},
		"Names": {
			"each slice has its own numbers", service("a", "clusterIP: 10.96.0.9, ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}, {name: gone, port: 1}]") +
				part("a", "IPv4", "{name: http, port: 8080, protocol: TCP}, {name: dns, port: 5353, protocol: UDP}, {name: dns, port: 1, protocol: TCP}", "{addresses: [10.0.0.1]}") +
				part("a", "IPv4", "{name: http, port: 9090}, {name: dns, protocol: UDP}", "{addresses: [10.0.0.2]}"),
			[]network.Service{{Namespace: "web", Name: "a", IPs: []netip.Addr{four}, Ports: []network.ServicePort{
				{Name: "http", Protocol: "TCP", Port: 80, Backends: backendsOf("10.0.0.1:8080", "10.0.0.2:9090")},
				{Name: "dns", Protocol: "UDP", Port: 53, Backends: backendsOf("10.0.0.1:5353")},
				{Name: "gone", Protocol: "TCP", Port: 1},
			}}},
		},
		"Families": {
			"each address leads to its own family", service("a", both) + part("a", "IPv4", http, "{addresses: [10.0.0.1]}") + part("a", "IPv6", http, "{addresses: ['fd00:7::1']}") +
				part("a", "IPv6", http, "{addresses: [10.0.0.2]}") + part("a", "FQDN", http, "{addresses: [db.example.com]}"),
			[]network.Service{{Namespace: "web", Name: "a", IPs: []netip.Addr{four, netip.MustParseAddr("fd00:96::9")}, Ports: []network.ServicePort{
				{Protocol: "TCP", Port: 80, Backends: backendsOf("10.0.0.1:8080", "[fd00:7::1]:8080")},
			}}},
		},
		"OneFamily": {"the other one is not led to", service("a", one) + part("a", "IPv6", http, "{addresses: ['fd00:7::1']}"), led()},
		"FamilyEnds": {
			"what is last is so by family", service("a", both) + part("a", "IPv4", http, "{addresses: [10.0.0.1]}") +
				part("a", "IPv6", http, "{addresses: ['fd00:7::1'], conditions: {ready: false, serving: true, terminating: true}}"),
			[]network.Service{{Namespace: "web", Name: "a", IPs: []netip.Addr{four, netip.MustParseAddr("fd00:96::9")}, Ports: []network.ServicePort{
				{Protocol: "TCP", Port: 80, Backends: backendsOf("10.0.0.1:8080", "[fd00:7::1]:8080")},
			}}},
		},
		"Elsewhere": {"what is outside of the VPC is for its walls", service("a", one) + part("a", "IPv4", http, "{addresses: [192.0.2.1]}, {addresses: [10.96.0.1]}"), led("10.96.0.1:8080", "192.0.2.1:8080")},
		"NotToBeLedTo": {
			"a pod's own machine, a cloud's metadata, the platform's own but its API", service("a", one) +
				part("a", "IPv4", http, "{addresses: [127.0.0.1]}, {addresses: [169.254.169.254]}, {addresses: [198.19.255.2]}, {addresses: [198.18.0.1]}, {addresses: [0.0.0.0]}, {addresses: [224.0.0.1]}, {addresses: [x]}, {addresses: [198.19.255.1]}") +
				part("a", "IPv6", http, "{addresses: ['::1']}, {addresses: ['fe80::1']}, {addresses: ['::ffff:10.0.0.1']}, {addresses: ['fd00:76:6976::2']}"),
			led("198.19.255.1:8080"),
		},
		"BadNumbers": {"no port at all", service("a", one) + part("a", "IPv4", "{name: '', port: 0}, {name: '', port: 70000}, {name: ''}", "{addresses: [10.0.0.1]}"), led()},
		"Sticky":     {"upstream's default", service("a", one+", sessionAffinity: ClientIP"), func() []network.Service { s := led(); s[0].Sticky = 3 * time.Hour; return s }()},
		"StickyFor": {
			"as long as it says", service("a", one+", sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 7}}"),
			func() []network.Service { s := led(); s[0].Sticky = 7 * time.Second; return s }(),
		},
		"NodePort": {"its cluster address works", service("a", one+", type: NodePort, internalTrafficPolicy: Local") + part("a", "IPv4", http, "{addresses: [10.0.0.1], hints: {forNodes: [{name: x}]}}"), led("10.0.0.1:8080")},
		"AnothersProxy": {
			"it has its name, and nobody leads to it", strings.Replace(service("a", one), "name: a", "name: a, labels: {service.kubernetes.io/service-proxy-name: mesh}", 1) + part("a", "IPv4", http, "{addresses: [10.0.0.1]}"),
			led(),
		},
		"NoAddressYet": {"nothing to ask for", service("a", "ports: [{port: 80}]") + part("a", "IPv4", http, "{addresses: [10.0.0.1]}"), nil},
		"External":     {"a name", service("a", "type: ExternalName, externalName: db.example.com., clusterIP: ''"), []network.Service{{Namespace: "web", Name: "a", External: "db.example.com"}}},
		"Headless": {
			"who is ready, by host name", service("a", none) +
				part("a", "IPv4", "{name: http, port: 8080, protocol: TCP}, {name: '', port: 1}, {name: all}", "{addresses: [10.0.0.2], hostname: a-1}, {addresses: [10.0.0.1], hostname: a-0}, {addresses: [10.0.0.3], conditions: {ready: false, serving: true, terminating: true}}, {addresses: [127.0.0.1]}") +
				part("a", "IPv4", "{name: more, port: 9, protocol: UDP}", "{addresses: [10.0.0.1], hostname: a-0}") + part("a", "IPv4", "{name: http, port: 8081}, {name: http, port: 1, protocol: UDP}", "{addresses: [10.0.0.1], hostname: a-0}") + part("a", "IPv6", "", "{addresses: ['fd00:7::1']}"),
			[]network.Service{{Namespace: "web", Name: "a", Ports: []network.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}}, Hosts: []network.ServiceHost{
				{Name: "a-0", IP: netip.MustParseAddr("10.0.0.1"), Ports: []network.NamedPort{{Name: "http", Protocol: "TCP", Port: 8080}, {Name: "http", Protocol: "TCP", Port: 8081}}},
				{Name: "a-1", IP: netip.MustParseAddr("10.0.0.2"), Ports: []network.NamedPort{{Name: "http", Protocol: "TCP", Port: 8080}}},
				{IP: netip.MustParseAddr("fd00:7::1")},
			}}},
		},
		"HeadlessPublished": {
			"before they are ready, as databases find each other", service("a", none+", publishNotReadyAddresses: true") + part("a", "IPv4", "", "{addresses: [10.0.0.2], hostname: a-1, conditions: {ready: false}}"),
			[]network.Service{{Namespace: "web", Name: "a", Ports: []network.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}}, Hosts: []network.ServiceHost{{Name: "a-1", IP: netip.MustParseAddr("10.0.0.2")}}}},
		},
		"API": {
			"whatever its slices say", strings.ReplaceAll("metadata: {namespace: abc123-default, name: kubernetes}\nspec: {clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9, 'fd00:96::9'], ports: [{name: https, port: 443, protocol: TCP}, {name: quic, port: 443, protocol: UDP}]}\n"+
				part("kubernetes", "IPv4", "{name: https, port: 6443}, {name: quic, port: 1, protocol: UDP}", "{addresses: [192.0.2.1]}"), "abc123-web", "abc123-default"),
			[]network.Service{{Namespace: "default", Name: "kubernetes", IPs: []netip.Addr{four, netip.MustParseAddr("fd00:96::9")}, Ports: []network.ServicePort{
				{Name: "https", Protocol: "TCP", Port: 443, Backends: backendsOf("198.19.255.1:443", "[fd00:76:6976::1]:443")},
				{Name: "quic", Protocol: "UDP", Port: 443},
			}}},
		},
		"OnlyAPI":     {"that name in another namespace is a Service as any", strings.ReplaceAll(service("a", one)+part("a", "IPv4", http, "{addresses: [10.0.0.1]}"), "name: a", "name: kubernetes"), func() []network.Service { s := led("10.0.0.1:8080"); s[0].Name = "kubernetes"; return s }()},
		"NotOurs":     {"another tenant's, and one that is nobody's", strings.ReplaceAll(service("a", one), "abc123-web", "zzz999-web") + "---\n" + strings.ReplaceAll(service("a", one), "abc123-web", "kube-system"), nil},
		"TheirSlices": {"a slice counts in its own namespace", service("a", one) + strings.ReplaceAll(part("a", "IPv4", http, "{addresses: [10.0.0.1]}"), "abc123-web", "abc123-db"), led()},
		"OneAddress": {
			"two Services with one, as a watch that lags may show", service("a", one) + "---\n" + service("b", "clusterIP: 10.96.0.9, ports: [{port: 81}, {port: 80}, {port: 80, protocol: UDP}]"),
			append(led(), network.Service{Namespace: "web", Name: "b", IPs: []netip.Addr{four}, Ports: []network.ServicePort{{Protocol: "TCP", Port: 81}, {Protocol: "UDP", Port: 80}}}),
		},
		"Unspeakable": {"what no driver takes is left out, and the others are not", service("a", one) + "---\n" + service("b", "clusterIP: 10.96.0.8, ports: [{port: 0}]") + "---\n" + service("c", "type: ExternalName, externalName: a_b"), led()},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			objects, parts := read(t, tc.text)
			if diff := cmp.Diff(tc.want, Compile("abc123", objects, parts), compared); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// naive reads the same as [Compile], question by question: who answers at an address, and for a headless name.
func naive(tenant string, objects []*corev1.Service, parts []*discoveryv1.EndpointSlice, at netip.AddrPort, protocol corev1.Protocol) map[string]bool {
	answers := map[string]bool{}
	for _, o := range objects {
		if !strings.HasPrefix(o.Namespace, tenant+"-") || !slices.Contains(o.Spec.ClusterIPs, at.Addr().String()) {
			continue
		}
		for _, p := range o.Spec.Ports {
			if p.Port != int32(at.Port()) || p.Protocol != protocol {
				continue
			}
			if o.Namespace == tenant+"-default" && o.Name == "kubernetes" {
				switch {
				case protocol != "TCP":
				case at.Addr().Is4():
					answers["198.19.255.1:443"] = true
				default:
					answers["[fd00:76:6976::1]:443"] = true
				}
				continue
			}
			for _, rank := range []string{"ready", "last"} {
				if len(answers) > 0 {
					break
				}
				for _, part := range parts {
					if part.Namespace != o.Namespace || part.Labels["kubernetes.io/service-name"] != o.Name {
						continue
					}
					for _, number := range part.Ports {
						if *number.Name != p.Name || *number.Protocol != protocol {
							continue
						}
						for _, e := range part.Endpoints {
							ip := netip.MustParseAddr(e.Addresses[0])
							ready := *e.Conditions.Ready || o.Spec.PublishNotReadyAddresses
							if ip.Is4() == at.Addr().Is4() && !ip.IsLoopback() && (rank == "ready" && ready || rank == "last" && !ready && *e.Conditions.Serving && *e.Conditions.Terminating) {
								answers[netip.AddrPortFrom(ip, uint16(*number.Port)).String()] = true
							}
						}
					}
				}
			}
		}
	}
	return answers
}

// TestDifferential compares with the naive reading, on many small worlds in which much coincides. The same comes out in
// whatever order objects come, and when they were trimmed.
func TestDifferential(t *testing.T) {
	const seed = 41
	random := rand.New(rand.NewPCG(seed, 0))
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	flip := func() *bool { v := random.IntN(2) == 0; return &v }
	protocols := []corev1.Protocol{"TCP", "UDP"}
	for round := range 2000 {
		var objects []*corev1.Service
		var parts []*discoveryv1.EndpointSlice
		for i := range 4 {
			o := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: pick("abc123-web", "abc123-default", "zzz999-web"), Name: pick("a", "kubernetes") + fmt.Sprint(i / 3)[:i/3]}}
			if slices.ContainsFunc(objects, func(other *corev1.Service) bool { return other.Namespace == o.Namespace && other.Name == o.Name }) {
				continue
			}
			o.Spec.PublishNotReadyAddresses = *flip()
			o.Spec.ClusterIPs = []string{fmt.Sprintf("10.96.0.%d", i+1), fmt.Sprintf("fd00:96::%d", i+1)}[random.IntN(2):]
			for j, port := range []int32{80, 81} {
				o.Spec.Ports = append(o.Spec.Ports, corev1.ServicePort{Name: fmt.Sprintf("p%d", j), Port: port, Protocol: protocols[random.IntN(2)]})
			}
			objects = append(objects, o)
		}
		for range 5 {
			p := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: pick("abc123-web", "abc123-default"), Labels: map[string]string{"kubernetes.io/service-name": pick("a", "kubernetes")}}, AddressType: "IPv4"}
			addresses := []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "127.0.0.1"}
			if random.IntN(2) == 0 {
				p.AddressType, addresses = "IPv6", []string{"fd00:7::1", "fd00:7::2", "::1"}
			}
			for range random.IntN(3) {
				name, number := pick("p0", "p1"), int32(8080+random.IntN(2))
				p.Ports = append(p.Ports, discoveryv1.EndpointPort{Name: &name, Port: &number, Protocol: &protocols[random.IntN(2)]})
			}
			for range random.IntN(3) {
				p.Endpoints = append(p.Endpoints, discoveryv1.Endpoint{Addresses: []string{pick(addresses...)}, Conditions: discoveryv1.EndpointConditions{Ready: flip(), Serving: flip(), Terminating: flip()}})
			}
			parts = append(parts, p)
		}
		got := Compile("abc123", objects, parts)
		for i := range 4 {
			for _, text := range []string{"10.96.0.%d", "fd00:96::%d"} {
				for _, port := range []uint16{80, 81} {
					for _, protocol := range protocols {
						at := netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf(text, i+1)), port)
						if want, answers := naive("abc123", objects, parts, at, protocol), answering(got, at, string(protocol)); !maps.Equal(want, answers) {
							t.Fatalf("seed %d, round %d: at %s %s answer %v, want %v", seed, round, at, protocol, answers, want)
						}
					}
				}
			}
		}
		for i, o := range objects {
			objects[i] = TrimService(o)
		}
		for i, p := range parts {
			parts[i] = TrimSlice(p)
		}
		random.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
		random.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		if again := Compile("abc123", objects, parts); !reflect.DeepEqual(got, again) {
			t.Fatalf("seed %d, round %d: in another order, and trimmed: %v, before: %v", seed, round, again, got)
		}
	}
}

// answering asks compiled Services.
func answering(list []network.Service, at netip.AddrPort, protocol string) map[string]bool {
	answers := map[string]bool{}
	for _, s := range list {
		for _, p := range s.Ports {
			if slices.Contains(s.IPs, at.Addr()) && p.Port == at.Port() && p.Protocol == protocol {
				for _, backend := range p.Backends {
					if backend.Addr().Is4() == at.Addr().Is4() {
						answers[backend.String()] = true
					}
				}
			}
		}
	}
	return answers
}

// TestMost: a Service leads to so many places and no more, and they are the same whatever comes first.
func TestMost(t *testing.T) {
	var parts []*discoveryv1.EndpointSlice
	for i := range 12 {
		p := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "abc123-web", Name: fmt.Sprintf("s-%02d", i), Labels: map[string]string{discoveryv1.LabelServiceName: "a"}}, AddressType: "IPv4"}
		for _, name := range []string{"one", "two"} {
			number := int32(80)
			p.Ports = append(p.Ports, discoveryv1.EndpointPort{Name: &name, Port: &number})
		}
		for j := range 1000 {
			p.Endpoints = append(p.Endpoints, discoveryv1.Endpoint{Addresses: []string{netip.AddrFrom4([4]byte{10, byte(i), byte(j / 250), byte(j%250 + 1)}).String()}})
		}
		parts = append(parts, p)
	}
	for name, spec := range map[string]string{"Led": "clusterIP: 10.96.0.9, ", "Headless": "clusterIP: None, "} {
		objects, _ := read(t, service("a", spec+"ports: [{name: one, port: 1}, {name: two, port: 2}]"))
		first := Compile("abc123", objects, parts)
		count := len(first[0].Hosts)
		for _, p := range first[0].Ports {
			count += len(p.Backends)
		}
		if count > most || count < most/3-1 {
			t.Errorf("%s: leads to %d places", name, count)
		}
		turned := slices.Clone(parts)
		slices.Reverse(turned)
		if !reflect.DeepEqual(first, Compile("abc123", objects, turned)) {
			t.Errorf("%s: others in another order", name)
		}
	}
}

// TestTrimmed: the table's cases come out the same of trimmed objects.
func TestTrimmed(t *testing.T) {
	objects, parts := read(t, strings.Replace(service("a", "clusterIP: None, type: ClusterIP, ports: [{name: x, port: 1}], publishNotReadyAddresses: true"), "name: a", "name: a, labels: {service.kubernetes.io/headless: ''}", 1)+
		"---\n"+service("b", "type: ExternalName, externalName: x.example.com")+"---\n"+strings.Replace(service("c", "clusterIP: 10.96.0.9, ports: [{port: 1}], sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 9}}"), "name: c", "name: c, labels: {service.kubernetes.io/service-proxy-name: x}", 1)+
		part("a", "IPv4", "{name: x, port: 5}", "{addresses: [10.0.0.1, 10.0.0.2], hostname: h, conditions: {ready: false}}")+part("c", "IPv4", "{name: '', port: 5}", "{addresses: [10.0.0.1]}"))
	want := Compile("abc123", objects, parts)
	for i := range objects {
		objects[i] = TrimService(objects[i])
	}
	for i := range parts {
		parts[i] = TrimSlice(parts[i])
	}
	if diff := cmp.Diff(want, Compile("abc123", objects, parts), compared); len(want) != 3 || diff != "" {
		t.Errorf("%d Services (-want +trimmed):\n%s", len(want), diff)
	}
}
