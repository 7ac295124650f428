// Package guard is the last look at a request before it leaves for the control cluster: does it stay inside its tenant?
//
// It exists for the day on which the router, the kinds table or the translator is wrong. So it shares nothing with them
// but the spelling of names: it parses the outgoing request itself and knows its own short list of what may be asked. It
// must never repair or pass over anything; a refusal here is a bug elsewhere, and is counted so that somebody looks.
// What it cannot see is whether the references inside a body stay inside the tenant: that is the translator's, and the
// admission policies of the control cluster stand behind it.
//
// Start at [Guard.RoundTrip].
package guard
