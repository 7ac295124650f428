// Package ipam gives pods their places in subnets. A place is an index (see network.Subnet.At), and the record of who has
// it is an IPBlock of the admin API: 256 indexes, in one object, of which every write names the version that it read. So
// the block is the lock: of two allocators that choose at once one is refused, reads again and chooses anew. What an
// allocator keeps in memory is only a copy, and a wrong one costs a refused write and nothing else.
//
// The package must never give an index that the version it writes upon shows as taken, call an index given before the
// write is acknowledged, or give it to another pod before it has been in quarantine, counted by the time in the object.
// Start at [Allocator]; space.go decides, and does so without a client or a clock of its own.
package ipam
