//go:build linux

package plane

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network/vxlan/internal/state"
)

// lab is a wire with two nodes on it, each a network namespace, and the world behind the wire. Everything is real but the
// machines' walls.
type lab struct {
	t     *testing.T
	wire  *os.File
	nodes map[string]*labNode
	pods  map[string]*labPod
	vpcs  map[string]*state.Desired
	// served says that services was called.
	served bool
}

type labNode struct {
	*Node
	addr netip.Addr
	ns   *os.File
}

type labPod struct {
	Pod
	vpc, node string
	ns        *os.File
}

// The lab's addresses: of the world (which is also the way out), of a cloud's metadata, of something public.
var (
	worldAddr    = netip.MustParseAddr("10.99.0.254")
	metadataAddr = netip.MustParseAddr("169.254.169.254")
	publicAddr   = netip.MustParseAddr("203.0.113.7")
	privateAddr  = netip.MustParseAddr("192.168.77.7")
	apiAddr      = netip.AddrPortFrom(worldAddr, 6443)
)

// possible skips the test where it is not root, and where the machine lacks the programs, which `make tools` installs; in
// CI that is a failure, as is a kernel that lacks something.
func possible(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	_, err := program("nft")
	if err == nil && pluginsDir() == "" {
		err = errors.New("the stock CNI plugins are not installed")
	}
	switch {
	case err != nil && kubetest.InCI():
		t.Fatalf("%v; run `make tools` first", err)
	case err != nil:
		t.Skip(err)
	}
}

func pluginsDir() string {
	for _, dir := range []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"} {
		if _, err := os.Stat(filepath.Join(dir, "host-local")); err == nil {
			return dir
		}
	}
	return ""
}

// newLab makes the lab with guards switched off.
func newLab(t *testing.T, omit ...guard) *lab {
	t.Helper()
	possible(t)
	l := &lab{t: t, nodes: map[string]*labNode{}, pods: map[string]*labPod{}, vpcs: map[string]*state.Desired{}}
	l.wire = l.namespace("wire")
	links := l.handle(l.wire)
	l.up(links, "lo")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "wire"
	l.must(links.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	bridge := l.up(links, "wire")
	for _, addr := range []string{worldAddr.String() + "/24", "fd99::fe/64", metadataAddr.String() + "/32", publicAddr.String() + "/32", privateAddr.String() + "/32"} {
		l.must(ensureAddress(links, bridge, netip.MustParsePrefix(addr)))
	}
	off := map[guard]bool{}
	for _, g := range omit {
		off[g] = true
	}
	for i, name := range []string{"a", "b"} {
		ns := l.namespace("node-" + name)
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MasterIndex = "to-"+name, bridge.Attrs().Index
		l.must(links.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}))
		l.up(links, attrs.Name)
		inside := l.handle(ns)
		l.up(inside, "lo")
		eth0 := l.up(inside, "eth0")
		addr := netip.AddrFrom4([4]byte{10, 99, 0, byte(i + 1)})
		l.must(ensureAddress(inside, eth0, netip.PrefixFrom(addr, 24)))
		l.must(ensureAddress(inside, eth0, netip.MustParsePrefix(fmt.Sprintf("fd99::%d/64", i+1))))
		l.must(inside.RouteReplace(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: worldAddr.AsSlice()}))
		node, err := New(Config{
			Dir: t.TempDir(), Tunnel: addr, Plugins: pluginsDir(), NetNS: ns.Name(),
			Protected: []netip.Prefix{netip.MustParsePrefix("10.99.0.0/24"), netip.MustParsePrefix("fd99::/64")}, omit: off,
		})
		l.must(err)
		t.Cleanup(func() {
			vpcs, _ := node.Known()
			for _, vpc := range vpcs {
				_ = removeNetNS(node.netnsPath(vpc))
			}
			node.Close()
		})
		l.nodes[name] = &labNode{Node: node, addr: addr, ns: ns}
	}
	for _, n := range l.nodes {
		l.must(n.Guard([]netip.Addr{l.nodes["a"].addr, l.nodes["b"].addr}, []netip.AddrPort{apiAddr}))
	}
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// namespace makes a network namespace that ends with the test.
func (l *lab) namespace(name string) *os.File {
	l.t.Helper()
	path := filepath.Join(l.t.TempDir(), name)
	ns, _, err := openNetNS(path)
	l.must(err)
	l.t.Cleanup(func() {
		_ = ns.Close()
		if err := removeNetNS(path); err != nil {
			l.t.Error(err)
		}
	})
	return ns
}

func (l *lab) handle(ns *os.File) *netlink.Handle {
	l.t.Helper()
	h, err := handle(ns)
	l.must(err)
	l.t.Cleanup(h.Close)
	return h
}

