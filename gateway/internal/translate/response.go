package translate

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/needle"
	"vivarium.io/vivarium/gateway/internal/translate/protowire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
	"vivarium.io/vivarium/internal/names"
)

// errForeignItem says that an item is not the tenant's. Filters catch it; elsewhere it becomes a ForeignError.
var errForeignItem = errors.New("an object of another world")

// wires are the buffers of protobuf.
type wires struct {
	in  protoReader
	cut cuts
	out []byte
}

// bufferSize is what a scanner of objects and lists starts with; frames of watches start with less, since thousands of
// them are idle.
const (
	bufferSize      = 32 << 10
	watchBufferSize = 4 << 10
)

// The marks that a scanner looks for: what holds neither the tenant's prefix nor the platform's domain passes most
// operations as it is.
const (
	ofTenant   = jsonwire.First
	ofPlatform = jsonwire.Second
)

// response walks one document of the control cluster, or a stream of them.
type response struct {
	view   View
	kind   Kind
	root   rules.Root
	prefix []byte
	*jsonwire.Scanner

	// Of the document.
	bookmark bool
	single   bool // it is one object, which must show itself to be the tenant's
	columns  []columnRule
	unsent   *jsonwire.Value // column definitions that the tenant has not been sent
	items    *rewriter       // of protobuf, for what needs trees
	wires    wires           // of protobuf
	needles  needle.Pair     // the prefix and the domain
	head     headReader
	memory   memory
	table    *Columns // of the watch that a frame was cut out of
	define   bool     // the frame shall name its columns
	scratch  []byte   // for a string that is written
	// Of the current item.
	owned   bool
	name    string
	rawName []byte // the same in protobuf, until somebody asks; see itsName
	// twice says that the item's own namespace or name, as the tenant has it, starts with the tenant's prefix.
	twice bool
}

// newResponse takes a response from the pool, or makes one where size is another than bufferSize.
func (v View) newResponse(k Kind, dst io.Writer, src io.Reader, size int) (*response, error) {
	root, ok := v.bodyRoot(k)
	if !ok {
		return nil, foreign("no rules for %s.%s/%s %s", k.Resource, k.Group, k.Version, k.Subresource)
	}
	if _, err := names.ParseTenantID(string(v.Tenant)); err != nil {
		return nil, err
	}
	if root.GroupVersion == "" {
		root = root.Named()
	}
	if !root.ToTenant.Ready() {
		// A table that was made by hand.
		root.ToTenant = rules.ToTenant(root.Place)
	}
	var r *response
	if size == bufferSize {
		r, _ = responses.Get().(*response)
	}
	if r == nil {
		r = &response{Scanner: jsonwire.NewScanner(nil, nil, size)}
	}
	r.view, r.kind, r.root = v, k, root
	r.prefix = append(r.prefix[:0], v.Tenant.Prefix()...)
	r.Reuse(dst, src)
	r.LookFor(r.prefix, domain)
	r.needles.Set(r.prefix, domain)
	return r, nil
}

// responses keeps buffers for reuse. What is in it holds nothing of a document that a later one could show.
var responses sync.Pool

// done gives the buffers back.
func (r *response) done() {
	r.Reuse(nil, nil)
	r.wires.in.reset(nil)
	if cap(r.wires.out) > keptBuffer {
		r.wires.out = nil
	}
	*r = response{Scanner: r.Scanner, wires: r.wires, prefix: r.prefix, items: r.items, scratch: r.scratch}
	responses.Put(r)
}

// ObjectToTenant translates one document of a response with a 2xx code: an object, a list, a Table, a
// PartialObjectMetadata or its list, a Scale, a Status. Whether it is JSON or protobuf shows in its first bytes. Both
// stream: a list is held one item at a time, whatever its length. After an error dst may hold a part of a document, which
// the front must not end cleanly; nothing has been written to dst before the first 64 KiB, so most errors come in time for
// an answer of the front's own.
func (v View) ObjectToTenant(k Kind, dst io.Writer, src io.Reader) error {
	r, err := v.newResponse(k, dst, nil, bufferSize)
	if err != nil {
		return err
	}
	defer r.done()
	proto, err := r.head.isProto(src)
	if err != nil {
		return err
	}
	if proto {
		return explain(r.protoObject(dst, &r.head))
	}
	r.Reset(&r.head)
	if err := r.document(); err != nil {
		return explain(err)
	}
	if end, err := r.End(); err != nil {
		return err
	} else if !end {
		return foreign("something follows the document")
	}
	if err := r.Cut(); err != nil {
		return err
	}
	return r.Flush()
}

// explain turns the sentinel that filters use into the error callers know.
func explain(err error) error {
	if errors.Is(err, errForeignItem) || errors.Is(err, protowire.ErrMalformed) {
		return foreign("%s", err)
	}
	return err
}

// member handles one member of a document whose key has just been read.
type member func(r *response, key string) error

