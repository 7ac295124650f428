//go:build linux

// Program vivarium-vpc is the network plugin of pools whose network driver is vxlan; a container runtime runs it.
package main

import (
	"os"

	"vivarium.io/vivarium/network/vxlan/cni"
)

func main() { os.Exit(cni.Main(os.Getenv, os.Stdin, os.Stdout)) }
