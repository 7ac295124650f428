// Package netpolicy turns the NetworkPolicies of one tenant into what drivers enforce: policies that name sets of pods, and
// for each pod the sets that it is in. What they mean is what upstream Kubernetes says that they mean, inside the tenant.
//
// It is pure: objects in, values out. It must never look beyond the namespaces of the tenant that it is given objects of,
// and never take for an allowance what it cannot read. Start at [Compile].
package netpolicy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"vivarium.io/vivarium/network"
)

// Compiled is what some NetworkPolicies amount to. Not safe for concurrent use.
type Compiled struct {
	// Policies are in an order that depends on nothing but what they are.
	Policies []network.Policy

	// subjects are by the set that a policy is about, peers by the set that rules name.
	subjects, peers map[string]selection
	// named are the ports that rules name.
	named map[namedPort]bool
	seen  map[string][]string
}

type namedPort struct{ protocol, name string }

// selection chooses pods: those of one namespace, or of the namespaces with certain labels.
type selection struct {
	namespace  string
	namespaces labels.Selector
	pods       labels.Selector
}

// Compile compiles the NetworkPolicies of one tenant, in the form that they have in the control cluster.
func Compile(policies []*networkingv1.NetworkPolicy) *Compiled {
	c := &Compiled{subjects: map[string]selection{}, peers: map[string]selection{}, named: map[namedPort]bool{}, seen: map[string][]string{}}
	policies = slices.Clone(policies)
	slices.SortFunc(policies, func(a, b *networkingv1.NetworkPolicy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	for _, o := range policies {
		// The set of a policy keeps its name when the policy changes, so that no pod is ever in neither the old nor the new.
		p := network.Policy{Pods: "policy-" + string(o.UID)}
		c.subjects[p.Pods] = selection{namespace: o.Namespace, pods: selector(&o.Spec.PodSelector, labels.Everything())}
		p.Receive, p.Send = directions(&o.Spec)
		if p.Receive {
			for _, rule := range o.Spec.Ingress {
				p.From = append(p.From, c.rule(o.Namespace, rule.From, rule.Ports))
			}
		}
		if p.Send {
			for _, rule := range o.Spec.Egress {
				p.To = append(p.To, c.rule(o.Namespace, rule.To, rule.Ports))
			}
		}
		c.Policies = append(c.Policies, p)
	}
	return c
}

// directions says in which directions a policy isolates. An API server fills policyTypes in; whoever reads what one wrote
// before it did has to do the same.
func directions(spec *networkingv1.NetworkPolicySpec) (ingress, egress bool) {
	if len(spec.PolicyTypes) == 0 {
		return true, len(spec.Egress) > 0
	}
	return slices.Contains(spec.PolicyTypes, networkingv1.PolicyTypeIngress), slices.Contains(spec.PolicyTypes, networkingv1.PolicyTypeEgress)
}

// selector reads a label selector, which the API server has checked; unread is what stands for one that cannot be read.
func selector(s *metav1.LabelSelector, unread labels.Selector) labels.Selector {
	read, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return unread
	}
	return read
}

func (c *Compiled) rule(namespace string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) network.PolicyRule {
	r := network.PolicyRule{Anyone: len(peers) == 0}
	for _, peer := range peers {
		if peer.IPBlock != nil {
			if block, ok := blockOf(peer.IPBlock); ok {
				r.Blocks = append(r.Blocks, block)
			}
			continue
		}
		s := selection{namespace: namespace, pods: labels.Everything()}
		if peer.PodSelector != nil {
			s.pods = selector(peer.PodSelector, labels.Nothing())
		}
		if peer.NamespaceSelector != nil {
			s.namespace, s.namespaces = "", selector(peer.NamespaceSelector, labels.Nothing())
		}
		if peer.PodSelector == nil && peer.NamespaceSelector == nil {
			s.pods = labels.Nothing()
		}
		if set := c.peer(s); !slices.Contains(r.Sets, set) {
			r.Sets = append(r.Sets, set)
		}
	}
	for _, port := range ports {
		if p, ok := c.port(port); ok {
			r.Ports = append(r.Ports, p)
		}
	}
	if len(ports) > 0 && len(r.Ports) == 0 {
		return network.PolicyRule{} // no ports would be all of them
	}
	return r
}

// peer gives the set of a selection: the same for equal ones, so that rules share it.
func (c *Compiled) peer(s selection) string {
	text := s.namespace + "\x00" + s.pods.String()
	if s.namespaces != nil {
		text += "\x00" + s.namespaces.String()
	}
	if isNothing(s.pods) || s.namespaces != nil && isNothing(s.namespaces) {
		text = "\x00nothing"
	}
	sum := sha256.Sum256([]byte(text))
	set := "peers-" + hex.EncodeToString(sum[:12])
	c.peers[set] = s
	return set
}

// isNothing tells the selector of nothing from that of everything, which is spelled the same.
func isNothing(s labels.Selector) bool {
	_, selectable := s.Requirements()
	return !selectable
}

// port reads a port; false for one that there cannot be.
func (c *Compiled) port(port networkingv1.NetworkPolicyPort) (network.PolicyPort, bool) {
	p := network.PolicyPort{Protocol: string(corev1.ProtocolTCP)}
	if port.Protocol != nil {
		p.Protocol = string(*port.Protocol)
	}
	if !slices.Contains([]string{"TCP", "UDP", "SCTP"}, p.Protocol) {
		return p, false
	}
	switch {
	case port.Port == nil:
	case port.Port.Type == intstr.String:
		p.Name = port.Port.StrVal
		c.named[namedPort{p.Protocol, p.Name}] = true
		return p, p.Name != ""
	default:
		first := port.Port.IntVal
		last := first
		if port.EndPort != nil {
			last = *port.EndPort
		}
		p.First, p.Last = uint16(first), uint16(last)
		return p, 0 < first && first <= last && last <= 65535
	}
	return p, true
}

// blockOf reads a range of addresses. One that cannot be read, or whose exceptions cannot, allows nothing.
func blockOf(block *networkingv1.IPBlock) (network.PolicyBlock, bool) {
	cidr, err := netip.ParsePrefix(block.CIDR)
	if err != nil {
		return network.PolicyBlock{}, false
	}
	out := network.PolicyBlock{CIDR: cidr.Masked()}
	for _, text := range block.Except {
		except, err := netip.ParsePrefix(text)
		if err != nil || except.Addr().Is4() != cidr.Addr().Is4() {
			return network.PolicyBlock{}, false
		}
		out.Except = append(out.Except, except.Masked())
	}
	return out, true
}

// Of gives the sets that a pod is in, in order, and the numbers of its ports that rules name. namespace has the labels of
// the pod's namespace.
func (c *Compiled) Of(pod *corev1.Pod, namespace map[string]string) (sets []string, ports []network.NamedPort) {
	if len(c.Policies) == 0 {
		return nil, nil
	}
	// The pods of a Deployment are alike.
	alike := pod.Namespace + "\x00" + labels.Set(pod.Labels).String()
	sets, known := c.seen[alike]
	if !known {
		for _, selections := range []map[string]selection{c.subjects, c.peers} {
			for set, s := range selections {
				if s.matches(pod, namespace) {
					sets = append(sets, set)
				}
			}
		}
		slices.Sort(sets)
		c.seen[alike] = sets
	}
	if len(c.named) == 0 {
		return sets, nil
	}
	for i := range pod.Spec.InitContainers {
		// A sidecar serves as long as the pod does.
		if policy := pod.Spec.InitContainers[i].RestartPolicy; policy != nil && *policy == corev1.ContainerRestartPolicyAlways {
			ports = c.ports(ports, &pod.Spec.InitContainers[i])
		}
	}
	for i := range pod.Spec.Containers {
		ports = c.ports(ports, &pod.Spec.Containers[i])
	}
	slices.SortFunc(ports, func(a, b network.NamedPort) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	return sets, slices.Compact(ports)
}

func (c *Compiled) ports(list []network.NamedPort, container *corev1.Container) []network.NamedPort {
	for _, p := range container.Ports {
		protocol := string(cmp.Or(p.Protocol, corev1.ProtocolTCP))
		if p.Name != "" && c.named[namedPort{protocol, p.Name}] {
			list = append(list, network.NamedPort{Name: p.Name, Protocol: protocol, Port: uint16(p.ContainerPort)})
		}
	}
	return list
}

func (s selection) matches(pod *corev1.Pod, namespace map[string]string) bool {
	if s.namespaces == nil && pod.Namespace != s.namespace || s.namespaces != nil && !s.namespaces.Matches(labels.Set(namespace)) {
		return false
	}
	return s.pods.Matches(labels.Set(pod.Labels))
}
