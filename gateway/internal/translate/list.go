package translate

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// ListOptions say how pages of the control cluster become one list of the tenant.
type ListOptions struct {
	// First is the control continue token of the first page; empty for the beginning.
	First string
	// OnePage ends the list after the first page, whose continue token (through View.Continue) the tenant gets: for a
	// tenant that asked with a limit. Otherwise all pages become one list without a token.
	OnePage bool
	// Next, if not nil, says where the list goes on behind a page: read is the token by which that was asked for, token the
	// one that it ends with, empty for none. With OnePage the tenant gets next when there is no more to read. By default a
	// list goes on where its page says, and with OnePage not at all.
	Next func(read, token string) (next string, more bool)
	// Most, if it is above 0, ends the list before it has more items, and Cut gives the token to go on with then: behind the
	// first items of the page that was asked for by read.
	Most int
	Cut  func(read string, items int) (token string, err error)
	// Counted, if not nil, is told how many items the list has, once all are known, and how many objects, of whomever, the
	// control cluster says to be behind its first page.
	Counted func(items, remaining int)
}

func (o ListOptions) counted(items, remaining int) {
	if o.Counted != nil {
		o.Counted(items, remaining)
	}
}

func (o ListOptions) next(read, token string) (next string, more bool) {
	if o.Next != nil {
		return o.Next(read, token)
	}
	return token, token != "" && !o.OnePage
}

// ListToTenant makes one list out of pages of the control cluster in which the tenant's items come first and foreign ones
// may follow: it ends at the first foreign item. page is asked for each page by the control cluster's continue token,
// opts.First at first. metadata.continue is left out when the end was reached, remainingItemCount always; metadata is
// written behind the items, where all of it is known.
// Tables need rows[].object: ask for includeObject=Metadata at least.
// Memory is bounded by one item in JSON. In protobuf, which says how long a list is before its items, up to eight MiB are
// held; what comes behind them is asked for twice, so page must give the same again for the same token. What ObjectToTenant says about errors holds here too; nothing is written if the first
// page fails.
func (v View) ListToTenant(k Kind, dst io.Writer, opts ListOptions, page func(controlToken string) (io.ReadCloser, error)) error {
	body, err := page(opts.First)
	if err != nil {
		return err
	}
	r, err := v.newResponse(k, dst, nil, bufferSize)
	if err != nil {
		body.Close()
		return err
	}
	defer r.done()
	proto, err := r.head.isProto(body)
	if err != nil {
		body.Close()
		return err
	}
	if proto {
		return explain(r.protoPages(dst, opts, body, &r.head, page))
	}
	r.Reset(&r.head)
	r.Mute(true)
	l := &merge{response: r, most: opts.Most}
	for read := opts.First; ; read = l.token {
		err := l.page()
		if closeErr := body.Close(); err == nil {
			err = closeErr
		}
		if err == nil && l.full {
			l.token, err = opts.Cut(read, l.inPage)
		}
		if err != nil {
			return explain(err)
		}
		if l.ended || l.full {
			return l.finish(opts)
		}
		var more bool
		if l.token, more = opts.next(read, l.token); !more {
			return l.finish(opts)
		}
		if body, err = page(l.token); err != nil {
			return fmt.Errorf("next page: %w", err)
		}
		r.Reset(body)
	}
}

// merge is a list in the making.
type merge struct {
	*response
	kind, version string          // of the first page; the others must be alike
	meta          *jsonwire.Value // of the first page
	token         string          // to go on behind the last page
	opened        bool            // the items have been begun
	ended         bool            // a foreign item was met
	items, most   int
	inPage        int  // of the items, those of the page that is being read
	full          bool // there are more than most
	remaining     int
}

// errEnough ends a page whose rest is foreign.
var errEnough = errors.New("the rest of the page is foreign")

// page reads one page, muted save for its items.
func (l *merge) page() error {
	l.token, l.inPage = "", 0
	var kind, version string
	sawMeta, sawItems := false, false
	if c, err := l.Peek(); err != nil || c != '{' {
		return errors.Join(foreign("a page that is no object"), err)
	}
	err := l.object(func(rawKey []byte) error {
		key := string(rawKey)
		switch {
		case key == "kind" || key == "apiVersion":
			said := &kind
			if key == "apiVersion" {
				said = &version
			}
			text, err := l.captureText()
			if err != nil {
				return err
			}
			if *said != "" && *said != text {
				return foreign("a page of %s and %s", *said, text)
			}
			*said = text
			return nil
		case l.response.kind.Custom:
			kind, version = l.assume(kind, version)
		case kind == "" || version == "":
			return foreign("a page that does not say first what it is")
		}
		place, items, err := l.shape(kind, version)
		if err != nil {
			return err
		}
		switch key {
		case "metadata":
			sawMeta = true
			return l.pageMetadata()
		case "columnDefinitions":
			return l.pageColumns()
		case items:
			if !sawMeta && !l.response.kind.Custom {
				return foreign("a page with its metadata behind its items")
			}
			sawItems = true
			return l.pageItems(items, place)
		}
		return foreign("a list with %q", key)
	})
	switch {
	case errors.Is(err, errEnough):
		return nil
	case err != nil:
		return err
	case !sawItems || !sawMeta:
		return foreign("a page without items or metadata")
	}
	return nil
}

