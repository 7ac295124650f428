package translate

import (
	"bufio"
	"errors"
	"io"
)

// WatchToTenant translates watch frames, JSON or protobuf, until src ends. With filter, frames of objects that are not the tenant's are
// dropped; without it they are an error. Bookmarks and errors always pass. dst is written whole frames at a time, at most
// once per burst of frames that fit into 64 KiB, and flush (may be nil) called after each write. The error is nil only if
// src ended between two frames.
func (v View) WatchToTenant(k Kind, dst io.Writer, flush func(), src io.Reader, filter bool) error {
	in := bufio.NewReaderSize(src, 16)
	start, err := in.Peek(1)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	r, err := v.newResponse(k, flushing{dst, flush}, in, watchBufferSize)
	if err != nil {
		return err
	}
	// The length of a protobuf frame starts with a zero byte, a JSON frame with a brace.
	if start[0] == 0 {
		return r.protoWatch(flushing{dst, flush}, in, filter)
	}
	r.Eager()
	for {
		r.Mute(true)
		end, err := r.End()
		if err != nil {
			return errors.Join(err, r.Flush())
		}
		if end {
			return r.Flush()
		}
		if err := r.frame(filter); err != nil {
			return explain(err)
		}
	}
}

// flushing calls flush behind each write.
type flushing struct {
	io.Writer
	flush func()
}

func (f flushing) Write(b []byte) (int, error) {
	n, err := f.Writer.Write(b)
	if f.flush != nil {
		f.flush()
	}
	return n, err
}

// frame walks one frame and writes it whole or not at all.
func (r *response) frame(filter bool) error {
	r.Mute(false)
	point, err := r.Hold()
	defer r.Release()
	if err != nil {
		return err
	}
	c, err := r.Peek()
	if err != nil {
		return err
	}
	if c != '{' {
		return foreign("a frame that is no object")
	}
	kind := ""
	err = r.object(func(key []byte) error {
		switch {
		case string(key) == "type" && kind == "":
			raw, err := r.Capture()
			if err != nil {
				return err
			}
			if len(raw) > 2 {
				kind = frameType(raw[1 : len(raw)-1])
			}
			r.bookmark = kind == "BOOKMARK"
			return r.Emit(raw)
		case string(key) == "object" && kind != "":
			return r.document()
		}
		return foreign("a frame of type %s with %q", kind, key)
	})
	switch {
	case errors.Is(err, errForeignItem) && filter:
		if err := r.Unwind(0); err != nil {
			return err
		}
		r.Rollback(point)
		return nil
	case err != nil:
		r.Rollback(point)
		return err
	case kind == "":
		return foreign("a frame without a type")
	}
	r.unsent = nil
	return r.Emit([]byte{'\n'})
}
