package gateway

import (
	"context"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/cache"

	"vivarium.io/vivarium/gateway/internal/identity"
)

const (
	// accessAge is how long a yes of the control cluster's authorizer is good: an informer that starts asks for dozens of
	// kinds at once, and again when a connection breaks.
	accessAge = 4 * time.Second
	// maxAccess bounds how many answers are remembered.
	maxAccess = 8192
)

// access asks whether a user may list or watch a resource everywhere, or read what is at a path, on behalf of requests that
// do not reach the control cluster as that user's, or do so one namespace at a time. Only a yes is remembered. Safe for concurrent use.
type access struct {
	reviewer identity.AccessReviewer
	known    *cache.LRUExpireCache
}

func newAccess(reviewer identity.AccessReviewer) *access {
	return &access{reviewer: reviewer, known: cache.NewLRUExpireCache(maxAccess)}
}

type accessKey struct{ user, groups, verb, group, version, resource, path string }

// everywhere reports whether the control cluster would let the user list, or watch, all objects of a resource.
func (a *access) everywhere(ctx context.Context, who *identity.Identity, verb, group, version, resource string) (bool, error) {
	return a.ask(ctx, who, identity.Access{Verb: verb, Group: group, Version: version, Resource: resource})
}

// read reports whether the control cluster would let the user read what is at a path that leads to no resource.
func (a *access) read(ctx context.Context, who *identity.Identity, path string) (bool, error) {
	return a.ask(ctx, who, identity.Access{Verb: "get", Path: path})
}

func (a *access) ask(ctx context.Context, who *identity.Identity, question identity.Access) (bool, error) {
	question.User, question.Groups = who.ControlUser(), who.ControlGroups()
	key := accessKey{
		question.User, strings.Join(question.Groups, "\n"), question.Verb, question.Group, question.Version, question.Resource, question.Path,
	}
	if _, ok := a.known.Get(key); ok {
		return true, nil
	}
	allowed, err := a.reviewer.ReviewAccess(ctx, question)
	if err != nil || !allowed {
		return false, err
	}
	a.known.Add(key, true, accessAge)
	return true, nil
}
