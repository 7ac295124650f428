package translate

import (
	"errors"
	"fmt"
	"io"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/protowire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// protoList translates a list that is shown as it came.
func (r *response) protoList(partial bool, raw, dst []byte) ([]byte, error) {
	for len(raw) > 0 {
		f, rest, err := protowire.Next(raw)
		if err != nil {
			return nil, err
		}
		raw = rest
		switch {
		case f.Number == 1 && f.Type == protowire.Bytes:
			meta, err := messageToTree(rules.ListMeta(), f.Value)
			if err != nil {
				return nil, err
			}
			if err := r.continueToTenant(meta); err != nil {
				return nil, err
			}
			if dst, err = appendTree(dst, 1, rules.WireMessage, rules.ListMeta(), meta); err != nil {
				return nil, err
			}
		case f.Number == 2 && f.Type == protowire.Bytes:
			dst, err = protowire.AppendMessage(dst, 2, len(f.Value), func(dst []byte) ([]byte, error) {
				return r.protoItem(partial, f.Value, dst)
			})
			if err != nil {
				return nil, err
			}
		default:
			return nil, foreign("a list with field %d", f.Number)
		}
	}
	return dst, nil
}

// protoPages makes one list of pages, as ListToTenant says.
func (r *response) protoPages(dst io.Writer, opts ListOptions, body io.ReadCloser, src io.Reader, page func(string) (io.ReadCloser, error)) error {
	var first envelope
	var meta *jsonwire.Value
	var items []byte
	token, ended := "", false
	for {
		doc, err := readProto(src)
		if closeErr := body.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return err
		}
		e, err := openEnvelope(doc)
		if err != nil {
			return err
		}
		partial := e.kind == "PartialObjectMetadataList" && (e.apiVersion == "meta.k8s.io/v1" || e.apiVersion == "meta.k8s.io/v1beta1")
		if !partial && (e.kind != r.root.Kind+"List" || e.apiVersion != r.groupVersion()) {
			return foreign("%s %s where a list of %s was asked for", e.apiVersion, e.kind, r.root.Kind)
		}
		if first.kind != "" && (e.kind != first.kind || e.apiVersion != first.apiVersion) {
			return foreign("a page of %s behind one of %s", e.kind, first.kind)
		}
		first.kind, first.apiVersion = e.kind, e.apiVersion
		pageMeta := jsonwire.NewObject()
		if items, ended, err = r.protoPage(partial, e.raw, items, &pageMeta); err != nil {
			return err
		}
		token = pageMeta.Get("continue").Text()
		if meta == nil {
			meta = pageMeta
		}
		if ended || opts.OnePage || token == "" {
			break
		}
		if body, err = page(token); err != nil {
			return fmt.Errorf("next page: %w", err)
		}
		src = body
		if len(items) > maxProto {
			body.Close()
			return foreign("lists of more than %d bytes in protobuf", maxProto)
		}
	}
	meta.Delete("remainingItemCount")
	meta.Set("continue", jsonwire.NewString(""))
	if opts.OnePage && !ended && token != "" {
		meta.Set("continue", jsonwire.NewString(token))
		if err := r.continueToTenant(meta); err != nil {
			return err
		}
	}
	own, _ := r.view.groupVersionToTenant(first.apiVersion)
	out, err := appendEnvelope(make([]byte, 0, len(items)+256), own, first.kind, len(items)+64, func(dst []byte) ([]byte, error) {
		dst, err := appendTree(dst, 1, rules.WireMessage, rules.ListMeta(), meta)
		return append(dst, items...), err
	})
	if err != nil {
		return err
	}
	_, err = dst.Write(out)
	return err
}

// protoPage translates the items of one page up to the first foreign one.
func (r *response) protoPage(partial bool, raw, items []byte, meta **jsonwire.Value) ([]byte, bool, error) {
	ended := false
	for len(raw) > 0 {
		f, rest, err := protowire.Next(raw)
		if err != nil {
			return nil, false, err
		}
		raw = rest
		switch {
		case f.Number == 1 && f.Type == protowire.Bytes:
			if *meta, err = messageToTree(rules.ListMeta(), f.Value); err != nil {
				return nil, false, err
			}
		case f.Number == 2 && f.Type == protowire.Bytes:
			if ended {
				continue
			}
			kept := len(items)
			grown, err := protowire.AppendMessage(items, 2, len(f.Value), func(dst []byte) ([]byte, error) {
				return r.protoItem(partial, f.Value, dst)
			})
			switch {
			case errors.Is(err, errForeignItem):
				items, ended = items[:kept], true
			case err != nil:
				return nil, false, err
			default:
				items = grown
			}
		default:
			return nil, false, foreign("a list with field %d", f.Number)
		}
	}
	return items, ended, nil
}
