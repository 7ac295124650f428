package resolver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"vivarium.io/vivarium/network"
)

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

// example is what the tests ask about.
func example() []network.Service {
	ports := []network.NamedPort{{Name: "peer", Protocol: "TCP", Port: 2380}}
	return []network.Service{
		{Namespace: "default", Name: "kubernetes", IPs: addrs("10.96.0.1"), Ports: []network.ServicePort{{Name: "https", Protocol: "TCP", Port: 443}}},
		{
			Namespace: "team", Name: "web", IPs: addrs("10.96.0.10", "fd96::10"),
			Ports: []network.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}, {Name: "Sip", Protocol: "UDP", Port: 5060}},
		},
		{Namespace: "team", Name: "plain", IPs: addrs("10.96.0.11"), Ports: []network.ServicePort{{Protocol: "TCP", Port: 80}}},
		{Namespace: "team", Name: "db", Hosts: []network.ServiceHost{
			{Name: "db-0", IP: netip.MustParseAddr("10.0.1.5"), Ports: ports},
			{Name: "db-0", IP: netip.MustParseAddr("fd10::5"), Ports: ports},
			{Name: "db-1", IP: netip.MustParseAddr("10.0.1.6"), Ports: ports},
			{IP: netip.MustParseAddr("10.0.1.7"), Ports: []network.NamedPort{{Name: "peer", Protocol: "TCP", Port: 9999}}},
			{IP: netip.MustParseAddr("fd10::7")},
		}},
		{Namespace: "team", Name: "empty"},
		{Namespace: "team", Name: "alias", External: "web.team.svc.Cluster.Local"},
		{Namespace: "team", Name: "away", External: "www.example.com"},
		{Namespace: "team", Name: "loop-a", External: "loop-b.team.svc.cluster.local"},
		{Namespace: "team", Name: "loop-b", External: "loop-a.team.svc.cluster.local"},
		{Namespace: "team", Name: "nowhere", External: "missing.team.svc.cluster.local"},
	}
}

var exampleCIDRs = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("2001:db8:7::/48")}

func newResolver(upstream ...netip.AddrPort) *Resolver {
	r := New(Upstream{Servers: upstream})
	// No test is about how fast this machine is.
	r.attempt, r.patience = time.Minute, 2*time.Minute
	r.Set(exampleCIDRs, example(), true)
	return r
}

// asked asks a resolver as a pod does, without sockets, and gives nil where there is no answer.
func asked(t *testing.T, r *Resolver, m *dns.Msg, most int) *dns.Msg {
	t.Helper()
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	q := r.prepare(raw, most)
	if q == nil {
		return nil
	}
	if q.away != "" {
		r.ask(t.Context(), q)
	}
	out := new(dns.Msg)
	if err := out.Unpack(q.pack()); err != nil {
		t.Fatalf("an answer that is none: %v", err)
	}
	return out
}

func query(name string, kind uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, kind) }

// said gives what an answer says, in an order of its own.
func said(m *dns.Msg) []string {
	out := []string{dns.RcodeToString[m.Rcode]}
	for prefix, section := range map[string][]dns.RR{"": m.Answer, "+": m.Extra, "!": m.Ns} {
		for _, record := range section {
			fields := strings.Fields(record.String())
			line := strings.Join(slices.Delete(fields, 2, 3), " ")
			if soa, ok := record.(*dns.SOA); ok {
				line = fields[0] + " SOA " + fmt.Sprint(soa.Minttl)
			}
			out = append(out, prefix+line)
		}
	}
	slices.Sort(out[1:])
	return out
}

