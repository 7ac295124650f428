package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/gateway/internal/control"
)

// found is one object of a collection.
type found struct {
	Metadata struct {
		Name string    `json:"name"`
		UID  types.UID `json:"uid"`
	} `json:"metadata"`
}

// deleteEverywhere deletes the tenant's objects of a cluster-scoped kind. The control cluster would delete those of every
// tenant, so what a list finds is deleted one by one, each only if it still is the one that was found. As at an API server
// the answer is that list, and what somebody else deletes meanwhile is no error.
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
	list, items, err := x.find(r, query)
	if err != nil {
		return err
	}
	for _, item := range items {
		if err := x.deleteFound(r, item, deleting, options); err != nil {
			return err
		}
	}
	return x.replyJSON(w, r, list)
}

// find lists the tenant's objects of the kind, as the tenant would see them.
func (x *exchange) find(r *http.Request, query url.Values) ([]byte, []found, error) {
	options, limit, err := x.pages(query)
	if err != nil {
		return nil, nil, err
	}
	call, err := x.callWith(http.MethodGet, r.Header, control.Unary, "application/json", "")
	if err != nil {
		return nil, nil, err
	}
	page := func(token string) (io.ReadCloser, error) {
		one := call
		one.Header = call.Header.Clone()
		one.Query = url.Values{"continue": {token}, "limit": {fmt.Sprint(limit)}}
		for _, key := range []string{"labelSelector", "fieldSelector"} {
			if values, given := query[key]; given {
				one.Query[key] = values
			}
		}
		res, err := x.front.control.Do(r.Context(), one)
		if res, err = x.document(r.Context(), res, err); err != nil {
			return nil, err
		}
		return res.Body, nil
	}
	var list bytes.Buffer
	translated := x.translated
	translated.Collection = true
	if err := x.view.ListToTenant(translated, &list, options, page); err != nil {
		var told apierrors.APIStatus
		var passed *controlError
		if errors.As(err, &told) || errors.As(err, &passed) {
			return nil, nil, err
		}
		return nil, nil, fmt.Errorf("list what is to be deleted: %w", err)
	}
	var read struct {
		Items []found `json:"items"`
	}
	if err := json.Unmarshal(list.Bytes(), &read); err != nil {
		return nil, nil, fmt.Errorf("read what is to be deleted: %w", err)
	}
	return list.Bytes(), read.Items, nil
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
