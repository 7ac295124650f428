package identity

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"vivarium.io/vivarium/internal/names"
)

const (
	// trustFor is how long the control cluster's word for a token is taken. It is added to the ten seconds for which the
	// control cluster itself remembers a yes, so it must be short.
	trustFor = 2 * time.Second
	// refuseFor is how long its no is.
	refuseFor      = time.Second
	reviewedTokens = 8192
	maxToken       = 16 << 10
	reviewTimeout  = 10 * time.Second

	// WebSocketBearer starts the WebSocket subprotocol by which browsers send a token; it is never passed on.
	WebSocketBearer = "base64url.bearer.authorization.k8s.io."
)

// TokenDigest stands for a bearer token where the token itself must not be kept.
type TokenDigest [sha256.Size]byte

// Review is what the control cluster says of a token.
type Review struct {
	Authenticated bool
	Audiences     []string
	// User is the control cluster's name of the ServiceAccount.
	User string
}

// TokenReviewer asks the control cluster about a token. An error means that it could not tell.
type TokenReviewer interface {
	ReviewToken(ctx context.Context, token, audience string) (Review, error)
}

// TokenReviewerFn makes a TokenReviewer of a function.
type TokenReviewerFn func(ctx context.Context, token, audience string) (Review, error)

// ReviewToken calls the function.
func (f TokenReviewerFn) ReviewToken(ctx context.Context, token, audience string) (Review, error) {
	return f(ctx, token, audience)
}

// tokens knows ServiceAccounts by their tokens.
type tokens struct {
	audience string
	reviewer TokenReviewer
	now      func() time.Time
	recent   *lru.Cache[TokenDigest, verdict]
	// good are tokens whose last review was a yes, however long ago: nobody can put one there who does not have it.
	good *lru.Cache[TokenDigest, struct{}]
	// calls joins reviews of one token that happen at once.
	calls singleflight.Group
}

// verdict is what was found out about a token; a zero identity is a no.
type verdict struct {
	id    Identity
	until time.Time
}

func newTokens(audience string, reviewer TokenReviewer, now func() time.Time) (*tokens, error) {
	cache, err := lru.New[TokenDigest, verdict](reviewedTokens)
	if err != nil {
		return nil, fmt.Errorf("make the cache of tokens: %w", err)
	}
	good, err := lru.New[TokenDigest, struct{}](reviewedTokens)
	if err != nil {
		return nil, fmt.Errorf("make the cache of tokens: %w", err)
	}
	return &tokens{audience: audience, reviewer: reviewer, now: now, recent: cache, good: good}, nil
}

// bearer finds the token of a request, empty if there is none. What looks like a credential and is not one that we know
// is an error: it must not be passed over for something else.
func bearer(h http.Header) (string, error) {
	if values := h.Values("Authorization"); len(values) > 0 {
		scheme, token, _ := strings.Cut(values[0], " ")
		if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") || !isToken(token) {
			return "", errUnauthorized()
		}
		return token, nil
	}
	for _, protocol := range subprotocols(h) {
		encoded, ok := strings.CutPrefix(protocol, WebSocketBearer)
		if !ok {
			continue
		}
		token, err := base64.RawURLEncoding.DecodeString(encoded)
		if err != nil || !isToken(string(token)) {
			return "", errUnauthorized()
		}
		return string(token), nil
	}
	return "", nil
}

// isToken reports whether a string is made like the JSON web tokens of an API server.
func isToken(s string) bool {
	if len(s) > maxToken || strings.Count(s, ".") != 2 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if ('a' > c || c > 'z') && ('A' > c || c > 'Z') && ('0' > c || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

// subprotocols lists what a WebSocket client offers.
func subprotocols(h http.Header) []string {
	var out []string
	for _, value := range h.Values("Sec-WebSocket-Protocol") {
		for protocol := range strings.SplitSeq(value, ",") {
			out = append(out, strings.TrimSpace(protocol))
		}
	}
	return out
}

func digest(token string) TokenDigest { return sha256.Sum256([]byte(token)) }

// strange reports whether the control cluster has to be asked about a token that it has not vouched for the last time.
func (t *tokens) strange(token string) bool {
	key := digest(token)
	if v, ok := t.recent.Get(key); ok && t.now().Before(v.until) || t.good.Contains(key) {
		return false
	}
	_, worth := t.claims(token)
	return worth
}

func (t *tokens) identify(ctx context.Context, token string) (Identity, error) {
	key := digest(token)
	v, ok := t.recent.Get(key)
	if !ok || !t.now().Before(v.until) {
		claims, worth := t.claims(token)
		if !worth {
			return Identity{}, errUnauthorized()
		}
		var err error
		if v, err = t.review(ctx, key, token, claims); err != nil {
			return Identity{}, err
		}
	}
	if v.id.Tenant == "" {
		return Identity{}, errUnauthorized()
	}
	return v.id, nil
}

// claims are the parts of a token that tell, before anybody has checked its signature, whether it is worth a question. When
// it ends is not among them: that is said by the control cluster's clock, which another one here must not contradict.
type claims struct {
	Subject  string   `json:"sub"`
	Audience audience `json:"aud"`
}

// audience is one string or a list of them.
type audience []string

// UnmarshalJSON accepts both forms.
func (a *audience) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] == '"' {
		*a = make(audience, 1)
		return json.Unmarshal(raw, &(*a)[0])
	}
	return json.Unmarshal(raw, (*[]string)(a))
}

func (t *tokens) claims(token string) (claims, bool) {
	var c claims
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil || json.Unmarshal(payload, &c) != nil {
		return claims{}, false
	}
	_, ofTenant := names.SplitServiceAccount(c.Subject)
	return c, ofTenant && slices.Contains(c.Audience, t.audience)
}

func (t *tokens) review(ctx context.Context, key TokenDigest, token string, c claims) (verdict, error) {
	result := t.calls.DoChan(string(key[:]), func() (any, error) {
		// Who waits for the answer may leave; others may have joined.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewTimeout)
		defer cancel()
		review, err := t.reviewer.ReviewToken(ctx, token, t.audience)
		if err != nil {
			return verdict{}, err
		}
		v := t.judge(review, key, c)
		t.recent.Add(key, v)
		if v.id.Tenant == "" {
			t.good.Remove(key)
		} else {
			t.good.Add(key, struct{}{})
		}
		return v, nil
	})
	select {
	case <-ctx.Done():
		return verdict{}, errUnavailable("the request was given up")
	case r := <-result:
		if r.Err != nil {
			return verdict{}, errUnavailable("the credential cannot be checked at the moment")
		}
		return r.Val.(verdict), nil
	}
}

// judge makes a verdict of the control cluster's answer. The answer must say yes, say it for our audience, and name a
// ServiceAccount of the tenant that the token itself names.
func (t *tokens) judge(review Review, key TokenDigest, c claims) verdict {
	no := verdict{until: t.now().Add(refuseFor)}
	if !review.Authenticated || !slices.Contains(review.Audiences, t.audience) || review.User != c.Subject {
		return no
	}
	tenant, ok := names.SplitServiceAccount(review.User)
	if !ok {
		return no
	}
	user, err := tenant.UserToTenant(review.User)
	if err != nil {
		return no
	}
	ns, _, _ := strings.Cut(strings.TrimPrefix(user, userServiceAccount), ":")
	return verdict{until: t.now().Add(trustFor), id: Identity{
		Tenant: tenant, User: user, Groups: serviceAccountGroups(names.TenantNamespace(ns)),
		Token: &key,
	}}
}
