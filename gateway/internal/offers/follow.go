package offers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"vivarium.io/vivarium/gateway/internal/follow"
	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
)

const (
	// asTable asks for tables with the whole objects in their rows.
	asTable = "application/json;as=Table;v=v1;g=meta.k8s.io"
	// pageSize bounds one answer.
	pageSize = 500
	// maxPage bounds what is read of one.
	maxPage = 256 << 20
	// answerTimeout is how long a list may take.
	answerTimeout = 30 * time.Second
	// missingFor is how long a kind that the control cluster does not have is left alone.
	missingFor = 30 * time.Second
	// watchSeconds is how long a watch is asked for at least; as much again is left to chance.
	watchSeconds = 300
)

// follower keeps one store like the control cluster.
type follower struct {
	store  *Store
	client *http.Client
	url    string
	log    *slog.Logger
}

// errRefused is an answer that asking again will not change soon.
type errRefused struct{ code int }

func (e errRefused) Error() string { return http.StatusText(e.code) }

// errGone says that the version to watch from is no longer known.
var errGone = errors.New("the version is gone")

func (f *follower) run(ctx context.Context) {
	var pause follow.Pause
	for ctx.Err() == nil {
		err := f.once(ctx)
		var refused errRefused
		switch {
		case ctx.Err() != nil:
			return
		case err == nil, errors.Is(err, errGone):
			pause.Reset()
			continue
		case errors.As(err, &refused) && refused.code == http.StatusNotFound:
			// An older control cluster does not have every kind.
			f.store.fail(nil, true)
			select {
			case <-ctx.Done():
			case <-time.After(missingFor):
			}
		case errors.As(err, &refused):
			f.store.fail(err, true)
		default:
			f.store.fail(nil, false)
		}
		f.log.Error("Objects of the control cluster cannot be followed", "error", err)
		pause.Wait(ctx)
	}
}

// once lists, and watches until the watch cannot go on from where it was.
func (f *follower) once(ctx context.Context) error {
	version, err := f.list(ctx)
	if err != nil {
		return err
	}
	for {
		began := time.Now()
		if version, err = f.watch(ctx, version); err != nil || ctx.Err() != nil {
			return err
		}
		if time.Since(began) < time.Second {
			return errors.New("watches end as soon as they have begun")
		}
	}
}

func (f *follower) get(ctx context.Context, query url.Values) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", f.url, err)
	}
	r.Header.Set("Accept", asTable)
	res, err := f.client.Do(r)
	if err != nil {
		return nil, err
	}
	switch res.StatusCode {
	case http.StatusOK:
		return res, nil
	case http.StatusGone:
		err = errGone
	case http.StatusNotFound, http.StatusForbidden:
		err = errRefused{res.StatusCode}
	default:
		err = fmt.Errorf("get %s: %s", f.url, res.Status)
	}
	_ = res.Body.Close()
	return nil, err
}

func (f *follower) list(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var columns *jsonwire.Value
	var objects []*Object
	query := url.Values{"includeObject": {"Object"}, "limit": {strconv.Itoa(pageSize)}}
	for {
		res, err := f.get(ctx, query)
		if err != nil {
			return 0, err
		}
		raw, err := io.ReadAll(io.LimitReader(res.Body, maxPage))
		_ = res.Body.Close()
		if err != nil {
			return 0, fmt.Errorf("list %s: %w", f.url, err)
		}
		page, err := jsonwire.Parse(raw)
		if err != nil {
			return 0, fmt.Errorf("list %s: %w", f.url, err)
		}
		if columns == nil {
			columns = page.Get("columnDefinitions")
			if own, ok := networkColumns[f.store.kind.Kind]; ok {
				if columns, err = jsonwire.Parse([]byte(own)); err != nil {
					return 0, fmt.Errorf("columns of %s: %w", f.store.kind.Resource, err)
				}
			}
		}
		for _, row := range page.Get("rows").Elems() {
			if o := f.present(row); o != nil {
				objects = append(objects, o)
			}
		}
		if token := page.At("metadata", "continue").Text(); token != "" {
			query.Set("continue", token)
			continue
		}
		version, err := strconv.ParseUint(page.At("metadata", "resourceVersion").Text(), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("list %s: resource version: %w", f.url, err)
		}
		f.store.replace(version, columns, objects)
		return version, nil
	}
}

// present makes an object of a row and tells the operator what is wrong with it.
func (f *follower) present(row *jsonwire.Value) *Object {
	if f.store.kind.network() {
		o, err := presentNetwork(f.store.kind.Kind, row)
		if err != nil {
			f.log.Error("An object of the admin API cannot be read", "error", err)
		}
		return o
	}
	o, err := present(f.store.kind.Kind, row)
	switch {
	case o == nil:
		f.log.Error("An object of the control cluster cannot be read", "error", err)
	case err != nil:
		f.log.Error("A class is exported to nobody: its selector cannot be read", "name", o.Name, "error", err)
	}
	return o
}

// watch takes over changes until the control cluster ends it.
func (f *follower) watch(ctx context.Context, version uint64) (uint64, error) {
	res, err := f.get(ctx, url.Values{
		"watch": {"true"}, "allowWatchBookmarks": {"true"}, "includeObject": {"Object"}, "resourceVersion": {strconv.FormatUint(version, 10)},
		"timeoutSeconds": {strconv.Itoa(watchSeconds + rand.N(watchSeconds))},
	})
	if err != nil {
		return version, err
	}
	defer res.Body.Close()
	for frames := json.NewDecoder(res.Body); ; {
		var frame struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		if err := frames.Decode(&frame); err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return version, nil
			}
			// A broken connection: the next watch goes on from here.
			f.log.Debug("A watch broke off", "error", err)
			return version, nil
		}
		object, err := jsonwire.Parse(frame.Object)
		if err != nil {
			return version, fmt.Errorf("watch %s: %w", f.url, err)
		}
		if frame.Type == "ERROR" {
			if object.Get("reason").Text() == "Expired" || object.Get("reason").Text() == "Gone" {
				return version, errGone
			}
			return version, fmt.Errorf("watch %s: %s", f.url, object.Get("message").Text())
		}
		for _, row := range object.Get("rows").Elems() {
			at, err := strconv.ParseUint(row.At("object", "metadata", "resourceVersion").Text(), 10, 64)
			if err != nil {
				return version, fmt.Errorf("watch %s: resource version: %w", f.url, err)
			}
			version = at
			if frame.Type == "BOOKMARK" {
				f.store.put(at, nil, false)
				continue
			}
			if o := f.present(row); o != nil {
				f.store.put(at, o, frame.Type == "DELETED")
			}
		}
	}
}

// Fetch asks the control cluster for one volume or class that the store does not have, which it may be about to learn of.
func (s *Set) Fetch(ctx context.Context, kind, name string) (*Object, error) {
	store := s.byKind[kind]
	f := s.follower(store)
	f.url += "/" + url.PathEscape(name)
	res, err := f.get(ctx, url.Values{"includeObject": {"Object"}})
	var refused errRefused
	if errors.As(err, &refused) && refused.code == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxPage))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", f.url, err)
	}
	page, err := jsonwire.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", f.url, err)
	}
	for _, row := range page.Get("rows").Elems() {
		return f.present(row), nil
	}
	return nil, nil
}
