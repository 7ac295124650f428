package tenants

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// authority makes a CA that is good for the given time.
func authority(t *testing.T, now time.Time, life time.Duration) *Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "tenants"}, NotBefore: now.Add(-2 * certificateLife), NotAfter: now.Add(life),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &Authority{cert: cert, key: key}
}

func TestRefresh(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	const long = 10 * certificateLife
	who := principal{id: "abc123", uid: "uid-1"}
	to := access{server: "https://gateway.vivarium.test:6443", servingCA: []byte("CA")}
	ca, other, short := authority(t, now, long), authority(t, now, long), authority(t, now, 10*24*time.Hour)
	type call struct {
		ca        *Authority
		who       principal
		to        access
		notBefore time.Time
		now       time.Time
	}
	issued := func(c call) string {
		t.Helper()
		annotation, _, err := c.ca.refresh("", c.who, c.to, c.notBefore, c.now)
		if err != nil {
			t.Fatal(err)
		}
		return annotation
	}
	first := call{ca, who, to, time.Time{}, now}
	change := func(f func(*call)) call {
		c := first
		f(&c)
		return c
	}
	cases := map[string]struct {
		reason string
		have   string
		then   call
		// What is to be the same afterwards.
		annotation, certificate bool
	}{
		"Same":         {"nothing changed", issued(first), first, true, true},
		"Later":        {"half its life is left", issued(first), change(func(c *call) { c.now = now.Add(certificateLife / 2) }), true, true},
		"Expiring":     {"less than a month is left", issued(first), change(func(c *call) { c.now = now.Add(certificateLife - 29*24*time.Hour) }), false, false},
		"Expired":      {"it is over", issued(first), change(func(c *call) { c.now = now.Add(certificateLife + time.Hour) }), false, false},
		"Revoked":      {"it was issued before", issued(first), change(func(c *call) { c.notBefore = now }), false, false},
		"RevokedEarly": {"it was issued after", issued(first), change(func(c *call) { c.notBefore = now.Add(-time.Hour) }), true, true},
		"IssuedSince":  {"it starts with the revocation", issued(change(func(c *call) { c.notBefore = now })), change(func(c *call) { c.notBefore = now }), true, true},
		"AnotherUID":   {"it is of an earlier tenant of this name", issued(first), change(func(c *call) { c.who.uid = "uid-2" }), false, false},
		"AnotherID":    {"it is another tenant's", issued(first), change(func(c *call) { c.who.id = "zzz999" }), false, false},
		"AnotherCA":    {"its CA signs no more", issued(first), change(func(c *call) { c.ca = other }), false, false},
		"Moved":        {"the gateway has another address", issued(first), change(func(c *call) { c.to.server = "https://b" }), false, true},
		"AnotherServ":  {"the gateway has another CA", issued(first), change(func(c *call) { c.to.servingCA = []byte("B") }), false, true},
		"Nonsense":     {"it is no kubeconfig", base64.StdEncoding.EncodeToString([]byte("{}")), first, false, false},
		"NoBase64":     {"it is not even base64", "%", first, false, false},
		"ShortCA":      {"a CA near its end signs as long as it can", issued(change(func(c *call) { c.ca = short })), change(func(c *call) { c.ca = short; c.now = now.Add(24 * time.Hour) }), true, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, expiry, err := tc.then.ca.refresh(tc.have, tc.then.who, tc.then.to, tc.then.notBefore, tc.then.now)
			if err != nil {
				t.Fatal(err)
			}
			if (got == tc.have) != tc.annotation {
				t.Errorf("annotation kept: %t, want %t: %s", got == tc.have, tc.annotation, tc.reason)
			}
			after, err := parseCredentials(got)
			if err != nil {
				t.Fatal(err)
			}
			before, err := parseCredentials(tc.have)
			if kept := err == nil && before.cert.Equal(after.cert); kept != tc.certificate {
				t.Errorf("certificate kept: %t, want %t: %s", kept, tc.certificate, tc.reason)
			}
			if err := tc.then.ca.good(after.cert, tc.then.who, tc.then.notBefore, tc.then.now); err != nil {
				t.Errorf("what was issued is not good: %v", err)
			}
			if !expiry.Equal(after.cert.NotAfter) || expiry.After(tc.then.ca.cert.NotAfter) {
				t.Errorf("expires %s, says %s", after.cert.NotAfter, expiry)
			}
			if after.server != tc.then.to.server || string(after.servingCA) != string(tc.then.to.servingCA) {
				t.Errorf("leads to %s", after.server)
			}
		})
	}
}

func TestKubeconfigIsUsable(t *testing.T) {
	now := time.Now()
	ca := authority(t, now, certificateLife)
	annotation, _, err := ca.refresh("", principal{id: "abc123", uid: "uid-1"}, access{server: "https://gateway.vivarium.test:6443", servingCA: []byte("CA")}, time.Time{}, now)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(annotation)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.Load(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := clientcmd.Validate(*config); err != nil {
		t.Error(err)
	}
	if context := config.Contexts["abc123"]; config.CurrentContext != "abc123" || context == nil || context.Namespace != "default" {
		t.Errorf("context %q: %+v", config.CurrentContext, context)
	}
}

func TestTiers(t *testing.T) {
	for weight, want := range map[int32]string{1: "vivarium-tier-low", 9: "vivarium-tier-low", 10: "vivarium-tier-medium", 49: "vivarium-tier-medium", 50: "vivarium-tier-high", 100: "vivarium-tier-high"} {
		if got := tierOf(weight).name; got != want {
			t.Errorf("weight %d: %s, want %s", weight, got, want)
		}
	}
	for weight, want := range map[int32]int32{1: 1, 2: 1, 3: 2, 10: 5, 100: 50} {
		if got := *ownLevel("abc123", weight).Spec.Limited.NominalConcurrencyShares; got != want {
			t.Errorf("weight %d: %d shares, want %d", weight, got, want)
		}
	}
	if flowSchema("abc123", "vivarium-tier-low").Spec.DistinguisherMethod != nil {
		t.Error("a tenant with many users is many flows in a shared level")
	}
	if got := flowSchema("abc123", "abc123-tenant-requests").Spec.Rules[0].Subjects[0].Group.Name; got != "abc123-system:authenticated" {
		t.Errorf("the schema matches group %q", got)
	}
}
