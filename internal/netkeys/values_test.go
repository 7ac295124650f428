package netkeys

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for key, values := range map[string]map[string]string{
		Subnets: {
			"web": "", "web,db,a-1": "",
			"": "is no name", "web,": "is no name", "web, db": "is no name", "Web": "is no name", "web;db": "is no name", "a.b": "is no name",
			"web,web": "names \"web\" twice", strings.Repeat("a,", 16) + "a": "no more than 16",
			strings.Repeat("a", 64): "is no name", "../x": "is no name", "demo02-web\n": "is no name",
		},
		SecurityGroups: {"web": "", "web,db": "", "sg 1": "is no name", "": "is no name"},
		IP: {
			"10.0.1.5": "", "fd00:1::5": "", "10.0.1.5,fd00:1::5": "", "fd00:1::5,10.0.1.5": "",
			"": "is none", "10.0.1": "is none", "010.0.1.5": "is none", "10.0.1.5/24": "is none", "FD00::1": "is none", "fd00:0::1": "is none",
			"::ffff:10.0.1.5": "is none", "fe80::1%eth0": "is none", "10.0.1.5, fd00::1": "is none",
			"10.0.1.5,10.0.1.6": "two addresses of one family", "10.0.1.5,fd00::1,fd00::2": "two addresses of one family",
		},
		Bandwidth: {
			"10M": "", "1k": "", "1P": "", "ingress=10M": "", "egress=500k": "", "ingress=10M,egress=1G": "", "100Mi": "",
			"": "is no quantity", "fast": "is no quantity", "10M,5M": "is no quantity", "up=10M": "is neither direction", "ingress=": "is no quantity",
			"999": "must be from 1k to 1P", "2P": "must be from 1k to 1P", "-10M": "must be from 1k to 1P", "ingress=1M,ingress=2M": "bounds ingress twice",
			"ingress=10M, egress=1G": "is neither direction",
		},
		Domain + "/binding": {"x": "is no key of a tenant's"},
	} {
		for value, want := range values {
			switch err := Check(key, value); {
			case want == "" && err != nil:
				t.Errorf("%s=%q is refused: %v", key, value, err)
			case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("%s=%q: %v, want %s", key, value, err, want)
			}
		}
	}
	if got, err := ParseBandwidth("ingress=10M"); err != nil || got != (Rates{Ingress: 10_000_000}) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseBandwidth("1k"); err != nil || got != (Rates{Ingress: 1000, Egress: 1000}) {
		t.Errorf("%+v, %v", got, err)
	}
}
