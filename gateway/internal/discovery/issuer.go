package discovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/gateway/internal/route"
)

// Where an API server tells who issues ServiceAccounts' tokens, and with which keys they are signed.
const (
	issuerPath = "/.well-known/openid-configuration"
	keysPath   = "/openid/v1/jwks"
	keysType   = "application/jwk-set+json"
)

// serveIssuer answers with one of the two, whoever may read it.
func serveIssuer(from *source[[]byte], contentType string) answerer {
	return func(w http.ResponseWriter, r *http.Request, _ *route.Request, world World) error {
		if world.MayRead == nil {
			return kinds.ErrNoSuchPath
		}
		if err := world.MayRead(r.Context(), from.path); err != nil {
			return err
		}
		raw, err := from.get(r.Context())
		switch {
		case errors.Is(err, control.ErrNotPublished):
			// As an API server whose issuer is no https URL.
			return kinds.ErrNoSuchPath
		case err != nil:
			return err
		}
		// An API server has it kept for as long, and by everybody: but there, too, not everybody may read it.
		w.Header().Set("Cache-Control", "private, max-age=3600")
		write(w, r, contentType, raw, "")
		return nil
	}
}

// issuer is an API server's document, with the members that it has and no others.
type issuer struct {
	Issuer        string   `json:"issuer"`
	KeysURI       string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
}

// cutIssuer makes of the control cluster's document what tenants are told. The issuer is theirs to know, for each of their
// tokens names it. Where the keys are is not, unless that is the issuer's own host: an API server names its own address if
// nobody told it another, and tenants find the same keys here.
func cutIssuer(raw []byte, address string) ([]byte, error) {
	var document issuer
	if err := json.Unmarshal(raw, &document); err != nil {
		return nil, fmt.Errorf("read the issuer's document: %w", err)
	}
	own, err := url.Parse(document.Issuer)
	if err != nil || own.Scheme != "https" || own.Host == "" {
		return nil, fmt.Errorf("read the issuer's document: %q is no https URL", document.Issuer)
	}
	keys, err := url.Parse(document.KeysURI)
	if err != nil || keys.Scheme != "https" || keys.Host != own.Host {
		document.KeysURI = "https://" + address + keysPath
	}
	return json.Marshal(document)
}

// key is a public key: the members that RFC 7517 and 7518 give to those of RSA and of elliptic curves. A private key has
// others, which are left out here.
type key struct {
	Type      string `json:"kty"`
	Use       string `json:"use,omitempty"`
	ID        string `json:"kid,omitempty"`
	Algorithm string `json:"alg,omitempty"`
	Modulus   string `json:"n,omitempty"`
	Exponent  string `json:"e,omitempty"`
	Curve     string `json:"crv,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
}

// cutKeys makes of the control cluster's keys what tenants are told.
func cutKeys(raw []byte) ([]byte, error) {
	var set struct {
		Keys []key `json:"keys"`
	}
	if err := json.Unmarshal(raw, &set); err != nil {
		return nil, fmt.Errorf("read the issuer's keys: %w", err)
	}
	set.Keys = slices.DeleteFunc(set.Keys, func(k key) bool { return k.Type != "RSA" && k.Type != "EC" })
	return json.Marshal(set)
}
