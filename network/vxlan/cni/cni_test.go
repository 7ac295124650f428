//go:build linux

package cni

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func init() { patience = 0 }

// plain is a plugin that says what it was asked.
const plain = `#!/bin/sh
cat > "$(dirname "$0")/stdin"
echo "{\"asked\": \"$CNI_COMMAND $CNI_IFNAME\"}"
`

func run(t *testing.T, command, namespace string, notes map[string]string, edit func(map[string]any)) (code int, out map[string]any) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "plain"), []byte(plain), 0o755); err != nil {
		t.Fatal(err)
	}
	config := map[string]any{
		"cniVersion": "1.0.0", "name": "node", "type": "vivarium-vpc", "dir": filepath.Join(dir, "state"),
		"namespaces": []string{"kube-system", "abc123-sly"}, "delegate": map[string]any{"type": "plain"},
		"runtimeConfig": map[string]any{annotations: notes},
	}
	if edit != nil {
		edit(config)
	}
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"CNI_COMMAND": command, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/x", "CNI_IFNAME": "eth0", "CNI_PATH": dir,
		"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=" + namespace + ";K8S_POD_NAME=p", "PATH": os.Getenv("PATH"),
	}
	var stdout bytes.Buffer
	code = Main(func(name string) string { return env[name] }, bytes.NewReader(raw), &stdout)
	if stdout.Len() > 0 {
		if err := json.Unmarshal(stdout.Bytes(), &out); err != nil {
			t.Fatalf("%v: %s", err, stdout.String())
		}
	}
	return code, out
}

// TestBindings: who is let in where; everybody else is refused, and nobody is put somewhere instead.
func TestBindings(t *testing.T) {
	bound := func(text string) map[string]string {
		return map[string]string{"network.vivarium.io/binding": text}
	}
	placed := bound("tenant=abc123,driver=vxlan,vpc=v-1,subnet=s-1")
	placed["vxlan.network.vivarium.io/place"] = `{"pod":"u-1","ips":["10.0.0.9"],"mac":"02:00:00:00:00:09"}`
	cases := map[string]struct {
		namespace string
		notes     map[string]string
		want      string // of the delegate's answer or of the refusal
	}{
		"Flat":            {"abc123-web", bound("tenant=abc123,driver=vxlan"), "ADD eth0"},
		"Platform":        {"kube-system", nil, "ADD eth0"},
		"NoBinding":       {"abc123-web", nil, "has no binding"},
		"SomeOtherPod":    {"default", nil, "has no binding"},
		"TenantInTheList": {"abc123-sly", nil, "has no binding"},
		"OtherTenant":     {"abc123-web", bound("tenant=zzz999,driver=vxlan"), "is bound as"},
		"OtherDriver":     {"abc123-web", bound("tenant=abc123,driver=flat"), "is bound as"},
		"BoundInPlatform": {"kube-system", bound("tenant=abc123,driver=vxlan"), "is bound as"},
		"Scribble":        {"abc123-web", bound("yes"), "refused"},
		"NoPlace":         {"abc123-web", bound("tenant=abc123,driver=vxlan,vpc=v-1,subnet=s-1"), "has the place"},
		"NoAgent":         {"abc123-web", placed, "not ready"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out := run(t, "ADD", tc.namespace, tc.notes, nil)
			if asked, _ := out["asked"].(string); strings.HasPrefix(tc.want, "ADD") {
				if code != 0 || asked != tc.want {
					t.Errorf("exit %d with %v; want the plain network", code, out)
				}
				return
			}
			if message, _ := out["msg"].(string); code == 0 || out["asked"] != nil || !strings.Contains(message, tc.want) {
				t.Errorf("exit %d with %v; want a refusal with %q", code, out, tc.want)
			}
		})
	}
}

// TestThroughMultus: what Multus was asked for counts as a pod's annotations do, and only where nothing else is there.
func TestThroughMultus(t *testing.T) {
	const text = "tenant=abc123,driver=multus,vpc=v-1,subnet=s-1"
	place := `{"pod":"u-1","ips":["10.0.0.9"],"mac":"02:00:00:00:00:09"}`
	cases := map[string]struct {
		namespace string
		args      map[string]any
		notes     map[string]string
		want      string
	}{
		"Placed":        {"abc123-web", map[string]any{"network.vivarium.io/binding": text, "vxlan.network.vivarium.io/place": place}, nil, "not ready"},
		"NoPlace":       {"abc123-web", map[string]any{"network.vivarium.io/binding": text}, nil, "has the place"},
		"NothingAsked":  {"abc123-web", nil, nil, "has no binding"},
		"OtherTenant":   {"zzz999-web", map[string]any{"network.vivarium.io/binding": text, "vxlan.network.vivarium.io/place": place}, nil, "is bound as"},
		"ForTheRuntime": {"abc123-web", map[string]any{"network.vivarium.io/binding": "tenant=abc123,driver=vxlan,vpc=v-1,subnet=s-1"}, nil, "is bound as"},
		"NotByMultus":   {"abc123-web", nil, map[string]string{"network.vivarium.io/binding": text}, "is bound as"},
		"Twice": {"abc123-web", map[string]any{"network.vivarium.io/binding": text, "vxlan.network.vivarium.io/place": place},
			map[string]string{"network.vivarium.io/binding": "tenant=abc123,driver=vxlan"}, "by its runtime and by Multus"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out := run(t, "ADD", tc.namespace, tc.notes, func(c map[string]any) { c["args"] = map[string]any{"cni": tc.args} })
			if message, _ := out["msg"].(string); code == 0 || out["asked"] != nil || !strings.Contains(message, tc.want) {
				t.Errorf("exit %d with %v; want a refusal with %q", code, out, tc.want)
			}
		})
	}
}

// TestDel: a container that nothing is known of is the plain network's to forget, as often as the runtime likes.
func TestDel(t *testing.T) {
	for range 2 {
		if code, out := run(t, "DEL", "abc123-web", nil, nil); code != 0 || out["asked"] != "DEL eth0" {
			t.Errorf("exit %d with %v", code, out)
		}
	}
	if code, out := run(t, "DEL", "abc123-web", nil, func(c map[string]any) { delete(c, "delegate") }); code != 0 {
		t.Errorf("without a plain network: exit %d with %v", code, out)
	}
}

func TestProtocol(t *testing.T) {
	if code, out := run(t, "VERSION", "", nil, nil); code != 0 || out["supportedVersions"] == nil {
		t.Errorf("VERSION: exit %d with %v", code, out)
	}
	if code, out := run(t, "ADD", "kube-system", nil, func(c map[string]any) { c["cniVersion"] = "9.0.0" }); code == 0 || out["code"] != float64(1) {
		t.Errorf("a version from the future: exit %d with %v", code, out)
	}
	if code, _ := run(t, "ADD", "kube-system", nil, func(c map[string]any) { c["delegate"] = map[string]any{"type": "../plain"} }); code == 0 {
		t.Error("a plugin outside of the plugins' directory runs")
	}
}