// TestNames is what names mean, by Kubernetes' DNS-Based Service Discovery.
func TestNames(t *testing.T) {
	r := newResolver()
	soa := "!cluster.local. SOA 5"
	for _, tc := range []struct {
		name string
		kind uint16
		want []string
	}{
		{"web.team.svc.cluster.local.", dns.TypeA, []string{"NOERROR", "web.team.svc.cluster.local. 5 A 10.96.0.10"}},
		{"WEB.Team.svc.cluster.LOCAL.", dns.TypeA, []string{"NOERROR", "WEB.Team.svc.cluster.LOCAL. 5 A 10.96.0.10"}},
		{"web.team.svc.cluster.local.", dns.TypeAAAA, []string{"NOERROR", "web.team.svc.cluster.local. 5 AAAA fd96::10"}},
		{"kubernetes.default.svc.cluster.local.", dns.TypeA, []string{"NOERROR", "kubernetes.default.svc.cluster.local. 5 A 10.96.0.1"}},
		// The name is there, the type is not.
		{"plain.team.svc.cluster.local.", dns.TypeAAAA, []string{"NOERROR", soa}},
		{"web.team.svc.cluster.local.", dns.TypeMX, []string{"NOERROR", soa}},
		{"empty.team.svc.cluster.local.", dns.TypeA, []string{"NOERROR", soa}},
		{"team.svc.cluster.local.", dns.TypeA, []string{"NOERROR", soa}},
		{"svc.cluster.local.", dns.TypeA, []string{"NOERROR", soa}},
		{"_tcp.web.team.svc.cluster.local.", dns.TypeSRV, []string{"NOERROR", soa}},
		// Nothing is there.
		{"missing.team.svc.cluster.local.", dns.TypeA, []string{"NXDOMAIN", soa}},
		{"web.other.svc.cluster.local.", dns.TypeA, []string{"NXDOMAIN", soa}},
		{"other.svc.cluster.local.", dns.TypeA, []string{"NXDOMAIN", soa}},
		{"x.web.team.svc.cluster.local.", dns.TypeA, []string{"NXDOMAIN", soa}},
		{"_other._tcp.web.team.svc.cluster.local.", dns.TypeSRV, []string{"NXDOMAIN", soa}},
		{"_http._udp.web.team.svc.cluster.local.", dns.TypeSRV, []string{"NXDOMAIN", soa}},
		{"_http._tcp.plain.team.svc.cluster.local.", dns.TypeSRV, []string{"NXDOMAIN", soa}},
		{"example.com.svc.cluster.local.", dns.TypeA, []string{"NXDOMAIN", soa}},
		{"10-0-1-5.db.team.svc.cluster.local.", dns.TypeA, []string{"NXDOMAIN", soa}},
		// Ports.
		{"_http._tcp.web.team.svc.cluster.local.", dns.TypeSRV, []string{
			"NOERROR", "+web.team.svc.cluster.local. 5 A 10.96.0.10", "+web.team.svc.cluster.local. 5 AAAA fd96::10",
			"_http._tcp.web.team.svc.cluster.local. 5 SRV 0 100 80 web.team.svc.cluster.local.",
		}},
		{"_sip._udp.web.team.svc.cluster.local.", dns.TypeSRV, []string{
			"NOERROR", "+web.team.svc.cluster.local. 5 A 10.96.0.10", "+web.team.svc.cluster.local. 5 AAAA fd96::10",
			"_sip._udp.web.team.svc.cluster.local. 5 SRV 0 100 5060 web.team.svc.cluster.local.",
		}},
		{"_http._tcp.web.team.svc.cluster.local.", dns.TypeA, []string{"NOERROR", soa}},
		// Headless.
		{"db.team.svc.cluster.local.", dns.TypeA, []string{
			"NOERROR", "db.team.svc.cluster.local. 5 A 10.0.1.5", "db.team.svc.cluster.local. 5 A 10.0.1.6", "db.team.svc.cluster.local. 5 A 10.0.1.7",
		}},
		{"db.team.svc.cluster.local.", dns.TypeAAAA, []string{"NOERROR", "db.team.svc.cluster.local. 5 AAAA fd10::5", "db.team.svc.cluster.local. 5 AAAA fd10::7"}},
		{"db-0.db.team.svc.cluster.local.", dns.TypeA, []string{"NOERROR", "db-0.db.team.svc.cluster.local. 5 A 10.0.1.5"}},
		{"db-1.db.team.svc.cluster.local.", dns.TypeAAAA, []string{"NOERROR", soa}},
		{"10-0-1-7.db.team.svc.cluster.local.", dns.TypeA, []string{"NOERROR", "10-0-1-7.db.team.svc.cluster.local. 5 A 10.0.1.7"}},
		{"fd10--7.db.team.svc.cluster.local.", dns.TypeAAAA, []string{"NOERROR", "fd10--7.db.team.svc.cluster.local. 5 AAAA fd10::7"}},
		{"_peer._tcp.db.team.svc.cluster.local.", dns.TypeSRV, []string{
			"NOERROR", "+10-0-1-7.db.team.svc.cluster.local. 5 A 10.0.1.7",
			"+db-0.db.team.svc.cluster.local. 5 A 10.0.1.5", "+db-0.db.team.svc.cluster.local. 5 AAAA fd10::5", "+db-1.db.team.svc.cluster.local. 5 A 10.0.1.6",
			"_peer._tcp.db.team.svc.cluster.local. 5 SRV 0 33 2380 db-0.db.team.svc.cluster.local.",
			"_peer._tcp.db.team.svc.cluster.local. 5 SRV 0 33 2380 db-1.db.team.svc.cluster.local.",
			"_peer._tcp.db.team.svc.cluster.local. 5 SRV 0 33 9999 10-0-1-7.db.team.svc.cluster.local.",
		}},
		// Names for names.
		{"alias.team.svc.cluster.local.", dns.TypeA, []string{
			"NOERROR", "alias.team.svc.cluster.local. 5 CNAME web.team.svc.cluster.local.", "web.team.svc.cluster.local. 5 A 10.96.0.10",
		}},
		{"alias.team.svc.cluster.local.", dns.TypeCNAME, []string{"NOERROR", "alias.team.svc.cluster.local. 5 CNAME web.team.svc.cluster.local."}},
		{"alias.team.svc.cluster.local.", dns.TypeMX, []string{"NOERROR", soa, "alias.team.svc.cluster.local. 5 CNAME web.team.svc.cluster.local."}},
		{"nowhere.team.svc.cluster.local.", dns.TypeA, []string{"NXDOMAIN", soa, "nowhere.team.svc.cluster.local. 5 CNAME missing.team.svc.cluster.local."}},
		// Addresses.
		{"10.0.96.10.in-addr.arpa.", dns.TypePTR, []string{"NOERROR", "10.0.96.10.in-addr.arpa. 5 PTR web.team.svc.cluster.local."}},
		{"6.1.0.10.in-addr.arpa.", dns.TypePTR, []string{"NOERROR", "6.1.0.10.in-addr.arpa. 5 PTR db-1.db.team.svc.cluster.local."}},
		{"0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.D.F.ip6.arpa.", dns.TypePTR, []string{
			"NOERROR", "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.D.F.ip6.arpa. 5 PTR web.team.svc.cluster.local.",
		}},
		{"10.0.96.10.in-addr.arpa.", dns.TypeA, []string{"NOERROR", "!10.0.96.10.in-addr.arpa. SOA 5"}},
		{"9.9.96.10.in-addr.arpa.", dns.TypePTR, []string{"NXDOMAIN", "!9.9.96.10.in-addr.arpa. SOA 5"}},
		{"1.1.168.192.in-addr.arpa.", dns.TypePTR, []string{"NXDOMAIN", "!1.1.168.192.in-addr.arpa. SOA 5"}},
		{"2.255.19.198.in-addr.arpa.", dns.TypePTR, []string{"NXDOMAIN", "!2.255.19.198.in-addr.arpa. SOA 5"}},
		{"10.in-addr.arpa.", dns.TypeSOA, []string{"NOERROR", "!10.in-addr.arpa. SOA 5"}},
		// The domain itself.
		{"dns-version.cluster.local.", dns.TypeTXT, []string{"NOERROR", `dns-version.cluster.local. 5 TXT "1.1.0"`}},
		{"cluster.local.", dns.TypeSOA, []string{"NOERROR", "cluster.local. SOA 5"}},
		{"cluster.local.", dns.TypeNS, []string{"NOERROR", "cluster.local. 5 NS ns.dns.cluster.local."}},
		{"localhost.", dns.TypeAAAA, []string{"NOERROR", "localhost. 5 AAAA ::1"}},
		// Outside, of which there is nothing without name servers.
		{"www.example.com.", dns.TypeA, []string{"NXDOMAIN", "!www.example.com. SOA 5"}},
		{"8.8.8.8.in-addr.arpa.", dns.TypePTR, []string{"NXDOMAIN", "!8.8.8.8.in-addr.arpa. SOA 5"}},
		{".", dns.TypeNS, []string{"NXDOMAIN", "!. SOA 5"}},
		{"notcluster.local.", dns.TypeA, []string{"NXDOMAIN", "!notcluster.local. SOA 5"}},
	} {
		reply := asked(t, r, query(tc.name, tc.kind), dns.MaxMsgSize)
		if diff := cmp.Diff(tc.want, said(reply)); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", tc.name, dns.TypeToString[tc.kind], diff)
		}
		if reply.Question[0].Name != tc.name || reply.Authoritative != inZone(strings.ToLower(tc.name)) {
			t.Errorf("%s: question %v, authoritative %v", tc.name, reply.Question, reply.Authoritative)
		}
	}
	// Who lets names stand for each other is answered all the same.
	if reply := asked(t, r, query("loop-a.team.svc.cluster.local.", dns.TypeA), mostUDP); reply == nil || len(reply.Answer) == 0 || len(reply.Answer) > 8 {
		t.Errorf("a loop: %v", reply)
	}
}

