package gateway

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"vivarium.io/vivarium/gateway/internal/frames"
	"vivarium.io/vivarium/gateway/internal/offers"
)

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
		if errors.Is(err, offers.ErrExpired) || o.past(changes) || !o.same() {
			// What the tenant sees has changed otherwise than by a change of the objects that it may hear of: it has to look
			// again.
			o.out.Write(frames.Expired(after))
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

// past reports whether some of the changes came before the tenant began, so that they may tell of an earlier one of the same
// name. A tenant that has just begun may have been shown honestly what there was shortly before.
func (o *offer) past(changes []offers.Change) bool {
	began := o.beginning()
	return slices.ContainsFunc(changes, func(c offers.Change) bool { return c.Version <= began })
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
	o.out.WriteString(frames.Head(kind))
	if err := o.one(object, version, state); err != nil {
		return err
	}
	o.out.WriteString(frames.Tail)
	return nil
}

func (o *offer) bookmark(version uint64, end bool) {
	form := frames.Form{APIVersion: o.groupVersion(), Kind: o.kind.Kind, Table: o.form == asTable}
	if o.form != asObject {
		form.APIVersion, form.Kind = "meta.k8s.io/v1", "PartialObjectMetadata"
	}
	o.out.Write(form.Bookmark(version, end))
}
