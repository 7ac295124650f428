package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"vivarium.io/vivarium/gateway/internal/tenants"
	"vivarium.io/vivarium/internal/names"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// directory is a fixed set of tenants.
type directory map[names.TenantID]tenants.Tenant

func (d directory) Get(id names.TenantID) (tenants.Tenant, bool) { t, ok := d[id]; return t, ok }
func (d directory) HasSynced() bool                              { return d != nil }

func testTenants() directory {
	return directory{
		"abc123": {ID: "abc123", UID: "uid-a"},
		"zzz999": {ID: "zzz999", UID: "uid-z"},
		"susp00": {ID: "susp00", UID: "uid-s", Suspended: true},
		"term00": {ID: "term00", UID: "uid-t", Terminating: true},
		"revok0": {ID: "revok0", UID: "uid-r", CredentialsNotBefore: now.Add(-time.Minute)},
	}
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tenants"}, NotBefore: now.Add(-24 * time.Hour),
		NotAfter: now.Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) issue(t *testing.T, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		Subject: pkix.Name{
			CommonName: "admin", Organization: []string{"system:masters"}, OrganizationalUnit: []string{"abc123"}, SerialNumber: "uid-a",
		},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	change(template)
	raw, err := x509.CreateCertificate(rand.Reader, template, a.cert, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newAuthenticator(t *testing.T, ca authority, d directory, review TokenReviewerFn) *Authenticator {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	a, err := New(Config{CA: pool, Audience: "vivarium-gateway", Tenants: d, Reviewer: review, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func code(err error) int {
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return http.StatusOK
	case errors.As(err, &status):
		return int(status.Status().Code)
	}
	return -1
}

func TestCertificates(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	cases := map[string]struct {
		ca     authority
		change func(*x509.Certificate)
		want   int
	}{
		"Good":          {ca, func(*x509.Certificate) {}, 200},
		"OtherCA":       {other, func(*x509.Certificate) {}, 401},
		"NoUnit":        {ca, func(c *x509.Certificate) { c.Subject.OrganizationalUnit = nil }, 401},
		"TwoUnits":      {ca, func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"abc123", "zzz999"} }, 401},
		"UnitUpperCase": {ca, func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"ABC123"} }, 401},
		"UnitSpace":     {ca, func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"abc123 "} }, 401},
		"UnitLong":      {ca, func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"abc1234"} }, 401},
		"OtherUnit":     {ca, func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"zzz999"} }, 401},
		"Unknown":       {ca, func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"nobody"} }, 401},
		"NoUID":         {ca, func(c *x509.Certificate) { c.Subject.SerialNumber = "" }, 401},
		"EarlierTenant": {ca, func(c *x509.Certificate) { c.Subject.SerialNumber = "uid-0" }, 401},
		"NoName":        {ca, func(c *x509.Certificate) { c.Subject.CommonName = "" }, 401},
		"NameNewline":   {ca, func(c *x509.Certificate) { c.Subject.CommonName = "a\nb" }, 401},
		"Expired":       {ca, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }, 401},
		"NotYet":        {ca, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) }, 401},
		"ServerOnly":    {ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, 401},
		"NoUsage":       {ca, func(c *x509.Certificate) { c.ExtKeyUsage = nil }, 401},
		"Suspended": {ca, func(c *x509.Certificate) {
			c.Subject.OrganizationalUnit, c.Subject.SerialNumber = []string{"susp00"}, "uid-s"
		}, 403},
		"Terminating": {ca, func(c *x509.Certificate) {
			c.Subject.OrganizationalUnit, c.Subject.SerialNumber = []string{"term00"}, "uid-t"
		}, 401},
		"Revoked": {ca, func(c *x509.Certificate) {
			c.Subject.OrganizationalUnit, c.Subject.SerialNumber = []string{"revok0"}, "uid-r"
		}, 401},
		"AfterRevocation": {ca, func(c *x509.Certificate) {
			c.Subject.OrganizationalUnit, c.Subject.SerialNumber = []string{"revok0"}, "uid-r"
			c.NotBefore = now.Add(-time.Minute)
		}, 200},
	}
	a := newAuthenticator(t, ca, testTenants(), func(context.Context, string, string) (Review, error) {
		t.Error("a certificate asked the control cluster")
		return Review{}, nil
	})
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{tc.ca.issue(t, tc.change)}}
			for range 2 { // the second time from the cache
				if _, _, err := a.Authenticate(r); code(err) != tc.want {
					t.Errorf("Authenticate: %v, want %d", err, tc.want)
				}
			}
		})
	}

	t.Run("Identity", func(t *testing.T) {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{ca.issue(t, func(*x509.Certificate) {})}}
		id, tenant, err := a.Authenticate(r)
		if err != nil {
			t.Fatal(err)
		}
		if tenant.ID != "abc123" || id.ControlUser() != "abc123-admin" {
			t.Errorf("tenant %s, user %s", tenant.ID, id.ControlUser())
		}
		if diff := cmp.Diff([]string{"abc123-system:masters", "abc123-system:authenticated"}, id.ControlGroups()); diff != "" {
			t.Errorf("groups (-want +got):\n%s", diff)
		}
	})
	t.Run("LongChain", func(t *testing.T) {
		chain := []*x509.Certificate{ca.issue(t, func(*x509.Certificate) {})}
		for range 100 {
			chain = append(chain, other.cert)
		}
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: chain}
		if _, _, err := a.Authenticate(r); code(err) != 401 {
			t.Errorf("Authenticate: %v", err)
		}
	})
	t.Run("BeforeSync", func(t *testing.T) {
		a := newAuthenticator(t, ca, nil, silent)
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{ca.issue(t, func(*x509.Certificate) {})}}
		if _, _, err := a.Authenticate(r); code(err) != 503 {
			t.Errorf("Authenticate: %v", err)
		}
	})
}

