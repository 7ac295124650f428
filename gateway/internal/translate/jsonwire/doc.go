// Package jsonwire reads and writes JSON in the two ways the gateway needs: [Parse] makes an order-preserving tree of what
// an untrusted client sent, strictly; [Scanner] runs through what the control cluster sends without building anything,
// passing bytes on and stopping only where its caller looks.
//
// The package must never know what the JSON means. The scanner does not validate: a trusted encoder made its input. But it
// never mistakes a cut stream for a whole one.
package jsonwire