// TestForm is what questions get that are not about names.
func TestForm(t *testing.T) {
	r := newResolver()
	with := func(change func(m *dns.Msg)) *dns.Msg {
		m := query("web.team.svc.cluster.local.", dns.TypeA)
		change(m)
		return m
	}
	for name, tc := range map[string]struct {
		asked *dns.Msg
		want  int
	}{
		"Good":      {with(func(m *dns.Msg) {}), dns.RcodeSuccess},
		"Edns":      {with(func(m *dns.Msg) { m.SetEdns0(4096, true) }), dns.RcodeSuccess},
		"Chaos":     {with(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		"AnyClass":  {with(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }), dns.RcodeRefused},
		"Transfer":  {with(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }), dns.RcodeRefused},
		"Increment": {with(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeIXFR }), dns.RcodeRefused},
		"Two":       {with(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError},
		"None":      {with(func(m *dns.Msg) { m.Question = nil }), dns.RcodeFormatError},
		"Update":    {with(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		"Version":   {with(func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }), dns.RcodeBadVers},
		"TwoOPT":    {with(func(m *dns.Msg) { m.SetEdns0(1232, false); m.SetEdns0(1232, false) }), dns.RcodeFormatError},
	} {
		reply := asked(t, r, tc.asked, mostUDP)
		if reply == nil || reply.Rcode != tc.want || reply.Id != tc.asked.Id || !reply.Response {
			t.Errorf("%s: %v, want %s", name, reply, dns.RcodeToString[tc.want])
		}
		if reply != nil && len(reply.Answer) > 0 && tc.want != dns.RcodeSuccess {
			t.Errorf("%s: it says %v", name, reply.Answer)
		}
	}
	if reply := asked(t, r, query("web.team.svc.cluster.local.", dns.TypeANY), mostUDP); len(reply.Answer) != 1 || reply.Answer[0].Header().Rrtype != dns.TypeHINFO {
		t.Errorf("everything: %v", reply)
	}
	if reply := asked(t, r, with(func(m *dns.Msg) { m.Response = true }), mostUDP); reply != nil {
		t.Errorf("an answer is answered: %v", reply)
	}
	for _, raw := range [][]byte{nil, {1}, make([]byte, 11), []byte("who are you, and what do you want?")} {
		if q := r.prepare(raw, mostUDP); q != nil {
			t.Errorf("%q is answered: %v", raw, q.reply)
		}
	}
}

// TestLong: what is too long for UDP says so and is whole over TCP, and the order is another each time.
func TestLong(t *testing.T) {
	many := network.Service{Namespace: "team", Name: "many"}
	for i := range 3000 {
		many.Hosts = append(many.Hosts, network.ServiceHost{
			IP: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Ports: []network.NamedPort{{Name: "x", Protocol: "TCP", Port: 1}},
		})
	}
	r := New(Upstream{})
	r.Set(nil, []network.Service{many}, false)
	for _, tc := range []struct {
		edns     uint16
		most, at int
	}{{0, mostUDP, 512}, {1000, mostUDP, 1000}, {65000, mostUDP, mostUDP}, {100, mostUDP, 512}} {
		m := query("many.team.svc.cluster.local.", dns.TypeA)
		if tc.edns > 0 {
			m.SetEdns0(tc.edns, false)
		}
		raw, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		answer := r.prepare(raw, tc.most).pack()
		var reply dns.Msg
		if err := reply.Unpack(answer); err != nil || !reply.Truncated || len(answer) > tc.at || len(answer) < tc.at/2 {
			t.Errorf("for %d bytes there are %d, truncated %v (%v)", tc.edns, len(answer), reply.Truncated, err)
		}
	}
	first, second := asked(t, r, query("many.team.svc.cluster.local.", dns.TypeA), dns.MaxMsgSize), asked(t, r, query("many.team.svc.cluster.local.", dns.TypeA), dns.MaxMsgSize)
	if first.Truncated || len(first.Answer) != 3000 {
		t.Errorf("over TCP: truncated %v, %d records", first.Truncated, len(first.Answer))
	}
	if first.Answer[0].String() == second.Answer[0].String() && first.Answer[1].String() == second.Answer[1].String() {
		t.Error("the order is the same twice")
	}
	// More than any message holds.
	if reply := asked(t, r, query("_x._tcp.many.team.svc.cluster.local.", dns.TypeSRV), dns.MaxMsgSize); !reply.Truncated && len(reply.Answer) != 3000 {
		t.Errorf("ports: truncated %v, %d records", reply.Truncated, len(reply.Answer))
	}
}

// nameserver is somebody outside, whose answers are given.
func nameserver(t *testing.T, answer func(w dns.ResponseWriter, m *dns.Msg)) netip.AddrPort {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", packets.LocalAddr().String())
	if err != nil {
		t.Skip("the same port is taken over TCP")
	}
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: dns.HandlerFunc(answer)}, {Listener: listener, Handler: dns.HandlerFunc(answer)}} {
		started, ended := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(ended); _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-ended })
	}
	return netip.MustParseAddrPort(packets.LocalAddr().String())
}

