package e2e

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// host is a pod as frames name it.
type host struct {
	name, node string
	mac        net.HardwareAddr
	ips        map[bool]netip.Addr // by whether it is IPv4
}

// hosts are the tenant's pods of a workload, by the nodes that they run on, as "pool-a-node-0".
func (v *vpcTenant) hosts(t *testing.T, app string) map[string]host {
	t.Helper()
	addresses := map[string][]string{}
	for line := range strings.Lines(v.run(t, "get", "pods", "-l", "app="+app, "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.podIPs[*].ip}{"\n"}{end}`)) {
		fields := strings.Fields(line)
		addresses[fields[0]] = fields[1:]
	}
	all := map[string]host{}
	for _, pool := range []string{"pool-a", "pool-b"} {
		for _, line := range v.onNodes(t, pool) {
			fields := strings.Fields(line)
			h := host{name: fields[0], node: pool + "-" + fields[1], ips: map[bool]netip.Addr{}}
			for _, text := range addresses[h.name] {
				ip, err := netip.ParseAddr(text)
				if err != nil {
					t.Fatal(err)
				}
				h.ips[ip.Is4()] = ip
				// The subnet is small: what is left of the place's number is its last byte.
				h.mac = net.HardwareAddr{2, 0, 0, 0, 0, ip.AsSlice()[len(ip.AsSlice())-1]}
			}
			if h.mac != nil {
				all[h.node] = h
			}
		}
	}
	if len(all) < 4 {
		t.Fatalf("%s is on %v alone", app, all)
	}
	return all
}

// forged has a tenant's container, which has raw sockets as runtimes give them, send what is not its own: with another
// source, another hardware address, claims of others' addresses, and packets of the tunnels. Nobody hears them; what is
// its own is heard, from the same socket.
func forged(t *testing.T, one, two *vpcTenant) {
	shells, webs := one.hosts(t, "shell"), one.hosts(t, "web")
	const here, there = "pool-a-node-0", "pool-b-node-0"
	attacker, friend := shells[here], shells[there]
	var frames []string
	var honest []string
	for _, at := range []string{here, "pool-a-node-1", there} {
		victim := webs[at]
		for _, four := range []bool{true, false} {
			send := func(what string, mac net.HardwareAddr, source host) string {
				note := fmt.Sprintf("note %s%t", what, four)
				frames = append(frames, udp(mac, victim.mac, source.ips[four], victim.ips[four], note))
				return note
			}
			send("source", attacker.mac, friend)
			send("hardware", friend.mac, attacker)
			send("both", friend.mac, friend)
			// The last one shows that the others have had their time.
			honest = append(honest, victim.name+"/"+send("honest", attacker.mac, attacker))
		}
	}
	// A neighbour's claims: the attacker is the friend, to who is beside it.
	target := webs[here]
	one.run(t, "exec", target.name, "--", "/echo", "-ask", "udp/"+netip.AddrPortFrom(friend.ips[true], 9).String(), "udp/"+netip.AddrPortFrom(friend.ips[false], 9).String())
	frames = append([]string{
		arpReply(attacker.mac, target.mac, friend.ips[true], target.ips[true]),
		advertisement(attacker.mac, target.mac, friend.ips[false], target.ips[false]),
	}, frames...)
	one.run(t, append([]string{"exec", attacker.name, "--", "/echo", "-frames"}, frames...)...)
	for _, want := range honest {
		name, note, _ := strings.Cut(want, "/")
		out := one.shows(t, []string{"logs", name}, note)
		for _, what := range []string{"note source", "note hardware", "note both"} {
			if strings.Contains(out, what) {
				t.Errorf("%s hears a forged %q", name, what)
			}
		}
	}
	known, right := one.run(t, "exec", target.name, "--", "ip", "neigh"), 0
	for line := range strings.Lines(known) {
		if ip, _, _ := strings.Cut(line, " "); ip == friend.ips[true].String() || ip == friend.ips[false].String() {
			if strings.Contains(line, " lladdr "+friend.mac.String()+" ") {
				right++
			}
		}
	}
	if right != 2 {
		t.Errorf("%s knows\n%s, but %v are at %s", target.name, known, friend.ips, friend.mac)
	}
	if notes := tunnelled(t, one, two); len(notes) > 0 {
		t.Errorf("packets of the tunnels out of a container arrive: %v", notes)
	}
}

// tunnelled has one's container write packets of the tunnels to every node, with frames inside as if they came from
// the other tenant's pods, and gives those that arrive.
func tunnelled(t *testing.T, one, two *vpcTenant) (arrived []string) {
	t.Helper()
	shells, theirs, webs := one.hosts(t, "shell"), two.hosts(t, "shell"), two.hosts(t, "web")
	vni := binary.BigEndian.AppendUint32(nil, uint32(number(t, admin().run(t, "get", "subnet", two.name+"-web", "-o", "jsonpath={.status.vni}")))<<8)
	now := time.Now().UnixNano()
	nonce := fmt.Sprintf("note tunnel%d", now)
	nodes := map[string][]string{"pool-a": nodeAddresses(t, "pool-a"), "pool-b": nodeAddresses(t, "pool-b")}
	for _, on := range []string{"pool-a-node-0", "pool-b-node-1"} {
		attacker := shells[on]
		gateway := gatewayMAC(t, one, attacker)
		var frames []string
		for node, victim := range webs {
			source := theirs["pool-a-node-0"]
			if node == source.node {
				source = theirs["pool-b-node-0"]
			}
			inner, err := hex.DecodeString(udp(source.mac, victim.mac, source.ips[true], victim.ips[true], nonce))
			if err != nil {
				t.Fatal(err)
			}
			pool, index := node[:len("pool-a")], node[len("pool-a-node-"):]
			address := netip.MustParseAddr(nodes[pool][number(t, index)])
			packet := slices.Concat([]byte{0x08, 0, 0, 0}, vni, inner)
			frames = append(frames, datagram(attacker.mac, gateway, attacker.ips[true], address, 4789, packet))
		}
		one.run(t, append([]string{"exec", attacker.name, "--", "/echo", "-frames"}, frames...)...)
	}
	// Their own shell is heard after all that.
	honest := fmt.Sprintf("note honest%d", now)
	for node, victim := range webs {
		source := theirs[node]
		two.run(t, "exec", source.name, "--", "/echo", "-frames", udp(source.mac, victim.mac, source.ips[true], victim.ips[true], honest))
		if out := two.shows(t, []string{"logs", victim.name}, honest); strings.Contains(out, nonce) {
			arrived = append(arrived, victim.name+" on "+node)
		}
	}
	return arrived
}

func number(t *testing.T, text string) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return n
}

