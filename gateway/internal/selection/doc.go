// Package selection decides what a watch with a selector is told of an event that a watch without one is told of, as an API
// server does: an object that begins to match is added, one that ceases to match is deleted, what does not match is not
// mentioned. For that a [Set] knows which objects match at present, by their keys alone; their contents it never holds.
//
// The package is pure. It must never guess: a Set that does not begin with exactly the objects that match at some resource
// version, or is not told of every event behind it, is wrong for good.
//
// Start at [Set.Turn].
package selection