func (l *lab) up(links *netlink.Handle, name string) netlink.Link {
	l.t.Helper()
	link, err := links.LinkByName(name)
	l.must(err)
	l.must(links.LinkSetUp(link))
	return link
}

// vpc declares a VPC: the same addresses as every other one.
func (l *lab) vpc(name string, number uint32, tenant names.TenantID) *state.Desired {
	subnet := func(i uint32) state.Subnet {
		return state.Subnet{
			UID: types.UID(fmt.Sprintf("%s-s%d", name, i)), Name: fmt.Sprintf("s%d", i), VNI: number + i,
			CIDRs:   []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", i)), netip.MustParsePrefix(fmt.Sprintf("fd10:0:0:%d::/64", i))},
			Gateway: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.0.%d.1", i)), netip.MustParseAddr(fmt.Sprintf("fd10:0:0:%d::1", i))},
		}
	}
	v := &state.Desired{VPC: state.VPC{
		UID: types.UID(name), Name: name, Tenant: tenant, Egress: true, API: apiAddr,
		CIDRs:   []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("fd10::/48")},
		Subnets: []state.Subnet{subnet(1), subnet(2)},
	}}
	l.vpcs[name] = v
	return v
}

// pod gives a VPC a pod: host is the last part of its addresses, in the numbered subnet.
func (l *lab) pod(vpc, name, node string, subnet, host int) *labPod {
	l.t.Helper()
	v := l.vpcs[vpc]
	ns := l.namespace(vpc + "-" + name)
	p := &labPod{vpc: vpc, node: node, ns: ns, Pod: Pod{
		Container: vpc + "-" + name, NetNS: ns.Name(), Interface: "eth0", UID: types.UID(vpc + "-" + name), Namespace: vpc, Name: name,
		VPC: v.UID, Subnet: v.Subnets[subnet-1].UID, MAC: fmt.Sprintf("02:00:00:00:%02x:%02x", subnet, host),
		IPs: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.0.%d.%d", subnet, host)), netip.MustParseAddr(fmt.Sprintf("fd10:0:0:%d::%x", subnet, host))},
	}}
	v.Endpoints = append(v.Endpoints, state.Endpoint{Pod: p.UID, Subnet: p.Subnet, IPs: p.IPs, MAC: p.MAC, Node: l.nodes[node].addr})
	l.pods[vpc+"/"+name] = p
	return p
}

// build makes on all nodes what was declared, and has every pod answer with its name.
func (l *lab) build() {
	l.t.Helper()
	l.store()
	for name, p := range l.pods {
		if p.Port == "" {
			l.attach(p)
			l.answer(p.ns, name, 8080)
		}
	}
}

func (l *lab) store() {
	l.t.Helper()
	for _, v := range l.vpcs {
		for _, n := range l.nodes {
			_, err := n.Store(v)
			l.must(err)
			l.must(n.Ensure(v.UID, false))
		}
	}
}

func (l *lab) attach(p *labPod) {
	l.t.Helper()
	l.up(l.handle(p.ns), "lo")
	attached, err := l.nodes[p.node].Attach(p.Pod)
	l.must(err)
	p.Infra = attached.Infra
	for _, i := range attached.Interfaces {
		if i.Sandbox == "" && !strings.HasPrefix(i.Name, "br") {
			p.Port = i.Name
		}
	}
}

// two is the lab that most tests need: red and blue with the same addresses on both nodes, and one pod of each that the
// other has no twin of.
func two(t *testing.T) *lab {
	t.Helper()
	l := newLab(t)
	for i, vpc := range []string{"red", "blue"} {
		l.vpc(vpc, uint32(100*(i+1)), names.TenantID(vpc+"12345"[:6-len(vpc)]))
		l.pod(vpc, "p1", "a", 1, 11)
		l.pod(vpc, "p2", "a", 1, 12)
		l.pod(vpc, "p3", "b", 1, 13)
		l.pod(vpc, "p4", "b", 2, 14)
		l.pod(vpc, "only", "b", 1, 50+10*i)
	}
	l.build()
	return l
}

// few has what one breach needs.
func few(t *testing.T, omit ...guard) *lab {
	t.Helper()
	l := newLab(t, omit...)
	l.vpc("red", 100, "red123")
	l.pod("red", "p1", "a", 1, 11)
	l.pod("red", "p2", "a", 1, 12)
	l.pod("red", "p3", "b", 1, 13)
	l.vpc("blue", 200, "blue12")
	l.pod("blue", "p1", "a", 1, 11)
	l.pod("blue", "p3", "b", 1, 13)
	l.build()
	return l
}

