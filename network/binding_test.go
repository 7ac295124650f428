package network

import (
	"errors"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestBindingRoundTrip(t *testing.T) {
	for _, want := range []Binding{
		{Tenant: "abc123", Driver: "flat"},
		{Tenant: "abc123", Driver: "vxlan", VPC: "v-1", Subnet: "s-1"},
	} {
		got, err := ParseBinding(want.String())
		if err != nil || got != want {
			t.Errorf("ParseBinding(%q) = %+v, %v", want, got, err)
		}
	}
	for _, bad := range []string{
		"", "tenant=abc123", "driver=flat", "driver=flat,tenant=abc123", "tenant=abc12,driver=flat", "tenant=abc123,driver=",
		"tenant=abc123,driver=flat,x=y", "tenant=abc123,driver=flat,tenant=zzz999", "tenant=abc123,driver=flat,vpc=1", "tenant=abc123,driver=flat ",
	} {
		if b, err := ParseBinding(bad); !errors.Is(err, ErrBindingMismatch) {
			t.Errorf("ParseBinding(%q) = %+v, %v; want ErrBindingMismatch", bad, b, err)
		}
	}
}

func TestBindingOf(t *testing.T) {
	cases := map[string]struct {
		namespace, binding string
		ok                 bool
	}{
		"Ours":           {"abc123-web", "tenant=abc123,driver=flat", true},
		"Missing":        {"abc123-web", "", false},
		"OtherTenant":    {"zzz999-web", "tenant=abc123,driver=flat", false},
		"OtherDriver":    {"abc123-web", "tenant=abc123,driver=vxlan", false},
		"NoTenantsPlace": {"kube-system", "tenant=abc123,driver=flat", false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: tc.namespace, Annotations: map[string]string{BindingAnnotation: tc.binding}}}
			_, err := BindingOf(pod, "flat")
			if tc.ok != (err == nil) || !tc.ok && !errors.Is(err, ErrBindingMismatch) {
				t.Errorf("BindingOf: %v, want ok %t", err, tc.ok)
			}
		})
	}
}

func TestPodBindingValidate(t *testing.T) {
	vpc := &VPC{Name: "v", UID: "v-1", Tenant: "abc123", SecurityGroups: []SecurityGroup{{Name: "web"}}}
	subnet := &Subnet{Name: "s", UID: "s-1", VPC: "v-1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}
	key := PodKey{Namespace: "abc123-web", Name: "p", UID: "1"}
	cases := map[string]struct {
		in PodBinding
		ok bool
	}{
		"Flat":               {PodBinding{Tenant: "abc123", Pod: key}, true},
		"InASubnet":          {PodBinding{Tenant: "abc123", Pod: key, VPC: vpc, Subnet: subnet, IPs: []netip.Addr{netip.MustParseAddr("10.0.0.9")}}, true},
		"NoTenant":           {PodBinding{Pod: key}, false},
		"OtherNamespace":     {PodBinding{Tenant: "zzz999", Pod: key}, false},
		"NoUID":              {PodBinding{Tenant: "abc123", Pod: PodKey{Namespace: "abc123-web", Name: "p"}}, false},
		"OtherTenantsVPC":    {PodBinding{Tenant: "abc123", Pod: key, VPC: &VPC{Tenant: "zzz999", UID: "v-1"}, Subnet: subnet}, false},
		"SubnetElsewhere":    {PodBinding{Tenant: "abc123", Pod: key, VPC: vpc, Subnet: &Subnet{VPC: "v-2"}}, false},
		"SubnetWithoutVPC":   {PodBinding{Tenant: "abc123", Pod: key, Subnet: subnet}, false},
		"AddressElsewhere":   {PodBinding{Tenant: "abc123", Pod: key, VPC: vpc, Subnet: subnet, IPs: []netip.Addr{netip.MustParseAddr("10.0.1.9")}}, false},
		"NoSuchGroup":        {PodBinding{Tenant: "abc123", Pod: key, VPC: vpc, Subnet: subnet, SecurityGroups: []string{"db"}}, false},
		"GroupButNoSubnet":   {PodBinding{Tenant: "abc123", Pod: key, SecurityGroups: []string{"web"}}, false},
		"InAGroup":           {PodBinding{Tenant: "abc123", Pod: key, VPC: vpc, Subnet: subnet, SecurityGroups: []string{"web"}}, true},
		"AddressButNoSubnet": {PodBinding{Tenant: "abc123", Pod: key, IPs: []netip.Addr{netip.MustParseAddr("10.0.0.9")}}, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if err := tc.in.Validate(); tc.ok != (err == nil) || !tc.ok && !errors.Is(err, ErrInvalid) {
				t.Errorf("Validate: %v, want ok %t", err, tc.ok)
			}
		})
	}
}

func TestApplyWins(t *testing.T) {
	meta := metav1.ObjectMeta{Annotations: map[string]string{BindingAnnotation: "forged", "keep": "me"}}
	PodMutation{Annotations: map[string]string{BindingAnnotation: "real"}}.Apply(&meta)
	if meta.Annotations[BindingAnnotation] != "real" || meta.Annotations["keep"] != "me" || meta.Labels != nil {
		t.Errorf("got %v", meta)
	}
}
