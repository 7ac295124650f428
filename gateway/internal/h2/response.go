package h2

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// response is the [http.ResponseWriter] of a stream. It holds back what is short until it is flushed, or known to be all.
type response struct {
	stream *stream
	conn   *conn
	// head: the request's method is HEAD, whose answers have no body.
	head bool
	// header is the handler's, sending what it was when the handler set the code.
	header, sending http.Header
	code            int
	// declared is the length of the body, if known; -1 if not.
	declared, written int64
	// told: the header is on its way, ended: all of it is.
	told, ended bool
	buffer      *[]byte
	trailers    []string
	failed      error
}

// held is how much of a body is held back.
const held = 4 << 10

var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, held)
	return &b
}}

// Header is what will be sent before the body.
func (w *response) Header() http.Header { return w.header }

// WriteHeader sets the code; the header is sent with what comes next.
func (w *response) WriteHeader(code int) {
	if w.code != 0 {
		return
	}
	if code >= 100 && code < 200 {
		if code != http.StatusSwitchingProtocols && w.failed == nil {
			w.failed = w.conn.inform(w.stream, code, w.header)
		}
		return
	}
	w.code = code
	// What is changed from now on is too late.
	w.sending = w.header.Clone()
	w.declared = -1
	if length := w.sending.Get("Content-Length"); length != "" {
		n, err := strconv.ParseUint(length, 10, 63)
		if err != nil {
			delete(w.sending, "Content-Length")
		} else {
			w.declared = int64(n) //nolint:gosec // 63 bits
		}
	}
}

func bodyAllowed(code int) bool {
	return code >= 200 && code != http.StatusNoContent && code != http.StatusNotModified
}

// Write sends or holds back.
func (w *response) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.failed != nil {
		return 0, w.failed
	}
	if !bodyAllowed(w.code) {
		return 0, http.ErrBodyNotAllowed
	}
	if w.declared >= 0 && w.written+int64(len(p)) > w.declared {
		return 0, http.ErrContentLength
	}
	w.written += int64(len(p))
	if w.head || w.ended {
		// There is no more than nothing to send.
		return len(p), nil
	}
	switch all := w.declared == w.written && len(w.sending["Trailer"]) == 0; {
	case all:
		w.failed = w.send(p, true)
	case w.buffer == nil && len(p) >= held, w.buffer != nil && len(*w.buffer)+len(p) > held:
		w.failed = w.send(p, false)
	default:
		if w.buffer == nil {
			w.buffer, _ = buffers.Get().(*[]byte)
		}
		*w.buffer = append(*w.buffer, p...)
	}
	if w.failed != nil {
		return 0, w.failed
	}
	return len(p), nil
}

// WriteString is Write.
func (w *response) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// Flush is FlushError for those who do not ask.
func (w *response) Flush() { _ = w.FlushError() }

// FlushError sends what is held back.
func (w *response) FlushError() error {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.failed == nil && !w.ended && (!w.told || w.buffer != nil) {
		w.failed = w.send(nil, false)
	}
	return w.failed
}

// SetReadDeadline bounds the time for which reads of the body wait.
func (w *response) SetReadDeadline(at time.Time) error {
	if w.stream.body.ready != nil {
		w.stream.body.setDeadline(at)
	}
	return nil
}

// SetWriteDeadline bounds the time for which writes wait. An answer with nothing to say for a while is none the worse for
// a deadline that passes: set another one before the next write.
func (w *response) SetWriteDeadline(at time.Time) error {
	s := w.stream
	if at.IsZero() {
		s.deadline.Store(0)
		s.expired.Store(false)
		return nil
	}
	s.deadline.Store(at.UnixNano())
	s.expired.Store(!at.After(time.Now()))
	// Who waits is to wait until then.
	s.wake()
	return nil
}

// EnableFullDuplex is how HTTP/2 is.
func (w *response) EnableFullDuplex() error { return nil }

// send sends the header if need be, what is held back, and p.
func (w *response) send(p []byte, end bool) error {
	var first []byte
	if w.buffer != nil {
		first = *w.buffer
	}
	if !w.told {
		w.complete(first, p, end)
	}
	if len(first) > 0 && len(first)+len(p) <= maxData {
		// Both fit into one frame.
		*w.buffer = append(first, p...)
		first, p = *w.buffer, nil
	}
	defer w.free()
	if len(first) > 0 && len(p) > 0 {
		if err := w.sendAll(first, false); err != nil {
			return err
		}
	} else if len(first) > 0 {
		p = first
	}
	return w.sendAll(p, end)
}

func (w *response) sendAll(p []byte, end bool) error {
	trailers := end && len(w.trailers) > 0
	for {
		n, err := 0, error(nil)
		if len(p) > 0 {
			// The header does not wait for a window.
			if n, err = w.conn.reserve(w.stream, min(len(p), maxData), w.told); err != nil {
				return w.conn.giveUp(w.stream, err)
			}
		}
		part := output{data: p[:n], end: end && n == len(p)}
		if !w.told {
			part.code, part.header = w.code, w.sending
		}
		if part.end && trailers {
			part.trailers, part.trailer = w.trailers, w.header
		}
		w.told = true
		w.ended = part.end
		if err := w.conn.emit(w.stream, part); err != nil {
			return w.conn.giveUp(w.stream, err)
		}
		if p = p[n:]; len(p) == 0 {
			return nil
		}
	}
}

// complete adds to the header what nobody has said.
func (w *response) complete(first, p []byte, end bool) {
	for name := range strings.SplitSeq(strings.Join(w.sending["Trailer"], ","), ",") {
		if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); name != "" {
			w.trailers = append(w.trailers, name)
		}
	}
	length := len(first) + len(p)
	if w.head {
		length = int(w.written)
	}
	if end && w.declared < 0 && len(w.trailers) == 0 && bodyAllowed(w.code) && (length > 0 || !w.head) {
		w.sending["Content-Length"] = []string{strconv.Itoa(length)}
	}
	_, typed := w.sending["Content-Type"]
	if !typed && len(first)+len(p) > 0 && bodyAllowed(w.code) && w.sending.Get("Content-Encoding") == "" {
		if len(first) > 0 {
			p = first
		}
		w.sending["Content-Type"] = []string{http.DetectContentType(p)}
	}
	if _, dated := w.sending["Date"]; !dated {
		w.sending["Date"] = []string{now()}
	}
}

// finish sends the rest when the handler has returned.
func (w *response) finish() error {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.failed != nil || w.ended {
		return w.failed
	}
	if w.declared >= 0 && w.written < w.declared && !w.head && bodyAllowed(w.code) {
		return http.ErrContentLength
	}
	for name := range w.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			w.trailers = append(w.trailers, name)
		}
	}
	w.failed = w.send(nil, true)
	return w.failed
}

// free gives the buffer back.
func (w *response) free() {
	if w.buffer == nil {
		return
	}
	if cap(*w.buffer) <= 2*maxData {
		*w.buffer = (*w.buffer)[:0]
		buffers.Put(w.buffer)
	}
	w.buffer = nil
}

// date is the time of the day as headers give it, made once in a second.
var date struct {
	sync.Mutex
	second int64
	text   string
}

func now() string {
	at := time.Now()
	date.Lock()
	defer date.Unlock()
	if second := at.Unix(); second != date.second {
		date.second, date.text = second, at.UTC().Format(http.TimeFormat)
	}
	return date.text
}