func silent(context.Context, string, string) (Review, error) { return Review{}, nil }

func token(t *testing.T, payload map[string]any) string {
	t.Helper()
	raw, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	return "eyJhbGciOiJSUzI1NiJ9." + base64.RawURLEncoding.EncodeToString(raw) + ".c2ln"
}

func TestTokens(t *testing.T) {
	const robot = "system:serviceaccount:abc123-web:robot"
	good := map[string]any{"sub": robot, "aud": []string{"vivarium-gateway"}, "exp": now.Add(time.Hour).Unix()}
	with := func(key string, value any) map[string]any {
		m := map[string]any{}
		for k, v := range good {
			m[k] = v
		}
		m[key] = value
		return m
	}
	yes := Review{Authenticated: true, Audiences: []string{"vivarium-gateway"}, User: robot}
	bearerOf := func(payload map[string]any) http.Header {
		return http.Header{"Authorization": {"Bearer " + token(t, payload)}}
	}
	cases := map[string]struct {
		headers http.Header
		review  Review
		err     error
		want    int
		reviews int
	}{
		"Good":              {bearerOf(good), yes, nil, 200, 1},
		"OneAudience":       {bearerOf(with("aud", "vivarium-gateway")), yes, nil, 200, 1},
		"LowerCaseScheme":   {http.Header{"Authorization": {"bearer " + token(t, good)}}, yes, nil, 200, 1},
		"WebSocket":         {http.Header{"Sec-Websocket-Protocol": {"v5.channel.k8s.io, base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token(t, good)))}}, yes, nil, 200, 1},
		"Nothing":           {http.Header{}, yes, nil, 401, 0},
		"Empty":             {http.Header{"Authorization": {"Bearer "}}, yes, nil, 401, 0},
		"Blanks":            {http.Header{"Authorization": {"Bearer    "}}, yes, nil, 401, 0},
		"Null":              {http.Header{"Authorization": {"Bearer null"}}, yes, nil, 401, 0},
		"Basic":             {http.Header{"Authorization": {"Basic YTpi"}}, yes, nil, 401, 0},
		"Two":               {http.Header{"Authorization": {"Bearer " + token(t, good), "Bearer " + token(t, good)}}, yes, nil, 401, 0},
		"OtherAudience":     {bearerOf(with("aud", []string{"https://kubernetes.default.svc"})), yes, nil, 401, 0},
		"ClockAhead":        {bearerOf(with("exp", now.Unix()-3600)), yes, nil, 200, 1},
		"ClockBehind":       {bearerOf(with("exp", now.Unix()+3600)), Review{}, nil, 401, 1},
		"KubeSystem":        {bearerOf(with("sub", "system:serviceaccount:kube-system:x")), yes, nil, 401, 0},
		"BareID":            {bearerOf(with("sub", "system:serviceaccount:abc123:x")), yes, nil, 401, 0},
		"NotAnAccount":      {bearerOf(with("sub", "abc123-admin")), yes, nil, 401, 0},
		"UnknownTenant":     {bearerOf(with("sub", "system:serviceaccount:cattle-system:x")), Review{Authenticated: true, Audiences: []string{"vivarium-gateway"}, User: "system:serviceaccount:cattle-system:x"}, nil, 401, 1},
		"Suspended":         {bearerOf(with("sub", "system:serviceaccount:susp00-web:x")), Review{Authenticated: true, Audiences: []string{"vivarium-gateway"}, User: "system:serviceaccount:susp00-web:x"}, nil, 403, 1},
		"NotAuthenticated":  {bearerOf(good), Review{Audiences: []string{"vivarium-gateway"}, User: robot}, nil, 401, 1},
		"AudienceNotProved": {bearerOf(good), Review{Authenticated: true, User: robot}, nil, 401, 1},
		"AnotherUser":       {bearerOf(good), Review{Authenticated: true, Audiences: []string{"vivarium-gateway"}, User: "system:serviceaccount:zzz999-web:robot"}, nil, 401, 1},
		"ControlAway":       {bearerOf(good), Review{}, errors.New("dial tcp 10.0.0.1: no"), 503, 2},
		"HugeToken":         {http.Header{"Authorization": {"Bearer " + token(t, with("x", string(make([]byte, 1<<15))))}}, yes, nil, 401, 0},
	}
	ca := newAuthority(t)
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			reviews := 0
			a := newAuthenticator(t, ca, testTenants(), func(_ context.Context, _, audience string) (Review, error) {
				if audience != "vivarium-gateway" {
					t.Errorf("audience %q", audience)
				}
				reviews++
				return tc.review, tc.err
			})
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			r.Header = tc.headers
			for range 2 { // the second time from the cache
				if _, _, err := a.Authenticate(r); code(err) != tc.want {
					t.Errorf("Authenticate: %v, want %d", err, tc.want)
				}
			}
			if reviews != tc.reviews {
				t.Errorf("%d reviews, want %d", reviews, tc.reviews)
			}
		})
	}
}