// gatewayMAC asks a pod for its gateway's.
func gatewayMAC(t *testing.T, v *vpcTenant, h host) net.HardwareAddr {
	t.Helper()
	out := v.run(t, "exec", h.name, "--", "sh", "-c", "/echo -ask -patience=1s udp/10.0.1.1:9 >/dev/null; ip neigh show 10.0.1.1")
	fields := strings.Fields(out)
	if i := slices.Index(fields, "lladdr"); i >= 0 && i+1 < len(fields) {
		if mac, err := net.ParseMAC(fields[i+1]); err == nil {
			return mac
		}
	}
	t.Fatalf("%s knows no gateway: %s", h.name, out)
	return nil
}

// udp is a frame with a datagram to the images' server.
func udp(from, to net.HardwareAddr, source, destination netip.Addr, note string) string {
	return datagram(from, to, source, destination, 8080, []byte(note))
}

func datagram(from, to net.HardwareAddr, source, destination netip.Addr, port uint16, payload []byte) string {
	body := binary.BigEndian.AppendUint16([]byte{0xc3, 0x50}, port)
	body = binary.BigEndian.AppendUint16(body, uint16(8+len(payload)))
	body = append(append(body, 0, 0), payload...)
	return packet(from, to, source, destination, 17, 6, body)
}

// packet is a frame with an IP packet; sum is where its body's checksum is.
func packet(from, to net.HardwareAddr, source, destination netip.Addr, protocol byte, sum int, body []byte) string {
	pseudo := slices.Concat(source.AsSlice(), destination.AsSlice(), []byte{0, protocol}, binary.BigEndian.AppendUint16(nil, uint16(len(body))))
	binary.BigEndian.PutUint16(body[sum:], checksum(append(pseudo, body...)))
	var header, kind []byte
	if source.Is4() {
		kind = []byte{0x08, 0x00}
		header = binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(20+len(body)))
		header = slices.Concat(header, []byte{0, 1, 0, 0, 64, protocol, 0, 0}, source.AsSlice(), destination.AsSlice())
		binary.BigEndian.PutUint16(header[10:], checksum(header))
	} else {
		kind = []byte{0x86, 0xdd}
		header = binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(body)))
		header = slices.Concat(header, []byte{protocol, 255}, source.AsSlice(), destination.AsSlice())
	}
	return hex.EncodeToString(slices.Concat(to, from, kind, header, body))
}

func checksum(data []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	if len(data)%2 == 1 {
		sum += uint32(data[len(data)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// arpReply says to one that an address is the sender's.
func arpReply(from, to net.HardwareAddr, claimed, toIP netip.Addr) string {
	return hex.EncodeToString(slices.Concat(to, from, []byte{0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2}, from, claimed.AsSlice(), to, toIP.AsSlice()))
}

// advertisement says the same of an IPv6 address, and to forget what was known.
func advertisement(from, to net.HardwareAddr, claimed, toIP netip.Addr) string {
	const solicitedAndOverride, targetLinkAddress = 0x60, 2
	body := slices.Concat([]byte{136, 0, 0, 0, solicitedAndOverride, 0, 0, 0}, claimed.AsSlice(), []byte{targetLinkAddress, 1}, from)
	return packet(from, to, claimed, toIP, 58, 2, body)
}
