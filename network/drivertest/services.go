package drivertest

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/network"
)

// testServices: a driver that leads pods to Services keeps exactly those that it is given, and none without their VPC.
func testServices(t *testing.T, h Harness) {
	driver, pool := h.Driver(t), h.Pool(t, red, blue)
	servicer, ok := driver.(network.Servicer)
	if !ok {
		if driver.Capabilities().Services {
			t.Error("it is no Servicer; Services are among its capabilities")
		}
		return
	}
	empty := h.Snapshot(t, driver, pool)
	v, s := vpc(red.Tenant, "1"), subnet("1", "1")
	ip, ip6 := netip.MustParseAddr("10.96.0.9"), netip.MustParseAddr("fd00:96::9")
	led := network.Service{Namespace: "web", Name: "led", IPs: []netip.Addr{ip, ip6}, Sticky: time.Hour, Ports: []network.ServicePort{
		{Name: "http", Protocol: "TCP", Port: 80, Backends: []netip.AddrPort{netip.MustParseAddrPort("10.20.0.9:8080"), netip.MustParseAddrPort("[fd00:20::9]:8080")}},
		{Name: "dns", Protocol: "UDP", Port: 53}, {Name: "sig", Protocol: "SCTP", Port: 80},
	}}
	headless := network.Service{Namespace: "web", Name: "headless", Ports: []network.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}}, Hosts: []network.ServiceHost{
		{Name: "db-0", IP: netip.MustParseAddr("10.20.0.10"), Ports: []network.NamedPort{{Name: "http", Protocol: "TCP", Port: 8080}}}, {IP: netip.MustParseAddr("fd00:20::10")},
	}}
	external := network.Service{Namespace: "db", Name: "led", External: "db.example.com"}
	if err := servicer.EnsureServices(t.Context(), pool, v, []network.Service{led}); !errors.Is(err, network.ErrNotReady) {
		t.Errorf("before the VPC: %v, want ErrNotReady", err)
	}
	if diff := cmp.Diff(empty, h.Snapshot(t, driver, pool)); diff != "" {
		t.Errorf("Services without a VPC left something:\n%s", diff)
	}
	ensureBoth(t, driver, pool, v, s)
	bare := h.Snapshot(t, driver, pool)
	ensure := func(services ...network.Service) any {
		t.Helper()
		before := slices.Clone(services)
		if err := servicer.EnsureServices(t.Context(), pool, v, services); err != nil {
			t.Fatalf("EnsureServices: %v", err)
		}
		if !cmp.Equal(before, services, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})) {
			t.Error("EnsureServices changed its input")
		}
		return h.Snapshot(t, driver, pool)
	}
	full := ensure(led, headless, external)
	if cmp.Equal(bare, full) {
		t.Error("Services leave no trace in the pool")
	}
	if diff := cmp.Diff(full, ensure(external, headless, led)); diff != "" {
		t.Errorf("the same in another order wrote (-once +again):\n%s", diff)
	}
	if err := h.Driver(t).(network.Servicer).EnsureServices(t.Context(), pool, v, []network.Service{led, headless, external}); err != nil {
		t.Errorf("by another process: %v", err)
	}
	ensureBoth(t, driver, pool, v, s)
	for name, spoil := range map[string]func(*network.Service){
		"NoName":      func(s *network.Service) { s.Name = "" },
		"Namespace":   func(s *network.Service) { s.Namespace = "a b" },
		"SameName":    func(s *network.Service) { s.Namespace, s.Name, s.IPs = "web", "headless", nil },
		"SameAddress": func(s *network.Service) { s.Namespace = "other" },
		"Protocol":    func(s *network.Service) { s.Ports = []network.ServicePort{{Protocol: "tcp }", Port: 1}} },
		"Port":        func(s *network.Service) { s.Ports = []network.ServicePort{{Protocol: "TCP"}} },
		"Families":    func(s *network.Service) { s.IPs = []netip.Addr{ip, netip.MustParseAddr("10.96.0.10")} },
		"Backend": func(s *network.Service) {
			s.Ports = []network.ServicePort{{Protocol: "TCP", Port: 1, Backends: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80")}}}
		},
		"External": func(s *network.Service) { s.External = "db.example.com" },
		"Host":     func(s *network.Service) { s.IPs, s.Hosts = nil, []network.ServiceHost{{Name: "a.b", IP: ip}} },
	} {
		wrong := led
		wrong.Name = "wrong"
		spoil(&wrong)
		if err := servicer.EnsureServices(t.Context(), pool, v, []network.Service{led, headless, wrong}); !errors.Is(err, network.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if diff := cmp.Diff(full, h.Snapshot(t, driver, pool)); diff != "" {
		t.Errorf("a VPC that was ensured again, or refused Services, changed something:\n%s", diff)
	}
	if cmp.Equal(full, ensure(led, headless)) {
		t.Error("a Service that went is still known")
	}
	// When it was written last is another matter.
	if diff := cmp.Diff(bare, ensure(), cmpopts.IgnoreFields(metav1.ManagedFieldsEntry{}, "Time")); diff != "" {
		t.Errorf("the last Service left something:\n%s", diff)
	}
	ensure(led, headless)
	if err := errors.Join(driver.DeleteSubnet(t.Context(), pool, s), driver.DeleteVPC(t.Context(), pool, v)); err != nil {
		t.Errorf("delete the VPC: %v", err)
	}
	if diff := cmp.Diff(empty, h.Snapshot(t, driver, pool)); diff != "" {
		t.Errorf("Services outlived their VPC:\n%s", diff)
	}
}
