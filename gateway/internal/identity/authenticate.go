package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"vivarium.io/vivarium/gateway/internal/tenants"
	"vivarium.io/vivarium/internal/names"
)

// Config says by what an [Authenticator] knows people. Everything but Now is required.
type Config struct {
	// CA are the authorities that sign tenants' client certificates.
	CA *x509.CertPool
	// Audience is what a ServiceAccount token must be made for.
	Audience string
	Tenants  Tenants
	Reviewer TokenReviewer
	// Now is time.Now unless a test says otherwise.
	Now func() time.Time
}

// Authenticator turns credentials into identities. Safe for concurrent use.
type Authenticator struct {
	tenants Tenants
	now     func() time.Time
	certs   *certificates
	tokens  *tokens
}

// New makes an Authenticator.
func New(c Config) (*Authenticator, error) {
	switch {
	case c.CA == nil:
		return nil, errors.New("identity: CA is required")
	case c.Audience == "":
		return nil, errors.New("identity: Audience is required")
	case c.Tenants == nil:
		return nil, errors.New("identity: Tenants is required")
	case c.Reviewer == nil:
		return nil, errors.New("identity: Reviewer is required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	certs, err := newCertificates(c.CA, c.Now)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	tokens, err := newTokens(c.Audience, c.Reviewer, c.Now)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return &Authenticator{tenants: c.Tenants, now: c.Now, certs: certs, tokens: tokens}, nil
}

// Authenticate says who sends a request and gives the tenant with its limits. A certificate goes before a token, as at a
// stock API server; one that is not good is refused and never passed over. The error is an API error: 401 whatever is
// wrong with the credential, 403 for a suspended tenant, 503 while the gateway cannot tell.
func (a *Authenticator) Authenticate(r *http.Request) (Identity, tenants.Tenant, error) {
	if !a.tenants.HasSynced() {
		return Identity{}, tenants.Tenant{}, errUnavailable("the gateway is starting")
	}
	id, err := a.credential(r.Context(), r.TLS, r.Header)
	if err != nil {
		return Identity{}, tenants.Tenant{}, err
	}
	if id.TenantUID == "" {
		// A token names the tenant by its namespace alone. The control cluster has just vouched for the ServiceAccount, so
		// it belongs to the tenant that has the name now: the name is not given away before the last object is gone.
		t, _ := a.tenants.Get(id.Tenant)
		id.TenantUID = t.UID
	}
	t, err := a.Check(&id)
	return id, t, err
}

// Strange reports whether a request brings a token that nobody has vouched for lately, so that finding out that it is no good
// takes the control cluster's time. What is seen to be no good at once is not strange, and a token that was good the last time
// is not either: others behind its address must not be able to shut its sender out.
func (a *Authenticator) Strange(r *http.Request) bool {
	token, err := bearer(r.Header)
	return err == nil && token != "" && !hasCertificate(r.TLS) && a.tokens.strange(token)
}

func (a *Authenticator) credential(ctx context.Context, state *tls.ConnectionState, h http.Header) (Identity, error) {
	token, err := bearer(h)
	switch {
	case err != nil:
		return Identity{}, err
	case hasCertificate(state):
		return a.certs.identify(state.PeerCertificates)
	case token != "":
		return a.tokens.identify(ctx, token)
	}
	return Identity{}, errUnauthorized()
}

func hasCertificate(state *tls.ConnectionState) bool {
	return state != nil && len(state.PeerCertificates) > 0
}

// Check says whether an identity may act now. Streams ask again whenever its tenant changes.
func (a *Authenticator) Check(id *Identity) (tenants.Tenant, error) {
	t, ok := a.tenants.Get(id.Tenant)
	now := a.now()
	switch {
	case !ok, t.Terminating, id.TenantUID == "", id.TenantUID != t.UID:
		return tenants.Tenant{}, errUnauthorized()
	case !id.NotAfter.IsZero() && now.After(id.NotAfter):
		return tenants.Tenant{}, errUnauthorized()
	case id.Token == nil && id.NotBefore.Before(t.CredentialsNotBefore):
		return tenants.Tenant{}, errUnauthorized()
	case t.Suspended:
		return tenants.Tenant{}, errSuspended()
	}
	return t, nil
}

// Tenant gives a tenant by its ID; the error says that there is none, or that it is going.
func (a *Authenticator) Tenant(id names.TenantID) (tenants.Tenant, error) {
	t, ok := a.tenants.Get(id)
	if !ok || t.Terminating {
		return tenants.Tenant{}, errUnauthorized()
	}
	return t, nil
}
