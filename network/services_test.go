package network

import (
	"errors"
	"net/netip"
	"testing"
)

// TestValidateServices: what two Services may not share, and what they may.
func TestValidateServices(t *testing.T) {
	service := func(name, ip string, protocol string, port uint16) Service {
		return Service{Namespace: "web", Name: name, IPs: []netip.Addr{netip.MustParseAddr(ip)}, Ports: []ServicePort{{Protocol: protocol, Port: port}}}
	}
	elsewhere := service("a", "10.96.0.2", "TCP", 80)
	elsewhere.Namespace = "db"
	for name, tc := range map[string]struct {
		second Service
		want   error
	}{
		"Other":          {service("b", "10.96.0.2", "TCP", 80), nil},
		"OtherNamespace": {elsewhere, nil},
		"OtherPort":      {service("b", "10.96.0.1", "TCP", 81), nil},
		"OtherProtocol":  {service("b", "10.96.0.1", "UDP", 80), nil},
		"SameName":       {service("a", "10.96.0.2", "TCP", 80), ErrInvalid},
		"SamePlace":      {service("b", "10.96.0.1", "TCP", 80), ErrInvalid},
		"Wrong":          {service("b", "10.96.0.2", "ICMP", 80), ErrInvalid},
	} {
		if err := ValidateServices([]Service{service("a", "10.96.0.1", "TCP", 80), tc.second}); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}