func record(text string) dns.RR {
	r, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return r
}

// TestOutside: names elsewhere are those that name servers say, with what they may say; and nobody asks in vain for longer
// than it takes.
func TestOutside(t *testing.T) {
	var count atomic.Int32
	good := nameserver(t, func(w dns.ResponseWriter, m *dns.Msg) {
		count.Add(1)
		reply := new(dns.Msg).SetReply(m)
		_, tcp := w.RemoteAddr().(*net.TCPAddr)
		switch q := m.Question[0]; q.Name {
		case "www.example.com.":
			reply.Answer = []dns.RR{record("www.example.com. 60 IN CNAME x.example.com."), record("x.example.com. 60 IN A 192.0.2.7"), record("x.team.svc.cluster.local. 60 IN A 192.0.2.8")}
			reply.Extra = []dns.RR{record("y.example.com. 60 IN A 192.0.2.9")}
		case "long.example.com.":
			reply.Truncated = !tcp
			if tcp {
				reply.Answer = []dns.RR{record("long.example.com. 60 IN A 192.0.2.7")}
			}
		case "other.example.com.":
			reply.Question[0].Name = "another.example.com."
		case "bad.example.com.":
			reply.Rcode = dns.RcodeServerFailure
		default:
			reply.Rcode = dns.RcodeNameError
			reply.Ns = []dns.RR{record("example.com. 60 IN SOA a. b. 1 2 3 4 60"), record("example.com. 60 IN NS a.")}
		}
		_ = w.WriteMsg(reply)
	})
	broken := nameserver(t, func(w dns.ResponseWriter, m *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(m, dns.RcodeRefused)) })
	r := newResolver(broken, good)
	for name, tc := range map[string]struct {
		name string
		want []string
	}{
		"Good":    {"www.example.com.", []string{"NOERROR", "www.example.com. 60 CNAME x.example.com.", "x.example.com. 60 A 192.0.2.7"}},
		"Long":    {"long.example.com.", []string{"NOERROR", "long.example.com. 60 A 192.0.2.7"}},
		"Missing": {"missing.example.com.", []string{"NXDOMAIN", "!example.com. SOA 60"}},
		"Bad":     {"bad.example.com.", []string{"SERVFAIL"}},
		"Other":   {"other.example.com.", []string{"SERVFAIL"}},
		"Alias": {"away.team.svc.cluster.local.", []string{
			"NOERROR", "away.team.svc.cluster.local. 5 CNAME www.example.com.", "www.example.com. 60 CNAME x.example.com.", "x.example.com. 60 A 192.0.2.7",
		}},
	} {
		reply := asked(t, r, query(tc.name, dns.TypeA), mostUDP)
		if diff := cmp.Diff(tc.want, said(reply)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if !reply.RecursionAvailable {
			t.Errorf("%s: it says that it asks nobody", name)
		}
	}
	before := count.Load()
	for _, name := range []string{
		"missing.team.svc.cluster.local.", "1.0.0.10.in-addr.arpa.", "1.2.168.192.in-addr.arpa.", "10.in-addr.arpa.", "1.0.64.100.in-addr.arpa.", "x.local.", "x.localhost.",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", "d.f.ip6.arpa.", "x.onion.",
	} {
		asked(t, r, query(name, dns.TypePTR), mostUDP)
	}
	r.Set(exampleCIDRs, example(), false)
	for _, name := range []string{"www.example.com.", "away.team.svc.cluster.local."} {
		if reply := asked(t, r, query(name, dns.TypeA), mostUDP); reply.Rcode != dns.RcodeNameError || reply.RecursionAvailable {
			t.Errorf("without egress: %v", reply)
		}
	}
	if after := count.Load(); after != before {
		t.Errorf("%d questions went out that may not", after-before)
	}
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	r = newResolver(netip.MustParseAddrPort(silent.LocalAddr().String()), good)
	r.attempt, r.patience = attempt, patience
	for deadline := time.Now().Add(time.Minute); ; {
		reply := asked(t, r, query("www.example.com.", dns.TypeA), mostUDP)
		if reply.Rcode == dns.RcodeSuccess {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("with one that is silent: %v", reply)
			break
		}
	}
	// With nobody else, it is said in time that nobody knows.
	r = newResolver(netip.MustParseAddrPort(silent.LocalAddr().String()))
	r.attempt, r.patience = 10*time.Millisecond, 10*time.Millisecond
	if reply := asked(t, r, query("www.example.com.", dns.TypeA), mostUDP); reply.Rcode != dns.RcodeServerFailure {
		t.Errorf("with nobody who answers: %v", reply)
	}
}

