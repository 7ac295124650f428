package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	discoveryPath = "/.well-known/openid-configuration"
	jwksPath      = "/openid/v1/jwks"
)

// jwt are the claims that a relying party looks at.
type jwt struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience []string `json:"aud"`
	Expiry   int64    `json:"exp"`
}

// relyingParty verifies a token as anybody does who has nothing but its issuer's name: it fetches the issuer's document and
// keys with a bearer token, trusting one authority, and looks whether the signature and the claims are good. It is written
// down here in the terms of RFC 7515 and of OpenID Connect Discovery, and shares no code with the gateway.
func relyingParty(ctx context.Context, trusted *rest.Config, bearer, audience, token string) (jwt, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return jwt{}, fmt.Errorf("%d parts", len(parts))
	}
	var claims jwt
	var header struct{ Alg, Kid string }
	for i, into := range []any{&header, &claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(raw, into)
		}
		if err != nil {
			return jwt{}, fmt.Errorf("part %d: %w", i, err)
		}
	}
	var provider struct {
		Issuer     string
		Keys       string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := fetch(ctx, trusted, bearer, claims.Issuer+discoveryPath, "application/json", &provider); err != nil {
		return jwt{}, err
	}
	if provider.Issuer != claims.Issuer {
		return jwt{}, fmt.Errorf("the document of %s is of %s", claims.Issuer, provider.Issuer)
	}
	if header.Alg != "ES256" || !slices.Contains(provider.Algorithms, header.Alg) {
		return jwt{}, fmt.Errorf("signed with %s, known are %v", header.Alg, provider.Algorithms)
	}
	var set struct {
		Keys []struct{ Kty, Crv, Kid, X, Y string }
	}
	if err := fetch(ctx, trusted, bearer, provider.Keys, "application/jwk-set+json", &set); err != nil {
		return jwt{}, err
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(signature) != 64 {
		return jwt{}, fmt.Errorf("signature of %d bytes: %w", len(signature), err)
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	for _, k := range set.Keys {
		x, errX := base64.RawURLEncoding.DecodeString(k.X)
		y, errY := base64.RawURLEncoding.DecodeString(k.Y)
		if k.Kid != header.Kid || k.Kty != "EC" || k.Crv != "P-256" || errX != nil || errY != nil {
			continue
		}
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
		if err != nil {
			return jwt{}, err
		}
		if !ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
			return jwt{}, errors.New("the signature is wrong")
		}
		if !slices.Contains(claims.Audience, audience) || time.Now().After(time.Unix(claims.Expiry, 0)) {
			return jwt{}, fmt.Errorf("claims %+v", claims)
		}
		return claims, nil
	}
	return jwt{}, fmt.Errorf("no key %q among %d", header.Kid, len(set.Keys))
}

// fetch gets a document, as a stranger who has at most a bearer token.
func fetch(ctx context.Context, trusted *rest.Config, bearer, url, contentType string, into any) error {
	client, err := rest.HTTPClientFor(&rest.Config{BearerToken: bearer, TLSClientConfig: rest.TLSClientConfig{CAFile: trusted.CAFile, CAData: trusted.CAData}})
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != contentType {
		return fmt.Errorf("%s: %s %s %s", url, res.Status, res.Header.Get("Content-Type"), raw)
	}
	return json.Unmarshal(raw, into)
}

// TestIssuer has tokens of ServiceAccounts of two tenants, of equal names, verified by whoever knows their issuer.
func TestIssuer(t *testing.T) {
	w := theWorld(t)
	var tenants [2]struct {
		kubeconfig string
		config     *rest.Config
		client     kubernetes.Interface
		// api is a token for the API, vault one for somebody else.
		api, vault string
	}
	for i, id := range []string{"issue0", "issue1"} {
		p := &tenants[i]
		p.kubeconfig = w.tenant(t, id)
		p.config = client(t, p.kubeconfig)
		p.client = clientset(t, p.config)
		w.must(t, p.kubeconfig, "", "create", "sa", "robot")
		p.api = strings.TrimSpace(w.must(t, p.kubeconfig, "", "create", "token", "robot"))
		p.vault = strings.TrimSpace(w.must(t, p.kubeconfig, "", "create", "token", "robot", "--audience=vault"))
	}
	a, b := tenants[0], tenants[1]

	var subjects []string
	for _, p := range tenants {
		claims, err := relyingParty(t.Context(), p.config, p.api, "vault", p.vault)
		if err != nil {
			t.Fatal(err)
		}
		if claims.Issuer != p.config.Host {
			t.Errorf("issuer %q, the gateway is %q", claims.Issuer, p.config.Host)
		}
		subjects = append(subjects, claims.Subject)
	}
	if subjects[0] == subjects[1] {
		t.Errorf("both tenants' ServiceAccounts are %q", subjects[0])
	}
	if _, err := relyingParty(t.Context(), a.config, a.api, "vault", a.vault[:len(a.vault)-9]+"AAAAAAAAA"); err == nil || !strings.Contains(err.Error(), "signature") {
		t.Errorf("a forged signature: %v", err)
	}

	t.Run("Nowhere", func(t *testing.T) {
		// Where an operator gives the API server no audiences of its own, it accepts the issuer's.
		for _, audience := range []string{a.config.Host, a.config.Host + "/", "https://192.0.2.1:6443"} {
			if out := w.fails(t, a.kubeconfig, "", "create", "token", "robot", "--audience="+audience); !strings.Contains(out, "no token is given for the audience") {
				t.Errorf("%s: %s", audience, out)
			}
		}
		// A token for somebody else opens nothing, one for the gateway opens its tenant and not the control cluster.
		type door struct {
			config *rest.Config
			token  string
		}
		for name, d := range map[string]door{
			"VaultAtGateway": {a.config, a.vault}, "VaultAtControl": {w.cluster.Config, a.vault}, "APIAtControl": {w.cluster.Config, a.api},
		} {
			bare := rest.AnonymousClientConfig(d.config)
			bare.BearerToken = d.token
			if _, err := clientset(t, bare).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{}); !apierrors.IsUnauthorized(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
		review := func(c kubernetes.Interface, token string, audiences ...string) authenticationv1.TokenReviewStatus {
			t.Helper()
			r, err := c.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences}}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return r.Status
		}
		if s := review(a.client, a.vault, "vault"); !s.Authenticated || s.User.Username != "system:serviceaccount:default:robot" {
			t.Errorf("its own: %+v", s)
		}
		for _, audiences := range [][]string{{"vault"}, {"vault", DefaultTokenAudience}, nil} {
			for _, token := range []string{a.vault, a.api} {
				if s := review(b.client, token, audiences...); s.Authenticated || s.User.Username != "" {
					t.Errorf("another tenant's: %+v", s)
				}
			}
		}
	})

	t.Run("Rights", func(t *testing.T) {
		says := func(user string) string {
			out, _ := w.run(a.kubeconfig, "", "get", "--raw", jwksPath, "--as="+user)
			return out
		}
		if out := says("rita"); !strings.Contains(out, `forbidden: User "rita" cannot get path "/openid/v1/jwks"`) {
			t.Errorf("without a right: %s", out)
		}
		w.must(t, a.kubeconfig, "", "create", "clusterrolebinding", "keys", "--clusterrole=system:service-account-issuer-discovery", "--user=rita")
		eventually(t, "rita reads the keys", func() bool { return strings.HasPrefix(says("rita"), `{"keys":[{"kty":"EC"`) })
		if out := w.fails(t, b.kubeconfig, "", "get", "--raw", discoveryPath, "--as=rita"); !strings.Contains(out, "forbidden: User") {
			t.Errorf("rita of another tenant: %s", out)
		}
		// As everywhere, ServiceAccounts may without anybody's doing, and administrators.
		if out := says("system:serviceaccount:default:robot"); !strings.HasPrefix(out, `{"keys":[`) {
			t.Error(out)
		}
		out := w.must(t, b.kubeconfig, "", "get", "--raw", discoveryPath)
		if strings.Contains(out, w.cluster.Config.Host) || !strings.Contains(out, `"issuer":"`+b.config.Host+`"`) {
			t.Error(out)
		}
		if out := w.must(t, b.kubeconfig, "", "get", "--raw", "/"); !strings.Contains(out, discoveryPath) || !strings.Contains(out, jwksPath) {
			t.Error(out)
		}
		for _, path := range []string{discoveryPath, jwksPath} {
			if err := fetch(t.Context(), a.config, "", a.config.Host+path, "", nil); err == nil || !strings.Contains(err.Error(), "401") {
				t.Errorf("nobody: %v", err)
			}
			out := w.fails(t, a.kubeconfig, "{}", "create", "--raw", path, "-f", "-")
			if !strings.Contains(out, "MethodNotAllowed") {
				t.Errorf("POST %s: %s", path, out)
			}
		}
	})

	// What asks an API server about others' tokens and rights: Vault and many an operator.
	t.Run("Delegator", func(t *testing.T) {
		as := rest.AnonymousClientConfig(a.config)
		as.BearerToken = a.api
		ask := func() error {
			_, err := clientset(t, as).AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: a.vault, Audiences: []string{"vault"}}}, metav1.CreateOptions{})
			return err
		}
		if err := ask(); !apierrors.IsForbidden(err) {
			t.Errorf("without a right: %v", err)
		}
		w.must(t, a.kubeconfig, "", "create", "clusterrolebinding", "robot-delegator", "--clusterrole=system:auth-delegator", "--serviceaccount=default:robot")
		eventually(t, "the robot asks about tokens", func() bool { return ask() == nil })
		w.may(t, a.kubeconfig, "create", "subjectaccessreviews.authorization.k8s.io", "--as=system:serviceaccount:default:robot")
	})
}
