package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/paging"
	"vivarium.io/vivarium/gateway/internal/translate"
	"vivarium.io/vivarium/internal/boot"
)

const (
	// pageSize is how much of a list over all namespaces is asked for at once. More would make the control cluster decode
	// objects of the next tenant, less costs round trips.
	pageSize = 500
	// maxPageSize bounds what a tenant may ask for at once, and what is asked for in its name.
	maxPageSize = 5000
	// spare is how many objects a tenant may have made since its last list without needing a second page.
	spare = 2
)

func (x *exchange) sizeKey(query url.Values) sizeKey {
	selectors := query.Get("labelSelector") + "\x00" + query.Get("fieldSelector")
	return sizeKey{itsItems, x.facts.tenant.UID, x.kind.Group, x.kind.Resource, sha256.Sum256([]byte(selectors))}
}

// listEverywhere lists a collection that holds objects of all tenants, at the cost of this tenant's own: it starts at the
// tenant's first key and ends at the first key that is not the tenant's.
func (x *exchange) listEverywhere(w http.ResponseWriter, r *http.Request) error {
	accept, err := control.Accept(r.Header.Values("Accept"), control.Object)
	if err != nil {
		return err
	}
	call, err := x.call(r, control.Unary, accept, "")
	if err != nil {
		return err
	}
	query, err := x.query("list")
	if err != nil {
		return err
	}
	options, limit, err := x.pages(query)
	if err != nil {
		return err
	}
	// The API server may ignore limit and continue where a resource version is given, and answer with everything.
	for _, key := range []string{"resourceVersion", "resourceVersionMatch", "watch", "allowWatchBookmarks", "sendInitialEvents"} {
		query.Del(key)
	}
	out := newReply(w, r)
	out.Header().Set("Cache-Control", "no-cache, private")
	key := x.sizeKey(query)
	known, ok := x.front.sizes.recent(key)
	if options.First == paging.Start(x.facts.tenant.ID, paging.Latest) && (!options.OnePage || !ok || known <= limit) {
		if s := x.newSpread(r.Context(), call, query, limit, paging.Latest); s != nil {
			err := x.listSpread(out, s, options, key)
			s.close()
			if err == nil || out.Started() {
				return x.listed(r.Context(), out, err)
			}
			// Nothing has been sent: whatever is wrong, the control cluster says it better when it is asked for the whole list.
			boot.Logger(r.Context()).Info("A list by namespaces failed", "tenant", x.facts.tenant.ID, "resource", x.kind.Resource, "error", err.Error())
			out.Reset()
			out.Header().Set("Cache-Control", "no-cache, private")
		}
	}
	first := limit
	if !options.OnePage && ok {
		// No larger than it has to be: whatever follows the tenant's last object on a page belongs to others, and costs the
		// control cluster as much as the tenant's own.
		first = min(known+known/16+spare, maxPageSize)
	}
	options.Counted = func(items, remaining int) {
		if query.Get("continue") != "" {
			// The rest of a list is no list.
			return
		}
		x.counted(key, items, options.OnePage, limit)
		if query.Get("labelSelector")+query.Get("fieldSelector") == "" {
			if remaining > 0 {
				x.learnBehind(first + remaining)
			} else {
				x.learnBehind(items)
			}
		}
	}
	page := func(token string) (io.ReadCloser, error) {
		one := call
		one.Query = maps.Clone(query)
		one.Query.Set("continue", token)
		// The same for a page that is asked for again.
		one.Query.Set("limit", strconv.Itoa(limit))
		if token == options.First {
			one.Query.Set("limit", strconv.Itoa(first))
		}
		one.Header = call.Header.Clone()
		return x.page(r.Context(), out)(x.front.control.Do(r.Context(), one))
	}
	return x.listed(r.Context(), out, x.view.ListToTenant(x.translated, out, options, page))
}

// listSpread lists namespace by namespace.
func (x *exchange) listSpread(out *reply, s *spread, options translate.ListOptions, key sizeKey) error {
	options.First, options.Next = s.first(), s.next
	if options.OnePage {
		options.Most, options.Cut = s.limit, s.cut
	}
	options.Counted = func(items, _ int) { x.counted(key, items, options.OnePage, s.limit) }
	return x.view.ListToTenant(x.translated, out, options, func(token string) (io.ReadCloser, error) {
		return x.page(s.ctx, out)(s.page(token))
	})
}

// counted remembers the length of a list.
func (x *exchange) counted(key sizeKey, items int, onePage bool, limit int) {
	if onePage && items >= limit {
		// There may be more.
		if known, ok := x.front.sizes.recent(key); ok && known > limit {
			return
		}
		items = limit + 1
	}
	x.front.sizes.put(key, items)
}

// page takes a page of the control cluster; the headers of the first become the answer's.
func (x *exchange) page(ctx context.Context, out *reply) func(*http.Response, error) (io.ReadCloser, error) {
	return func(res *http.Response, err error) (io.ReadCloser, error) {
		if res, err = x.document(ctx, res, err); err != nil {
			return nil, err
		}
		if !out.Started() {
			x.copyHeaders(out.Header(), res)
			out.Header().Set("Content-Type", res.Header.Get("Content-Type"))
		}
		return res.Body, nil
	}
}

