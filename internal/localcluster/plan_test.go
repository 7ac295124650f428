package localcluster

import (
	"net/netip"
	"testing"
)

// TestPlan lays out the largest instance and looks for two things in one place.
func TestPlan(t *testing.T) {
	const base = 16000
	network := networks(base)[0]
	seen := map[string]string{}
	take := func(what, owner string) {
		t.Helper()
		if other, ok := seen[what]; ok {
			t.Errorf("%s is both %s and %s", what, other, owner)
		}
		seen[what] = owner
	}
	port := func(port int, owner string) {
		t.Helper()
		if port < base || port >= base+portsUsed {
			t.Errorf("port %d of %s lies outside of the instance's", port, owner)
		}
		take(netip.AddrPortFrom(hostAddress(network), uint16(port)).String(), owner)
	}
	for offset, owner := range map[int]string{
		portTenants: "tenants", portAdmin: "admin", portKubelets: "kubelets", portGatewayHealth: "gateway",
		portProviderHealth: "vk-provider", portSyncerHealth: "syncer", portNetworkHealth: "network",
	} {
		port(base+offset, owner)
	}
	plane := func(p Ports, owner string) {
		t.Helper()
		for _, n := range []int{p.EtcdClient, p.EtcdPeer, p.APIServer, p.ControllerManager, p.Scheduler} {
			port(n, owner)
		}
	}
	plane(controlPorts(base), "control")
	bridge := netip.PrefixFrom(network.Addr(), 24)
	take(hostAddress(network).String(), "host")
	for pool := range maxPools {
		take(poolName(pool), "pool name")
		plane(poolPorts(base, pool), poolName(pool))
		port(simulatorPort(base, pool), poolName(pool)+" simulator")
		for n := range maxNodesPerPool {
			owner := poolName(pool) + " " + nodeName(n)
			node, pods, link := nodeAddress(network, pool, n), podNetwork(network, pool, n), linkName("01234567", hostNumber(pool, n))
			take(node.Addr().String(), owner)
			take(pods.String(), owner)
			take(link, owner)
			if node.Masked() != bridge {
				t.Errorf("%s: %s is not in the bridge's network %s", owner, node, bridge)
			}
			if !network.Contains(pods.Addr()) || pods.Overlaps(bridge) {
				t.Errorf("%s: pods in %s", owner, pods)
			}
			if len(link) > 15 {
				t.Errorf("%s: the kernel allows 15 characters in %s", owner, link)
			}
		}
	}
}

func TestInstances(t *testing.T) {
	if a, b := networks(16000)[0], networks(17000)[0]; a == b {
		t.Errorf("two instances begin with the network %s", a)
	}
	if all := networks(16000); len(all) != 32 || all[31] == all[0] {
		t.Errorf("networks: %v", all)
	}
	if a, b := instanceID("/a/.run"), instanceID("/b/.run"); a == b || len(a) != 8 {
		t.Errorf("IDs %s and %s", a, b)
	}
	if a, b := instanceID("/a/.run"), instanceID("/a/.run/"); a != b {
		t.Errorf("one directory, two IDs: %s and %s", a, b)
	}
}
