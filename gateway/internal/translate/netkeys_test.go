package translate

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// place is where a kind has annotations or labels that end up on a pod, its namespace or its Service.
type place struct {
	kind Kind
	path []string // of the metadata
}

func (p place) String() string { return p.kind.Kind + " " + strings.Join(p.path, ".") }

// places are all there are: the kind itself, or the template inside.
func places() []place {
	metadata, template := []string{"metadata"}, []string{"spec", "template", "metadata"}
	of := func(group, version, resource, kind string) Kind {
		return Kind{Group: group, Version: version, Resource: resource, Kind: kind, Namespaced: true}
	}
	pod := func(subresource string) place {
		return place{Kind{Version: "v1", Resource: "pods", Kind: "Pod", Namespaced: true, Subresource: subresource}, metadata}
	}
	return []place{
		{pods, metadata}, pod("status"), pod("resize"), pod("ephemeralcontainers"),
		{namespaces, metadata}, {Kind{Version: "v1", Resource: "namespaces", Kind: "Namespace", Subresource: "status"}, metadata},
		{Kind{Version: "v1", Resource: "namespaces", Kind: "Namespace", Subresource: "finalize"}, metadata},
		{services, metadata},
		{of("", "v1", "podtemplates", "PodTemplate"), []string{"template", "metadata"}},
		{of("", "v1", "replicationcontrollers", "ReplicationController"), template},
		{deployments, template}, {of("apps", "v1", "replicasets", "ReplicaSet"), template}, {of("apps", "v1", "statefulsets", "StatefulSet"), template},
		{of("apps", "v1", "controllerrevisions", "ControllerRevision"), []string{"data", "spec", "template", "metadata"}},
		{of("batch", "v1", "jobs", "Job"), template},
		{of("batch", "v1", "cronjobs", "CronJob"), []string{"spec", "jobTemplate", "spec", "template", "metadata"}},
	}
}

// write is one way to bring a key to a place.
type write struct{ name, verb, media, body string }

// writes are all ways to put a value under a key, annotations or labels, for a place.
func writes(p place, field, key, value string) []write {
	nested := func(inner string, path ...string) string {
		for i := len(path) - 1; i >= 0; i-- {
			inner = fmt.Sprintf("{%q:%s}", path[i], inner)
		}
		return inner
	}
	full := append(append([]string{}, p.path...), field)
	body := nested(fmt.Sprintf("{%q:%s}", key, value), full...)
	pointer := "/" + strings.Join(full, "/")
	escaped := strings.ReplaceAll(key, "/", "~1")
	patch := func(op string) string {
		return fmt.Sprintf(`[{"op":%q,"path":"%s/%s","value":%s}]`, op, pointer, escaped, value)
	}
	all := []write{
		{"create", "create", "", body},
		{"update", "update", "", strings.Replace(body, key, strings.Replace(key, "o", `\u006f`, 1), 1)},
		{"merge", "patch", merge0, body},
		{"strategic", "patch", strategic, body},
		{"apply", "patch", apply, fmt.Sprintf(`{"apiVersion":%q,"kind":%q,`, strings.TrimPrefix(p.kind.Group+"/"+p.kind.Version, "/"), p.kind.Kind) + body[1:]},
		{"add", "patch", jsonPatch, patch("add")},
		{"replace", "patch", jsonPatch, patch("replace")},
		{"addAll", "patch", jsonPatch, fmt.Sprintf(`[{"op":"add","path":%q,"value":{%q:%s}}]`, pointer, key, value)},
		{"addMeta", "patch", jsonPatch, fmt.Sprintf(`[{"op":"add","path":%q,"value":{%q:{%q:%s}}}]`, "/"+strings.Join(p.path, "/"), field, key, value)},
		{"copy", "patch", jsonPatch, fmt.Sprintf(`[{"op":"copy","from":"%s/x","path":"%s/%s"}]`, pointer, pointer, escaped)},
		{"move", "patch", jsonPatch, fmt.Sprintf(`[{"op":"move","from":"/metadata/labels/x","path":"%s/%s"}]`, pointer, escaped)},
	}
	// What is refused whatever it holds is no attack: all of a namespace's metadata, parts of a revision.
	return slices.DeleteFunc(all, func(w write) bool {
		return p.kind.Kind == "Namespace" && w.name == "addMeta" || p.kind.Kind == "ControllerRevision" && w.media == jsonPatch
	})
}

// send brings a write to control as its tenant sends it.
func (p place) send(v View, w write) (string, error) {
	namespace, object := "", "p"
	if p.kind.Namespaced {
		namespace = "default"
	}
	if w.verb == "create" && p.kind.Subresource == "" {
		object = ""
	}
	out, _, err := v.BodyToControl(p.kind, w.verb, w.media, []byte(w.body), namespace, object)
	return string(out), err
}

