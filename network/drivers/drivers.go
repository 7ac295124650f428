// Package drivers is the list of the network drivers: the one file that names them. Programs import it; the components
// are given what they need of it and know only package network.
//
// A new driver is a directory beside network/flat and a line in [All]. Start there.
package drivers

import (
	"fmt"
	"slices"
	"strings"

	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/flat"
	"vivarium.io/vivarium/network/kubeovn"
	"vivarium.io/vivarium/network/mapping"
	"vivarium.io/vivarium/network/ovnudn"
	"vivarium.io/vivarium/network/vxlan"
)

// Default is the driver of a ResourcePool that names none.
const Default = flat.Name

// All gives every driver.
func All() []network.Driver {
	return append([]network.Driver{flat.Driver{}, vxlan.Driver{}, kubeovn.Driver{}, ovnudn.Driver{}, vxlan.Multus{}}, mapping.Drivers()...)
}

// ByName gives the driver that a ResourcePool names, [Default] for an empty name.
func ByName(name string) (network.Driver, error) {
	if name == "" {
		name = Default
	}
	var known []string
	for _, driver := range All() {
		if driver.Name() == name {
			return driver, nil
		}
		known = append(known, driver.Name())
	}
	slices.Sort(known)
	return nil, fmt.Errorf("network driver %q does not exist; there is %s", name, strings.Join(known, ", "))
}

// Binder gives the pure half of the driver that a ResourcePool names, [Default] for an empty name.
func Binder(name string) (network.Binder, error) { return ByName(name) }
