package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/fanout"
	"vivarium.io/vivarium/gateway/internal/frames"
	"vivarium.io/vivarium/gateway/internal/selection"
	"vivarium.io/vivarium/gateway/internal/translate"
	"vivarium.io/vivarium/internal/boot"
)

// A watch with a selector is served from the one that tenants share too. It knows which of the tenant's objects match, by
// their keys: those of one list at exactly the resource version where it begins, and from then on what each event makes of
// them. An object that ceases to match is told of as deleted in its former state, which is read from the control cluster at
// the revision before the event (ADR 38).

const (
	// matchingOfOne, matchingOfTenant and matchingOfAll bound what watches with selectors know of what matches, in bytes: one
	// of them about 10,000 objects. One that outgrows its bound becomes a watch of the control cluster.
	matchingOfOne, matchingOfTenant, matchingOfAll = 1 << 20, 16 << 20, 128 << 20
	// formerTimeout is how long the former state of an object may take.
	formerTimeout = 10 * time.Second
	// metadataListProto is what is asked for where only it matters which objects there are.
	metadataListProto = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
)

func newMatching() *selection.Budget {
	return &selection.Budget{Each: matchingOfOne, Tenant: matchingOfTenant, All: matchingOfAll}
}

// selected is what a shared watch selects, and what matches at present. A nil one selects everything.
type selected struct {
	by *selection.Selector
	// labels and fields are what the control cluster is asked with.
	labels, fields string
	set            *selection.Set
	// known says that set is what matches; it is not before a list has told, and not any more when it has become too large.
	known, outgrown bool
}

// selects reads the selectors of a watch; ok is false for those that the control cluster evaluates better. Of the feeds that
// would do it leaves those whose frames tell what is asked for.
func (x *exchange) selects(query url.Values, keys *[]fanout.Key) (_ *selected, ok bool) {
	s := &selected{labels: query.Get("labelSelector"), fields: query.Get("fieldSelector")}
	if s.labels == "" && s.fields == "" {
		return nil, true
	}
	told := func(key fanout.Key) []translate.Field {
		return translate.FieldsInFrames(key.Group, key.Resource, key.Accept)
	}
	first := told((*keys)[0])
	by, err := selection.Parse(s.labels, s.fields, first)
	if err != nil || by == nil {
		return nil, false
	}
	if by.OfFields() {
		*keys = slices.DeleteFunc(*keys, func(key fanout.Key) bool { return len(told(key)) != len(first) })
	}
	s.by, s.set = by, x.front.matching.New(x.facts.tenant.ID)
	return s, true
}

// exact reports whether events of the shared watch can be told from here on.
func (s *selected) exact() bool { return s == nil || s.known && !s.outgrown }

// alone reports whether the watch is one of the control cluster for the rest of its life.
func (s *selected) alone() bool { return s != nil && s.outgrown }

// narrow puts the selectors into a query.
func (s *selected) narrow(query url.Values) {
	if s == nil {
		return
	}
	for key, value := range map[string]string{"labelSelector": s.labels, "fieldSelector": s.fields} {
		if value != "" {
			query.Set(key, value)
		}
	}
}

// note takes notice of an object that the control cluster has told of as one that matches, or does not any more.
func (s *shared) note(scope translate.FrameScope) {
	if s.selected == nil || s.selected.outgrown {
		return
	}
	set, key := s.selected.set, selection.KeyOf(scope.Namespace, scope.Name)
	if scope.Type == "DELETED" {
		set.Remove(key)
	} else {
		set.Add(key)
	}
	if set.Over() {
		s.front.metrics.outgrown.Inc()
		s.outgrow()
	}
}

// begin says that all that matches has been noted.
func (s *selected) begin() {
	if s != nil {
		s.known = true
	}
}

// outgrow leaves the watch to the control cluster for the rest of its life.
func (s *shared) outgrow() {
	s.selected.outgrown = true
	s.selected.set.Clear()
	s.lease.Release()
}

