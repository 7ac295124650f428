// Package route reads what a request asks for out of its method, path and query, once, for everybody behind it.
//
// It accepts only what has one reading. A path or a query that two parsers could understand differently (dot segments,
// empty segments, encoded separators, repeated parameters) is an error and never repaired: the control API server would
// see the repaired form and every check here the other. It must never know a kind, a tenant or a credential.
//
// Start at [Parse]; [Request.ControlPath] writes the same path in the control cluster's names.
package route
