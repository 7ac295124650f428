// Package h2 is the HTTP/2 server of the tenant listener: it serves connections on which TLS has agreed on "h2".
//
// One goroutine per connection reads frames. A request runs in a goroutine of its own, which writes its answer to the
// connection by itself: a short answer is one write, one record of TLS and no other goroutine. Nothing stands between
// them, because every goroutine that is woken on the way of a request may be a thread that is woken.
//
// The reading goroutine never writes and never waits for anything but the next frame, so that nobody can make it hang.
// What it has to say, it queues ([conn.control]); who writes next takes that along. What waits for a flow-control window
// holds nothing that others need. The queue, the streams, the requests under way and what is buffered of bodies are
// bounded for each connection, whatever its peer does.
//
// Frames and header compression are golang.org/x/net/http2's. Start at [Server.Serve], then [conn.read] and
// [conn.emit].
package h2
