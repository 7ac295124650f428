package main

import (
	"encoding/hex"
	"fmt"
	"net"
	"syscall"
)

// sendFrames puts frames, written in hexadecimal digits, on a link as they are.
func sendFrames(link string, frames []string) error {
	to, err := net.InterfaceByName(link)
	if err != nil {
		return err
	}
	socket, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW, 0)
	if err != nil {
		return fmt.Errorf("open a raw socket: %w", err)
	}
	defer syscall.Close(socket)
	for _, frame := range frames {
		raw, err := hex.DecodeString(frame)
		if err != nil {
			return err
		}
		if err := syscall.Sendto(socket, raw, 0, &syscall.SockaddrLinklayer{Ifindex: to.Index}); err != nil {
			return fmt.Errorf("send a frame: %w", err)
		}
	}
	return nil
}
