package conformance

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vivarium.io/vivarium/internal/golden"
)

func results(t *testing.T) *Results {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "junit.xml"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func reasons(t *testing.T, text string) Reasons {
	t.Helper()
	r, err := ParseReasons([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestParse(t *testing.T) {
	got := map[string]State{}
	for _, s := range results(t).Specs {
		got[s.Name] = s.State
	}
	want := map[string]State{
		"[sig-auth] ServiceAccounts should mount an API token into pods [Conformance]":                          Passed,
		"[sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations [Conformance]": Failed,
		"[sig-auth] something [Disruptive]": Unselected,
		"[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should mutate pod [Conformance]":  Failed,
		"[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] should deny attach [Conformance]": Failed,
		"[sig-api-machinery] Garbage collector should support cascading deletion of custom resources":     Passed,
		"[sig-api-machinery] health handlers should contain necessary checks":                             Skipped,
		"[sig-node] Pods should run [Conformance]":                                                        Unselected,
		"[SynchronizedAfterSuite]": Failed,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if _, err := Parse(strings.NewReader("<testsuites></testsuites>")); err == nil {
		t.Error("a file without specs is no error")
	}
}

func TestMarkdown(t *testing.T) {
	var out strings.Builder
	known := reasons(t, "- {specs: AdmissionWebhook, reason: Admission webhooks are refused.}\n")
	if err := results(t).Markdown(&out, About{Version: "v1.36.3", Nodes: "local clusters"}, known); err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, "page.md", out.String())
}

func TestReasons(t *testing.T) {
	r := results(t)
	for name, tc := range map[string]struct {
		reasons            string
		unexplained, stale []string
	}{
		"None": {"[]", []string{"[SynchronizedAfterSuite]", "AdmissionWebhook", "AdmissionWebhook", "Certificates"}, nil},
		"OtherMessage": {
			"- {specs: AdmissionWebhook, says: webhooks are refused, reason: x}\n- {specs: Certificates, reason: x}\n",
			[]string{"[SynchronizedAfterSuite]", "suite timeout"}, nil,
		},
		"Stale":   {"- {specs: Garbage, reason: x}\n- {specs: '.*', reason: x}\n", nil, []string{"Garbage"}},
		"Unasked": {"- {specs: '\\[sig-node\\]', reason: x}\n- {specs: '.*', reason: x}\n", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			known := reasons(t, tc.reasons)
			unexplained := known.Unexplained(r)
			if len(unexplained) != len(tc.unexplained) {
				t.Fatalf("unexplained: %v", unexplained)
			}
			for i, s := range unexplained {
				if !strings.Contains(s.Name+s.Message, tc.unexplained[i]) {
					t.Errorf("unexplained %d: %v, want %s", i, s, tc.unexplained[i])
				}
			}
			var stale []string
			for _, reason := range known.Stale(r) {
				stale = append(stale, reason.Specs)
			}
			if !slices.Equal(stale, tc.stale) {
				t.Errorf("stale: %q, want %q", stale, tc.stale)
			}
		})
	}
	for name, bad := range map[string]string{
		"NoReason": "- {specs: x}\n", "Pattern": "- {specs: '(', reason: x}\n", "Unknown": "- {spec: x, reason: x}\n",
	} {
		if _, err := ParseReasons([]byte(bad)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestCommittedReasons reads the file that explains the published failures, and the page that was published with it.
func TestCommittedReasons(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "hack", "conformance", "reasons.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, reason := range reasons(t, string(raw)) {
		if !strings.HasSuffix(reason.Reason, ".") {
			t.Errorf("%q is no sentence", reason.Reason)
		}
	}
}

// TestSameKubernetes holds the suite to the version of the programs that it judges.
func TestSameKubernetes(t *testing.T) {
	version := func(folder string) string {
		raw, err := os.ReadFile(filepath.Join("..", "..", "hack", folder, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(raw)) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "k8s.io/kubernetes "); ok {
				return rest
			}
		}
		t.Fatalf("%s: no version", folder)
		return ""
	}
	if suite, programs := version("conformance"), version("kubernetes"); suite != programs {
		t.Errorf("the suite is of %s, the programs are of %s", suite, programs)
	}
}
