package translate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/protowire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// A protobuf document says how long it is before it says anything else. A list is all the same read and written item by
// item: it keeps the length that the control cluster declared, a little more even, and what translation took out is made
// up for at its end by a field that no reader knows. A list that is done before any of it has left gets its true length
// instead.

const (
	// maxDocument bounds what is held as a whole: an object, an item of a list, the metadata of one.
	maxDocument = 32 << 20
	// protoBuffer is what reading starts with: no more than a processor's first cache holds. Up to keptBuffer is kept for
	// the next document.
	protoBuffer = 16 << 10
	keptBuffer  = 256 << 10
	// flushSize is how much is gathered before it is written.
	flushSize = 64 << 10
	// holdNodes is how much of a list of Nodes is held for its true length: most of a Node is not shown, and that much
	// padding would cost more.
	holdNodes = 4 << 20
	// padNumber is the number of the field that makes up for what was taken out. The API numbers its fields by hand, from
	// one.
	padNumber = 2047
	// slack is declared beyond the control cluster's length, so that there is always room for the field.
	slack = 64
)

// protoReader reads a protobuf document through a buffer that grows to the largest field that is asked for as a whole.
type protoReader struct {
	src      io.Reader
	buf      []byte
	pos, end int
	eof      bool
}

func (p *protoReader) reset(src io.Reader) {
	buf := p.buf
	if cap(buf) > keptBuffer {
		buf = nil
	}
	*p = protoReader{src: src, buf: buf[:min(cap(buf), protoBuffer)]}
}