// serve has a resolver answer at sockets of the loopback.
func serve(t *testing.T, r *Resolver) (s *Server, at string) {
	t.Helper()
	for range 20 {
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", packets.LocalAddr().String())
		if err != nil {
			_ = packets.Close()
			continue
		}
		return Serve(r, []net.PacketConn{packets}, []net.Listener{listener}), packets.LocalAddr().String()
	}
	t.Fatal("no port is free for both")
	return nil, ""
}

// TestServer: questions over sockets, more of them than may wait at once, and an end that leaves nothing.
func TestServer(t *testing.T) {
	release := make(chan struct{})
	var waiting atomic.Int32
	slow := nameserver(t, func(w dns.ResponseWriter, m *dns.Msg) {
		waiting.Add(1)
		<-release
		_ = w.WriteMsg(new(dns.Msg).SetReply(m))
	})
	defer close(release)
	before := runtime.NumGoroutine()
	s, at := serve(t, newResolver(slow))
	for _, kind := range []string{"udp", "tcp"} {
		client := &dns.Client{Net: kind, Timeout: time.Minute}
		reply, _, err := client.Exchange(query("web.team.svc.cluster.local.", dns.TypeA), at)
		if err != nil || len(reply.Answer) != 1 {
			t.Errorf("over %s: %v, %v", kind, reply, err)
		}
	}
	// One connection, several questions; then one that is none ends it.
	c, err := (&dns.Client{Net: "tcp", Timeout: time.Minute}).Dial(at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		if err := c.WriteMsg(query("db.team.svc.cluster.local.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
		if reply, err := c.ReadMsg(); err != nil || len(reply.Answer) != 3 {
			t.Errorf("on one connection: %v, %v", reply, err)
		}
	}
	if _, err := c.Write([]byte("nonsense that is no question")); err != nil {
		t.Fatal(err)
	}
	if reply, err := c.ReadMsg(); err == nil {
		t.Errorf("nonsense is answered: %v", reply)
	}

	// While all that may wait do, others are told so at once, and what needs nobody is answered.
	for range forwards {
		s.resolver.waiting <- struct{}{}
	}
	for _, kind := range []string{"udp", "tcp"} {
		client := &dns.Client{Net: kind, Timeout: time.Minute}
		if reply, _, err := client.Exchange(query("www.example.com.", dns.TypeA), at); err != nil || reply.Rcode != dns.RcodeServerFailure {
			t.Errorf("over %s with too many waiting: %v, %v", kind, reply, err)
		}
		if reply, _, err := client.Exchange(query("web.team.svc.cluster.local.", dns.TypeA), at); err != nil || len(reply.Answer) != 1 {
			t.Errorf("over %s meanwhile: %v, %v", kind, reply, err)
		}
	}
	for range forwards {
		<-s.resolver.waiting
	}
	// More connections than there is room for: the others are closed.
	var held []net.Conn
	for range connections {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	refused := false
	for range 200 {
		if _, _, err := (&dns.Client{Net: "tcp", Timeout: time.Minute}).Exchange(query("web.team.svc.cluster.local.", dns.TypeA), at); err != nil {
			refused = true
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !refused {
		t.Errorf("with %d connections there is room for more", len(held))
	}
	// The end, while somebody waits.
	u, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	raw, _ := query("www.example.com.", dns.TypeA).Pack()
	for deadline := time.Now().Add(time.Minute); waiting.Load() == 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		_, _ = u.Write(raw)
	}
	s.Close()
	s.Close()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		// Those of the name server that was asked wait for the test's end.
		left := runtime.NumGoroutine() - before - int(waiting.Load())
		if left <= 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("%d goroutines are left", left)
			break
		}
	}
}

// TestSet: what changes is answered so from the next question on.
func TestSet(t *testing.T) {
	r := newResolver()
	if reply := asked(t, r, query("new.team.svc.cluster.local.", dns.TypeA), mostUDP); reply.Rcode != dns.RcodeNameError {
		t.Fatal(reply)
	}
	r.Set(exampleCIDRs, append(example(), network.Service{Namespace: "team", Name: "new", IPs: addrs("10.96.0.99")}), true)
	if reply := asked(t, r, query("new.team.svc.cluster.local.", dns.TypeA), mostUDP); len(reply.Answer) != 1 {
		t.Errorf("after the change: %v", reply)
	}
}

// FuzzAnswer: whatever comes, there is an answer of the right form and size to just that, or none.
func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"web.team.svc.cluster.local.", "_peer._tcp.db.team.svc.cluster.local.", "10.0.96.10.in-addr.arpa.", "www.example.com.", "loop-a.team.svc.cluster.local."} {
		for _, kind := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypePTR, dns.TypeANY} {
			m := query(name, kind)
			plain, _ := m.Pack()
			m.SetEdns0(900, true)
			edns, _ := m.Pack()
			f.Add(plain)
			f.Add(edns)
		}
	}
	f.Add([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1})
	r := newResolver()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, most := range []int{mostUDP, dns.MaxMsgSize} {
			q := r.prepare(raw, most)
			if q == nil {
				continue
			}
			if q.away != "" {
				r.ask(ctx, q)
			}
			answer := q.pack()
			var asked, reply dns.Msg
			if err := asked.Unpack(raw); err != nil {
				t.Fatalf("%q is answered", raw)
			}
			if err := reply.Unpack(answer); err != nil || len(answer) > most {
				t.Fatalf("the answer to %s is %d bytes: %v", &asked, len(answer), err)
			}
			if reply.Id != asked.Id || !reply.Response || len(asked.Question) == 1 && (len(reply.Question) != 1 || reply.Question[0] != asked.Question[0]) {
				t.Fatalf("%s\nis answered by\n%s", &asked, &reply)
			}
		}
	})
}
