package ranges

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParsePrefix(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/16":        "",
		"fd00:1::/64":        "",
		"10.0.0.1/16":        "must be written as 10.0.0.0/16",
		"FD00:1::/64":        "must be written as fd00:1::/64",
		"fd00:1:0::/64":      "must be written as fd00:1::/64",
		"10.0.0.0/016":       "must be a prefix",
		"010.0.0.0/16":       "must be a prefix",
		"10.0.0.0":           "must be a prefix",
		"10.0.0.0/33":        "must be a prefix",
		" 10.0.0.0/16":       "must be a prefix",
		"::ffff:10.0.0.0/96": "must not be an IPv4 address",
		"fe80::%eth0/64":     "must be a prefix",
		"":                   "must be a prefix",
	} {
		_, err := ParsePrefix(text)
		said(t, text, err, want)
	}
}

func TestParsePrefixes(t *testing.T) {
	if got, err := ParsePrefixes([]string{"10.0.0.0/16", "fd00:1::/64"}); err != nil || len(got) != 2 || got[1] != netip.MustParsePrefix("fd00:1::/64") {
		t.Errorf("got %v, %v", got, err)
	}
	got, err := ParsePrefixes([]string{"10.0.0.0/16", "10.1.0.1/16"})
	said(t, "a list", err, `"10.1.0.1/16" must be written as 10.1.0.0/16`)
	if got != nil {
		t.Errorf("an error with prefixes: %v", got)
	}
}

func TestParseRange(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.5":            "",
		"10.0.0.5-10.0.0.9":   "",
		"10.0.0.5-10.0.0.5":   "",
		"10.0.0.16/28":        "",
		"fd00::5-fd00::9":     "",
		"10.0.0.9-10.0.0.5":   "must not end before it begins",
		"10.0.0.9-fd00::1":    "must not begin in one family",
		"10.0.0.9-":           "must be an address",
		"10.0.0.5 - 10.0.0.9": "must be an address",
		"10.0.0.17/28":        "must be written as 10.0.0.16/28",
		"::ffff:10.0.0.1":     "must not be an IPv4 address",
		"fe80::1%eth0":        "must be an address",
		"FD00::1":             "must be written as fd00::1",
	} {
		_, err := ParseRange(text)
		said(t, text, err, want)
	}
	r, err := ParseRange("10.0.0.16/28")
	if err != nil || r.First.String() != "10.0.0.16" || r.Last.String() != "10.0.0.31" {
		t.Errorf("a prefix is the range %v, %v", r, err)
	}
	if !r.Contains(netip.MustParseAddr("10.0.0.31")) || r.Contains(netip.MustParseAddr("10.0.0.32")) || r.Contains(netip.MustParseAddr("::a00:11")) {
		t.Error("the range has other addresses than its own")
	}
	if !r.Within(netip.MustParsePrefix("10.0.0.0/27")) || r.Within(netip.MustParsePrefix("10.0.0.0/28")) {
		t.Error("the range is within other prefixes than its own")
	}
}

func TestLast(t *testing.T) {
	for prefix, want := range map[string]string{"10.0.0.0/24": "10.0.0.255", "10.0.0.16/28": "10.0.0.31", "10.1.2.3/32": "10.1.2.3", "fd00::/120": "fd00::ff", "fd00::/64": "fd00::ffff:ffff:ffff:ffff"} {
		if got := Last(netip.MustParsePrefix(prefix)).String(); got != want {
			t.Errorf("the last address of %s is %s, want %s", prefix, got, want)
		}
	}
}

func TestWithinAndOverlapping(t *testing.T) {
	others := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("fd00::/48")}
	for text, want := range map[string][2]bool{
		"10.0.5.0/24":   {true, true},
		"10.0.0.0/16":   {true, true},
		"10.0.0.0/15":   {false, true},
		"10.1.0.0/16":   {false, false},
		"fd00::/64":     {true, true},
		"fd00:0:1::/48": {false, false},
	} {
		prefix := netip.MustParsePrefix(text)
		_, overlaps := Overlapping(prefix, others)
		if got := [2]bool{Within(prefix, others), overlaps}; got != want {
			t.Errorf("%s is within, overlaps: %v, want %v", text, got, want)
		}
	}
}

func TestReserved(t *testing.T) {
	for text, want := range map[string]bool{
		"10.0.0.0/16": false, "172.16.0.0/16": false, "192.168.0.0/16": false, "8.8.0.0/16": false, "fd00::/64": false, "2001:db8::/48": false,
		"0.0.0.0/16": true, "127.0.0.0/16": true, "169.254.0.0/16": true, "169.254.169.240/28": true, "100.100.0.0/16": true,
		"198.19.0.0/16": true, "224.0.0.0/16": true, "255.255.255.240/28": true, "::/64": true, "64:ff9b::/64": true,
		"fe80::/64": true, "ff02::/64": true, "fd00:76:6976::/64": true,
	} {
		if _, _, got := Reserved(netip.MustParsePrefix(text)); got != want {
			t.Errorf("%s is reserved: %t, want %t", text, got, want)
		}
	}
}

func said(t *testing.T, text string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%q is refused: %v", text, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%q: %v, want %s", text, err, want)
	}
}
