package provider

import (
	"errors"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/fake"
	"vivarium.io/vivarium/vk-provider/internal/podspec"
)

// TestMisplaced: a pool pod is where it was planned to be, or it goes. The driver is one in memory.
func TestMisplaced(t *testing.T) {
	driver := fake.New()
	plan := network.PodBinding{
		Tenant: "red001", Pod: network.PodKey{Namespace: "red001-web", Name: "p", UID: "p1"},
		VPC:    &network.VPC{Name: "red001-main", UID: "v", Tenant: "red001"},
		Subnet: &network.Subnet{Name: "red001-web", UID: "s", VPC: "v", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}},
		IPs:    []netip.Addr{netip.MustParseAddr("10.0.0.9")}, MAC: network.MAC(9),
	}
	mutation, err := driver.BindPod(plan)
	if err != nil {
		t.Fatal(err)
	}
	at := podspec.Placement{Network: mutation}
	outside := podspec.Gateway{Host: "gateway.vivarium.test", Port: "6443"}
	lost := driver.Capabilities()
	lost.LeadsAPI = false
	if at.Gateway, _ = inVPC(plan, lost, outside); at.Gateway != outside {
		t.Errorf("where the driver does not lead to it, the API is at %+v", at.Gateway)
	}
	at.Gateway, at.VPC = inVPC(plan, driver.Capabilities(), outside)
	if at.Gateway.Host != network.APIAddress || at.Gateway.Port != "443" {
		t.Errorf("the API is at %+v", at.Gateway)
	}
	if at.VPC.Resolver != network.ResolverAddress {
		t.Errorf("names are asked for at %q", at.VPC.Resolver)
	}
	lost.Services = false
	if _, seen := inVPC(plan, lost, outside); seen.Resolver != "" {
		t.Errorf("where the driver answers for no names, they are asked for at %s", seen.Resolver)
	}
	six := plan
	six.IPs = []netip.Addr{netip.MustParseAddr("fd00::9")}
	if gateway, seen := inVPC(six, driver.Capabilities(), outside); gateway.Host != network.APIAddress6 || seen.Resolver != network.ResolverAddress6 {
		t.Errorf("in a VPC without IPv4: the API at %+v, names at %s", gateway, seen.Resolver)
	}
	pod := func(annotations map[string]string, ips ...string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "red001-web", Name: "p", Annotations: map[string]string{}}}
		for key, value := range mutation.Annotations {
			p.Annotations[key] = value
		}
		for key, value := range annotations {
			p.Annotations[key] = value
		}
		for _, ip := range ips {
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
		}
		return p
	}
	bindingKey := network.BindingAnnotation
	cases := map[string]struct {
		pod *corev1.Pod
		bad bool
	}{
		"NotYet":        {pod(nil), false},
		"AsPlanned":     {pod(nil, "10.0.0.9"), false},
		"OtherAddress":  {pod(nil, "10.0.0.10"), true},
		"OneMore":       {pod(nil, "10.0.0.9", "fd00::9"), true},
		"Flat":          {pod(map[string]string{bindingKey: "tenant=red001,driver=fake"}), true},
		"OtherVPC":      {pod(map[string]string{bindingKey: "tenant=red001,driver=fake,vpc=w,subnet=s"}, "10.0.0.9"), true},
		"OtherSubnet":   {pod(map[string]string{bindingKey: "tenant=red001,driver=fake,vpc=v,subnet=x"}, "10.0.0.9"), true},
		"OtherDriver":   {pod(map[string]string{bindingKey: "tenant=red001,driver=flat,vpc=v,subnet=s"}, "10.0.0.9"), true},
		"Unreadable":    {pod(map[string]string{bindingKey: "yes"}), true},
		"AddressIsSaid": {pod(map[string]string{"fake.network.vivarium.io/addresses": "10.0.0.10"}, "10.0.0.10"), true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if err := misplaced(at, driver, tc.pod); tc.bad != errors.Is(err, network.ErrBindingMismatch) || !tc.bad && err != nil {
				t.Errorf("got %v", err)
			}
			if err := misplaced(podspec.Placement{}, driver, tc.pod); err != nil {
				t.Errorf("in a flat network: %v", err)
			}
		})
	}
}