// more reads once.
func (p *protoReader) more() error {
	if p.eof {
		return io.EOF
	}
	if p.pos > 0 && (p.pos == p.end || p.end == len(p.buf)) {
		p.end = copy(p.buf, p.buf[p.pos:p.end])
		p.pos = 0
	}
	if p.end == len(p.buf) {
		if p.end >= maxDocument+protoBuffer {
			return foreign("a protobuf document with an object of more than %d bytes", maxDocument)
		}
		size := max(protoBuffer, 2*len(p.buf))
		if size > cap(p.buf) {
			p.buf = append(make([]byte, 0, size), p.buf...)
		}
		p.buf = p.buf[:size]
	}
	for range 100 {
		n, err := p.src.Read(p.buf[p.end:])
		p.end += n
		if errors.Is(err, io.EOF) {
			p.eof = true
			if n == 0 {
				return io.EOF
			}
			return nil
		}
		if n > 0 || err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// want makes n bytes stand in the buffer; an end before them is an error.
func (p *protoReader) want(n int) error {
	for p.end-p.pos < n {
		if err := p.more(); err != nil {
			return unexpected(err)
		}
	}
	return nil
}

// field reads the tag and length of a field of type Bytes of which at most limit bytes are left to read, and stands before
// its content. A field that reaches beyond is an error, also one of another type.
func (p *protoReader) field(limit uint64) (number int32, length, header int, err error) {
	for size := 2; ; {
		if err := p.want(int(min(limit, uint64(size)))); err != nil {
			return 0, 0, 0, err
		}
		b := p.buf[p.pos:p.end]
		b = b[:min(uint64(len(b)), limit)]
		tag, n := binary.Uvarint(b)
		if n > 0 {
			if tag>>3 == 0 || tag>>3 > 1<<29-1 || tag&7 != protowire.Bytes {
				return 0, 0, 0, foreign("a document with a field %d of type %d", tag>>3, tag&7)
			}
			length, m := binary.Uvarint(b[n:])
			if m > 0 {
				header = n + m
				if length > limit-uint64(header) {
					return 0, 0, 0, protowire.ErrMalformed
				}
				p.pos += header
				return int32(tag >> 3), int(length), header, nil
			}
			n = m
		}
		if n < 0 || uint64(len(b)) == limit {
			return 0, 0, 0, protowire.ErrMalformed
		}
		size = len(b) + 1
	}
}

// listField reads a field of a list of which left bytes are to come, and how many of them it takes. The value stands where
// the reader does and is good until more is read; the caller steps over it.
func (p *protoReader) listField(left uint64) (number int32, value []byte, taken uint64, err error) {
	number, size, header, err := p.field(left)
	if err != nil {
		return 0, nil, 0, err
	}
	if size > maxDocument {
		return 0, nil, 0, foreign("a list with an object of more than %d bytes", maxDocument)
	}
	if err := p.want(size); err != nil {
		return 0, nil, 0, err
	}
	return number, p.buf[p.pos : p.pos+size], uint64(header + size), nil
}

// maxHeader bounds what says of what type a document is.
const maxHeader = 4 << 10

// head reads what stands before the content of a document and gives the content's length.
func (p *protoReader) head(root *rules.Root) (envelope, uint64, error) {
	var e envelope
	if err := p.want(len(protoMagic)); err != nil {
		return e, 0, err
	}
	if string(p.buf[p.pos:p.pos+len(protoMagic)]) != string(protoMagic) {
		return e, 0, fmt.Errorf("%w: not a Kubernetes document", protowire.ErrMalformed)
	}
	p.pos += len(protoMagic)
	number, length, _, err := p.field(maxHeader)
	if err != nil {
		return e, 0, err
	}
	if number != 1 {
		return e, 0, foreign("a document that does not say first what it is")
	}
	if err := p.want(length); err != nil {
		return e, 0, err
	}
	if err := e.typeMeta(p.buf[p.pos:p.pos+length], root); err != nil {
		return e, 0, err
	}
	p.pos += length
	number, length, _, err = p.field(1 << 62)
	if err == nil && number != 2 {
		err = foreign("a document with field %d before its content", number)
	}
	return e, uint64(length), err
}

// tail checks that nothing of account stands behind the content.
func (p *protoReader) tail() error {
	for seen := int32(2); ; {
		if p.pos == p.end {
			if err := p.more(); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			continue
		}
		number, length, _, err := p.field(maxHeader)
		if err != nil {
			return err
		}
		if number <= seen || number > 4 || length > 0 {
			return fmt.Errorf("%w: envelope with field %d behind the content", protowire.ErrMalformed, number)
		}
		seen = number
	}
}

// listed says whether a document is a list that the request may be answered with, and of what.
func (r *response) listed(e envelope) (partial, ok bool) {
	switch {
	case e.kind == "PartialObjectMetadataList" && metaVersion(e.apiVersion):
		return true, true
	case e.kind == r.listKind() && e.apiVersion == r.groupVersion():
		return false, true
	}
	return false, false
}

func metaVersion(apiVersion string) bool {
	return apiVersion == "meta.k8s.io/v1" || apiVersion == "meta.k8s.io/v1beta1"
}

// protoObject translates one document.
func (r *response) protoObject(dst io.Writer, src io.Reader) error {
	in, out := &r.wires.in, &r.wires.out
	in.reset(src)
	e, length, err := in.head(&r.root)
	if err != nil {
		return err
	}
	if partial, ok := r.listed(e); ok {
		return r.protoList(dst, e, partial, length)
	}
	if length > maxDocument {
		return foreign("a protobuf document of more than %d bytes", maxDocument)
	}
	if err := in.want(int(length)); err != nil {
		return err
	}
	e.raw = in.buf[in.pos : in.pos+int(length)]
	if *out, err = r.protoContent(e, (*out)[:0]); err != nil {
		return err
	}
	in.pos += int(length)
	if err := in.tail(); err != nil {
		return err
	}
	_, err = dst.Write(*out)
	return err
}

// appendHead writes what stands before the content of a document, in the tenant's words.
func (r *response) appendHead(dst []byte, e envelope, length uint64) []byte {
	apiVersion, _ := r.view.groupVersionToTenant(e.apiVersion)
	dst = append(dst, protoMagic...)
	dst, mark := protowire.Open(dst, 1, len(apiVersion)+len(e.kind)+4)
	dst = protowire.AppendString(protowire.AppendString(dst, 1, apiVersion), 2, e.kind)
	dst = protowire.Close(dst, mark)
	return binary.AppendUvarint(protowire.AppendTag(dst, 2, protowire.Bytes), length)
}

// protoTail are the two empty fields that encoders write behind the content.
var protoTail = []byte("\x1a\x00\x22\x00")

// protoList translates a list that is shown as it came, whose content is the next length bytes.
func (r *response) protoList(dst io.Writer, e envelope, partial bool, length uint64) error {
	in := &r.wires.in
	declared, hold := length+slack, flushSize
	if r.root.Kind == "ConfigMap" {
		// The one rule that may make an item longer.
		declared += uint64(len(r.view.RootCA))
	}
	if r.root.Op == rules.VirtualNode {
		hold = holdNodes
	}
	out := r.appendHead(r.wires.out[:0], e, declared)
	defer func() { r.wires.out = out[:0] }()
	head, start, sent := len(out), len(out), uint64(0)
	flushed := false
	for left := length; left > 0; {
		number, value, taken, err := in.listField(left)
		if err != nil {
			return err
		}
		left -= taken
		switch number {
		case 1:
			out, err = r.protoListMeta(out, value)
		case 2:
			out, err = r.appendItem(out, partial, value)
		default:
			err = foreign("a list with field %d", number)
		}
		if err != nil {
			return err
		}
		in.pos += len(value)
		if len(out) >= hold {
			if sent += uint64(len(out) - start); sent > declared {
				return foreign("a list that grows")
			}
			if _, err := dst.Write(out); err != nil {
				return err
			}
			out, flushed, start = out[:0], true, 0
		}
	}
	if err := in.tail(); err != nil {
		return err
	}
	sent += uint64(len(out) - start)
	if !flushed {
		// In front of what is there, its true head is never longer.
		exact := r.appendHead(nil, e, sent)
		n := head - len(exact)
		copy(out[n:], exact)
		out = append(out, protoTail...)
		_, err := dst.Write(out[n:])
		return err
	}
	if sent+3 > declared {
		return foreign("a list that grows")
	}
	var err error
	if out, err = writePadding(dst, out, declared-sent); err != nil {
		return err
	}
	_, err = dst.Write(append(out, protoTail...))
	return err
}

// writePadding writes a field of exactly n bytes, three at least.
func writePadding(dst io.Writer, out []byte, n uint64) ([]byte, error) {
	out = protowire.AppendTag(out, padNumber, protowire.Bytes)
	n -= 2
	width := uint64(1)
	for n-width >= 1<<(7*width) {
		width++
	}
	content := n - width
	for i := range width {
		// A varint may be longer than it must be.
		b := byte(content>>(7*i)) & 0x7f
		if i < width-1 {
			b |= 0x80
		}
		out = append(out, b)
	}
	for content > 0 {
		piece := min(content, flushSize)
		out = append(out, zeros[:piece]...)
		content -= piece
		if len(out) >= flushSize {
			if _, err := dst.Write(out); err != nil {
				return out, err
			}
			out = out[:0]
		}
	}
	return out, nil
}

var zeros [flushSize]byte

func (r *response) protoListMeta(dst, value []byte) ([]byte, error) {
	meta, err := messageToTree(rules.ListMeta(), value)
	if err != nil {
		return nil, err
	}
	if err := r.continueToTenant(meta); err != nil {
		return nil, err
	}
	return appendTree(dst, 1, rules.WireMessage, rules.ListMeta(), meta)
}

// appendItem writes one item of a list.
func (r *response) appendItem(dst []byte, partial bool, value []byte) ([]byte, error) {
	dst, mark := protowire.Open(dst, 2, len(value))
	dst, err := r.protoItem(partial, value, dst)
	if err != nil {
		return nil, err
	}
	return protowire.Close(dst, mark), nil
}

// holdPages is how much of a list that is made of pages is held. A longer one is read twice from there on: once for its
// length, which must be declared before its first byte, and once for its content.
const holdPages = 8 << 20

// pages makes one list of pages.
type pages struct {
	*response
	opts ListOptions
	page func(string) (io.ReadCloser, error)

	over    bool     // the list has all items that it may have
	first   envelope // of the first page; the others must be alike
	partial bool
	meta    *jsonwire.Value
	token   string // to go on behind the page
	ended   bool   // a foreign item was met

	remaining int // objects behind the first page, of whomever

	size  uint64   // of all items
	held  [][]byte // items, in pieces
	out   []byte   // items that follow them, or are on their way
	items int
	// again is where reading goes on the second time: the page, and how many of its items are held already.
	again     string
	skip      int
	counting  bool
	lastToken string // of the page that is being read

	// full says that there are more items than the list may have. It ends in the page stop, behind stopAfter of its items.
	full      bool
	known     bool // all pages have been read once, so that it is known
	stop      string
	stopAfter int
}

// errLongList says that the pages were not the same the second time.
var errLongList = errors.New("the list changed while it was read")

// protoPages makes one list of pages, as ListToTenant says.
func (r *response) protoPages(dst io.Writer, opts ListOptions, body io.ReadCloser, src io.Reader, page func(string) (io.ReadCloser, error)) error {
	l := &pages{response: r, opts: opts, page: page, out: piece(), token: opts.First}
	defer l.done()
	err := l.each(body, src, 0, func(n int) error {
		switch {
		case l.counting:
			l.out = l.out[:n]
		case l.size > holdPages:
			l.out, l.counting, l.again = l.out[:n], true, l.lastToken
		case len(l.out) >= flushSize:
			l.held, l.out = append(l.held, l.out), piece()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if l.full {
		if l.token, err = opts.Cut(l.stop, l.stopAfter); err != nil {
			return err
		}
	}
	opts.counted(l.items, l.remaining)
	meta, err := l.finalMeta()
	if err != nil {
		return err
	}
	if _, err := dst.Write(append(r.appendHead(nil, l.first, uint64(len(meta))+l.size), meta...)); err != nil {
		return err
	}
	var sent uint64
	for _, held := range l.held {
		sent += uint64(len(held))
		if _, err := dst.Write(held); err != nil {
			return err
		}
	}
	if !l.counting {
		// Most lists are done here.
		_, err := dst.Write(append(l.out, protoTail...))
		return err
	}
	sent += uint64(len(l.out))
	if _, err := dst.Write(l.out); err != nil {
		return err
	}
	total := l.size
	l.out, l.size, l.ended, l.over, l.known, l.token = l.out[:0], 0, false, false, true, l.again
	if body, err = page(l.again); err != nil {
		return fmt.Errorf("read a page again: %w", err)
	}
	err = l.each(body, body, l.skip, func(int) error {
		if len(l.out) < flushSize {
			return nil
		}
		if sent += uint64(len(l.out)); sent > total {
			return errLongList
		}
		_, err := dst.Write(l.out)
		l.out = l.out[:0]
		return err
	})
	if err != nil {
		return err
	}
	if sent += uint64(len(l.out)); sent != total {
		return errLongList
	}
	_, err = dst.Write(append(l.out, protoTail...))
	return err
}

// pieces are what held lists are made of: growing one slice would leave as much garbage as it holds.
var pieces sync.Pool

func piece() []byte {
	if p, ok := pieces.Get().(*[]byte); ok {
		return (*p)[:0]
	}
	return make([]byte, 0, flushSize+flushSize/4)
}

// done gives the pieces back.
func (l *pages) done() {
	for _, p := range append(l.held, l.out) {
		if cap(p) <= 2*flushSize {
			pieces.Put(&p)
		}
	}
}

// finalMeta writes the metadata of the list.
func (l *pages) finalMeta() ([]byte, error) {
	if l.meta == nil {
		return nil, foreign("a page without metadata")
	}
	l.meta.Delete("remainingItemCount")
	l.meta.Set("continue", jsonwire.NewString(""))
	if l.opts.OnePage && !l.ended && l.token != "" {
		l.meta.Set("continue", jsonwire.NewString(l.token))
		if err := l.continueToTenant(l.meta); err != nil {
			return nil, err
		}
	}
	return appendTree(nil, 1, rules.WireMessage, rules.ListMeta(), l.meta)
}

// each appends the items of all pages to out, without the first skip, and calls then with where each began.
func (l *pages) each(body io.ReadCloser, src io.Reader, skip int, then func(start int) error) error {
	for {
		l.lastToken = l.token
		err := l.one(src, skip, then)
		if closeErr := body.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return err
		}
		if l.ended || l.over {
			return nil
		}
		var more bool
		if l.token, more = l.opts.next(l.lastToken, l.token); !more {
			return nil
		}
		if body, err = l.page(l.token); err != nil {
			return fmt.Errorf("next page: %w", err)
		}
		src, skip = body, 0
	}
}

// one reads one page.
func (l *pages) one(src io.Reader, skip int, then func(start int) error) error {
	in := &l.wires.in
	in.reset(src)
	e, length, err := in.head(&l.root)
	if err != nil {
		return err
	}
	partial, ok := l.listed(e)
	if !ok {
		return foreign("%s %s where a list of %s was asked for", e.apiVersion, e.kind, l.root.Kind)
	}
	if l.first.kind != "" && (e.kind != l.first.kind || e.apiVersion != l.first.apiVersion) {
		return foreign("a page of %s behind one of %s", e.kind, l.first.kind)
	}
	l.first, l.token = e, ""
	items, sawMeta := 0, false
	for left := length; left > 0; {
		number, value, taken, err := in.listField(left)
		if err != nil {
			return err
		}
		left -= taken
		switch {
		case number == 1 && !sawMeta:
			sawMeta = true
			meta, err := messageToTree(rules.ListMeta(), value)
			if err != nil {
				return err
			}
			l.token = meta.Get("continue").Text()
			if l.meta == nil {
				l.meta = meta
				var plain metav1.ListMeta
				if err := plain.Unmarshal(value); err == nil && plain.RemainingItemCount != nil {
					l.remaining = int(*plain.RemainingItemCount)
				}
			}
		case number == 2:
			if items++; items <= skip {
				break
			}
			if !l.known && !l.full && l.opts.Most > 0 && l.items == l.opts.Most {
				l.full, l.stop, l.stopAfter = true, l.lastToken, items-1
			}
			if l.full && l.stop == l.lastToken && l.stopAfter == items-1 {
				l.over = true
				return nil
			}
			start, counting := len(l.out), l.counting
			grown, err := l.appendItem(l.out, partial, value)
			if errors.Is(err, errForeignItem) {
				l.ended = true
				return nil
			}
			if err != nil {
				return err
			}
			l.out = grown
			l.items++
			l.size += uint64(len(l.out) - start)
			if err := then(start); err != nil {
				return err
			}
			if l.counting && !counting {
				l.skip = items - 1
			}
		default:
			return foreign("a list with field %d", number)
		}
		in.pos += len(value)
	}
	return in.tail()
}