// shape says what a page's items are and how their member is called.
func (l *merge) shape(kind, version string) (*rules.Place, string, error) {
	if l.kind != "" && (kind != l.kind || version != l.version) {
		return nil, "", foreign("a page of %s behind one of %s", kind, l.kind)
	}
	l.kind, l.version = kind, version
	meta := version == "meta.k8s.io/v1" || version == "meta.k8s.io/v1beta1"
	switch {
	case kind == l.listKind() && version == l.groupVersion():
		return l.root.ToTenant, "items", nil
	case kind == "PartialObjectMetadataList" && meta:
		return nil, "items", nil
	case kind == "Table" && meta:
		return nil, "rows", nil
	}
	return nil, "", foreign("%s %s where a list of %s was asked for", version, kind, l.root.Kind)
}

// takeTree takes the next value out of the stream.
func (l *merge) takeTree() (*jsonwire.Value, error) {
	raw, err := l.Capture()
	if err != nil {
		return nil, err
	}
	v, err := parseTrusted(raw)
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (l *merge) pageMetadata() error {
	meta, err := l.takeTree()
	if err != nil {
		return err
	}
	l.token = meta.Get("continue").Text()
	if l.meta == nil {
		if count := meta.Get("remainingItemCount"); count.Kind() == jsonwire.Number {
			// What cannot be read counts nothing.
			l.remaining, _ = strconv.Atoi(string(count.Append(nil)))
		}
		meta.Delete("remainingItemCount")
		meta.Delete("continue")
		l.meta = meta
	}
	return nil
}

func (l *merge) pageColumns() error {
	columns, err := l.takeTree()
	if err != nil || l.columns != nil {
		return err
	}
	l.setColumns(columns)
	if err := l.begin(); err != nil {
		return err
	}
	return l.Emit(columns.Append([]byte(`,"columnDefinitions":`)))
}

// begin writes what every list starts with.
func (l *merge) begin() error {
	gv, _ := l.view.groupVersionToTenant(l.version)
	head := append(jsonwire.AppendQuoted([]byte(`{"kind":`), l.kind), `,"apiVersion":`...)
	return l.Emit(jsonwire.AppendQuoted(head, gv))
}

// open writes what comes before the first item, once.
func (l *merge) open(items string) error {
	if l.opened {
		return nil
	}
	l.opened = true
	if l.columns == nil {
		if err := l.begin(); err != nil {
			return err
		}
	}
	return l.Emit(append(jsonwire.AppendQuoted([]byte{','}, items), ":["...))
}

func (l *merge) pageItems(items string, place *rules.Place) error {
	if err := l.open(items); err != nil {
		return err
	}
	depth := l.Depth()
	err := l.array(func() error { return l.pageItem(place, items == "rows") })
	if errors.Is(err, errEnough) && l.response.kind.Custom {
		// What is needed of the metadata stands behind the items.
		return l.Unwind(depth)
	}
	return err
}

// pageItem writes one item, or takes it back and ends the list if it is foreign.
func (l *merge) pageItem(place *rules.Place, row bool) error {
	if l.most > 0 && l.items == l.most {
		l.full = true
		return errEnough
	}
	point, err := l.Hold()
	defer l.Release()
	if err == nil && l.items > 0 {
		err = l.Emit([]byte{','})
	}
	if err != nil {
		return err
	}
	l.Mute(false)
	if row {
		err = l.row()
	} else {
		err = l.item(place)
	}
	l.Mute(true)
	if errors.Is(err, errForeignItem) {
		l.Rollback(point)
		l.ended = true
		return errEnough
	}
	l.items++
	l.inPage++
	return errors.Join(err, l.Cut())
}

// finish writes what comes behind the items.
func (l *merge) finish(opts ListOptions) error {
	opts.counted(l.items, l.remaining)
	if opts.OnePage && !l.ended && l.token != "" {
		if l.view.Continue == nil {
			return foreign("a continue token and nobody to translate it")
		}
		l.meta.Set("continue", jsonwire.NewString(l.view.Continue(l.token)))
	}
	if err := l.Emit(append(l.meta.Append([]byte(`],"metadata":`)), "}\n"...)); err != nil {
		return err
	}
	return l.Flush()
}
