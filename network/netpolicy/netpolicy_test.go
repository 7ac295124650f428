package netpolicy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"vivarium.io/vivarium/network"
)

// end is one end of a connection: a pod, or an address outside.
type end struct {
	*corev1.Pod
	ip netip.Addr
}

// packet begins a connection.
type packet struct {
	from, to end
	protocol string
	port     uint16
}

// world is some namespaces with pods.
type world struct {
	namespaces map[string]map[string]string
	pods       map[string]end
}

func (w *world) pod(namespace, name, ip, labels string, ports ...corev1.ContainerPort) {
	set := map[string]string{}
	if err := yaml.Unmarshal([]byte("{"+labels+"}"), &set); err != nil {
		panic(err)
	}
	w.pods[namespace+"/"+name] = end{&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: set}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: ports}}},
	}, netip.MustParseAddr(ip)}
}

func newWorld() *world {
	w := &world{pods: map[string]end{}, namespaces: map[string]map[string]string{
		"abc123-web": {"kubernetes.io/metadata.name": "abc123-web", "vivarium.io/tenant": "abc123", "tier": "front"},
		"abc123-db":  {"kubernetes.io/metadata.name": "abc123-db", "vivarium.io/tenant": "abc123", "tier": "back"},
	}}
	w.pod("abc123-web", "a", "10.0.0.11", "app: a", corev1.ContainerPort{Name: "http", ContainerPort: 80})
	w.pod("abc123-web", "b", "10.0.0.12", "app: b, role: x", corev1.ContainerPort{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP})
	w.pod("abc123-db", "a", "10.0.0.13", "app: a", corev1.ContainerPort{Name: "http", ContainerPort: 53, Protocol: corev1.ProtocolUDP})
	w.pod("abc123-db", "c", "10.0.1.14", "app: c, role: x")
	w.pods["outside"] = end{nil, netip.MustParseAddr("192.0.2.7")}
	return w
}

// passes is what a data plane does with compiled policies.
func (w *world) passes(c *Compiled, p packet) bool {
	check := func(own, peer end, isolates func(*network.Policy) bool, rules func(*network.Policy) []network.PolicyRule) bool {
		if own.Pod == nil {
			return true
		}
		sets, _ := c.Of(own.Pod, w.namespaces[own.Namespace])
		isolated, allowed := false, false
		for i := range c.Policies {
			policy := &c.Policies[i]
			if !isolates(policy) || !slices.Contains(sets, policy.Pods) {
				continue
			}
			isolated = true
			for _, rule := range rules(policy) {
				allowed = allowed || w.meansPeer(c, rule, peer) && w.meansPort(c, rule, p)
			}
		}
		return !isolated || allowed
	}
	return check(p.from, p.to, func(p *network.Policy) bool { return p.Send }, func(p *network.Policy) []network.PolicyRule { return p.To }) &&
		check(p.to, p.from, func(p *network.Policy) bool { return p.Receive }, func(p *network.Policy) []network.PolicyRule { return p.From })
}

func (w *world) meansPeer(c *Compiled, rule network.PolicyRule, peer end) bool {
	if rule.Anyone {
		return true
	}
	if peer.Pod != nil {
		sets, _ := c.Of(peer.Pod, w.namespaces[peer.Namespace])
		if slices.ContainsFunc(rule.Sets, func(set string) bool { return slices.Contains(sets, set) }) {
			return true
		}
	}
	return slices.ContainsFunc(rule.Blocks, func(b network.PolicyBlock) bool {
		return b.CIDR.Contains(peer.ip) && !slices.ContainsFunc(b.Except, func(e netip.Prefix) bool { return e.Contains(peer.ip) })
	})
}

func (w *world) meansPort(c *Compiled, rule network.PolicyRule, p packet) bool {
	return len(rule.Ports) == 0 || slices.ContainsFunc(rule.Ports, func(port network.PolicyPort) bool {
		if port.Protocol != p.protocol {
			return false
		}
		if port.Name == "" {
			return port.First == 0 || port.First <= p.port && p.port <= port.Last
		}
		if p.to.Pod == nil {
			return false
		}
		_, named := c.Of(p.to.Pod, w.namespaces[p.to.Namespace])
		return slices.Contains(named, network.NamedPort{Name: port.Name, Protocol: p.protocol, Port: p.port})
	})
}