func TestTokenIsForgotten(t *testing.T) {
	reviews := 0
	clock := now
	pool := x509.NewCertPool()
	a, err := New(Config{CA: pool, Audience: "g", Tenants: testTenants(), Now: func() time.Time { return clock }, Reviewer: TokenReviewerFn(
		func(context.Context, string, string) (Review, error) {
			reviews++
			return Review{Authenticated: reviews == 1, Audiences: []string{"g"}, User: "system:serviceaccount:abc123-web:x"}, nil
		})})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+token(t, map[string]any{"sub": "system:serviceaccount:abc123-web:x", "aud": "g", "exp": now.Add(time.Hour).Unix()}))
	id, _, err := a.Authenticate(r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"abc123-system:serviceaccounts", "system:serviceaccounts:abc123-web", "abc123-system:authenticated"}, id.ControlGroups()); diff != "" {
		t.Errorf("groups (-want +got):\n%s", diff)
	}
	if id.ControlUser() != "system:serviceaccount:abc123-web:x" || id.TenantUID != "uid-a" {
		t.Errorf("identity %+v", id)
	}
	clock = clock.Add(trustFor)
	if a.Strange(r) {
		t.Error("a token that was good is strange")
	}
	if _, _, err := a.Authenticate(r); code(err) != 401 {
		t.Errorf("a revoked token: %v", err)
	}
	if a.Strange(r) {
		t.Error("a token is strange of which it is known that it is no good")
	}
	if clock = clock.Add(refuseFor); !a.Strange(r) {
		t.Error("a token that was revoked is not strange")
	}
	// Whether the token itself has ended is not for this clock to say.
	clock = clock.Add(2 * time.Hour)
	if _, err := a.Check(&id); err != nil {
		t.Errorf("the identity of a token: %v", err)
	}
	id.NotAfter = clock.Add(-time.Second)
	if _, err := a.Check(&id); code(err) != 401 {
		t.Errorf("an expired certificate: %v", err)
	}
}

func TestCheckHeaders(t *testing.T) {
	for name, want := range map[string]int{
		"Impersonate-User": 200, "Impersonate-Group": 200, "Authorization": 200, "X-Remote-Addr": 200, "Accept": 200,
		"Impersonate-Uid": 200, "Impersonate-Extra-Scopes": 400, "Impersonate_user": 400, "Impersonate-User_": 400, "Impersonate.user": 400,
		"X-Remote-User": 400, "X_remote_group": 400, "X-Remote-Extra-Foo": 400, "Authorization_": 200,
	} {
		t.Run(name, func(t *testing.T) {
			if err := CheckHeaders(http.Header{name: {"x"}}); code(err) != want {
				t.Errorf("CheckHeaders: %v, want %d", err, want)
			}
		})
	}
}

