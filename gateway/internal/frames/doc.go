// Package frames makes the frames of watches that the control cluster did not send: bookmarks, objects that a list told of,
// errors. In JSON a frame is a line, in protobuf it has its length before it.
//
// What it makes of an object of the control cluster is still in the control cluster's words: the package must never be the
// last that a frame passes on its way to a tenant. Start at [Form].
package frames
