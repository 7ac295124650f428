package guard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"vivarium.io/vivarium/internal/names"
)

// Refusal says that a request would have left its tenant. Its text is in the control cluster's words, for the log alone.
type Refusal struct{ Why string }

// Error gives the reason.
func (r *Refusal) Error() string { return "guard: " + r.Why }

func refuse(format string, args ...any) error { return &Refusal{Why: fmt.Sprintf(format, args...)} }

type tenantKey struct{}

// WithTenant says which tenant the requests of a context are for. It is set from the credential, before anything is
// translated.
func WithTenant(ctx context.Context, id names.TenantID) context.Context {
	return context.WithValue(ctx, tenantKey{}, id)
}

// Guard is a RoundTripper that lets through what is inside its tenant.
type Guard struct {
	// Next sends what is let through, as it is.
	Next http.RoundTripper
	// Host and BasePath are those of the control cluster.
	Host, BasePath string
	// Shared says whether the operator shares a resource of a group of its own with a tenant; nil for none.
	Shared func(id names.TenantID, group, resource string) bool
	// Refused is called for each refusal.
	Refused func()
}

// RoundTrip sends a request or returns a *Refusal. It reads a body only where the body names the object.
func (g *Guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := g.check(r); err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		g.Refused()
		return nil, err
	}
	return g.Next.RoundTrip(r)
}

func (g *Guard) check(r *http.Request) error {
	id, _ := r.Context().Value(tenantKey{}).(names.TenantID)
	if _, err := names.ParseTenantID(string(id)); err != nil {
		return errors.Join(refuse("the request has no tenant"), err)
	}
	u := r.URL
	if u.Host != g.Host || (r.Host != "" && r.Host != g.Host) || u.Opaque != "" || u.User != nil || u.Fragment != "" {
		return refuse("the request is not for the control cluster")
	}
	if err := checkHeaders(id, r); err != nil {
		return err
	}
	parts, err := split(u.EscapedPath(), g.BasePath)
	if err != nil {
		return err
	}
	query, err := parseQuery(u.RawQuery)
	if err != nil {
		return err
	}
	w := want{id: id, method: r.Method, query: query, body: r, shared: g.Shared}
	if err := w.check(parts); err != nil {
		return err
	}
	if upgrade := r.Header.Get("Upgrade") != ""; upgrade && !w.tunnel {
		return refuse("an upgrade of %s", strings.Join(parts, "/"))
	}
	return nil
}

// passing are the headers that may reach the control cluster.
func passing(name string) bool {
	switch name {
	case "Accept", "Accept-Encoding", "Content-Type", "User-Agent", "If-None-Match", "Impersonate-User", "Impersonate-Group", "Impersonate-Uid",
		"Connection", "Upgrade", "X-Stream-Protocol-Version", "Sec-Websocket-Key", "Sec-Websocket-Version",
		"Sec-Websocket-Protocol", "Sec-Websocket-Extensions":
		return true
	}
	return false
}

func checkHeaders(id names.TenantID, r *http.Request) error {
	if len(r.Trailer) > 0 {
		return refuse("the request has trailers")
	}
	for name, values := range r.Header {
		if name != http.CanonicalHeaderKey(name) || !passing(name) {
			return refuse("header %q", name)
		}
		for _, value := range values {
			if strings.ContainsAny(value, "\r\n\x00") {
				return refuse("header %q has more than one line", name)
			}
			if strings.Contains(value, "bearer.authorization") {
				return refuse("header %q carries a token", name)
			}
		}
	}
	if values := r.Header["Connection"]; len(values) > 1 || (len(values) == 1 && (values[0] != "Upgrade" || r.Header.Get("Upgrade") == "")) {
		return refuse("header Connection is %q", values)
	}
	users, groups := r.Header["Impersonate-User"], r.Header["Impersonate-Group"]
	if len(users) != 1 {
		return refuse("%d users are impersonated", len(users))
	}
	if _, err := id.UserToTenant(users[0]); err != nil {
		return refuse("user %q is impersonated for tenant %s", users[0], id)
	}
	if len(r.Header["Impersonate-Uid"]) > 1 {
		return refuse("%d UIDs are impersonated", len(r.Header["Impersonate-Uid"]))
	}
	authenticated := false
	for _, group := range groups {
		if _, err := id.UserGroupToTenant(group); err != nil {
			return refuse("group %q is impersonated for tenant %s", group, id)
		}
		authenticated = authenticated || group == id.Prefix()+"system:authenticated"
	}
	if !authenticated {
		// The admission policies of the control cluster know a tenant's request by this group.
		return refuse("the group of all users of tenant %s is missing", id)
	}
	return nil
}