// TestNetworkKeysOfOthers tries to bring keys by which plugins and clouds choose networks, and the platform's own, to every
// place in every way: none comes through.
func TestNetworkKeysOfOthers(t *testing.T) {
	keys := []string{
		"network.vivarium.io/binding", "network.vivarium.io/hosts", "network.vivarium.io/subnet", "Network.vivarium.io/ip",
		"ovn.kubernetes.io/logical_switch", "net1.default.ovn.kubernetes.io/ip_address", "attach.kubernetes.io/mac_address.0",
		"k8s.v1.cni.cncf.io/networks", "v1.multus-cni.io/default-network", "cni.projectcalico.org/ipAddrs", "cni",
		"k8s.ovn.org/primary-user-defined-network", "io.cilium/x", "k8s.aliyun.com/eci-vswitch", "vke.volcengine.com/preferred-subnet-ids",
		"vpc.amazonaws.com/pod-ips", "networking.gke.io/interfaces", "ncp/subnets",
	}
	flat := view
	flat.VPC = false
	for _, p := range places() {
		for _, field := range []string{"annotations", "labels"} {
			for _, key := range keys {
				for _, w := range writes(p, field, key, `"x"`) {
					for _, v := range []View{view, flat} {
						out, err := p.send(v, w)
						var refusal *Error
						if !errors.As(err, &refusal) || refusal.Code != http.StatusForbidden && refusal.Code != http.StatusUnprocessableEntity {
							t.Errorf("%s, %s, %s: %s comes through: %v %.200s", p, field, w.name, key, err, out)
						} else if !strings.Contains(strings.ToLower(refusal.Error()), strings.ToLower(key)) {
							t.Errorf("%s, %s, %s: the refusal does not name %s: %v", p, field, w.name, key, err)
						}
					}
				}
			}
		}
	}
}

// TestNetworkKeysOfTenants shows who may set the four keys, where, and to what.
func TestNetworkKeysOfTenants(t *testing.T) {
	good := map[string]string{"subnets": "web,db", "ip": "10.0.1.5", "security-groups": "web", "bandwidth": "10M"}
	bad := map[string]string{"subnets": "Web", "ip": "10.0.1", "security-groups": "a,,b", "bandwidth": "fast"}
	flat := view
	flat.VPC = false
	for _, p := range places() {
		for name := range good {
			key := "network.vivarium.io/" + name
			mayHave := p.kind.Kind != "Service" && (p.kind.Kind != "Namespace" || name != "ip")
			for _, w := range writes(p, "annotations", key, fmt.Sprintf("%q", good[name])) {
				out, err := p.send(view, w)
				switch {
				case w.name == "copy" || w.name == "move":
					// Nobody has seen the value.
					if err == nil {
						t.Errorf("%s: %s of %s: comes through unseen", p, w.name, key)
					}
				case mayHave && (err != nil || !strings.Contains(strings.ReplaceAll(strings.ReplaceAll(out, "~1", "/"), `\u006f`, "o"), key)):
					t.Errorf("%s: %s of %s: %v %s", p, w.name, key, err, out)
				case !mayHave && err == nil:
					t.Errorf("%s: %s of %s comes through", p, w.name, key)
				}
				if _, err := p.send(flat, w); err == nil {
					t.Errorf("%s: %s of %s comes through for a tenant without a VPC", p, w.name, key)
				}
			}
			for _, value := range []string{fmt.Sprintf("%q", bad[name]), `""`, "7", "{}", "[]"} {
				for _, w := range writes(p, "annotations", key, value) {
					if _, err := p.send(view, w); err == nil {
						t.Errorf("%s: %s of %s=%s comes through", p, w.name, key, value)
					}
				}
			}
			for _, w := range writes(p, "labels", key, fmt.Sprintf("%q", good[name])) {
				if _, err := p.send(view, w); err == nil {
					t.Errorf("%s: %s of label %s comes through", p, w.name, key)
				}
			}
		}
	}
	// What a tenant has set it can take away.
	for _, w := range []write{
		{"merge", "patch", merge0, `{"metadata":{"annotations":{"network.vivarium.io/ip":null}}}`},
		{"remove", "patch", jsonPatch, `[{"op":"remove","path":"/metadata/annotations/network.vivarium.io~1ip"}]`},
	} {
		if _, err := (place{pods, nil}).send(view, w); err != nil {
			t.Errorf("%s: %v", w.name, err)
		}
	}
	for value, want := range map[string]string{
		`{"metadata":{"annotations":{"network.vivarium.io/subnets":"a b"}}}`: `"a b" is no name`,
		`{"metadata":{"annotations":{"network.vivarium.io/ip":"x"}}}`:        `the value of network.vivarium.io/ip must be an address`,
	} {
		if _, err := (place{pods, nil}).send(view, write{"", "create", "", value}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
}
