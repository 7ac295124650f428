//go:build !linux

package node

import (
	"context"
	"errors"
	"net/netip"

	"vivarium.io/vivarium/internal/localcluster/process"
)

var errNotLinux = errors.New("nodes that run containers need Linux")

// Run refuses: there are no namespaces here.
func Run(string) error { return errNotLinux }

// RemoveCgroup has nothing to remove.
func RemoveCgroup(string) error { return nil }

func makeCgroup(string) error { return errNotLinux }

func plug(Config, int, bool) error { return errNotLinux }

// Bridge exists on Linux only.
type Bridge struct {
	Name             string
	Address, Network netip.Prefix
	Table, Ports     string
	Sibling          func(string) bool
}

// Ensure refuses.
func (Bridge) Ensure() ([]string, error) { return nil, errNotLinux }

// Remove has nothing to remove.
func (Bridge) Remove() error { return nil }

// FreeNetwork gives the first, which nobody will use.
func FreeNetwork(networks []netip.Prefix) (netip.Prefix, error) { return networks[0], nil }

// Possible says why not.
func Possible() error { return errNotLinux }

// Import refuses.
func Import(context.Context, process.ID, Runtime, string, string) ([]string, error) {
	return nil, errNotLinux
}