// document walks one document, whose kind and apiVersion must come first. Encoders of typed objects see to that.
func (r *response) document() error {
	c, err := r.Peek()
	if err != nil {
		return err
	}
	if c != '{' {
		return foreign("a document that is no object")
	}
	r.single = false
	point, err := r.Hold()
	if err != nil {
		return err
	}
	held := true
	release := func() {
		if held {
			r.Release()
			held = false
		}
	}
	defer release()
	r.Enter()
	var kind, apiVersion string
	for first := true; ; first = false {
		ok, err := r.Next(first)
		if err != nil {
			return err
		}
		if !ok {
			return foreign("an object of kind %q and nothing in it", kind)
		}
		rawKey, err := r.Key()
		if err != nil {
			return err
		}
		switch key := knownKey(rawKey); key {
		case "kind", "apiVersion":
			text, err := r.captureText()
			if err != nil {
				return err
			}
			if key == "kind" {
				kind = text
			} else {
				apiVersion = text
				text, _ = r.view.groupVersionToTenant(text)
			}
			if err := r.emitText(text); err != nil {
				return err
			}
		default:
			if r.kind.Custom {
				kind, apiVersion = r.assume(kind, apiVersion)
			}
			f, whole, err := r.classify(kind, apiVersion)
			if err != nil {
				return err
			}
			if whole != nil {
				return r.wholeDocument(point, kind, apiVersion, key, whole)
			}
			release()
			if r.kind.Custom {
				f = r.late(kind, apiVersion, f)
			}
			if err := r.members(key, f); err != nil || !r.single {
				return err
			}
			return r.endItem()
		}
	}
}

func (r *response) captureText() (string, error) {
	raw, err := r.Capture()
	if err != nil {
		return "", err
	}
	if n := len(raw) - 1; n > 0 && bytes.IndexByte(raw, '\\') < 0 && raw[0] == '"' && raw[n] == '"' {
		return known(raw[1:n], &r.root), nil
	}
	return jsonwire.Unquote(raw)
}

// knownKey makes a string of a key that nearly always is one of a few.
func knownKey(raw []byte) string {
	switch string(raw) {
	case "kind":
		return "kind"
	case "apiVersion":
		return "apiVersion"
	case "metadata":
		return "metadata"
	case "items":
		return "items"
	case "spec":
		return "spec"
	case "status":
		return "status"
	case "data":
		return "data"
	}
	return string(raw)
}

// members handles the rest of a document from a key on.
func (r *response) members(key string, f member) error {
	for {
		if err := f(r, key); err != nil {
			return err
		}
		ok, err := r.Next(false)
		if err != nil || !ok {
			return err
		}
		raw, err := r.Key()
		if err != nil {
			return err
		}
		key = knownKey(raw)
	}
}

// wholeDocument takes back what was written of a small document, reads the rest as a tree and hands it over.
func (r *response) wholeDocument(point int, kind, apiVersion, key string, f func(*jsonwire.Value) error) error {
	doc := jsonwire.NewObject(
		jsonwire.Member{Key: "kind", Value: jsonwire.NewString(kind)},
		jsonwire.Member{Key: "apiVersion", Value: jsonwire.NewString(apiVersion)})
	err := r.members(key, func(r *response, key string) error {
		raw, err := r.Capture()
		if err != nil {
			return err
		}
		v, err := parseTrusted(raw)
		if err != nil {
			return err
		}
		doc.Set(key, v)
		return nil
	})
	if err != nil {
		return err
	}
	if err := f(doc); err != nil {
		return err
	}
	r.Rollback(point)
	return r.Emit(doc.Append(nil))
}

func (r *response) groupVersion() string { return r.root.GroupVersion }

// classify decides by kind and version what a document is: what the URL is about, or one of the forms in which the API
// server shows it. Anything else is refused.
func (r *response) classify(kind, apiVersion string) (member, func(*jsonwire.Value) error, error) {
	gv := r.groupVersion()
	meta := apiVersion == "meta.k8s.io/v1" || apiVersion == "meta.k8s.io/v1beta1"
	switch {
	case kind == r.root.Kind && apiVersion == gv:
		if r.root.Op == rules.VirtualNode {
			return nil, r.nodeToTenant, nil
		}
		r.beginItem()
		r.single = true
		return func(r *response, key string) error {
			if err := r.child(r.root.ToTenant, key); err != nil || key != "metadata" {
				return err
			}
			// At once, before a large object has left.
			return r.endItem()
		}, nil, nil
	case kind == r.listKind() && apiVersion == gv:
		return listMember(r.root.ToTenant), nil, nil
	case kind == "Table" && meta:
		return tableMember, nil, nil
	case kind == "PartialObjectMetadata" && meta:
		r.beginItem()
		r.single = true
		return func(r *response, key string) error {
			if key != "metadata" {
				return r.Skip()
			}
			return r.metadata()
		}, nil, nil
	case kind == "PartialObjectMetadataList" && meta:
		return listMember(nil), nil, nil
	case kind == "Status" && apiVersion == "v1":
		return nil, func(v *jsonwire.Value) error {
			if !r.statusToTenant(v) {
				return foreign("a Status about another world")
			}
			return nil
		}, nil
	}
	return nil, nil, foreign("%s %s where %s %s was asked for", apiVersion, kind, gv, r.root.Kind)
}

// listMember handles the members of a list; items of a nil place are PartialObjectMetadata.
func listMember(place *rules.Place) member {
	return func(r *response, key string) error {
		switch key {
		case "metadata":
			return r.listMetadata()
		case "items":
			return r.array(func() error { return r.item(place) })
		}
		return r.Skip()
	}
}

// listMetadata translates the metadata of a list that is shown as it came.
func (r *response) listMetadata() error {
	raw, err := r.Capture()
	if err != nil {
		return err
	}
	if !bytes.Contains(raw, []byte(`"continue"`)) {
		return r.Emit(raw)
	}
	meta, err := parseTrusted(raw)
	if err != nil {
		return err
	}
	if err := r.continueToTenant(meta); err != nil {
		return err
	}
	return r.Emit(meta.Append(nil))
}

func (r *response) continueToTenant(meta *jsonwire.Value) error {
	token := meta.Get("continue")
	if token.Text() == "" {
		return nil
	}
	if r.view.Continue == nil {
		return foreign("a continue token and nobody to translate it")
	}
	token.SetText(r.view.Continue(token.Text()))
	return nil
}
