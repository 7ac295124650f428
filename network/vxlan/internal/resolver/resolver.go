// Package resolver answers the DNS questions of a VPC's pods: for the names of its tenant's cluster by itself, for all others
// by asking the name servers that the node's operator names. One [Resolver] is one VPC's on one node.
//
// It must never answer for anything but its own VPC, never ask anybody outside on behalf of a VPC without egress, never pass
// on a question about the tenant's own domain or about private addresses, and never let the pods of one VPC take more than a
// bounded share of the node. Start at [Resolver.prepare], which is all that happens to most questions.
package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"vivarium.io/vivarium/network"
)

const (
	// mostUDP is the longest answer over UDP that needs no fragments in any VPC.
	mostUDP = 1232
	// forwards is how many questions of one VPC may be waiting for somebody else's answer at once.
	forwards = 64
	// attempt is how long one name server has for an answer, and patience how long all of them have together: less than stub
	// resolvers wait.
	attempt, patience = 1500 * time.Millisecond, 4 * time.Second
)

// Upstream are the name servers that are asked for names outside of tenants' clusters.
type Upstream struct {
	Servers []netip.AddrPort
	// Dial is how they are reached; nil is from where the process is.
	Dial *net.Dialer
}

// Resolver answers for one VPC.
type Resolver struct {
	upstream Upstream
	world    atomic.Pointer[world]
	// waiting has room for as many questions as may be with somebody else.
	waiting chan struct{}
	// attempt and patience are the constants' values but in tests.
	attempt, patience time.Duration
}

// world is what a resolver knows. Its zone is made when somebody asks.
type world struct {
	zone   func() *Zone
	egress bool
}

// New makes the resolver of a VPC that has nothing yet.
func New(upstream Upstream) *Resolver {
	r := &Resolver{upstream: upstream, waiting: make(chan struct{}, forwards), attempt: attempt, patience: patience}
	r.Set(nil, nil, false)
	return r
}

// Set has it answer for a VPC with such prefixes and valid Services from now on. Without egress nobody else is asked.
func (r *Resolver) Set(cidrs []netip.Prefix, services []network.Service, egress bool) {
	r.world.Store(&world{zone: sync.OnceValue(func() *Zone { return NewZone(cidrs, services) }), egress: egress})
}

// question is one that is being answered.
type question struct {
	reply *dns.Msg
	opt   *dns.OPT
	// most is how long the answer may be.
	most int
	// away is the name that is left to ask somebody else for, empty when the reply is whole.
	away string
}

// prepare answers a question as far as that needs nobody else; nil where it is no question. most bounds the answer, where
// the question does not say less.
func (r *Resolver) prepare(raw []byte, most int) *question {
	var asked dns.Msg
	if err := asked.Unpack(raw); err != nil || asked.Response {
		return nil
	}
	world := r.world.Load()
	q := &question{reply: new(dns.Msg), most: most}
	q.reply.SetReply(&asked)
	q.reply.RecursionAvailable = r.forwarding(world)
	options := 0
	for _, extra := range asked.Extra {
		if opt, ok := extra.(*dns.OPT); ok {
			q.opt = opt
			options++
		}
	}
	if most <= mostUDP {
		q.most = dns.MinMsgSize
		if q.opt != nil {
			q.most = min(max(int(q.opt.UDPSize()), dns.MinMsgSize), most)
		}
	}
	switch {
	case asked.Opcode != dns.OpcodeQuery:
		q.reply.Rcode = dns.RcodeNotImplemented
	case len(asked.Question) != 1 || options > 1:
		q.reply.Rcode = dns.RcodeFormatError
	case q.opt != nil && q.opt.Version() != 0:
		q.reply.Rcode = dns.RcodeBadVers
	case asked.Question[0].Qclass != dns.ClassINET:
		q.reply.Rcode = dns.RcodeRefused
	case asked.Question[0].Qtype == dns.TypeANY:
		// RFC 8482: everything at once is for nobody but whoever wants to make much out of little.
		q.reply.Answer = []dns.RR{&dns.HINFO{Hdr: header(asked.Question[0].Name, dns.TypeHINFO), Cpu: "RFC8482"}}
	case asked.Question[0].Qtype >= dns.TypeTKEY && asked.Question[0].Qtype < dns.TypeANY || asked.Question[0].Qtype == dns.TypeOPT:
		// Whole zones, and what is no type of a record.
		q.reply.Rcode = dns.RcodeRefused
	default:
		q.away = world.zone().reply(q.reply, asked.Question[0], q.most)
		if q.away != "" && !r.forwarding(world) {
			// There is nothing outside for this VPC. To be refused would be truer, and has some stub resolvers wait for more.
			nothing(q.reply, asked.Question[0], dns.RcodeNameError)
			q.away = ""
		}
	}
	return q
}

