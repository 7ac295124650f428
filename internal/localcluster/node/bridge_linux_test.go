package node

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// inNamespace names the variable that tells a test that it runs in a network namespace of its own.
const inNamespace = "NODE_TEST_NAMESPACE"

// inOwnNetwork runs the test once more in a network namespace of its own, and reports whether this is that run.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		return true
	}
	if err := Possible(); err != nil {
		t.Skip(err)
	}
	for _, program := range []string{"nft", "iptables"} {
		if _, ok := FindProgram(program); !ok {
			t.Skipf("%s is not installed", program)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	again := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), inNamespace+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if out, err := again.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

func exampleBridge(name string, second byte) Bridge {
	network := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, second, 0, 0}), 16)
	return Bridge{
		Name: name, Table: "vivarium-" + name, Network: network, Address: netip.PrefixFrom(network.Addr().Next(), 24), Ports: "16000:16299",
		Sibling: func(other string) bool { return strings.HasPrefix(other, "vv") },
	}
}

// snapshot is all that a bridge may change in a network namespace.
func snapshot(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, command := range [][]string{{"ip", "-o", "-br", "link"}, {"ip", "route"}, {"nft", "list", "ruleset"}, {"cat", "/proc/sys/net/ipv4/ip_forward"}} {
		out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v", command, err)
		}
		all.Write(out)
	}
	return all.String()
}

func ensure(t *testing.T, b Bridge) {
	t.Helper()
	notes, err := b.Ensure()
	if err != nil || strings.Contains(strings.Join(notes, "\n"), "warning") {
		t.Fatalf("%s: %q, %v", b.Name, notes, err)
	}
}

func remove(t *testing.T, b Bridge) {
	t.Helper()
	if err := b.Remove(); err != nil {
		t.Fatal(err)
	}
}

func TestBridge(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	before := snapshot(t)
	one, two := exampleBridge("vv1", 64), exampleBridge("vv2", 65)
	ensure(t, one)
	made := snapshot(t)
	ensure(t, one)
	if diff := cmp.Diff(made, snapshot(t)); diff != "" {
		t.Errorf("a second Ensure changed something:\n%s", diff)
	}
	for _, want := range []string{"vv1", "10.64.0.0/24", "masquerade"} {
		if !strings.Contains(made, want) {
			t.Errorf("lacks %s:\n%s", want, made)
		}
	}
	if free, err := FreeNetwork([]netip.Prefix{one.Network, two.Network}); err != nil || free != two.Network {
		t.Errorf("free network: %s, %v", free, err)
	}
	if _, err := FreeNetwork([]netip.Prefix{one.Network}); err == nil {
		t.Error("a network in use was found free")
	}

	// The host goes on forwarding packets as long as one of two bridges needs it, whichever came first.
	ensure(t, two)
	remove(t, one)
	if now := snapshot(t); !strings.HasSuffix(now, "1\n") || strings.Contains(now, "vv1") {
		t.Errorf("after the first of two went:\n%s", now)
	}
	remove(t, two)
	remove(t, two)
	if diff := cmp.Diff(before, snapshot(t)); diff != "" {
		t.Errorf("something is left (-before +after):\n%s", diff)
	}
}

// TestBridgeBehindFirewall makes a bridge on a host that drops what nobody has allowed.
func TestBridgeBehindFirewall(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	for _, chain := range []string{"INPUT", "FORWARD"} {
		if err := run("", "iptables", "-P", chain, "DROP"); err != nil {
			t.Skip(err)
		}
	}
	before := snapshot(t)
	b := exampleBridge("vv1", 64)
	ensure(t, b)
	ensure(t, b)
	rules := strings.Join(filterRules(), "\n")
	for _, want := range []string{"-A INPUT -i vv1 -p tcp -m tcp --dport 16000:16299", "-A FORWARD -i vv1", "-A FORWARD -o vv1"} {
		if strings.Count(rules, want) != 1 {
			t.Errorf("want one %q:\n%s", want, rules)
		}
	}
	remove(t, b)
	if diff := cmp.Diff(before, snapshot(t)); diff != "" {
		t.Errorf("something is left (-before +after):\n%s", diff)
	}
}