func TestImpersonate(t *testing.T) {
	sender := Identity{Tenant: "abc123", User: "alice", Groups: []string{"dev", "system:authenticated"}}
	cases := map[string]struct {
		headers http.Header
		refuse  string
		err     error
		want    int
		user    string
		groups  []string
		asked   []string
	}{
		"Nobody": {http.Header{}, "", nil, 200, "abc123-alice", []string{"abc123-dev", "abc123-system:authenticated"}, nil},
		"User": {
			http.Header{"Impersonate-User": {"bob"}}, "", nil, 200, "abc123-bob", []string{"abc123-system:authenticated"},
			[]string{"users//abc123-bob"},
		},
		"OtherTenantsUser": {
			http.Header{"Impersonate-User": {"zzz999-admin"}}, "", nil, 200, "abc123-zzz999-admin", []string{"abc123-system:authenticated"},
			[]string{"users//abc123-zzz999-admin"},
		},
		"UserAndGroups": {
			http.Header{"Impersonate-User": {"bob"}, "Impersonate-Group": {"ops", "system:masters"}}, "", nil, 200, "abc123-bob",
			[]string{"abc123-ops", "abc123-system:masters", "abc123-system:authenticated"},
			[]string{"users//abc123-bob", "groups//abc123-ops", "groups//abc123-system:masters"},
		},
		"ServiceAccount": {
			http.Header{"Impersonate-User": {"system:serviceaccount:web:robot"}}, "", nil, 200, "system:serviceaccount:abc123-web:robot",
			[]string{"abc123-system:serviceaccounts", "system:serviceaccounts:abc123-web", "abc123-system:authenticated"},
			[]string{"serviceaccounts/abc123-web/robot"},
		},
		"Denied":          {http.Header{"Impersonate-User": {"bob"}}, "users", nil, 403, "", nil, []string{"users//abc123-bob"}},
		"DeniedGroup":     {http.Header{"Impersonate-User": {"bob"}, "Impersonate-Group": {"system:masters"}}, "groups", nil, 403, "", nil, []string{"users//abc123-bob", "groups//abc123-system:masters"}},
		"ControlAway":     {http.Header{"Impersonate-User": {"bob"}}, "", errors.New("no"), 503, "", nil, []string{"users//abc123-bob"}},
		"GroupAlone":      {http.Header{"Impersonate-Group": {"system:masters"}}, "", nil, 400, "", nil, nil},
		"TwoUsers":        {http.Header{"Impersonate-User": {"bob", "carol"}}, "", nil, 400, "", nil, nil},
		"EmptyUser":       {http.Header{"Impersonate-User": {""}}, "", nil, 400, "", nil, nil},
		"Newline":         {http.Header{"Impersonate-User": {"a\nb"}}, "", nil, 400, "", nil, nil},
		"Anonymous":       {http.Header{"Impersonate-User": {"system:anonymous"}}, "", nil, 400, "", nil, nil},
		"HalfAnAccount":   {http.Header{"Impersonate-User": {"system:serviceaccount:web"}}, "", nil, 400, "", nil, nil},
		"OddAccount":      {http.Header{"Impersonate-User": {"system:serviceaccount:web:a:b"}}, "", nil, 400, "", nil, nil},
		"AccountUpNorth":  {http.Header{"Impersonate-User": {"system:serviceaccount:../x:a"}}, "", nil, 400, "", nil, nil},
		"UidAlone":        {http.Header{"Impersonate-Uid": {"x"}}, "", nil, 400, "", nil, nil},
		"TwoUids":         {http.Header{"Impersonate-User": {"bob"}, "Impersonate-Uid": {"x", "y"}}, "", nil, 400, "", nil, nil},
		"Uid":             {http.Header{"Impersonate-User": {"bob"}, "Impersonate-Uid": {"x"}}, "", nil, 200, "abc123-bob", []string{"abc123-system:authenticated"}, []string{"users//abc123-bob", "uids//x"}},
		"DeniedUid":       {http.Header{"Impersonate-User": {"bob"}, "Impersonate-Uid": {"x"}}, "uids", nil, 403, "", nil, []string{"users//abc123-bob", "uids//x"}},
		"TooManyGroups":   {http.Header{"Impersonate-User": {"bob"}, "Impersonate-Group": make([]string, 33)}, "", nil, 400, "", nil, nil},
		"OneEmptyOfMany":  {http.Header{"Impersonate-User": {"bob"}, "Impersonate-Group": {"a", ""}}, "", nil, 400, "", nil, nil},
		"TrailingControl": {http.Header{"Impersonate-User": {"bob "}}, "", nil, 400, "", nil, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var asked []string
			i := Impersonator{Reviewer: AccessReviewerFn(func(_ context.Context, a Access) (bool, error) {
				if a.User != "abc123-alice" || a.Verb != "impersonate" {
					t.Errorf("asked %+v", a)
				}
				asked = append(asked, a.Resource+"/"+a.Namespace+"/"+a.Name)
				return a.Resource != tc.refuse, tc.err
			})}
			id, err := i.Impersonate(t.Context(), sender, tc.headers)
			if code(err) != tc.want {
				t.Fatalf("Impersonate: %v, want %d", err, tc.want)
			}
			if diff := cmp.Diff(tc.asked, asked); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
			if err != nil {
				return
			}
			if id.ControlUser() != tc.user {
				t.Errorf("user %q, want %q", id.ControlUser(), tc.user)
			}
			if diff := cmp.Diff(tc.groups, id.ControlGroups()); diff != "" {
				t.Errorf("groups (-want +got):\n%s", diff)
			}
		})
	}
}
