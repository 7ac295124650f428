package mapping

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/internal/golden"
	"vivarium.io/vivarium/internal/netkeys"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/drivertest"
)

func TestContract(t *testing.T) {
	for _, driver := range Drivers() {
		t.Run(driver.Name(), func(t *testing.T) {
			drivertest.Run(t, drivertest.Harness{
				Mapping: true,
				Driver:  func(*testing.T) network.Driver { return driver },
				Pool:    func(*testing.T, ...network.Namespace) network.Pool { return drivertest.FakePool(nil) },
				Silent:  drivertest.SilentPool,
				Snapshot: func(t *testing.T, _ network.Driver, pool network.Pool) any {
					t.Helper()
					return drivertest.Fences(t, pool)
				},
				Obstruct: drivertest.ForeignFence,
			})
		})
	}
}

// redPod is a pod as rich as a driver can take.
func redPod(driver network.Driver) network.PodBinding {
	in := network.PodBinding{
		Tenant: "abc123", Pod: network.PodKey{Namespace: "abc123-web", Name: "p", UID: "11111111-0000-0000-0000-000000000000"},
		VPC: &network.VPC{
			Name: "abc123-main", UID: "v", Tenant: "abc123", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}, ProviderID: "vpc-red",
			SecurityGroups: []network.SecurityGroup{{Name: "db", ProviderID: "sg-db"}, {Name: "web", ProviderID: "sg-web"}},
		},
		Subnet: &network.Subnet{Name: "abc123-web", UID: "s", VPC: "v", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/24")}, ProviderID: "subnet-red"},
	}
	in.SecurityGroups = []string{"db", "web"}
	if d, ok := driver.(Driver); ok && d.table.mostGroups < 2 {
		in.SecurityGroups = in.SecurityGroups[:1]
	}
	if driver.Capabilities().ExplicitIP {
		in.IPs, in.MAC = []netip.Addr{netip.MustParseAddr("10.20.0.9")}, "02:00:00:00:00:09"
	}
	return in
}

// TestPods keeps what each provider is told of a pod as a text to read.
func TestPods(t *testing.T) {
	var out strings.Builder
	for _, driver := range Drivers() {
		mutation, err := driver.BindPod(redPod(driver))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.MarshalIndent(map[string]any{"annotations": mutation.Annotations, "labels": mutation.Labels}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s\n%s\n", driver.Name(), raw)
	}
	golden.Compare(t, "pods.txt", out.String())
}

func TestRefuses(t *testing.T) {
	cases := map[string]struct {
		spoil func(*network.PodBinding)
		want  error
		// vpc and subnet say whether those are refused already when they are made.
		vpc, subnet bool
	}{
		"NoNetworkID": {func(in *network.PodBinding) { in.VPC.ProviderID = "" }, network.ErrInvalid, true, true},
		"NoSubnetID":  {func(in *network.PodBinding) { in.Subnet.ProviderID = "" }, network.ErrInvalid, false, true},
		"NoEgress":    {func(in *network.PodBinding) { in.VPC.Egress = network.EgressNone }, network.ErrCapability, true, true},
		"GroupOfOurs": {func(in *network.PodBinding) { in.VPC.SecurityGroups[1].ProviderID = "" }, network.ErrCapability, true, true},
		"RulesOfOurs": {func(in *network.PodBinding) { in.VPC.SecurityGroups[1].Ingress = []network.SecurityRule{{}} }, network.ErrCapability, true, true},
		"SixOnly":     {func(in *network.PodBinding) { in.Subnet.CIDRs[0], in.IPs = netip.MustParsePrefix("fd00::/64"), nil }, network.ErrCapability, false, true},
		"ManyGroups": {func(in *network.PodBinding) {
			in.SecurityGroups = []string{"db", "db", "db", "db", "db", "db"}
		}, network.ErrCapability, false, false},
	}
	for _, driver := range Drivers() {
		for name, tc := range cases {
			t.Run(driver.Name()+"/"+name, func(t *testing.T) {
				in := redPod(driver)
				tc.spoil(&in)
				if got, err := driver.BindPod(in); !errors.Is(err, tc.want) || got.Annotations != nil {
					t.Errorf("BindPod = %v, %v; want %v", got, err, tc.want)
				}
				if got, err := driver.EnsureVPC(t.Context(), network.Pool{}, in.VPC); got.Ready == tc.vpc || tc.vpc && !errors.Is(err, tc.want) {
					t.Errorf("EnsureVPC = %+v, %v", got, err)
				}
				if got, err := driver.EnsureSubnet(t.Context(), network.Pool{}, in.VPC, in.Subnet); got.Ready == tc.subnet || tc.subnet && !errors.Is(err, tc.want) {
					t.Errorf("EnsureSubnet = %+v, %v", got, err)
				}
			})
		}
		in := redPod(driver)
		if driver.Capabilities().ExplicitIP {
			in.IPs = nil
		} else {
			in.IPs = []netip.Addr{netip.MustParseAddr("10.20.0.9")}
		}
		if got, err := driver.BindPod(in); err == nil {
			t.Errorf("%s: addresses that do not fit the provider: %v", driver.Name(), got)
		}
	}
}

// TestObservePod: a pod that runs elsewhere, on a node of the pool for one, is in no network that it was bound to.
func TestObservePod(t *testing.T) {
	for _, driver := range Drivers() {
		mutation, err := driver.BindPod(redPod(driver))
		if err != nil {
			t.Fatal(err)
		}
		for name, tc := range map[string]struct {
			ips  []string
			want error
		}{
			"There":    {[]string{"10.20.0.9"}, nil},
			"OnANode":  {[]string{"10.244.1.9"}, network.ErrBindingMismatch},
			"Another":  {[]string{"10.20.1.9"}, network.ErrBindingMismatch},
			"OneMore":  {[]string{"10.20.0.9", "fd00::9"}, network.ErrBindingMismatch},
			"ItsTwice": {[]string{"10.20.0.9", "10.20.0.9"}, network.ErrBindingMismatch},
		} {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "abc123-web", Name: "p"}}
			mutation.Apply(&pod.ObjectMeta)
			for _, ip := range tc.ips {
				pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: ip})
			}
			if got, err := driver.ObservePod(pod); !errors.Is(err, tc.want) || got.Ready != (tc.want == nil) {
				t.Errorf("%s, %s: %+v, %v; want %v", driver.Name(), name, got, err, tc.want)
			}
			delete(pod.Annotations, annotationPlan)
			if got, err := driver.ObservePod(pod); !errors.Is(err, network.ErrBindingMismatch) {
				t.Errorf("%s, %s without a plan: %+v, %v", driver.Name(), name, got, err)
			}
		}
	}
}

// TestReadme: the README names every key, what it means, and no other; and no tenant may set one.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		keys := []string{table.subnet, table.groups, table.address}
		keys = slices.AppendSeq(keys, maps.Keys(table.annotations))
		keys = slices.AppendSeq(keys, maps.Keys(table.labels))
		keys = slices.DeleteFunc(keys, func(key string) bool { return key == "" })
		for _, key := range keys {
			line := fmt.Sprintf("| `%s` | `%s` | %s |", table.name, key, table.meanings[key])
			if table.meanings[key] == "" || !strings.Contains(string(readme), line) {
				t.Errorf("README.md lacks %s", line)
			}
			if !netkeys.Forbidden(key) {
				t.Errorf("tenants may set %s", key)
			}
		}
		if len(keys) != len(table.meanings) {
			t.Errorf("%s explains %d keys of %d", table.name, len(table.meanings), len(keys))
		}
	}
}
