package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/duration"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/gateway/internal/offers"
	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
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

// offered answers a request for classes or volumes.
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
	return object.Visible(o.viewer) && o.labels.Matches(object.Labels) && o.fields.Matches(fields.Set{"metadata.name": object.Name})
}

func (o *offer) get(w http.ResponseWriter, r *http.Request) error {
	name := o.facts.request.Name
	object := o.store.Get(name)
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
	if err := o.document(object, object.Version, &state); err != nil {
		return err
	}
	return o.reply(w, r)
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
	return o.reply(w, r)
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

func (o *offer) reply(w http.ResponseWriter, r *http.Request) error {
	out := newReply(w, r)
	out.Header().Set("Content-Type", "application/json")
	out.Header().Set("Cache-Control", "no-cache, private")
	if _, err := out.Write(o.out.Bytes()); err != nil {
		return o.front.finish(err)
	}
	return o.front.finish(out.Close())
}

// begin writes the head of a list, up to its first item.
func (o *offer) begin(state *offers.State) {
	kind, version, items := o.kind.Kind+"List", o.groupVersion(), "items"
	switch o.form {
	case asTable:
		kind, version, items = "Table", "meta.k8s.io/v1", "rows"
	case asMetadata:
		kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
	case asObject:
	}
	fmt.Fprintf(&o.out, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"%d"}`, kind, version, state.Version)
	if o.form == asTable {
		o.out.WriteString(`,"columnDefinitions":`)
		o.out.Write(columns(state))
	}
	fmt.Fprintf(&o.out, `,%q:[`, items)
}

func columns(state *offers.State) []byte {
	if state.Columns == nil {
		return []byte(`[{"name":"Name","type":"string","format":"name","description":"","priority":0}]`)
	}
	return state.Columns
}

// tree gives what the tenant sees of an object.
func (o *offer) tree(object *offers.Object, version uint64) (*jsonwire.Value, error) {
	tree, err := jsonwire.Parse(object.JSON)
	if err != nil {
		return nil, fmt.Errorf("read %s %q: %w", o.kind.Kind, object.Name, err)
	}
	if o.kind.Confined == kinds.Claimed && !o.view.VolumeToTenant(tree) {
		return nil, fmt.Errorf("volume %q is not of tenant %s", object.Name, o.view.Tenant)
	}
	tree.Get("metadata").Set("resourceVersion", jsonwire.NewString(strconv.FormatUint(version, 10)))
	return tree, nil
}

func metadataOf(tree *jsonwire.Value) *jsonwire.Value {
	return jsonwire.NewObject(
		jsonwire.Member{Key: "kind", Value: jsonwire.NewString("PartialObjectMetadata")},
		jsonwire.Member{Key: "apiVersion", Value: jsonwire.NewString("meta.k8s.io/v1")},
		jsonwire.Member{Key: "metadata", Value: tree.Get("metadata")})
}

// item writes one item of a list.
func (o *offer) item(object *offers.Object, version uint64, state *offers.State) error {
	tree, err := o.tree(object, version)
	if err != nil {
		return err
	}
	switch o.form {
	case asTable:
		o.row(object, tree, state)
	case asMetadata:
		o.out.Write(metadataOf(tree).Append(nil))
	case asObject:
		// The list says what its items are.
		tree.Delete("kind")
		tree.Delete("apiVersion")
		o.out.Write(tree.Append(nil))
	}
	return nil
}

// document writes one object by itself.
func (o *offer) document(object *offers.Object, version uint64, state *offers.State) error {
	tree, err := o.tree(object, version)
	if err != nil {
		return err
	}
	switch o.form {
	case asTable:
		fmt.Fprintf(&o.out, `{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"%d"},"columnDefinitions":`, version)
		// The frames of a watch name the columns once.
		if o.columnsSent {
			o.out.WriteString("null")
		} else {
			o.out.Write(columns(state))
		}
		o.columnsSent = true
		o.out.WriteString(`,"rows":[`)
		o.row(object, tree, state)
		o.out.WriteString("]}")
	case asMetadata:
		o.out.Write(metadataOf(tree).Append(nil))
	case asObject:
		o.out.Write(tree.Append(nil))
	}
	return nil
}

func (o *offer) row(object *offers.Object, tree *jsonwire.Value, state *offers.State) {
	o.out.WriteString(`{"cells":[`)
	if state.Columns == nil {
		o.out.Write(jsonwire.AppendQuoted(nil, object.Name))
	}
	for i, cell := range object.Cells {
		if i >= len(state.Names) {
			break
		}
		if i > 0 {
			o.out.WriteByte(',')
		}
		if text, ok := o.cell(state.Names[i], object, tree); ok {
			cell = jsonwire.AppendQuoted(nil, text)
		}
		o.out.Write(cell)
	}
	o.out.WriteString(`],"object":`)
	switch {
	case o.bare:
		o.out.WriteString("null")
	case o.whole:
		o.out.Write(tree.Append(nil))
	default:
		o.out.Write(metadataOf(tree).Append(nil))
	}
	o.out.WriteByte('}')
}

// cell gives the text of a cell that is not the control cluster's.
func (o *offer) cell(column string, object *offers.Object, tree *jsonwire.Value) (string, bool) {
	spec, claim := tree.Get("spec"), tree.At("spec", "claimRef")
	switch column {
	case "Age":
		// The control cluster's was true when the object changed.
		if object.Created.IsZero() {
			return "<unknown>", true
		}
		return duration.HumanDuration(time.Since(object.Created)), true
	case "Parameters":
		return "<none>", true
	case "Claim":
		return claim.Get("namespace").Text() + "/" + claim.Get("name").Text(), true
	case "StorageClass":
		return spec.Get("storageClassName").Text(), true
	case "VolumeAttributesClass":
		if class := spec.Get("volumeAttributesClassName").Text(); class != "" {
			return class, true
		}
	case "Reason":
		return tree.At("status", "reason").Text(), true
	}
	return "", false
}

// watch passes on what happens to the objects that the tenant sees. One that it sees no longer is gone for it, whatever
// became of it in the control cluster.
func (o *offer) watch(w http.ResponseWriter, r *http.Request, query url.Values) error {
	after, initial := uint64(0), false
	if text := query.Get("resourceVersion"); text != "" && text != "0" {
		var err error
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			return badRequest("query parameter resourceVersion: must be a number")
		}
	}
	bookmarks, _ := strconv.ParseBool(query.Get("allowWatchBookmarks"))
	if initial, _ = strconv.ParseBool(query.Get("sendInitialEvents")); initial {
		if err := o.reach(r.Context()); err != nil {
			return err
		}
	}
	timeout := watchShort + rand.N(watchShort)
	if seconds, err := strconv.Atoi(query.Get("timeoutSeconds")); err == nil && seconds > 0 {
		timeout = min(timeout, time.Duration(seconds)*time.Second)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(http.StatusOK)
	live := newLive(w)
	over, tick := time.NewTimer(timeout), time.NewTicker(bookmarkEvery)
	defer over.Stop()
	defer tick.Stop()
	if after == 0 || initial {
		state := o.store.State()
		after = state.Version
		for _, object := range state.Objects {
			if o.shows(object) {
				if err := o.frame("ADDED", object, object.Version, &state); err != nil {
					return o.front.finish(err)
				}
			}
		}
		if initial && bookmarks {
			o.bookmark(after, true)
		}
	}
	for {
		changes, version, more, err := o.store.Watch(after)
		if errors.Is(err, offers.ErrExpired) || !o.same() {
			// What the tenant sees has changed otherwise than by a change of the objects: it has to look again.
			o.expired(after)
			_ = o.send(live)
			return nil
		}
		if err := o.changes(changes); err != nil {
			return o.front.finish(err)
		}
		after = version
		if err := o.send(live); err != nil {
			return nil
		}
		select {
		case <-more:
		case <-tick.C:
			if bookmarks {
				o.bookmark(after, false)
			}
		case <-over.C:
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

// same reports whether the tenant is still whom the operator chose, or did not.
func (o *offer) same() bool {
	tenant, err := o.front.authenticator.Tenant(o.viewer.ID)
	return err == nil && o.viewer.Labels == tenant.Labels
}

func (o *offer) send(live *live) error {
	defer o.out.Reset()
	if o.out.Len() > 0 {
		if _, err := live.Write(o.out.Bytes()); err != nil {
			return err
		}
	}
	return live.Flush()
}

// changes writes the frames of changes.
func (o *offer) changes(changes []offers.Change) error {
	state := o.store.State()
	for _, change := range changes {
		before, now := o.shows(change.Old), o.shows(change.New)
		var err error
		switch {
		case before && now:
			err = o.frame("MODIFIED", change.New, change.Version, &state)
		case now:
			err = o.frame("ADDED", change.New, change.Version, &state)
		case before:
			err = o.frame("DELETED", change.Old, change.Version, &state)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (o *offer) frame(kind string, object *offers.Object, version uint64, state *offers.State) error {
	fmt.Fprintf(&o.out, `{"type":%q,"object":`, kind)
	if err := o.document(object, version, state); err != nil {
		return err
	}
	o.out.WriteString("}\n")
	return nil
}

func (o *offer) bookmark(version uint64, end bool) {
	kind, apiVersion, annotations := o.kind.Kind, o.groupVersion(), ""
	if o.form != asObject {
		kind, apiVersion = "PartialObjectMetadata", "meta.k8s.io/v1"
	}
	if end {
		annotations = `,"annotations":{"k8s.io/initial-events-end":"true"}`
	}
	object := fmt.Sprintf(`{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"%d"%s}}`, kind, apiVersion, version, annotations)
	if o.form == asTable {
		object = fmt.Sprintf(`{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"%d"},"columnDefinitions":null,"rows":[{"cells":[],"object":%s}]}`, version, object)
	}
	fmt.Fprintf(&o.out, `{"type":"BOOKMARK","object":%s}`+"\n", object)
}

func (o *offer) expired(version uint64) {
	status := apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d", version)).Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	raw, err := json.Marshal(status)
	if err == nil {
		fmt.Fprintf(&o.out, `{"type":"ERROR","object":%s}`+"\n", raw)
	}
}