// listed ends a list.
func (x *exchange) listed(ctx context.Context, out *reply, err error) error {
	if err != nil {
		return x.broken(ctx, out, err)
	}
	return x.front.finish(out.Close())
}

// pages says where a list begins, whether the tenant wants it in pages, and how large those are.
func (x *exchange) pages(query url.Values) (translate.ListOptions, int, error) {
	options := translate.ListOptions{First: query.Get("continue")}
	limit := pageSize
	if text := query.Get("limit"); text != "" {
		asked, err := strconv.Atoi(text)
		if err != nil || asked < 0 {
			return options, 0, badRequest("query parameter limit: must be a number that is not negative")
		}
		if asked > 0 {
			options.OnePage, limit = true, min(asked, maxPageSize)
		}
	}
	version := query.Get("resourceVersion")
	if options.First != "" {
		if version != "" && version != "0" {
			return options, 0, badRequest("specifying resource version is not allowed when using continue")
		}
		return options, limit, nil
	}
	revision := paging.Latest
	switch match := query.Get("resourceVersionMatch"); match {
	case "", "NotOlderThan":
		// What there is now is never older than any version that has been.
		if _, err := strconv.ParseUint(version, 10, 64); version != "" && err != nil {
			return options, 0, badRequest("query parameter resourceVersion: must be a number")
		}
	case "Exact":
		exact, err := strconv.ParseInt(version, 10, 64)
		if err != nil || exact <= 0 {
			return options, 0, badRequest(`query parameter resourceVersionMatch: "Exact" is forbidden without a resourceVersion above 0`)
		}
		revision = exact
	default:
		return options, 0, badRequest("query parameter resourceVersionMatch: must be Exact or NotOlderThan")
	}
	options.First = paging.Start(x.facts.tenant.ID, revision)
	return options, limit, nil
}

// getSelected gets one object of a kind whose visible objects a selector decides: it lists with the selector and the name,
// so that an object that the selector leaves out is not there. Whether the user may get it is asked first: to list is another right.
func (x *exchange) getSelected(w http.ResponseWriter, r *http.Request) error {
	if err := x.authorize(r.Context(), "get"); err != nil {
		return err
	}
	name := x.facts.request.Name
	// What comes back is taken apart here, in JSON.
	accept, err := control.Accept(r.Header.Values("Accept"), control.JSON)
	if err != nil {
		return err
	}
	accept = strings.ReplaceAll(accept, "as=PartialObjectMetadata;", "as=PartialObjectMetadataList;")
	query := url.Values{"fieldSelector": {"metadata.name=" + name}}
	for _, key := range []string{"resourceVersion", "includeObject"} {
		if value := x.facts.request.Query.Get(key); value != "" {
			query.Set(key, value)
		}
	}
	if query, err = x.view.QueryToControl(x.translated, "list", query); err != nil {
		return err
	}
	collection := *x.facts.request
	collection.Segments = collection.Segments[:len(collection.Segments)-1]
	collection.Name = ""
	path, err := collection.ControlPath(x.facts.tenant.ID, x.kind.Scope())
	if err != nil {
		return err
	}
	res, err := x.front.control.Do(r.Context(), control.Call{
		Mode: control.Unary, As: x.owner(), Method: http.MethodGet, Path: path, Query: query, Header: control.Headers(r.Header, accept, ""),
	})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return x.answer(w, r, res, func(dst io.Writer) error {
		one, err := unwrap(res.Body)
		if err != nil {
			return err
		}
		if one == nil {
			return apierrors.NewNotFound(x.facts.request.GroupResource(), name)
		}
		return x.view.ObjectToTenant(x.translated, dst, one)
	})
}

// unwrap takes the object out of a list of one; nil if the list is empty. A table of one row is the same for both.
func unwrap(src io.Reader) (io.Reader, error) {
	raw, err := io.ReadAll(io.LimitReader(src, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("read a list of one: %w", err)
	}
	var list struct {
		Kind       string                       `json:"kind"`
		APIVersion string                       `json:"apiVersion"`
		Items      []map[string]json.RawMessage `json:"items"`
		Rows       []json.RawMessage            `json:"rows"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("read a list of one: %w", err)
	}
	switch {
	case len(list.Rows)+len(list.Items) == 0:
		return nil, nil
	case len(list.Rows)+len(list.Items) > 1:
		return nil, fmt.Errorf("read a list of one: it has %d items", len(list.Rows)+len(list.Items))
	case len(list.Rows) == 1:
		return bytes.NewReader(raw), nil
	}
	one := list.Items[0]
	// Items of a typed list do not say what they are; the list does.
	one["kind"] = json.RawMessage(strconv.Quote(strings.TrimSuffix(list.Kind, "List")))
	one["apiVersion"] = json.RawMessage(strconv.Quote(list.APIVersion))
	if raw, err = json.Marshal(one); err != nil {
		return nil, fmt.Errorf("write an object: %w", err)
	}
	return bytes.NewReader(raw), nil
}
