package localcluster

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// Everything that an instance takes from the machine has a name, a port or an address that follows from its run directory,
// its first port and its network. This file holds the rules.

// Limits that follow from how addresses are laid out.
const (
	maxPools        = 28
	maxNodesPerPool = 8
	// portsUsed is how many ports an instance with all pools takes, counted from its first.
	portsUsed = 20 + 10*maxPools
)

// instanceID names an instance. The same directory gives the same ID, so that even when the directory was deleted, what
// the instance left behind is found.
func instanceID(runDir string) string {
	return fmt.Sprintf("%.4x", sha256.Sum256([]byte(filepath.Clean(runDir))))
}

// Names of what the machine has only one name space for. A cable's begins with its bridge's.
func bridgeName(id string) string { return "vv" + id }
func isBridgeName(name string) bool {
	return len(name) == len(bridgeName("01234567")) && strings.HasPrefix(name, bridgeName(""))
}
func linkName(id string, host int) string { return fmt.Sprintf("%s-%02x", bridgeName(id), host) }
func cgroupName(id string) string         { return "/vivarium-" + id }
func tableName(id string) string          { return "vivarium-" + id }
func processMark(id string) string        { return "VIVARIUM_INSTANCE=" + id }

// poolName names the pools that come with an instance: pool-a, pool-b and so on.
func poolName(index int) string {
	if index < 26 {
		return "pool-" + string(rune('a'+index))
	}
	return fmt.Sprintf("pool-%d", index)
}

// nodeName is a node's name in its pool; names are the same in every pool.
func nodeName(n int) string { return fmt.Sprintf("node-%d", n) }

// Offsets from an instance's first port.
const (
	portTenants = iota
	portAdmin
	portKubelets
	portGatewayHealth
	portProviderHealth
	portSyncerHealth
	portNetworkHealth
	portMetrics

	portsControl = 10
	portsPools   = 20
	portsPerPool = 10
)

func controlPorts(base int) Ports       { return portsFrom(base + portsControl) }
func poolPorts(base, index int) Ports   { return portsFrom(base + portsPools + portsPerPool*index) }
func simulatorPort(base, index int) int { return base + portsPools + portsPerPool*index + 5 }
func measurerPort(base, index int) int  { return base + portsPools + portsPerPool*index + 6 }

// networks gives the networks of 2^16 addresses that an instance may choose from, the one that its first port suggests
// first. They lie in a part of 10.0.0.0/8 that neither clouds nor Kubernetes take by default.
func networks(portBase int) []netip.Prefix {
	const first, count = 64, 32
	var all []netip.Prefix
	for i := range count {
		second := first + (portBase/100+i)%count
		all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(second), 0, 0}), 16))
	}
	return all
}

// hostAddress is the host's in the instance's network, on its bridge.
func hostAddress(network netip.Prefix) netip.Addr { return in(network, 0, 1) }

// hostNumber is the last byte of a node's address and the third of its pods'.
func hostNumber(pool, n int) int { return 16 + pool*maxNodesPerPool + n }

// nodeAddress is a node's address in the network of the bridge, which is the first 256 addresses of the instance's.
func nodeAddress(network netip.Prefix, pool, n int) netip.Prefix {
	return netip.PrefixFrom(in(network, 0, hostNumber(pool, n)), 24)
}

// podNetwork is where the pods of a node get their addresses from.
func podNetwork(network netip.Prefix, pool, n int) netip.Prefix {
	return netip.PrefixFrom(in(network, hostNumber(pool, n), 0), 24)
}

func in(network netip.Prefix, third, fourth int) netip.Addr {
	bytes := network.Addr().As4()
	bytes[2], bytes[3] = byte(third), byte(fourth)
	return netip.AddrFrom4(bytes)
}
