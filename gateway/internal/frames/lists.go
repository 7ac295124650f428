package frames

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// List is what a page of a list says of itself.
type List struct {
	ResourceVersion uint64
	Continue        string
	// Remaining is how many objects, of whomever, it says to be behind the page.
	Remaining int
}

// ErrEnough, returned by a function that takes items, ends a list without an error.
var ErrEnough = errors.New("no more items are wanted")

// Added reads a page of a list of the control cluster and gives each item as the frame in which a watch would add it, until
// each returns [ErrEnough]. What the list says of itself may stand before its items or behind them.
func (f Form) Added(page io.Reader, each func(frame []byte) error) (List, error) {
	var list List
	var err error
	if f.Proto {
		err = f.addedProto(page, &list, each)
	} else {
		err = f.addedJSON(page, &list, each)
	}
	if errors.Is(err, ErrEnough) {
		err = nil
	}
	return list, err
}

func (l *List) set(meta *metav1.ListMeta) error {
	rv, err := strconv.ParseUint(meta.ResourceVersion, 10, 64)
	if err != nil || rv == 0 {
		return fmt.Errorf("read a list: it has the resource version %q", meta.ResourceVersion)
	}
	l.ResourceVersion, l.Continue = rv, meta.Continue
	if meta.RemainingItemCount != nil {
		l.Remaining = int(*meta.RemainingItemCount)
	}
	return nil
}

func (f Form) addedJSON(page io.Reader, list *List, each func(frame []byte) error) error {
	in := json.NewDecoder(page)
	if err := expect(in, json.Delim('{')); err != nil {
		return err
	}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return fmt.Errorf("read a list: %w", err)
		}
		switch key {
		case "metadata":
			var meta metav1.ListMeta
			if err := in.Decode(&meta); err != nil {
				return fmt.Errorf("read a list: %w", err)
			}
			if err := list.set(&meta); err != nil {
				return err
			}
		case "items":
			err := f.itemsJSON(in, each)
			if errors.Is(err, ErrEnough) && list.ResourceVersion == 0 {
				err = f.itemsJSON(in, nil)
			}
			if err != nil {
				return err
			}
		default:
			var skipped json.RawMessage
			if err := in.Decode(&skipped); err != nil {
				return fmt.Errorf("read a list: %w", err)
			}
		}
	}
	return expect(in, json.Delim('}'))
}

func expect(in *json.Decoder, want json.Token) error {
	got, err := in.Token()
	if err != nil {
		return fmt.Errorf("read a list: %w", err)
	}
	if got != want {
		return fmt.Errorf("read a list: %v where %v was expected", got, want)
	}
	return nil
}

// itemsJSON reads the items; with a nil each it reads the rest of those that have been begun, and throws them away.
func (f Form) itemsJSON(in *json.Decoder, each func(frame []byte) error) error {
	if each != nil {
		start, err := in.Token()
		if err != nil || start == nil {
			// null is a list without items.
			return err
		}
		if start != json.Delim('[') {
			return errors.New("read a list: its items are no array")
		}
	}
	said := fmt.Appendf(nil, `"kind":%q,"apiVersion":%q,`, f.Kind, f.APIVersion)
	var item json.RawMessage
	var frame []byte
	for in.More() {
		if err := in.Decode(&item); err != nil {
			return fmt.Errorf("read a list: %w", err)
		}
		if each == nil {
			continue
		}
		inner := bytes.TrimLeft(item, " \t\r\n")
		if len(inner) < 3 || inner[0] != '{' {
			return errors.New("read a list: an item is no object")
		}
		frame = append(append(frame[:0], Head("ADDED")...), '{')
		if !saysWhatItIs(inner) {
			frame = append(frame, said...)
		}
		frame = append(append(frame, inner[1:]...), Tail...)
		if err := each(frame); err != nil {
			return err
		}
	}
	return expect(in, json.Delim(']'))
}

// saysWhatItIs reports whether an item has its kind with it. Items of typed lists have neither kind nor apiVersion and
// begin with their metadata; others have both, in front of it.
func saysWhatItIs(item []byte) bool {
	return !bytes.HasPrefix(bytes.TrimLeft(item[1:], " \t\r\n"), []byte(`"metadata"`))
}

func (f Form) addedProto(page io.Reader, list *List, each func(frame []byte) error) error {
	in := bufio.NewReader(page)
	magic := make([]byte, len(protoMagic))
	if _, err := io.ReadFull(in, magic); err != nil || !bytes.Equal(magic, protoMagic) {
		return errors.New("read a list: it is no document in protobuf")
	}
	// The envelope: what is before its field 2 says what the list is, which has been asked for.
	for {
		number, size, err := field(in)
		if err != nil {
			return err
		}
		if number == 2 {
			return f.itemsProto(&io.LimitedReader{R: in, N: size}, list, each)
		}
		if _, err := io.CopyN(io.Discard, in, size); err != nil {
			return fmt.Errorf("read a list: %w", err)
		}
	}
}

func (f Form) itemsProto(rest *io.LimitedReader, list *List, each func(frame []byte) error) error {
	in := bufio.NewReaderSize(rest, 64<<10)
	var value []byte
	for {
		if _, err := in.Peek(1); errors.Is(err, io.EOF) && rest.N == 0 {
			return nil
		}
		number, size, err := field(in)
		if err != nil {
			return err
		}
		if size > maxItem {
			return fmt.Errorf("read a list: an item of %d bytes", size)
		}
		if int64(cap(value)) < size {
			value = make([]byte, size)
		}
		value = value[:size]
		if _, err := io.ReadFull(in, value); err != nil {
			return fmt.Errorf("read a list: %w", err)
		}
		switch number {
		case 1:
			var meta metav1.ListMeta
			if err := meta.Unmarshal(value); err != nil {
				return fmt.Errorf("read a list: %w", err)
			}
			if err := list.set(&meta); err != nil {
				return err
			}
		case 2:
			if err := each(f.protoFrame("ADDED", value)); err != nil {
				return err
			}
		}
	}
}

// field reads the tag and the length of a field of bytes; lists have no others.
func field(in *bufio.Reader) (number uint64, size int64, err error) {
	tag, err := binary.ReadUvarint(in)
	if err != nil {
		return 0, 0, fmt.Errorf("read a list: %w", err)
	}
	length, err := binary.ReadUvarint(in)
	if err != nil {
		return 0, 0, fmt.Errorf("read a list: %w", err)
	}
	if tag&7 != 2 || length > 1<<40 {
		return 0, 0, errors.New("read a list: a field of a wrong type")
	}
	return tag >> 3, int64(length), nil //nolint:gosec // bounded above
}
