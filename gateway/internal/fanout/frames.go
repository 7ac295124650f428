package fanout

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
	"k8s.io/apimachinery/pkg/runtime"
)

// protoMagic stands before every document in protobuf.
var protoMagic = []byte("k8s\x00")

// maxItem bounds an item of a list: more than the control cluster can store.
const maxItem = 32 << 20

// failureCode reads the code of the Status in a frame of type ERROR.
func failureCode(frame []byte) (int32, error) {
	if len(frame) > 4 && frame[0] == 0 {
		var event metav1.WatchEvent
		if err := event.Unmarshal(frame[4:]); err != nil {
			return 0, fmt.Errorf("read an error: %w", err)
		}
		var envelope runtime.Unknown
		body, ok := bytes.CutPrefix(event.Object.Raw, protoMagic)
		if !ok {
			return 0, errors.New("read an error: it is no document")
		}
		if err := envelope.Unmarshal(body); err != nil {
			return 0, fmt.Errorf("read an error: %w", err)
		}
		var status metav1.Status
		if err := status.Unmarshal(envelope.Raw); err != nil {
			return 0, fmt.Errorf("read an error: %w", err)
		}
		return status.Code, nil
	}
	var event struct {
		Object struct {
			Code int32 `json:"code"`
		} `json:"object"`
	}
	if err := json.Unmarshal(frame, &event); err != nil {
		return 0, fmt.Errorf("read an error: %w", err)
	}
	return event.Object.Code, nil
}

// Form is how objects are written in the frames of a watch.
type Form struct {
	Proto bool
	// APIVersion and Kind are the control cluster's; items of lists do not always say them.
	APIVersion, Kind string
}

// InitialEventsEnd makes the bookmark that follows the last of the initial events.
func (f Form) InitialEventsEnd(rv uint64) []byte {
	version := strconv.FormatUint(rv, 10)
	if !f.Proto {
		return fmt.Appendf(nil, `{"type":"BOOKMARK","object":{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":%q,"annotations":{%q:"true"}}}}`+"\n",
			f.Kind, f.APIVersion, version, metav1.InitialEventsAnnotationKey)
	}
	meta := appendField(nil, 6, []byte(version))
	meta = appendField(meta, 12, appendField(appendField(nil, 1, []byte(metav1.InitialEventsAnnotationKey)), 2, []byte("true")))
	// Every kind has its metadata in field 1.
	return f.protoFrame("BOOKMARK", appendField(nil, 1, meta))
}

func (f Form) protoFrame(kind string, object []byte) []byte {
	meta := appendField(appendField(nil, 1, []byte(f.APIVersion)), 2, []byte(f.Kind))
	// Unknown has four fields, all of which its encoder writes.
	doc := appendField(appendField(appendField(appendField(bytes.Clone(protoMagic), 1, meta), 2, object), 3, nil), 4, nil)
	event := appendField(appendField([]byte{0, 0, 0, 0}, 1, []byte(kind)), 2, appendField(nil, 1, doc))
	binary.BigEndian.PutUint32(event, uint32(len(event)-4)) //nolint:gosec // bounded by maxItem
	return event
}

// appendField writes a field of bytes.
func appendField(dst []byte, number int, value []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(number)<<3|2) //nolint:gosec // a small constant
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

// List is what a page of a list says of itself.
type List struct {
	ResourceVersion uint64
	Continue        string
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

func (l *List) set(version, token string) error {
	rv, err := strconv.ParseUint(version, 10, 64)
	if err != nil || rv == 0 {
		return fmt.Errorf("read a list: it has the resource version %q", version)
	}
	l.ResourceVersion, l.Continue = rv, token
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
			if err := list.set(meta.ResourceVersion, meta.Continue); err != nil {
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
		frame = append(frame[:0], `{"type":"ADDED","object":{`...)
		if !saysWhatItIs(inner) {
			frame = append(frame, said...)
		}
		frame = append(append(frame, inner[1:]...), "}\n"...)
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
			if err := list.set(meta.ResourceVersion, meta.Continue); err != nil {
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
