package netkeys

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
)

// What the tenants' keys hold. A value has one form and nothing is trimmed or repaired; errors are meant for the tenant.

// most bounds the names in one value.
const most = 16

// Check reports what is wrong with the value of a tenant's key, nil for nothing. It knows the form alone, not whether a
// subnet or a group exists.
func Check(key, value string) error {
	var err error
	switch key {
	case Subnets:
		_, err = ParseSubnets(value)
	case IP:
		_, err = ParseIPs(value)
	case SecurityGroups:
		_, err = ParseSecurityGroups(value)
	case Bandwidth:
		_, err = ParseBandwidth(value)
	default:
		err = errors.New("is no key of a tenant's")
	}
	return err
}

// ParseSubnets reads the names of subnets, the most wanted first: "web,db".
func ParseSubnets(value string) ([]string, error) { return parseNames(value, "subnets") }

// ParseSecurityGroups reads the names of security groups: "web,monitored".
func ParseSecurityGroups(value string) ([]string, error) { return parseNames(value, "security groups") }

func parseNames(value, what string) ([]string, error) {
	names := strings.Split(value, ",")
	if len(names) > most {
		return nil, fmt.Errorf("must be no more than %d %s", most, what)
	}
	for i, name := range names {
		if len(validation.IsDNS1123Label(name)) > 0 {
			return nil, fmt.Errorf("must be names of %s with a comma between two, as in \"web,db\": %q is no name", what, name)
		}
		if slices.Contains(names[:i], name) {
			return nil, fmt.Errorf("names %q twice", name)
		}
	}
	return names, nil
}

// ParseIPs reads the addresses that a pod must have: one, or one of IPv4 and one of IPv6, "10.0.1.5,fd00:1::5".
func ParseIPs(value string) ([]netip.Addr, error) {
	var ips []netip.Addr
	for text := range strings.SplitSeq(value, ",") {
		ip, err := netip.ParseAddr(text)
		if err != nil || ip.Zone() != "" || ip.Is4In6() || ip.String() != text {
			return nil, fmt.Errorf("must be an address in its usual form, or one of IPv4 and one of IPv6 with a comma between, as in \"10.0.1.5,fd00:1::5\": %q is none", text)
		}
		if slices.ContainsFunc(ips, func(other netip.Addr) bool { return other.Is4() == ip.Is4() }) {
			return nil, errors.New("must not be two addresses of one family")
		}
		ips = append(ips, ip)
	}
	return ips, nil
}

// Rates bound a pod's traffic in bits per second; zero is no bound.
type Rates struct {
	Ingress int64 `json:"ingress,omitempty"`
	Egress  int64 `json:"egress,omitempty"`
}

// None reports that nothing is bounded.
func (r Rates) None() bool { return r == Rates{} }

// The least and the most that a bound can be, as those of the CNI bandwidth plugin.
var slowest, fastest = resource.MustParse("1k"), resource.MustParse("1P")

// ParseBandwidth reads a bound in bits per second: "10M" for both directions, or "ingress=10M", "egress=5M" or both with a
// comma between.
func ParseBandwidth(value string) (Rates, error) {
	var rates Rates
	if !strings.Contains(value, "=") {
		rate, err := parseRate(value)
		return Rates{Ingress: rate, Egress: rate}, err
	}
	for part := range strings.SplitSeq(value, ",") {
		direction, text, _ := strings.Cut(part, "=")
		bound := map[string]*int64{"ingress": &rates.Ingress, "egress": &rates.Egress}[direction]
		if bound == nil {
			return Rates{}, fmt.Errorf("must be a rate, as in \"10M\", or \"ingress=10M,egress=5M\": %q is neither direction", direction)
		}
		if *bound != 0 {
			return Rates{}, fmt.Errorf("bounds %s twice", direction)
		}
		var err error
		if *bound, err = parseRate(text); err != nil {
			return Rates{}, err
		}
	}
	return rates, nil
}

func parseRate(text string) (int64, error) {
	rate, err := resource.ParseQuantity(text)
	if err != nil {
		return 0, fmt.Errorf("must be bits per second, as in \"10M\", or \"ingress=10M,egress=5M\": %q is no quantity", text)
	}
	if rate.Cmp(slowest) < 0 || rate.Cmp(fastest) > 0 {
		return 0, fmt.Errorf("must be from %s to %s bits per second: %q is not", slowest.String(), fastest.String(), text)
	}
	return rate.Value(), nil
}
