// Program gauge measures a network from within: it runs in two pods, serving in one and asking in the other. It is made of
// the standard library alone, so that it runs in an image that holds nothing else.
//
//	gauge serve
//	gauge stream|ask|datagrams ADDRESS DURATION
//
// stream sends as fast as one TCP connection takes it; ask sends 64 bytes over a TCP connection that is open, and the
// next 64 when the answer is there; datagrams does so over UDP. Each prints one [Result] as JSON.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// The ports that it serves on.
const (
	streamPort = 5201
	askPort    = 5202
)

const (
	// streamBuffer is how much is written at once, askSize how long question and answer are.
	streamBuffer = 128 << 10
	askSize      = 64
	// lost is how long an answer to a datagram may take. patience is for everything else, on machines that are busy.
	lost     = 500 * time.Millisecond
	patience = 30 * time.Second
)

// Result is what a turn found out.
type Result struct {
	// Bytes arrived at the other end, or Asks were answered, in Seconds.
	Bytes   int64   `json:"bytes,omitempty"`
	Asks    int     `json:"asks,omitempty"`
	Lost    int     `json:"lost,omitempty"`
	Seconds float64 `json:"seconds"`
	// P50 and P99 of an ask, in microseconds.
	P50 float64 `json:"p50,omitempty"`
	P99 float64 `json:"p99,omitempty"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gauge:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "serve" {
		return serve()
	}
	if len(args) != 3 {
		return errors.New("serve, or stream, ask or datagrams with an address and a duration")
	}
	length, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	var result Result
	switch args[0] {
	case "stream":
		result, err = stream(args[1], length)
	case "ask":
		result, err = ask("tcp", args[1], length)
	case "datagrams":
		result, err = ask("udp", args[1], length)
	default:
		err = fmt.Errorf("%q is unknown", args[0])
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// serve answers until it is told to end.
func serve() error {
	sink, err := net.Listen("tcp", fmt.Sprintf(":%d", streamPort))
	if err != nil {
		return err
	}
	answers, err := net.Listen("tcp", fmt.Sprintf(":%d", askPort))
	if err != nil {
		return err
	}
	datagrams, err := net.ListenPacket("udp", fmt.Sprintf(":%d", askPort))
	if err != nil {
		return err
	}
	go accept(sink, func(c net.Conn) {
		buffer := make([]byte, streamBuffer)
		var total int64
		for {
			n, err := c.Read(buffer)
			total += int64(n)
			if err != nil {
				_, _ = fmt.Fprintln(c, total)
				return
			}
		}
	})
	go accept(answers, func(c net.Conn) {
		buffer := make([]byte, askSize)
		for {
			if _, err := io.ReadFull(c, buffer); err != nil {
				return
			}
			if _, err := c.Write(buffer); err != nil {
				return
			}
		}
	})
	go func() {
		buffer := make([]byte, 2*askSize)
		for {
			n, from, err := datagrams.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = datagrams.WriteTo(buffer[:n], from)
		}
	}()
	fmt.Println("serving")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
	return nil
}

func accept(listener net.Listener, serve func(net.Conn)) {
	for {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

// dial waits a little for somebody who has only just come.
func dial(network, address string) (net.Conn, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		c, err := net.DialTimeout(network, address, patience)
		if err == nil || time.Now().After(deadline) {
			return c, err
		}
	}
}

func stream(host string, length time.Duration) (Result, error) {
	c, err := dial("tcp", net.JoinHostPort(host, strconv.Itoa(streamPort)))
	if err != nil {
		return Result{}, err
	}
	defer c.Close()
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return Result{}, fmt.Errorf("%T is no TCP connection", c)
	}
	buffer := make([]byte, streamBuffer)
	begin := time.Now()
	for time.Since(begin) < length {
		if _, err := c.Write(buffer); err != nil {
			return Result{}, err
		}
	}
	if err := tcp.CloseWrite(); err != nil {
		return Result{}, err
	}
	var result Result
	if _, err := fmt.Fscan(c, &result.Bytes); err != nil {
		return Result{}, err
	}
	// Until the other end has it all: what is in buffers has not arrived.
	result.Seconds = time.Since(begin).Seconds()
	return result, nil
}

func ask(network, host string, length time.Duration) (Result, error) {
	c, err := dial(network, net.JoinHostPort(host, strconv.Itoa(askPort)))
	if err != nil {
		return Result{}, err
	}
	defer c.Close()
	buffer := make([]byte, askSize)
	wait := patience
	if network == "udp" {
		wait = lost
	}
	once := func() error {
		if _, err := c.Write(buffer); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		_, err := io.ReadFull(c, buffer)
		return err
	}
	var result Result
	// The first ones warm up, and wait for a server that has only just come.
	for i, deadline := 0, time.Now().Add(patience); i < 20; i++ {
		err := once()
		if err != nil && (network == "tcp" || time.Now().After(deadline)) {
			return result, err
		}
		if err != nil {
			i = -1
			time.Sleep(50 * time.Millisecond)
		}
	}
	var took []time.Duration
	begin := time.Now()
	// A turn without an answer says nothing.
	for last := begin; last.Sub(begin) < length || len(took) == 0 && last.Sub(begin) < patience; {
		err := once()
		now := time.Now()
		if err != nil && network == "tcp" {
			return result, err
		}
		if err != nil {
			result.Lost++
		} else {
			took = append(took, now.Sub(last))
		}
		last = now
	}
	result.Seconds = time.Since(begin).Seconds()
	if result.Asks = len(took); result.Asks == 0 {
		return result, errors.New("nobody answers")
	}
	slices.Sort(took)
	at := func(q float64) float64 {
		return float64(took[min(int(q*float64(len(took))), len(took)-1)]) / float64(time.Microsecond)
	}
	result.P50, result.P99 = at(.5), at(.99)
	return result, nil
}