// answer serves a name over TCP and UDP to whoever asks, in all places or, over UDP, at one address.
func (l *lab) answer(ns *os.File, name string, port int, at ...netip.Addr) {
	l.t.Helper()
	l.must(inside(ns, func() error {
		tcp, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		place := fmt.Sprintf(":%d", port)
		if len(at) > 0 {
			place = netip.AddrPortFrom(at[0], uint16(port)).String()
		}
		udp, err := net.ListenPacket("udp", place)
		if err != nil {
			return err
		}
		l.t.Cleanup(func() { _, _ = tcp.Close(), udp.Close() })
		go func() {
			for {
				c, err := tcp.Accept()
				if err != nil {
					return
				}
				_, _ = fmt.Fprintf(c, "%s %s\n", name, c.RemoteAddr())
				_ = c.Close()
			}
		}()
		go func() {
			buffer := make([]byte, 2000)
			for {
				_, from, err := udp.ReadFrom(buffer)
				if err != nil {
					return
				}
				_, _ = udp.WriteTo(fmt.Appendf(nil, "%s %s\n", name, from), from)
			}
		}()
		return nil
	}))
}

// Patience: what must come may take its time on a busy machine, what must not come is given up soon; the tests with a
// guard switched off show that soon is late enough.
const (
	patience   = 20 * time.Second
	impatience = 400 * time.Millisecond
)

var errNoAnswer = errors.New("no answer")

// ask asks from a namespace, once, and gives who answers and whom that one sees.
func ask(ns *os.File, network string, to netip.AddrPort, local int, wait time.Duration) (who, seen string, err error) {
	err = inside(ns, func() error {
		dialer := net.Dialer{Timeout: wait, FallbackDelay: -1}
		if local != 0 && network == "tcp" {
			dialer.LocalAddr = &net.TCPAddr{Port: local}
		} else if local != 0 {
			dialer.LocalAddr = &net.UDPAddr{Port: local}
		}
		c, err := dialer.Dial(network, to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		// A connection that was reset frees its port at once.
		if tcp, ok := c.(*net.TCPConn); ok && local != 0 {
			_ = tcp.SetLinger(0)
		}
		for deadline := time.Now().Add(wait); time.Now().Before(deadline); {
			if network == "udp" {
				if _, err := c.Write([]byte("who?")); err != nil {
					return err
				}
			}
			_ = c.SetReadDeadline(time.Now().Add(min(wait, 2*time.Second)))
			line, err := bufio.NewReader(c).ReadString('\n')
			if err == nil {
				who, seen, _ = strings.Cut(strings.TrimSpace(line), " ")
				return nil
			}
			if network == "tcp" {
				return err
			}
		}
		return errNoAnswer
	})
	return who, seen, err
}

// reaches fails the test unless the wanted one answers.
func (l *lab) reaches(from *os.File, network string, to netip.AddrPort, want string) (seen string) {
	l.t.Helper()
	who, seen, err := ask(from, network, to, 0, patience)
	if err != nil || who != want {
		l.t.Errorf("%s over %s from %s: %q answers, want %q (%v)", to, network, filepath.Base(from.Name()), who, want, err)
	}
	return seen
}

// silent reports that nobody answers.
func silent(from *os.File, network string, to netip.AddrPort) error {
	if who, seen, err := ask(from, network, to, 0, impatience); err == nil {
		return fmt.Errorf("%s over %s from %s: %q answers to %s, want nobody", to, network, filepath.Base(from.Name()), who, seen)
	}
	return nil
}

// at8080 is where pods answer.
func at8080(ip netip.Addr) netip.AddrPort { return netip.AddrPortFrom(ip, 8080) }

// frames sends made-up frames out of a pod's interface.
func (l *lab) send(ns *os.File, frames ...[]byte) {
	l.t.Helper()
	l.must(inside(ns, func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, frame := range frames {
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index, Halen: 6}); err != nil {
				return err
			}
		}
		return nil
	}))
}

// counted counts the frames that arrive in a namespace and match, until it is asked.
func (l *lab) counted(ns *os.File, match func(frame []byte) bool) func() int64 {
	l.t.Helper()
	var count atomic.Int64
	var fd int
	l.must(inside(ns, func() (err error) {
		const all = 0x0300 // ETH_P_ALL in network order
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, all); err != nil {
			return err
		}
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index})
	}))
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 4000)
		for {
			size, _, err := unix.Recvfrom(fd, buffer, 0)
			if err == nil && match(buffer[:size]) {
				count.Add(1)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	l.t.Cleanup(func() { close(stop); <-done; _ = unix.Close(fd) })
	return count.Load
}
