package gateway

import (
	"context"
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"vivarium.io/vivarium/gateway/internal/kinds"
)

// beginning is the resource version from which on objects of the request's kind are this tenant's: what was there before is
// an earlier tenant's of the same name (ADR 42).
func (x *exchange) beginning() uint64 {
	began := x.facts.tenant.Beginning
	switch {
	case x.kind.Kept, x.kind.Confined == kinds.Network:
		return began.Admin
	case x.kind.Resource == "events" && (x.kind.Group == "" || x.kind.Group == "events.k8s.io"):
		return began.Events
	}
	return began.Control
}

// notBefore keeps a list or a watch from showing what was there before the tenant began. What goes back further is expired,
// as at an API server that does not have it any more; a list that may be of any age is one from the beginning on, so that
// nobody is honestly given an older version to watch from. Who may not look at all hears that first.
func (x *exchange) notBefore(ctx context.Context) error {
	request := x.facts.request
	query := request.Query
	text := query.Get("resourceVersion")
	if text == "" || request.Verb != "list" && request.Verb != "watch" && request.Verb != "deletecollection" {
		return nil
	}
	version, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		// There must be one way to read it.
		return badRequest("query parameter resourceVersion: must be a number")
	}
	switch x.kind.Confined {
	case kinds.Exported, kinds.Claimed, kinds.Network, kinds.Empty:
		// They are shown as they are now, and [offer.watch] knows what it tells of the past.
		return nil
	case kinds.ByNamespace, kinds.ByName, kinds.ByLabel, kinds.ByDefinition, kinds.Stateless:
	}
	began := x.beginning()
	match, limit := query.Get("resourceVersionMatch"), query.Get("limit")
	// In pages, a list without a match is exactly as of its version.
	loose := request.Verb != "watch" && (match == "NotOlderThan" || match == "" && (version == 0 || limit == "" || limit == "0"))
	switch {
	case version >= began:
	case loose && query.Get("continue") == "":
		query.Set("resourceVersion", strconv.FormatUint(began, 10))
		query.Set("resourceVersionMatch", "NotOlderThan")
	case version > 0:
		if err := x.authorize(ctx, request.Verb); err != nil {
			return err
		}
		return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", version, began))
	}
	return nil
}
