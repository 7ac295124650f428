package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// datagrams answers every datagram, as [lines] does lines, and prints those that are notes.
func datagrams(packets net.PacketConn, hostname string) {
	buffer := make([]byte, 1024)
	for {
		n, from, err := packets.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if note := string(buffer[:n]); err == nil && strings.HasPrefix(note, "note ") {
			fmt.Println(note, "from", from)
		}
		if err == nil {
			_, _ = packets.WriteTo([]byte(hostname+" "+string(buffer[:n])), from)
		}
	}
}

// lines answers every line of a connection with the hostname and the line, until it ends.
func lines(w http.ResponseWriter, hostname string) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer conn.Close()
	if conn.SetDeadline(time.Time{}) != nil {
		return
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	for {
		line, err := buffered.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := io.WriteString(conn, hostname+" "+line); err != nil {
			return
		}
	}
}

// patience is how long a connection that is kept may be silent, and resend when a datagram is sent again.
const (
	patience = 2 * time.Minute
	resend   = 300 * time.Millisecond
)

// talk is a connection to a target; what it reads are answers.
type talk struct {
	conn    net.Conn
	answers *bufio.Reader
}

// begin connects to tcp/ADDRESS:PORT or udp/ADDRESS:PORT, from a port unless that is 0.
func begin(ctx context.Context, target string, from int) (*talk, error) {
	network, address, _ := strings.Cut(target, "/")
	dialer := net.Dialer{}
	switch network {
	case "tcp":
		dialer.LocalAddr = &net.TCPAddr{Port: from}
	case "udp":
		dialer.LocalAddr = &net.UDPAddr{Port: from}
	default:
		return nil, fmt.Errorf("%s is neither tcp/ADDRESS:PORT nor udp/ADDRESS:PORT", target)
	}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	t := &talk{conn: conn, answers: bufio.NewReader(conn)}
	if network == "tcp" {
		if err := t.upgrade(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return t, nil
}

func (t *talk) upgrade(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := t.conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(t.conn, "GET /lines HTTP/1.1\r\nHost: echo\r\n\r\n"); err != nil {
		return err
	}
	for {
		line, err := t.answers.ReadString('\n')
		if err != nil {
			return err
		}
		if line == "\r\n" {
			return nil
		}
	}
}

// exchange sends a number and gives who answers it. A datagram is sent again until deadline.
func (t *talk) exchange(number int, deadline time.Time) (string, error) {
	_, packets := t.conn.(*net.UDPConn)
	for {
		until := deadline
		if again := time.Now().Add(resend); packets && again.Before(deadline) {
			until = again
		}
		if err := t.conn.SetDeadline(until); err != nil {
			return "", err
		}
		if _, err := fmt.Fprintf(t.conn, "%d\n", number); err != nil && !packets {
			return "", err
		}
		for {
			line, err := t.answers.ReadString('\n')
			if err != nil && (!packets || !time.Now().Before(deadline)) {
				return "", err
			}
			if err != nil {
				// Nobody, or nobody yet: a refusal comes at once.
				time.Sleep(time.Until(until))
				break
			}
			name, answered, _ := strings.Cut(strings.TrimSpace(line), " ")
			if answered == fmt.Sprint(number) {
				return name, nil
			}
		}
	}
}

// askAll prints who answers at the targets, all at once.
func askAll(ctx context.Context, out io.Writer, from int, targets []string) error {
	names := make([]string, len(targets))
	problems := make([]error, len(targets))
	var group sync.WaitGroup
	for i, target := range targets {
		group.Go(func() {
			t, err := begin(ctx, target, from)
			if err != nil {
				problems[i] = err
				return
			}
			defer t.conn.Close()
			deadline, _ := ctx.Deadline()
			names[i], problems[i] = t.exchange(1, deadline)
		})
	}
	group.Wait()
	for i, target := range targets {
		if problems[i] != nil {
			names[i] = "-"
		}
		if _, err := fmt.Fprintln(out, target, names[i]); err != nil {
			return err
		}
	}
	return nil
}

// keepAll talks to all targets, ten times a second, and prints how many answers there were and whose. Targets are waited
// for; once all is well it ends with an error as soon as a connection breaks, is silent for too long or is answered by
// somebody else than before. The first connection is from a port, the second from the next one and so on, unless that is 0.
func keepAll(ctx context.Context, out io.Writer, every time.Duration, from int, targets []string) error {
	broken := make(chan error, len(targets))
	kept := make([]keeper, len(targets))
	for i, target := range targets {
		kept[i].target = target
		if from != 0 {
			kept[i].from = from + i
		}
		go func() {
			if err := kept[i].keep(ctx); err != nil {
				broken <- err
			}
		}()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-broken:
			return err
		case <-time.After(every):
		}
		var names []string
		least := kept[0].count.Load()
		for i := range kept {
			least = min(least, kept[i].count.Load())
			if name := kept[i].name.Load(); name != nil {
				names = append(names, *name)
			}
		}
		slices.Sort(names)
		if _, err := fmt.Fprintf(out, "%d connections, at least %d answers each, of %s\n", len(targets), least, strings.Join(slices.Compact(names), " ")); err != nil {
			return err
		}
	}
}

// keeper talks to one target.
type keeper struct {
	target string
	from   int
	count  atomic.Int64
	name   atomic.Pointer[string]
}

func (k *keeper) keep(ctx context.Context) error {
	var t *talk
	for {
		attempt, cancel := context.WithTimeout(ctx, 3*time.Second)
		var err error
		t, err = begin(attempt, k.target, k.from)
		cancel()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
		time.Sleep(200 * time.Millisecond)
	}
	defer t.conn.Close()
	for number := 1; ctx.Err() == nil; number++ {
		name, err := t.exchange(number, time.Now().Add(patience))
		if err != nil {
			return fmt.Errorf("%s, after %d answers: %w", k.target, k.count.Load(), err)
		}
		if first := k.name.Load(); first == nil {
			k.name.Store(&name)
		} else if name != *first {
			return fmt.Errorf("%s: %s answers, and before it was %s", k.target, name, *first)
		}
		k.count.Add(1)
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}
