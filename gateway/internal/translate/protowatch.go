package translate

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"vivarium.io/vivarium/gateway/internal/translate/protowire"
)

// protoWatch translates watch frames, each with its length before it.
func (r *response) protoWatch(dst io.Writer, src io.Reader, filter bool) error {
	in := bufio.NewReaderSize(src, watchBufferSize)
	var frame, out []byte
	for {
		if len(out) > 0 && (in.Buffered() == 0 || len(out) >= bufferSize) {
			if _, err := dst.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
		var size [4]byte
		if _, err := io.ReadFull(in, size[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		n := int(binary.BigEndian.Uint32(size[:]))
		if n > maxFrame {
			return foreign("a frame of %d bytes", n)
		}
		if cap(frame) < n || cap(frame) > 16*watchBufferSize {
			frame = make([]byte, n)
		}
		frame = frame[:n]
		if _, err := io.ReadFull(in, frame); err != nil {
			return errors.Join(io.ErrUnexpectedEOF, err)
		}
		start := len(out)
		grown, err := r.protoFrame(frame, append(out, size[:]...))
		switch {
		case errors.Is(err, errForeignItem) && filter:
			out = out[:start]
			continue
		case err != nil:
			// What was whole goes out before the error ends the stream.
			if _, writeErr := dst.Write(out); writeErr != nil {
				return writeErr
			}
			return explain(err)
		}
		out = grown
		binary.BigEndian.PutUint32(out[start:], uint32(len(out)-start-4))
	}
}

// protoFrame translates one WatchEvent.
func (r *response) protoFrame(frame, dst []byte) ([]byte, error) {
	var kind string
	seen := false
	for len(frame) > 0 {
		f, rest, err := protowire.Next(frame)
		if err != nil {
			return nil, err
		}
		frame = rest
		switch {
		case f.Number == 1 && f.Type == protowire.Bytes && kind == "":
			kind = frameType(f.Value)
			r.bookmark = kind == "BOOKMARK"
			dst = append(dst, f.Raw...)
		case f.Number == 2 && f.Type == protowire.Bytes && kind != "" && !seen:
			seen = true
			inner, rest, err := protowire.Next(f.Value)
			if err != nil || inner.Number != 1 || inner.Type != protowire.Bytes || len(rest) > 0 {
				return nil, errors.Join(foreign("a frame whose object is no document"), err)
			}
			dst, err = protowire.AppendMessage(dst, 2, len(f.Value), func(dst []byte) ([]byte, error) {
				return protowire.AppendMessage(dst, 1, len(inner.Value), func(dst []byte) ([]byte, error) {
					return r.protoDocument(inner.Value, dst)
				})
			})
			if err != nil {
				return nil, err
			}
		default:
			return nil, foreign("a frame of type %q with field %d", kind, f.Number)
		}
	}
	if !seen {
		return nil, foreign("a frame without an object")
	}
	return dst, nil
}
