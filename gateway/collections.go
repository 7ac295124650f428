package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/frames"
	"vivarium.io/vivarium/gateway/internal/paging"
	"vivarium.io/vivarium/gateway/internal/translate"
	"vivarium.io/vivarium/internal/boot"
)

// found is one object of a collection.
type found struct {
	Metadata struct {
		Name string    `json:"name"`
		UID  types.UID `json:"uid"`
	} `json:"metadata"`
}

// collection is what a list has found.
type collection struct {
	items []found
	// version is the resource version as of which that was there.
	version uint64
}

// deleteEverywhere deletes the tenant's objects of a cluster-scoped kind. The control cluster would delete those of every
// tenant, so what a list finds is deleted one by one, each only if it still is the one that was found. As at an API server
// the answer is that list, and what somebody else deletes meanwhile is no error. Nothing but names is held meanwhile: the
// objects of the answer are read when all are deleted, as of when they were found.
func (x *exchange) deleteEverywhere(w http.ResponseWriter, r *http.Request) error {
	if _, err := control.Accept(r.Header.Values("Accept"), control.JSON); err != nil {
		return err
	}
	if err := x.authorize(r.Context(), "deletecollection"); err != nil {
		return err
	}
	query, err := x.query("deletecollection")
	if err != nil {
		return err
	}
	call, err := x.call(r, control.Unary, "application/json", "")
	if err != nil {
		return err
	}
	if err := x.body(w, r, &call); err != nil {
		return err
	}
	options, err := readDeleteOptions(call.Body)
	if err != nil {
		return err
	}
	deleting := url.Values{}
	for _, key := range []string{"dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"} {
		if values, given := query[key]; given {
			deleting[key] = values
			query.Del(key)
		}
	}
	pages, limit, err := x.pages(query)
	if err != nil {
		return err
	}
	out := newReply(w, r)
	all, err := x.find(r, query, pages, limit)
	if err != nil {
		return x.broken(r.Context(), out, err)
	}
	for _, item := range all.items {
		if err := x.deleteFound(r, item, deleting, options); err != nil {
			return err
		}
	}
	if query.Get("continue") == "" {
		pages.First = paging.Start(x.facts.tenant.ID, int64(all.version))
	}
	err = x.collect(r, query, pages, limit, "application/json", out, x.page(r.Context(), out))
	if err != nil && !out.Started() {
		err = x.broken(r.Context(), out, err)
		// It is done all the same.
		boot.Logger(r.Context()).Info("What was deleted cannot be shown", "tenant", x.facts.tenant.ID, "resource", x.kind.Resource, "error", err.Error())
		return x.replyJSON(w, r, []byte(`{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}`+"\n"))
	}
	return x.listed(r.Context(), out, err)
}

// collect lists the tenant's objects of the kind, as the tenant would see them.
func (x *exchange) collect(r *http.Request, query url.Values, options translate.ListOptions, limit int, accept string, to io.Writer,
	read func(*http.Response, error) (io.ReadCloser, error),
) error {
	call, err := x.callWith(http.MethodGet, r.Header, control.Unary, accept, "")
	if err != nil {
		return err
	}
	translated := x.translated
	translated.Collection = true
	return x.view.ListToTenant(translated, to, options, func(token string) (io.ReadCloser, error) {
		one := call
		one.Header = call.Header.Clone()
		one.Query = url.Values{"continue": {token}, "limit": {strconv.Itoa(limit)}}
		for _, key := range []string{"labelSelector", "fieldSelector"} {
			if values, given := query[key]; given {
				one.Query[key] = values
			}
		}
		return read(x.front.control.Do(r.Context(), one))
	})
}

// find lists what is to be deleted.
func (x *exchange) find(r *http.Request, query url.Values, options translate.ListOptions, limit int) (collection, error) {
	from, to := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := x.collect(r, query, options, limit, metadataList, to, func(res *http.Response, err error) (io.ReadCloser, error) {
			if res, err = x.document(r.Context(), res, err); err != nil {
				return nil, err
			}
			return res.Body, nil
		})
		_ = to.CloseWithError(err)
		done <- err
	}()
	var all collection
	list, err := frames.Form{}.Added(from, func(frame []byte) error {
		var one struct {
			Object found `json:"object"`
		}
		err := json.Unmarshal(frame, &one)
		all.items = append(all.items, one.Object)
		return err
	})
	if all.version = list.ResourceVersion; err == nil {
		_, err = io.Copy(io.Discard, from)
	}
	_ = from.CloseWithError(err)
	if listErr := <-done; listErr != nil {
		err = listErr
	}
	return all, err
}

// deleteFound deletes one object of a list.
func (x *exchange) deleteFound(r *http.Request, item found, query url.Values, options metav1.DeleteOptions) error {
	one := *x.facts.request
	one.Verb, one.Name, one.Segments = "delete", item.Metadata.Name, append(slices.Clip(one.Segments), item.Metadata.Name)
	path, err := one.ControlPath(x.facts.tenant.ID, x.kind.Scope())
	if err != nil {
		return err
	}
	own := options.Preconditions == nil
	if own {
		options.Preconditions = &metav1.Preconditions{UID: &item.Metadata.UID}
	}
	options.TypeMeta = metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: "v1"}
	body, err := json.Marshal(options)
	if err != nil {
		return fmt.Errorf("write options of a deletion: %w", err)
	}
	res, err := x.front.control.Do(r.Context(), control.Call{
		Mode: control.Unary, As: &x.facts.identity, Method: http.MethodDelete, Path: path, Query: query,
		Header: control.Headers(r.Header, "application/json", "application/json"), Body: body,
	})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	switch code := res.StatusCode; {
	case code < 300, code == http.StatusNotFound, code == http.StatusConflict && own:
		return nil
	}
	return x.readError(r.Context(), res)
}

// readDeleteOptions reads a translated body, which may be empty.
func readDeleteOptions(body []byte) (metav1.DeleteOptions, error) {
	var options metav1.DeleteOptions
	if len(body) == 0 {
		return options, nil
	}
	var err error
	if envelope, isProto := bytes.CutPrefix(body, []byte("k8s\x00")); isProto {
		var unknown runtime.Unknown
		if err = unknown.Unmarshal(envelope); err == nil {
			err = options.Unmarshal(unknown.Raw)
		}
	} else {
		err = json.Unmarshal(body, &options)
	}
	if err != nil {
		return options, badRequest("the body cannot be read as DeleteOptions")
	}
	return options, nil
}
