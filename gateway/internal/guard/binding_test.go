package guard

import (
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestBindings sends whatever could make a binding of a tenant's bind a policy that the control cluster has.
func TestBindings(t *testing.T) {
	const (
		all = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
		one = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings/abc123-a"

		own, real, foreign = "of-tenant.abc123-p", "abc123-p", "of-tenant.zzz999-p"
	)
	wire := func(policy string) string {
		raw, err := (&admissionregistrationv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "abc123-a"}, Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: policy},
		}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		// The object is field 2 of what stands around it; it is shorter than 128 bytes.
		return "k8s\x00\x12" + string(rune(len(raw))) + string(raw)
	}
	whole := func(policy string) string {
		return `{"metadata":{"name":"abc123-a"},"spec":{"policyName":"` + policy + `"}}`
	}
	const merge, patch, apply = "application/merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml"
	cases := map[string]struct {
		method, uri, contentType, body string
		want                           bool
	}{
		"Create":          {"POST", all, "application/json", whole(own), true},
		"CreateReal":      {"POST", all, "application/json", whole(real), false},
		"CreatePlatform":  {"POST", all, "application/json", whole("vivarium-tenant-scope"), false},
		"CreateForeign":   {"POST", all, "application/json", whole(foreign), false},
		"CreateBare":      {"POST", all, "application/json", strings.ReplaceAll(whole(own), "abc123-a", "a"), false},
		"OtherCase":       {"PUT", one, "application/json", strings.ReplaceAll(whole(real), "policyName", "PolicyName"), false},
		"NoString":        {"PUT", one, "application/json", `{"spec":{"policyName":["abc123-p"]}}`, false},
		"Wire":            {"POST", all, "application/vnd.kubernetes.protobuf", wire(own), true},
		"WireReal":        {"POST", all, "application/vnd.kubernetes.protobuf", wire(real), false},
		"Merge":           {"PATCH", one, merge, `{"spec":{"policyName":"` + own + `"}}`, true},
		"MergeElse":       {"PATCH", one, merge, `{"metadata":{"labels":{"a":"b"}}}`, true},
		"MergeReal":       {"PATCH", one, merge, `{"spec":{"policyName":"` + real + `"}}`, false},
		"Apply":           {"PATCH", one, apply, whole(own), true},
		"ApplyReal":       {"PATCH", one, apply, whole(real), false},
		"ApplyYAML":       {"PATCH", one, apply, "spec: {policyName: abc123-p}", false},
		"Patch":           {"PATCH", one, patch, `[{"op":"replace","path":"/spec/policyName","value":"` + own + `"}]`, true},
		"PatchElse":       {"PATCH", one, patch, `[{"op":"add","path":"/metadata/labels/a","value":"b"}]`, true},
		"PatchReal":       {"PATCH", one, patch, `[{"op":"replace","path":"/spec/policyName","value":"` + real + `"}]`, false},
		"PatchSpec":       {"PATCH", one, patch, `[{"op":"replace","path":"/spec","value":{"policyName":"` + real + `"}}]`, false},
		"PatchCopy":       {"PATCH", one, patch, `[{"op":"copy","from":"/metadata/name","path":"/spec/policyName"}]`, false},
		"PatchMoveSpec":   {"PATCH", one, patch, `[{"op":"move","from":"/metadata/x","path":"/spec"}]`, false},
		"UnknownType":     {"PATCH", one, "application/yaml", whole(own), false},
		"Delete":          {"DELETE", one, "", "", true},
		"DeleteForeign":   {"DELETE", strings.ReplaceAll(one, "abc123", "zzz999"), "", "", false},
		"DeletePlatform":  {"DELETE", all + "/vivarium-tenant-scope", "", "", false},
		"DeleteAll":       {"DELETE", all, "", "", false},
		"PolicyStatus":    {"PUT", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/abc123-p/status", "application/json", `{}`, true},
		"PlatformsPolicy": {"PUT", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/vivarium-tenant-scope", "application/json", `{}`, false},
		"Webhook":         {"PUT", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/abc123-a", "application/json", `{}`, false},
		// A tenant's own kind may be called the same.
		"OwnKind": {"PUT", "/apis/abc123-example.com/v1/validatingadmissionpolicybindings/abc123-a", "application/json", whole("anything"), true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			h := good()
			if c.contentType != "" {
				h = h.Clone()
				h.Set("Content-Type", c.contentType)
			}
			if err := send(t, "abc123", c.method, c.uri, c.body, h); (err == nil) != c.want {
				t.Errorf("%v, let through should be %v", err, c.want)
			}
		})
	}
}