func policy(t testing.TB, namespace, name, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	o := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(namespace + name)}}
	raw, err := yaml.YAMLToJSONStrict([]byte(spec))
	if err == nil {
		err = json.Unmarshal(raw, &o.Spec)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestMeaning: what policies allow, as upstream says it. Each case has all packets over TCP to port 80 that pass, of all
// pairs of pods and of what is outside; where is what of the sender and the receiver.
func TestMeaning(t *testing.T) {
	const web, db = "abc123-web", "abc123-db"
	type flow struct {
		from, to, protocol string
		port               uint16
	}
	cases := map[string]struct {
		policies       []*networkingv1.NetworkPolicy
		passes, blocks []flow
	}{
		"None": {passes: []flow{{web + "/a", db + "/c", "TCP", 80}, {"outside", web + "/a", "UDP", 1}, {web + "/a", "outside", "SCTP", 1}}},
		"DenyAll": {
			[]*networkingv1.NetworkPolicy{policy(t, web, "p", `{podSelector: {}, policyTypes: [Ingress, Egress]}`)},
			[]flow{{db + "/a", db + "/c", "TCP", 80}, {db + "/a", "outside", "TCP", 80}},
			[]flow{{db + "/a", web + "/a", "TCP", 80}, {web + "/a", db + "/a", "TCP", 80}, {web + "/a", web + "/b", "UDP", 80}, {web + "/b", "outside", "TCP", 80}},
		},
		"IngressAlone": {
			[]*networkingv1.NetworkPolicy{policy(t, web, "p", `{podSelector: {matchLabels: {app: a}}}`)},
			[]flow{{web + "/a", db + "/a", "TCP", 80}, {db + "/a", web + "/b", "TCP", 80}, {web + "/a", "outside", "TCP", 80}},
			[]flow{{web + "/b", web + "/a", "TCP", 80}, {"outside", web + "/a", "TCP", 80}},
		},
		"EgressOfOldObjects": { // without policyTypes, egress rules say that there is egress
			[]*networkingv1.NetworkPolicy{policy(t, web, "p", `{podSelector: {}, egress: [{ports: [{port: 53, protocol: UDP}]}]}`)},
			[]flow{{web + "/a", "outside", "UDP", 53}},
			[]flow{{web + "/a", "outside", "TCP", 53}, {web + "/a", web + "/b", "TCP", 80}},
		},
		"AllowAll": { // a rule that says nothing allows everything, and policies add up
			[]*networkingv1.NetworkPolicy{policy(t, web, "p", `{podSelector: {}}`), policy(t, web, "q", `{podSelector: {}, ingress: [{}]}`)},
			[]flow{{db + "/a", web + "/a", "TCP", 80}, {"outside", web + "/a", "SCTP", 9}}, nil,
		},
		"PodsOfTheNamespace": { // a podSelector alone means the policy's own namespace
			[]*networkingv1.NetworkPolicy{policy(t, web, "p", `{podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {}}]}]}`)},
			[]flow{{web + "/b", web + "/a", "TCP", 80}},
			[]flow{{db + "/c", web + "/a", "TCP", 80}, {"outside", web + "/a", "TCP", 80}},
		},
		"AllNamespaces": { // the tenant's own, as the gateway wrote it
			[]*networkingv1.NetworkPolicy{policy(t, web, "p", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {vivarium.io/tenant: abc123}}}]}]}`)},
			[]flow{{web + "/b", web + "/a", "TCP", 80}, {db + "/c", web + "/a", "TCP", 80}},
			[]flow{{"outside", web + "/a", "TCP", 80}},
		},
		"Both": { // in one peer: both must hold; in two: either
			[]*networkingv1.NetworkPolicy{
				policy(t, web, "p", `{podSelector: {matchLabels: {app: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {tier: back}}, podSelector: {matchLabels: {role: x}}}]}]}`),
				policy(t, web, "q", `{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{namespaceSelector: {matchLabels: {tier: back}}}, {podSelector: {matchLabels: {app: a}}}]}]}`),
			},
			[]flow{{db + "/c", web + "/a", "TCP", 80}, {db + "/a", web + "/b", "TCP", 80}, {web + "/a", web + "/b", "TCP", 80}},
			[]flow{{db + "/a", web + "/a", "TCP", 80}, {web + "/b", web + "/a", "TCP", 80}, {"outside", web + "/b", "TCP", 80}},
		},
		"Block": {
			[]*networkingv1.NetworkPolicy{policy(t, web, "p", `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.1.0/24, 192.0.2.0/30]}}]}]}`)},
			[]flow{{web + "/a", "outside", "TCP", 80}, {web + "/a", db + "/a", "TCP", 80}, {"outside", web + "/a", "TCP", 80}},
			[]flow{{web + "/a", db + "/c", "TCP", 80}},
		},
		"Unreadable": { // what cannot be read allows nothing
			[]*networkingv1.NetworkPolicy{
				policy(t, web, "p", `{podSelector: {matchLabels: {app: a}}, ingress: [{from: [{ipBlock: {cidr: 010.0.0.0/8}}, {}, {ipBlock: {cidr: 10.0.0.0/8, except: [x]}}]}, {ports: [{port: 0}, {port: 9, endPort: 8}, {port: 9, protocol: ICMP}]}]}`),
				policy(t, web, "q", `{podSelector: {matchExpressions: [{key: app, operator: Bogus}]}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: Bogus}]}}]}]}`),
			}, nil,
			[]flow{{web + "/b", web + "/a", "TCP", 80}, {web + "/a", web + "/b", "TCP", 9}, {db + "/a", web + "/a", "ICMP", 9}},
		},
		"NobodyAndEverybody": { // a peer of which nothing is said is nobody, and spelled like everybody
			[]*networkingv1.NetworkPolicy{
				policy(t, web, "p", `{podSelector: {matchLabels: {app: a}}, ingress: [{from: [{}]}]}`), policy(t, web, "q", `{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {}}]}]}`),
				policy(t, db, "p", `{podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {}}]}]}`), policy(t, db, "q", `{podSelector: {matchLabels: {app: c}}, ingress: [{from: [{}]}]}`),
			},
			[]flow{{web + "/a", web + "/b", "TCP", 80}, {db + "/c", db + "/a", "TCP", 80}},
			[]flow{{web + "/b", web + "/a", "TCP", 80}, {db + "/a", db + "/c", "TCP", 80}},
		},
		"Ports": {
			[]*networkingv1.NetworkPolicy{policy(t, web, "p", `{podSelector: {}, ingress: [{ports: [{port: 80}, {port: 8000, endPort: 8002, protocol: UDP}, {protocol: SCTP}]}]}`)},
			[]flow{{db + "/a", web + "/a", "TCP", 80}, {db + "/a", web + "/a", "UDP", 8000}, {db + "/a", web + "/a", "UDP", 8002}, {db + "/a", web + "/a", "SCTP", 7}},
			[]flow{{db + "/a", web + "/a", "TCP", 81}, {db + "/a", web + "/a", "UDP", 80}, {db + "/a", web + "/a", "UDP", 8003}, {db + "/a", web + "/a", "TCP", 8001}},
		},
		"NamedPorts": { // each receiver has its own number, and the protocol counts
			[]*networkingv1.NetworkPolicy{
				policy(t, web, "p", `{podSelector: {}, ingress: [{ports: [{port: http}]}]}`),
				policy(t, db, "q", `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: http}, {port: http, protocol: UDP}]}]}`),
			},
			[]flow{{"outside", web + "/a", "TCP", 80}, {web + "/a", web + "/b", "TCP", 8080}, {db + "/c", web + "/b", "TCP", 8080}, {db + "/c", db + "/a", "UDP", 53}},
			[]flow{{web + "/b", web + "/a", "TCP", 8080}, {web + "/a", web + "/b", "TCP", 80}, {web + "/b", web + "/a", "UDP", 80}, {db + "/c", db + "/a", "TCP", 53}, {db + "/c", "outside", "TCP", 80}},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w, c := newWorld(), Compile(tc.policies)
			for i := range c.Policies {
				if err := c.Policies[i].Validate(); err != nil {
					t.Error(err)
				}
			}
			for want, flows := range map[bool][]flow{true: tc.passes, false: tc.blocks} {
				for _, f := range flows {
					p := packet{w.pods[f.from], w.pods[f.to], f.protocol, f.port}
					if got := w.passes(c, p); got != want {
						t.Errorf("%s to %s, %s %d: passes is %v", f.from, f.to, f.protocol, f.port, got)
					}
				}
			}
		})
	}
}

// upstream decides by the objects themselves, as the API's documentation reads.
func (w *world) upstream(policies []*networkingv1.NetworkPolicy, p packet) bool {
	selects := func(s *metav1.LabelSelector, set map[string]string) bool {
		read, err := metav1.LabelSelectorAsSelector(s)
		return err == nil && read.Matches(labels.Set(set))
	}
	allowed := func(o *networkingv1.NetworkPolicy, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, other end) bool {
		peerOK := len(peers) == 0
		for _, peer := range peers {
			switch {
			case peer.IPBlock != nil:
				in := netip.MustParsePrefix(peer.IPBlock.CIDR).Contains(other.ip)
				for _, except := range peer.IPBlock.Except {
					in = in && !netip.MustParsePrefix(except).Contains(other.ip)
				}
				peerOK = peerOK || in
			case other.Pod == nil:
			case peer.NamespaceSelector == nil:
				peerOK = peerOK || other.Namespace == o.Namespace && selects(peer.PodSelector, other.Labels)
			default:
				peerOK = peerOK || selects(peer.NamespaceSelector, w.namespaces[other.Namespace]) && (peer.PodSelector == nil || selects(peer.PodSelector, other.Labels))
			}
		}
		portOK := len(ports) == 0
		for _, port := range ports {
			if string(*port.Protocol) != p.protocol {
				continue
			}
			switch {
			case port.Port == nil:
				portOK = true
			case port.Port.Type == intstr.Int:
				last := port.Port.IntVal
				if port.EndPort != nil {
					last = *port.EndPort
				}
				portOK = portOK || port.Port.IntVal <= int32(p.port) && int32(p.port) <= last
			case p.to.Pod != nil:
				for _, has := range p.to.Spec.Containers[0].Ports {
					protocol := has.Protocol
					if protocol == "" {
						protocol = corev1.ProtocolTCP
					}
					portOK = portOK || has.Name == port.Port.StrVal && protocol == *port.Protocol && has.ContainerPort == int32(p.port)
				}
			}
		}
		return peerOK && portOK
	}
	for _, d := range []struct {
		own, other end
		kind       networkingv1.PolicyType
	}{{p.from, p.to, networkingv1.PolicyTypeEgress}, {p.to, p.from, networkingv1.PolicyTypeIngress}} {
		isolated, ok := false, false
		for _, o := range policies {
			if d.own.Pod == nil || o.Namespace != d.own.Namespace || !slices.Contains(o.Spec.PolicyTypes, d.kind) || !selects(&o.Spec.PodSelector, d.own.Labels) {
				continue
			}
			isolated = true
			if d.kind == networkingv1.PolicyTypeEgress {
				for _, rule := range o.Spec.Egress {
					ok = ok || allowed(o, rule.To, rule.Ports, d.other)
				}
			} else {
				for _, rule := range o.Spec.Ingress {
					ok = ok || allowed(o, rule.From, rule.Ports, d.other)
				}
			}
		}
		if isolated && !ok {
			return false
		}
	}
	return true
}

// TestAsUpstream compares random policies with what their objects say.
func TestAsUpstream(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	podSelector := func() string {
		return pick(`{}`, `{matchLabels: {app: a}}`, `{matchLabels: {role: x}}`, `{matchExpressions: [{key: app, operator: NotIn, values: [b, c]}]}`, `{matchExpressions: [{key: role, operator: DoesNotExist}]}`)
	}
	namespaceSelector := func() string {
		return pick(`{}`, `{matchLabels: {tier: front}}`, `{matchLabels: {tier: none}}`, `{matchLabels: {kubernetes.io/metadata.name: abc123-db}}`)
	}
	rules := func(word string) string {
		text := ""
		for range r.IntN(3) {
			peers, ports := "", ""
			for range r.IntN(3) {
				peers += pick(`{podSelector: `+podSelector()+`}`, `{namespaceSelector: `+namespaceSelector()+`}`, `{namespaceSelector: `+namespaceSelector()+`, podSelector: `+podSelector()+`}`,
					`{ipBlock: {cidr: 10.0.0.0/24}}`, `{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.12/31]}}`, `{ipBlock: {cidr: "::/0"}}`) + ","
			}
			for range r.IntN(3) {
				ports += `{protocol: ` + pick("TCP", "UDP", "SCTP") + pick("", ", port: 80", ", port: 79, endPort: 81", ", port: http") + "},"
			}
			text += `{` + word + `: [` + peers + `], ports: [` + ports + `]},`
		}
		return "[" + text + "]"
	}
	w := newWorld()
	var all []end
	for _, name := range []string{"abc123-web/a", "abc123-web/b", "abc123-db/a", "abc123-db/c", "outside"} {
		all = append(all, w.pods[name])
	}
	passed := 0
	for range 400 {
		var policies []*networkingv1.NetworkPolicy
		for i := range 1 + r.IntN(4) {
			policies = append(policies, policy(t, pick("abc123-web", "abc123-db"), fmt.Sprint("p", i),
				`{podSelector: `+podSelector()+`, policyTypes: `+pick("[Ingress]", "[Egress]", "[Ingress, Egress]")+`, ingress: `+rules("from")+`, egress: `+rules("to")+`}`))
		}
		c := Compile(policies)
		for _, from := range all {
			for _, to := range all {
				if from == to {
					continue // nobody filters what a pod says to itself
				}
				for _, protocol := range []string{"TCP", "UDP", "SCTP"} {
					for _, port := range []uint16{53, 80, 8080} {
						p := packet{from, to, protocol, port}
						got, want := w.passes(c, p), w.upstream(policies, p)
						if got {
							passed++
						}
						if got != want {
							raw, _ := json.Marshal(policies)
							t.Fatalf("%s to %s, %s %d: passes is %v, want %v, with %s", from.ip, to.ip, protocol, port, got, want, raw)
						}
					}
				}
			}
		}
	}
	t.Logf("%d packets passed", passed)
}

// TestSets: a policy keeps its set when it changes, equal selectors share one, and what nobody names costs nothing.
func TestSets(t *testing.T) {
	w := newWorld()
	spec := `{podSelector: {matchLabels: {app: %s}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}, {from: [{podSelector: {matchLabels: {app: a}}}]}]}`
	before, after := Compile([]*networkingv1.NetworkPolicy{policy(t, "abc123-web", "p", fmt.Sprintf(spec, "a"))}), Compile([]*networkingv1.NetworkPolicy{policy(t, "abc123-web", "p", fmt.Sprintf(spec, "b"))})
	if before.Policies[0].Pods != after.Policies[0].Pods {
		t.Error("a policy whose pods change is about another set")
	}
	if a, b := before.Policies[0].From[0].Sets, before.Policies[0].From[1].Sets; !slices.Equal(a, b) {
		t.Errorf("equal peers are %v and %v", a, b)
	}
	if sets, ports := before.Of(w.pods["abc123-web/a"].Pod, nil); len(sets) != 2 || ports != nil {
		t.Errorf("in %v with %v", sets, ports)
	}
	if sets, ports := Compile(nil).Of(w.pods["abc123-web/a"].Pod, nil); sets != nil || ports != nil {
		t.Errorf("without policies in %v with %v", sets, ports)
	}
	// Another tenant's namespace with the same labels is never given; but a pod there would not be in a namespace's own set.
	stranger := w.pods["abc123-web/a"].DeepCopy()
	stranger.Namespace = "zzz999-web"
	if sets, _ := before.Of(stranger, map[string]string{"vivarium.io/tenant": "zzz999"}); len(sets) != 0 {
		t.Errorf("a stranger is in %v", sets)
	}
}
