// Package follow keeps those who follow the control cluster close behind it when it has been away: restarts take it
// seconds, and client-go's informers, once refused, wait for up to a minute before they ask again. Whatever follows it asks
// through [ListWatch], or pauses as [Pause] says. The package must never hide an answer that asking again does not change.
package follow
