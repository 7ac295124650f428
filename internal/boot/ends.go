package boot

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
)

// quiet passes on what libraries log. They call it an error when a connection ends while something is streamed, which is how
// streams end: somebody leaves a log, a pool's API server is rolled, a watch has run its time. That is for who follows a
// stream (verbosity 1); what it means for us is said by us.
type quiet struct{ slog.Handler }

func (h quiet) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError && isEnd(r) {
		const followed = slog.Level(-1)
		if !h.Enabled(ctx, followed) {
			return nil
		}
		r = r.Clone()
		r.Level = followed
	}
	return h.Handler.Handle(ctx, r)
}

func (h quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{h.Handler.WithAttrs(attrs)} }

func (h quiet) WithGroup(name string) slog.Handler { return quiet{h.Handler.WithGroup(name)} }

// isEnd reports whether a record is about nothing but a connection that has ended.
func isEnd(r slog.Record) bool {
	end := false
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok && (a.Key == "err" || a.Key == "error") {
			end = endsConnection(err)
			return false
		}
		return true
	})
	return end
}

// endsConnection reports whether an error says that a connection is at its end. Libraries keep the text of an error more
// often than the error.
func endsConnection(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, context.Canceled, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) || strings.HasSuffix(err.Error(), ": "+end.Error()) {
			return true
		}
	}
	return false
}
