package paging

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/names"
)

// maxToken bounds a sealed token: names are short, and whoever sends more sends something else.
const maxToken = 4 << 10

// Scope is what a token is good for.
type Scope struct {
	TenantUID                                                         types.UID
	Group, Version, Resource, Namespace, LabelSelector, FieldSelector string
}

// bytes spells a scope so that no two are spelled alike.
func (s Scope) bytes() []byte {
	var out []byte
	for _, part := range []string{string(s.TenantUID), s.Group, s.Version, s.Resource, s.Namespace, s.LabelSelector, s.FieldSelector} {
		out = binary.AppendUvarint(out, uint64(len(part)))
		out = append(out, part...)
	}
	return out
}

// Sealer seals and opens tokens. Sealers of one secret open each other's tokens, so that every replica of the gateway can
// serve the next page. Safe for concurrent use.
type Sealer struct{ aead cipher.AEAD }

// NewSealer derives the key from a secret that all replicas share and nobody else knows.
func NewSealer(secret []byte) (*Sealer, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "vivarium.io continue tokens, version 1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key of continue tokens: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("derive the key of continue tokens: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("derive the key of continue tokens: %w", err)
	}
	return &Sealer{aead: aead}, nil
}

// Seal makes the tenant's token of the control cluster's.
func (s *Sealer) Seal(scope Scope, control string) string {
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nil, nil, []byte(control), scope.bytes()))
}

// ErrInvalid says that a token was not made for this request, or not by us.
var ErrInvalid = errors.New("the continue token is not valid for this request")

// Open is the inverse of [Sealer.Seal].
func (s *Sealer) Open(scope Scope, token string) (string, error) {
	if len(token) > maxToken {
		return "", ErrInvalid
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return "", ErrInvalid
	}
	control, err := s.aead.Open(nil, nil, sealed, scope.bytes())
	if err != nil {
		return "", ErrInvalid
	}
	return string(control), nil
}

// Latest is the revision of a consistent read of what is there now.
const Latest int64 = -1

// plain is what a control token says.
type plain struct {
	Version  string `json:"v"`
	Revision int64  `json:"rv"`
	Start    string `json:"start"`
}

func (p plain) token() string {
	raw, err := json.Marshal(p)
	if err != nil {
		return "" // three plain fields: cannot happen, and an empty token is refused by the guard
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// Start makes a control token that begins at the first key of a tenant: keys start with the namespace, or with the name
// of a cluster-scoped object, and both start with the tenant's prefix. The form is the API server's own: it sends the same
// to clients whose token has expired.
func Start(id names.TenantID, revision int64) string {
	return plain{"meta.k8s.io/v1", revision, id.Prefix()}.token()
}

// At makes a control token that begins at the first object of a namespace.
func At(namespace names.ControlNamespace, revision string) (string, error) {
	rv, err := strconv.ParseInt(revision, 10, 64)
	if err != nil {
		return "", fmt.Errorf("a revision: %w", err)
	}
	// Without more behind the slash the API server takes it for a path that is not clean.
	return plain{"meta.k8s.io/v1", rv, string(namespace) + "/\x00"}.token(), nil
}

// Widen makes of a control token for a list of one namespace the one for a list of all that goes on at the same object.
func Widen(namespace names.ControlNamespace, token string) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", fmt.Errorf("read a token of the control cluster: %w", err)
	}
	var p plain
	if err := json.Unmarshal(raw, &p); err != nil {
		return "", fmt.Errorf("read a token of the control cluster: %w", err)
	}
	if p.Revision == 0 || p.Start == "" || namespace == "" {
		return "", errors.New("read a token of the control cluster: it does not say where to go on")
	}
	// Where a list of one namespace goes on may begin with the slash behind it.
	p.Start = string(namespace) + "/" + strings.TrimPrefix(p.Start, "/")
	return p.token(), nil
}
