package gateway

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
)

const (
	// holdBack is how much of an answer is kept before its first byte goes out: until then anything that goes wrong can
	// still be told in an answer of its own. What is larger may be compressed, as at a stock API server.
	holdBack = 128 << 10
)

// writeTimeout is how long a client may take to read what was written. Tests have less time.
var writeTimeout = 60 * time.Second

// reply is an answer in the making. It is a http.ResponseWriter that sends nothing before it must.
type reply struct {
	w          http.ResponseWriter
	controller *http.ResponseController
	header     http.Header
	code       int
	compress   bool

	held    []byte
	started bool
	zip     *gzip.Writer
	failed  error
}

func newReply(w http.ResponseWriter, r *http.Request) *reply {
	return &reply{
		w: w, controller: http.NewResponseController(w), header: http.Header{}, code: http.StatusOK, compress: acceptsGzip(r.Header),
	}
}

// acceptsGzip reads what clients of API servers send; an odd header costs compression, nothing else.
func acceptsGzip(h http.Header) bool {
	for element := range strings.SplitSeq(h.Get("Accept-Encoding"), ",") {
		coding, quality, _ := strings.Cut(element, ";")
		if strings.TrimSpace(coding) == "gzip" {
			return strings.ReplaceAll(quality, " ", "") != "q=0"
		}
	}
	return false
}

// Header is what will be sent with the first byte.
func (r *reply) Header() http.Header { return r.header }

// WriteHeader sets the code; it sends nothing.
func (r *reply) WriteHeader(code int) { r.code = code }

// Started reports whether anything has been sent, so that the answer can no longer be changed.
func (r *reply) Started() bool { return r.started }

// Write holds back what fits and starts to send when more comes.
func (r *reply) Write(p []byte) (int, error) {
	if r.failed != nil {
		return 0, r.failed
	}
	if !r.started && len(r.held)+len(p) <= holdBack {
		r.held = append(r.held, p...)
		return len(p), nil
	}
	r.start()
	if err := r.send(p); err != nil {
		r.failed = err
		return 0, err
	}
	return len(p), nil
}

func (r *reply) start() {
	if r.started {
		return
	}
	r.started = true
	if r.compress {
		r.header.Set("Content-Encoding", "gzip")
		r.header.Add("Vary", "Accept-Encoding")
		r.zip, _ = gzipWriters.Get().(*gzip.Writer)
		r.zip.Reset(r.w)
	}
	r.writeHeader()
	if err := r.send(r.held); err != nil {
		r.failed = err
	}
	r.held = nil
}

func (r *reply) writeHeader() {
	h := r.w.Header()
	for name, values := range r.header {
		h[name] = values
	}
	r.w.WriteHeader(r.code)
}

func (r *reply) send(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	defer limitWrite(r.controller)()
	if r.zip != nil {
		_, err := r.zip.Write(p)
		return err
	}
	_, err := r.w.Write(p)
	return err
}

// limitWrite breaks an answer off whose client does not read what is written before the returned function is called. The
// deadline goes with the write: on a connection of HTTP/1.1 it would be there for the next answer too.
func limitWrite(controller *http.ResponseController) (done func()) {
	_ = controller.SetWriteDeadline(time.Now().Add(writeTimeout))
	return func() { _ = controller.SetWriteDeadline(time.Time{}) }
}

// Close sends what has been held back and ends the answer.
func (r *reply) Close() error {
	if r.failed != nil {
		return r.failed
	}
	if !r.started {
		r.started = true
		if r.code != http.StatusNotModified && r.code != http.StatusNoContent {
			r.header.Set("Content-Length", strconv.Itoa(len(r.held)))
		}
		r.writeHeader()
		return r.send(r.held)
	}
	if r.zip == nil {
		return nil
	}
	defer limitWrite(r.controller)()
	err := r.zip.Close()
	gzipWriters.Put(r.zip)
	r.zip = nil
	return err
}

// Reset forgets what has been held back, so that another answer can take its place. It must not be called once sending
// has started.
func (r *reply) Reset() {
	r.header, r.held, r.code = http.Header{}, nil, http.StatusOK
}

// gzipWriters are costly to make and hold nothing of an answer once they are reset. The library's fastest level takes half
// the time of the standard library's and leaves less.
var gzipWriters = sync.Pool{New: func() any {
	// A valid level: no error.
	w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	return w
}}

// live sends at once what is written: watches and logs.
type live struct {
	w          http.ResponseWriter
	controller *http.ResponseController
}

func newLive(w http.ResponseWriter) *live { return &live{w, http.NewResponseController(w)} }

// Write sends; a client that does not read has as much time as [reply] gives it.
func (l *live) Write(p []byte) (int, error) {
	defer limitWrite(l.controller)()
	return l.w.Write(p)
}

// Flush sends what is buffered on the way.
func (l *live) Flush() error {
	defer limitWrite(l.controller)()
	return l.controller.Flush()
}
