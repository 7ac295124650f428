package network

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/api/v1alpha1"
)

var equateAddresses = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{})

func TestObjects(t *testing.T) {
	api := netip.MustParseAddrPort("192.0.2.1:6443")
	v, err := VPCOf(&v1alpha1.VPC{ObjectMeta: metav1.ObjectMeta{Name: "abc123-main", UID: "v"}, Spec: v1alpha1.VPCSpec{
		Tenant: "abc123", CIDRs: []string{"10.0.0.0/16"}, MTU: 1400, Egress: v1alpha1.EgressNone, ProviderID: "vpc-1",
		SecurityGroups: []v1alpha1.SecurityGroup{{Name: "web", ProviderID: "sg-1", Ingress: []v1alpha1.SecurityRule{{
			Protocol: v1alpha1.ProtocolTCP, Ports: []string{"443", "8000-8099"}, CIDRs: []string{"10.0.1.0/24"}, Groups: []string{"lb"},
		}}}},
	}}, api)
	want := &VPC{
		Name: "abc123-main", UID: "v", Tenant: "abc123", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}, MTU: 1400, Egress: EgressNone, API: api, ProviderID: "vpc-1",
		SecurityGroups: []SecurityGroup{{Name: "web", ProviderID: "sg-1", Ingress: []SecurityRule{{
			Protocol: "TCP", Ports: []PortRange{{443, 443}, {8000, 8099}}, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}, Groups: []string{"lb"},
		}}}},
	}
	if diff := cmp.Diff(want, v, equateAddresses); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	s, err := SubnetOf(&v1alpha1.Subnet{ObjectMeta: metav1.ObjectMeta{Name: "abc123-web", UID: "s"},
		Spec:   v1alpha1.SubnetSpec{CIDRs: []string{"10.0.1.0/24", "fd00::/64"}, Gateway: []string{"10.0.1.9"}, ProviderID: "vsw-1"},
		Status: v1alpha1.SubnetStatus{VNI: 7}}, "v")
	wantSubnet := &Subnet{
		Name: "abc123-web", UID: "s", VPC: "v", VNI: 7, ProviderID: "vsw-1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("fd00::/64")},
		Gateway: []netip.Addr{netip.MustParseAddr("10.0.1.9"), netip.MustParseAddr("fd00::1")},
	}
	if diff := cmp.Diff(wantSubnet, s, equateAddresses); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []v1alpha1.VPCSpec{{Tenant: "x"}, {Tenant: "abc123", CIDRs: []string{"10"}}} {
		if _, err := VPCOf(&v1alpha1.VPC{Spec: bad}, api); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestSelection(t *testing.T) {
	const domain = "network.vivarium.io/"
	namespace := map[string]string{domain + "subnets": "db", domain + "ip": "10.0.0.9", domain + "security-groups": "web"}
	got, err := SelectionOf(map[string]string{domain + "subnets": "web,db", domain + "ip": "10.0.0.5,fd00::5"}, namespace)
	want := Selection{Subnets: []string{"web", "db"}, IPs: []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")}, SecurityGroups: []string{"web"}}
	if diff := cmp.Diff(want, got, equateAddresses); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	got, err = SelectionOf(map[string]string{domain + "security-groups": "b,a"}, namespace)
	want = Selection{Subnets: []string{"db"}, SecurityGroups: []string{"a", "b"}}
	if diff := cmp.Diff(want, got, equateAddresses); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := SelectionOf(map[string]string{domain + "ip": "ten"}, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("no address: %v", err)
	}
}
