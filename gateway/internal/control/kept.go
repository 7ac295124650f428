package control

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"k8s.io/client-go/rest"

	"vivarium.io/vivarium/gateway/internal/flows"
)

// apart takes requests for kinds that tenants have and the control cluster must not hear of to what keeps them. That
// trusts whoever reaches it, so that a user's rights have to be asked for before; and it stands behind the guard like
// everything that leaves for the control cluster.
type apart struct {
	to   http.RoundTripper
	host *url.URL
	// path starts the paths of what is kept, behind base.
	base, path string
}

func newApart(kept *rest.Config, base *url.URL) (*apart, error) {
	a := &apart{base: base.EscapedPath(), path: base.EscapedPath() + "/apis/" + flows.GroupVersion.Group + "/"}
	if kept == nil {
		return a, nil
	}
	var err error
	if a.host, _, err = rest.DefaultServerUrlFor(kept); err != nil {
		return nil, fmt.Errorf("address of what is kept here: %w", err)
	}
	if a.to, err = rest.TransportFor(kept); err != nil {
		return nil, fmt.Errorf("way to what is kept here: %w", err)
	}
	return a, nil
}

// before gives next for everything else.
func (a *apart) before(next http.RoundTripper) http.RoundTripper { return divided{a, next} }

type divided struct {
	*apart
	next http.RoundTripper
}

// RoundTrip sends a request where it belongs. What is kept is nobody's who claims an identity there.
func (d divided) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(r.URL.EscapedPath(), d.path) {
		return d.next.RoundTrip(r)
	}
	if d.to == nil {
		return nil, errors.New("nothing is kept here")
	}
	out := r.Clone(r.Context())
	for name := range out.Header {
		if claimsIdentity(name) {
			delete(out.Header, name)
		}
	}
	out.URL.Scheme, out.URL.Host, out.Host = d.host.Scheme, d.host.Host, ""
	out.URL.Path, out.URL.RawPath = strings.TrimPrefix(out.URL.Path, d.base), strings.TrimPrefix(out.URL.RawPath, d.base)
	return d.to.RoundTrip(out)
}
