// Package translate turns what a tenant says into what the control cluster hears, and back: bodies, queries, lists,
// tables, watch frames, errors. It is pure: it reads and writes what it is given and knows no client, clock or log.
//
// It must never pass what it does not understand. A kind without a rule table, a body that is not what its URL says, a
// patch whose meaning it cannot follow and a truncated document are errors; a name of another world on the way back is an
// error, hidden or cut, never shown. What a tenant sends is parsed strictly and re-encoded here, so that the control
// cluster cannot read it differently; what the control cluster sends is rewritten as it streams, so that fields newer
// than any library of ours survive byte for byte.
//
// Which field holds what is decided in package rules, once for every direction. Start at [View].
package translate
