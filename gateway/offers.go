package gateway

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/gateway/internal/offers"
	"vivarium.io/vivarium/internal/boot"
)

const (
	// versionWait is how long a list waits for a version that the control cluster has not told of yet.
	versionWait = 3 * time.Second
	// bookmarkEvery is how often a silent watch says how far it is.
	bookmarkEvery = time.Minute
	// watchShort is how long a watch stays open if its client does not say; up to as much again is left to chance.
	watchShort = 30 * time.Minute
)

// exported reports whether the operator exports a class to the tenant.
func (x *exchange) exported(kind, name string) bool {
	return x.front.offers != nil && x.front.offers.Exported(x.viewer, kind, name)
}

// offer is a request for objects of the operator that the tenant may see, answered from memory.
type offer struct {
	*exchange
	store  *offers.Store
	labels labels.Selector
	fields fields.Selector
	form   form
	// whole says that rows of tables show whole objects, bare that they show none.
	whole, bare bool
	out         bytes.Buffer
	columnsSent bool
}

// form is what a client wants to see of an object.
type form int

const (
	asObject form = iota
	asTable
	asMetadata
)

// formOf gives the form that a client likes best, out of what [control.Accept] left.
func formOf(accept string) form {
	first, _, _ := strings.Cut(accept, ",")
	switch {
	case strings.Contains(first, "as=Table"):
		return asTable
	case strings.Contains(first, "as=PartialObjectMetadata"):
		return asMetadata
	}
	return asObject
}

// offered answers a request for classes, volumes or networks.
func (x *exchange) offered(w http.ResponseWriter, r *http.Request) error {
	request := x.facts.request
	accept, err := control.Accept(r.Header.Values("Accept"), control.JSON)
	if err != nil {
		return err
	}
	// Parameters are checked as for any other kind.
	query, err := x.query(request.Verb)
	if err != nil {
		return err
	}
	if query.Get("continue") != "" {
		return apierrors.NewResourceExpired("the provided continue parameter is too old: list again from the beginning")
	}
	if err := x.authorize(r.Context(), request.Verb); err != nil {
		return err
	}
	if x.front.offers == nil {
		return apierrors.NewServiceUnavailable("these objects cannot be read at the moment")
	}
	o := &offer{exchange: x, store: x.front.offers.Store(x.kind.Kind), form: formOf(accept)}
	if o.store == nil {
		return apierrors.NewServiceUnavailable("these objects cannot be read at the moment")
	}
	if err := o.store.Err(); err != nil {
		boot.Logger(r.Context()).Error("Objects of the control cluster are not known", "resource", request.Resource, "error", err)
		return apierrors.NewServiceUnavailable("these objects cannot be read at the moment")
	}
	o.whole, o.bare = query.Get("includeObject") == "Object", request.Query.Get("includeObject") == "None"
	if o.labels, o.fields, err = selectors(request.Query); err != nil {
		return err
	}
	switch request.Verb {
	case "get":
		return o.get(w, r)
	case "list":
		return o.list(w, r)
	}
	return o.watch(w, r, query)
}

// selectors reads what a list is narrowed to. Both are about what the tenant sees.
func selectors(query url.Values) (labels.Selector, fields.Selector, error) {
	byLabel, err := labels.Parse(query.Get("labelSelector"))
	if err != nil {
		return nil, nil, badRequest("the label selector cannot be read: " + err.Error())
	}
	byField, err := fields.ParseSelector(query.Get("fieldSelector"))
	if err != nil {
		return nil, nil, badRequest("the field selector cannot be read: " + err.Error())
	}
	for _, requirement := range byField.Requirements() {
		if requirement.Field != "metadata.name" {
			return nil, nil, badRequest(fmt.Sprintf("field label not supported: %s", requirement.Field))
		}
	}
	return byLabel, byField, nil
}

// shows reports whether the tenant sees an object and asked for it.
func (o *offer) shows(object *offers.Object) bool {
	return object.Visible(o.viewer) && o.labels.Matches(object.Labels) && o.fields.Matches(fields.Set{"metadata.name": object.ShownName()})
}

func (o *offer) get(w http.ResponseWriter, r *http.Request) error {
	name := o.facts.request.Name
	stored := name
	if o.kind.Confined == kinds.Network {
		stored = o.facts.tenant.ID.NameToControl(name)
	}
	object := o.store.Get(stored)
	if !object.Visible(o.viewer) && o.kind.Confined == kinds.Claimed {
		// A claim that has just been bound may be known before its volume is.
		var err error
		if object, err = o.front.offers.Fetch(r.Context(), o.kind.Kind, name); err != nil {
			boot.Logger(r.Context()).Error("An object of the control cluster cannot be read", "error", err)
			return control.Trouble(r.Context(), err)
		}
	}
	if !object.Visible(o.viewer) {
		return apierrors.NewNotFound(o.facts.request.GroupResource(), name)
	}
	state := o.store.State()
	if err := o.one(object, object.Version, &state); err != nil {
		return err
	}
	return o.replyJSON(w, r, o.out.Bytes())
}

func (o *offer) list(w http.ResponseWriter, r *http.Request) error {
	if err := o.reach(r.Context()); err != nil {
		return err
	}
	state := o.store.State()
	o.begin(&state)
	separate := false
	for _, object := range state.Objects {
		if !o.shows(object) {
			continue
		}
		if separate {
			o.out.WriteByte(',')
		}
		separate = true
		if err := o.item(object, object.Version, &state); err != nil {
			return err
		}
	}
	o.out.WriteString("]}\n")
	return o.replyJSON(w, r, o.out.Bytes())
}

// reach waits for the version that a list must not be older than.
func (o *offer) reach(ctx context.Context) error {
	query := o.facts.request.Query
	text, match := query.Get("resourceVersion"), query.Get("resourceVersionMatch")
	var version uint64
	if text != "" {
		var err error
		if version, err = strconv.ParseUint(text, 10, 64); err != nil {
			return badRequest("query parameter resourceVersion: must be a number")
		}
	}
	switch match {
	case "", "NotOlderThan":
	case "Exact":
		if version == 0 {
			return badRequest(`query parameter resourceVersionMatch: "Exact" is forbidden without a resourceVersion above 0`)
		}
	default:
		return badRequest("query parameter resourceVersionMatch: must be Exact or NotOlderThan")
	}
	ctx, cancel := context.WithTimeout(ctx, versionWait)
	defer cancel()
	if err := o.store.Wait(ctx, version); err != nil {
		late := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d", version), 1)
		late.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
		return late
	}
	if match == "Exact" && o.store.State().Version != version {
		return apierrors.NewResourceExpired(fmt.Sprintf("The provided resource version %d is no longer available", version))
	}
	return nil
}
