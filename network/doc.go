// Package network says what a network driver is: how a tenant's VPC, subnets and pods are carried into a pool. Drivers
// live in directories of their own and are listed in network/drivers; network/drivertest is the suite that every driver
// passes; network/fake is a driver in memory for the tests of everybody else; network/controller calls a driver where it
// has to write in a pool.
//
// The package must never know a driver, and a driver must never choose another network because the wanted one is not
// ready: every network plugin puts a pod without an explicit binding on its default network, so a missing binding is an
// open door. That is why [Binder.BindPod] always returns a binding or an error, and why the pool's admission policy
// refuses pods of ours without one.
//
// Start at [Driver].
package network