// learn finds out what matches where the watch begins: one list of what does at exactly that resource version.
func (s *shared) learn() error {
	if s.selected == nil {
		return nil
	}
	if s.from > math.MaxInt64 {
		return errNotYet
	}
	call, err := s.callWith(http.MethodGet, s.header, control.Unary, metadataListProto, "")
	if err != nil {
		return err
	}
	form := frames.Form{Proto: true, APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"}
	ended := false
	each := func(frame []byte) error {
		scope, err := translate.ScopeOfFrame(frame)
		if err != nil {
			return err
		}
		if !s.owns(scope) {
			ended = true
			return frames.ErrEnough
		}
		s.note(scope)
		return nil
	}
	source := s.pagesOfAll(call, int64(s.from)) //nolint:gosec // looked at above
	defer source.close()
	for token, more := source.first(), true; more && !ended && !s.selected.outgrown; {
		list, err := s.page(source, form, token, each)
		var told *controlError
		switch {
		case errors.As(err, &told) && told.code == http.StatusGone:
			// It is too long ago to be listed and may still be there to be watched: it is tried again when a watch has come
			// further.
			s.selected.set.Clear()
			return nil
		case err != nil:
			return err
		case list.ResourceVersion != s.from:
			return fmt.Errorf("a list at the resource version %d is one at %d", s.from, list.ResourceVersion)
		}
		token, more = source.next(token, list.Continue)
	}
	s.selected.begin()
	return nil
}

// learnLate is for a watch of the control cluster that has come to a bookmark: it finds out what matches there, if that is
// not known. A watch that cannot stays what it is.
func (s *shared) learnLate() bool {
	if s.selected.exact() {
		return true
	}
	// What has been noted of a watch that began with an unknown set is not all.
	s.selected.set.Clear()
	if err := s.learn(); err != nil || !s.selected.known {
		s.outgrow()
	}
	return s.selected.exact()
}

// frameOf gives what the client is told of an event; nothing if it is not selected.
func (s *shared) frameOf(sub *fanout.Subscription, event *fanout.Event) ([]byte, error) {
	if s.selected == nil {
		return s.frame(event)
	}
	if s.selected.set.Over() && event.ResourceVersion() > s.from {
		// The control cluster knows better from here on: everything up to s.from has been told.
		s.front.metrics.outgrown.Inc()
		s.outgrow()
		return nil, fanout.ErrMissed
	}
	s.from = max(s.from, event.ResourceVersion())
	if !event.Shared() {
		return s.frame(event)
	}
	object, err := event.Object()
	if err != nil {
		return nil, err
	}
	matches := s.selected.by.Matches(object.Key, object.Labels)
	if matches && s.selected.by.OfFields() {
		told, err := event.Fields(translate.FieldsInFrames(s.key.Group, s.key.Resource, s.key.Accept))
		if err != nil {
			return nil, err
		}
		matches = s.selected.by.MatchesFields(told)
	}
	turn := s.selected.set.Turn(object.Type, object.Key, matches)
	switch turn {
	case selection.Nothing:
		return nil, nil
	case selection.Former:
		former, err := sub.Former(event, s.former)
		if err != nil && s.ctx.Err() == nil {
			boot.Logger(s.ctx).Info("A watch is ended: the former state of an object cannot be had", "tenant", s.facts.tenant.ID,
				"resource", s.facts.request.Resource, "error", err.Error())
		}
		if err != nil {
			return nil, io.EOF
		}
		return former, nil
	case selection.Added, selection.Modified, selection.Deleted:
	}
	frame, err := s.frame(event)
	if err != nil || len(frame) == 0 || turn.Type() == object.Type {
		return frame, err
	}
	return translate.RetypedFrame(frame, turn.Type())
}

// former reads an object as it was before an event and gives the frame that tells the tenant of it as deleted. It asks as
// the gateway itself, as the shared watch does: whoever watches may see what the event is about.
func (s *shared) former(object *fanout.Object) ([]byte, error) {
	ctx, cancel := context.WithTimeout(s.ctx, formerTimeout)
	defer cancel()
	namespace, name := object.Key.Split()
	res, err := s.front.control.Stream(ctx, s.key.PathIn(namespace), url.Values{
		"fieldSelector": {"metadata.name=" + name}, "resourceVersionMatch": {"Exact"},
		"resourceVersion": {strconv.FormatUint(object.ResourceVersion-1, 10)},
	}, listAccept(s.key.Accept))
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("read the former state of an object: %s", res.Status)
	}
	var found [][]byte
	if _, err := s.form.Added(res.Body, func(frame []byte) error {
		former, err := translate.FormerFrame(frame, object.ResourceVersion)
		found = append(found, former)
		return err
	}); err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("read the former state of an object: there are %d", len(found))
	}
	return s.toTenant(found[0])
}

// listAccept is what a list is asked for in whose items are those of a watch.
func listAccept(accept string) string {
	return strings.Replace(accept, "as=PartialObjectMetadata;", "as=PartialObjectMetadataList;", 1)
}