func (r *Resolver) forwarding(w *world) bool { return w.egress && len(r.upstream.Servers) > 0 }

// ask completes an answer by what somebody else says.
func (r *Resolver) ask(ctx context.Context, q *question) {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	said, err := r.exchange(ctx, dns.Question{Name: q.away, Qtype: q.reply.Question[0].Qtype, Qclass: dns.ClassINET}, q.opt != nil && q.opt.Do())
	if err != nil {
		q.fail()
		return
	}
	q.reply.Rcode, q.reply.Authoritative = said.Rcode, false
	for _, record := range said.Answer {
		// Nobody outside knows anything of the tenant's cluster.
		if record.Header().Class == dns.ClassINET && !inZone(strings.ToLower(record.Header().Name)) {
			q.reply.Answer = append(q.reply.Answer, record)
		}
	}
	for _, record := range said.Ns {
		if record.Header().Rrtype == dns.TypeSOA {
			q.reply.Ns = append(q.reply.Ns, record)
		}
	}
}

// fail says that it could not be found out.
func (q *question) fail() {
	q.reply.Rcode, q.reply.Authoritative, q.reply.Answer, q.reply.Ns = dns.RcodeServerFailure, false, nil, nil
}

// exchange asks one name server after the other until one knows.
func (r *Resolver) exchange(ctx context.Context, q dns.Question, do bool) (*dns.Msg, error) {
	var problems []error
	for _, server := range r.upstream.Servers {
		said, err := r.exchangeWith(ctx, server.String(), q, do)
		if err == nil && said.Rcode != dns.RcodeSuccess && said.Rcode != dns.RcodeNameError {
			err = errors.New(dns.RcodeToString[said.Rcode])
		}
		if err == nil {
			return said, nil
		}
		problems = append(problems, fmt.Errorf("ask %s: %w", server, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(problems...)
}

func (r *Resolver) exchangeWith(ctx context.Context, server string, q dns.Question, do bool) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, r.attempt)
	defer cancel()
	// A number of its own, and a port of its own by the socket.
	asked := &dns.Msg{MsgHdr: dns.MsgHdr{Id: dns.Id(), RecursionDesired: true}, Question: []dns.Question{q}}
	asked.SetEdns0(mostUDP, do)
	var said *dns.Msg
	for _, kind := range []string{"udp", "tcp"} {
		client := &dns.Client{Net: kind, Timeout: r.attempt, Dialer: r.upstream.Dial, UDPSize: mostUDP}
		conn, err := client.DialContext(ctx, server)
		if err != nil {
			return nil, err
		}
		// The library waits for an answer whether anybody still wants one or not.
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		said, _, err = client.ExchangeWithConnContext(ctx, asked, conn)
		stop()
		_ = conn.Close()
		if err != nil {
			return nil, err
		}
		if !said.Response || len(said.Question) != 1 || !strings.EqualFold(said.Question[0].Name, q.Name) || said.Question[0].Qtype != q.Qtype || said.Question[0].Qclass != q.Qclass {
			return nil, errors.New("it answers another question")
		}
		if !said.Truncated {
			break
		}
	}
	return said, nil
}

// pack gives the answer as it is sent, nil where there is none.
func (q *question) pack() []byte {
	if q.opt != nil {
		q.reply.Extra = slices.DeleteFunc(q.reply.Extra, func(r dns.RR) bool { return r.Header().Rrtype == dns.TypeOPT })
		// The upper bits of a code that is above 15 are in there.
		q.reply.SetEdns0(mostUDP, q.opt.Do())
	}
	q.reply.Compress = true
	q.reply.Truncate(q.most)
	raw, err := q.reply.Pack()
	if err != nil {
		q.fail()
		q.reply.Extra = nil
		if raw, err = q.reply.Pack(); err != nil {
			return nil
		}
	}
	return raw
}
