package frames

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// protoMagic stands before every document in protobuf.
var protoMagic = []byte("k8s\x00")

// maxItem bounds an item of a list: more than the control cluster can store.
const maxItem = 32 << 20

// Code reads the code of the Status in a frame of type ERROR.
func Code(frame []byte) (int32, error) {
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
	// Table says that rows carry the objects; only in JSON.
	Table bool
	// APIVersion and Kind are the control cluster's; items of lists do not always say them.
	APIVersion, Kind string
}

// Bookmark makes the frame that says how far a watch has come; end, that it follows the last of the initial events.
func (f Form) Bookmark(rv uint64, end bool) []byte {
	version := strconv.FormatUint(rv, 10)
	if !f.Proto {
		annotations := ""
		if end {
			annotations = fmt.Sprintf(`,"annotations":{%q:"true"}`, metav1.InitialEventsAnnotationKey)
		}
		object := fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":%q%s}}`, f.Kind, f.APIVersion, version, annotations)
		if f.Table {
			object = fmt.Appendf(nil, `{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":%q},"columnDefinitions":null,"rows":[{"cells":[],"object":%s}]}`,
				version, object)
		}
		return inJSON("BOOKMARK", object)
	}
	meta := appendField(nil, 6, []byte(version))
	if end {
		meta = appendField(meta, 12, appendField(appendField(nil, 1, []byte(metav1.InitialEventsAnnotationKey)), 2, []byte("true")))
	}
	// Every kind has its metadata in field 1.
	return f.protoFrame("BOOKMARK", appendField(nil, 1, meta))
}

// Head is what stands before the document in a frame in JSON, Tail what stands behind it.
func Head(kind string) string { return `{"type":"` + kind + `","object":` }

// Tail belongs to [Head].
const Tail = "}\n"

func inJSON(kind string, object []byte) []byte {
	return append(append([]byte(Head(kind)), object...), Tail...)
}

// Expired makes the frame that ends a watch whose client has to list anew, in JSON.
func Expired(rv uint64) []byte {
	status := apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d", rv)).Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	raw, err := json.Marshal(status)
	if err != nil {
		return nil // a plain struct: cannot happen
	}
	return inJSON("ERROR", raw)
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
