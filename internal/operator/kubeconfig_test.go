package operator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vivarium.io/vivarium/internal/pools"
)

const goodKubeconfig = `apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}, {name: other, context: {cluster: k, user: u2}}]
clusters: [{name: k, cluster: {server: "https://192.0.2.1:6443", certificate-authority-data: Y2E=}}]
users:
- {name: u, user: {token: secret-token}}
- {name: u2, user: {token: other-token}}
`

func TestReadKubeconfig(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"ca.crt": "CA", "client.crt": "CERT", "client.key": "KEY", "token": "file-token\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	user := func(u string) string { return strings.Replace(goodKubeconfig, "{token: secret-token}", u, 1) }
	cluster := func(c string) string {
		return strings.Replace(goodKubeconfig, `{server: "https://192.0.2.1:6443", certificate-authority-data: Y2E=}`, c, 1)
	}
	cases := map[string]struct {
		reason, content string
		// want are parts of the result or, after "error:", of the error.
		want, not []string
	}{
		"Good":          {"the current context alone crosses", goodKubeconfig, []string{"secret-token"}, []string{"other-token"}},
		"FilesAreRead":  {"the operator's own files are put in", user("{client-certificate: client.crt, client-key: client.key}"), []string{"Q0VSVA==", "S0VZ"}, []string{"client.crt"}},
		"TokenFile":     {"likewise", user("{tokenFile: token}"), []string{"file-token"}, []string{"tokenFile"}},
		"CAFile":        {"likewise", cluster(`{server: "https://192.0.2.1:6443", certificate-authority: ca.crt}`), []string{"Q0E="}, []string{"ca.crt"}},
		"MissingFile":   {"a file that is not there", user("{client-certificate: nope.crt, client-key: client.key}"), []string{"error:", "nope.crt"}, nil},
		"Garbage":       {"not YAML", "{{{", []string{"error:", "is not a kubeconfig"}, nil},
		"OtherYAML":     {"YAML of another kind", "apiVersion: v1\nkind: ConfigMap\ndata: {a: b}\n", []string{"error:", "is not a kubeconfig"}, nil},
		"Empty":         {"nothing", "", []string{"error:", "is not a kubeconfig"}, nil},
		"ExecPlugin":    {"would run a program in the platform", user(`{exec: {apiVersion: client.authentication.k8s.io/v1, command: aws, interactiveMode: Never}}`), []string{"error:", "exec plugins are refused"}, nil},
		"AuthProvider":  {"likewise", user(`{auth-provider: {name: gcp}}`), []string{"error:", "auth-provider is refused"}, nil},
		"Insecure":      {"anybody could answer", cluster(`{server: "https://192.0.2.1:6443", insecure-skip-tls-verify: true}`), []string{"error:", "insecure-skip-tls-verify"}, nil},
		"PlainHTTP":     {"credentials in the clear", cluster(`{server: "http://192.0.2.1:8080"}`), []string{"error:", "https"}, nil},
		"NoContext":     {"which of the two is meant?", strings.Replace(goodKubeconfig, "current-context: c\n", "", 1), []string{"error:", "current-context"}, nil},
		"WrongContext":  {"names what is not there", strings.Replace(goodKubeconfig, "current-context: c\n", "current-context: x\n", 1), []string{"error:", `"x"`}, nil},
		"NoCredentials": {"nobody", user("{}"), []string{"error:", "neither a token nor"}, nil},
		"Impersonation": {"would act as somebody else", user("{token: t, as: admin}"), []string{"error:", "impersonation"}, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, name+".kubeconfig")
			if err := os.WriteFile(file, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			raw, err := ReadKubeconfig(file)
			got := string(raw)
			if err != nil {
				got = "error: " + err.Error()
				if strings.Contains(got, "\n") {
					t.Errorf("more than one line: %s", got)
				}
				if !strings.Contains(got, "--kubeconfig") {
					t.Errorf("does not name its flag: %s", got)
				}
			} else if _, err := pools.ParseKubeconfig(raw); err != nil {
				t.Errorf("the result is refused later: %v", err)
			}
			for _, want := range tc.want {
				if !strings.Contains(got, want) {
					t.Errorf("%s: %q is not in:\n%s", tc.reason, want, got)
				}
			}
			for _, not := range append(tc.not, "secret-token-leak") {
				if strings.Contains(got, not) {
					t.Errorf("%s: %q is in:\n%s", tc.reason, not, got)
				}
			}
			if err != nil && strings.Contains(err.Error(), "secret-token") {
				t.Error("the error holds a credential")
			}
		})
	}
	if _, err := ReadKubeconfig(filepath.Join(dir, "absent")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("an absent file: %v", err)
	}
}
