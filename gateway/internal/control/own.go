package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/gateway/internal/identity"
)

// ReviewToken asks the control cluster whose token it is. It implements identity.TokenReviewer.
func (c *Client) ReviewToken(ctx context.Context, token, audience string) (identity.Review, error) {
	review, err := c.ownKube.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return identity.Review{}, fmt.Errorf("review a token: %w", err)
	}
	return identity.Review{
		Authenticated: review.Status.Authenticated, Audiences: review.Status.Audiences, User: review.Status.User.Username,
	}, nil
}

// ReviewAccess asks the control cluster's authorizer. It implements identity.AccessReviewer.
func (c *Client) ReviewAccess(ctx context.Context, a identity.Access) (bool, error) {
	question := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: a.User,
		// The control cluster adds its own group to whoever is impersonated.
		Groups: append([]string{"system:authenticated"}, a.Groups...),
	}}
	if a.Path != "" {
		question.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Verb: a.Verb, Path: a.Path}
	} else {
		question.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
			Verb: a.Verb, Group: a.Group, Version: a.Version, Resource: a.Resource, Subresource: a.Subresource, Namespace: a.Namespace, Name: a.Name,
		}
	}
	review, err := c.ownKube.AuthorizationV1().SubjectAccessReviews().Create(ctx, question, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("review access: %w", err)
	}
	return review.Status.Allowed && !review.Status.Denied, nil
}

// Document is something that the control cluster publishes for everybody.
type Document struct {
	Body []byte
	ETag string
	// Fresh is false when the control cluster says that what the caller has is still good; then Body is empty.
	Fresh bool
}

// ErrNotPublished says that the control cluster has no such document.
var ErrNotPublished = errors.New("the control cluster does not publish it")

// Fetch gets a published document as the gateway itself. No tenant's request may decide the path.
func (c *Client) Fetch(ctx context.Context, path, accept, etag string) (Document, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.String()+path, nil)
	if err != nil {
		return Document{}, fmt.Errorf("get %s: %w", path, err)
	}
	r.Header.Set("Accept", accept)
	if etag != "" {
		r.Header.Set("If-None-Match", etag)
	}
	res, err := c.own.Do(r)
	if err != nil {
		return Document{}, fmt.Errorf("get %s: %w", path, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	switch {
	case err != nil:
		return Document{}, fmt.Errorf("get %s: %w", path, err)
	case len(body) > maxReply:
		return Document{}, fmt.Errorf("get %s: more than %d bytes", path, maxReply)
	case res.StatusCode == http.StatusNotModified && etag != "":
		return Document{ETag: etag}, nil
	case res.StatusCode == http.StatusNotFound:
		return Document{}, fmt.Errorf("get %s: %w", path, ErrNotPublished)
	case res.StatusCode != http.StatusOK:
		return Document{}, fmt.Errorf("get %s: %s", path, res.Status)
	}
	return Document{Body: body, ETag: res.Header.Get("Etag"), Fresh: true}, nil
}

// Stream asks as the gateway itself for what may go on for long: a watch that tenants share. No tenant's request may
// decide the path. The caller closes the body of the response.
func (c *Client) Stream(ctx context.Context, path string, query url.Values, accept string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.String()+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", path, err)
	}
	r.Header.Set("Accept", accept)
	r.Header.Set("Accept-Encoding", "identity")
	res, err := c.ownLong.Do(r)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", path, err)
	}
	return res, nil
}
