package translate

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

var (
	deployments  = Kind{Group: "apps", Version: "v1", Resource: "deployments", Kind: "Deployment", Namespaced: true}
	namespaces   = Kind{Version: "v1", Resource: "namespaces", Kind: "Namespace"}
	configMaps   = Kind{Version: "v1", Resource: "configmaps", Kind: "ConfigMap", Namespaced: true}
	services     = Kind{Version: "v1", Resource: "services", Kind: "Service", Namespaced: true}
	secrets      = Kind{Version: "v1", Resource: "secrets", Kind: "Secret", Namespaced: true}
	events       = Kind{Version: "v1", Resource: "events", Kind: "Event", Namespaced: true}
	nodes        = Kind{Version: "v1", Resource: "nodes", Kind: "Node"}
	quotas       = Kind{Version: "v1", Resource: "resourcequotas", Kind: "ResourceQuota", Namespaced: true}
	policies     = Kind{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies", Kind: "NetworkPolicy", Namespaced: true}
	clusterRoles = Kind{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles", Kind: "ClusterRole"}
	clusterBinds = Kind{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings", Kind: "ClusterRoleBinding"}
	roles        = Kind{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles", Kind: "Role", Namespaced: true}
	bindings     = Kind{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings", Kind: "RoleBinding", Namespaced: true}
	tokenRequest = Kind{Version: "v1", Resource: "serviceaccounts", Kind: "ServiceAccount", Namespaced: true, Subresource: "token"}
)

const (
	merge0    = "application/merge-patch+json"
	strategic = "application/strategic-merge-patch+json"
	jsonPatch = "application/json-patch+json"
	apply     = "application/apply-patch+yaml"
)

func TestRefusals(t *testing.T) {
	pod := func(spec string) string {
		return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{` + spec + `}}`
	}
	deployment := func(template string) string {
		return `{"metadata":{"name":"p"},"spec":{"template":{` + template + `}}}`
	}
	cases := map[string]struct {
		reason string
		kind   Kind
		verb   string
		media  string
		body   string
		code   int
		says   string
	}{
		"PlatformLabel":        {"the platform's keys are its own", configMaps, "create", "", `{"metadata":{"labels":{"vivarium.io/tenant":"x"}}}`, 403, "vivarium.io/tenant"},
		"PlatformAnnotation":   {"annotations too", configMaps, "update", "", `{"metadata":{"annotations":{"network.vivarium.io/ip":"x"}}}`, 403, "network.vivarium.io/ip"},
		"PlatformKeyEscaped":   {"an escape does not hide a key", configMaps, "update", "", `{"metadata":{"annotations":{"vivarium\u002eio/x":"x"}}}`, 403, "vivarium.io/x"},
		"PlatformTemplate":     {"a template's keys end up on pods", deployments, "create", "", deployment(`"metadata":{"labels":{"vivarium.io/pool":"x"}}`), 403, "vivarium.io/pool"},
		"PlatformMerge":        {"also when deleted", configMaps, "patch", merge0, `{"metadata":{"labels":{"vivarium.io/tenant":null}}}`, 403, "vivarium.io/tenant"},
		"PlatformStrategic":    {"in every kind of patch", configMaps, "patch", strategic, `{"metadata":{"labels":{"vivarium.io/tenant":"x"}}}`, 403, "vivarium.io/tenant"},
		"PlatformJSONPatch":    {"by path", configMaps, "patch", jsonPatch, `[{"op":"add","path":"/metadata/labels/vivarium.io~1tenant","value":"x"}]`, 403, "vivarium.io/tenant"},
		"PlatformJSONPatchAll": {"by value", configMaps, "patch", jsonPatch, `[{"op":"add","path":"/metadata","value":{"labels":{"vivarium.io/tenant":"x"}}}]`, 403, "vivarium.io/tenant"},
		"PlatformRemove":       {"removal", namespaces, "patch", jsonPatch, `[{"op":"remove","path":"/metadata/labels/vivarium.io~1tenant"}]`, 403, "vivarium.io/tenant"},
		"PlatformMove":         {"as the end of a move", configMaps, "patch", jsonPatch, `[{"op":"move","from":"/metadata/labels/a","path":"/metadata/labels/vivarium.io~1tenant"}]`, 403, "vivarium.io/tenant"},
		"PlatformApply":        {"in YAML", configMaps, "patch", apply, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: p, labels: {vivarium.io/tenant: x}}", 403, "vivarium.io/tenant"},
		"NetworkKey":           {"a network plugin's key", pods, "create", "", `{"metadata":{"annotations":{"k8s.v1.cni.cncf.io/networks":"x"}}}`, 403, "k8s.v1.cni.cncf.io/networks"},
		"NetworkKeyTemplate":   {"in a template", deployments, "create", "", deployment(`"metadata":{"annotations":{"ovn.kubernetes.io/logical_switch":"x"}}`), 403, "logical_switch"},
		"NetworkKeyService":    {"on a Service", services, "patch", merge0, `{"metadata":{"annotations":{"ovn.kubernetes.io/vpc":"x"}}}`, 403, "ovn.kubernetes.io/vpc"},
		"PodSecurityLevel":     {"a level that there is not", namespaces, "create", "", `{"metadata":{"name":"n","labels":{"pod-security.kubernetes.io/enforce":"none"}}}`, 422, "must be one of privileged, baseline, restricted"},
		"PodSecurityVersion":   {"a version that there is not", namespaces, "patch", merge0, `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce-version":"new"}}}`, 422, "must be \"latest\""},
		"PodSecurityPlatform":  {"what the platform keeps by", namespaces, "create", "", `{"metadata":{"name":"n","labels":{"pod-security.vivarium.io/enforce":"restricted"}}}`, 403, "pod-security.vivarium.io/enforce"},
		"PodSecurityMove":      {"the value decides what is enforced", namespaces, "patch", jsonPatch, `[{"op":"move","from":"/metadata/labels/a","path":"/metadata/labels/pod-security.kubernetes.io~1enforce"}]`, 422, "set the value itself"},
		"NamespaceScheduler":   {"node selectors of a namespace", namespaces, "create", "", `{"metadata":{"name":"n","annotations":{"scheduler.alpha.kubernetes.io/node-selector":"x=y"}}}`, 403, "scheduler.alpha"},
		"NamespaceLabelsNull":  {"would unlabel the namespace", namespaces, "patch", merge0, `{"metadata":{"labels":null}}`, 422, "metadata.labels"},
		"NamespaceMetaNull":    {"would unlabel the namespace", namespaces, "patch", merge0, `{"metadata":null}`, 422, "metadata"},
		"NamespaceReplace":     {"would unlabel the namespace", namespaces, "patch", strategic, `{"metadata":{"labels":{"$patch":"replace","a":"b"}}}`, 422, "labels"},
		"NamespaceReplaceMeta": {"would unlabel the namespace", namespaces, "patch", strategic, `{"metadata":{"$patch":"replace","name":"x"}}`, 422, "labels"},
		"NamespaceReplaceRoot": {"would unlabel the namespace", namespaces, "patch", strategic, `{"$patch":"replace","metadata":{}}`, 422, "labels"},
		"NamespaceRetain":      {"would unlabel the namespace", namespaces, "patch", strategic, `{"metadata":{"$retainKeys":["name"]}}`, 422, "labels"},
		"NamespaceRemove":      {"would unlabel the namespace", namespaces, "patch", jsonPatch, `[{"op":"remove","path":"/metadata/labels"}]`, 422, "labels"},
		"NamespaceRemoveMeta":  {"would unlabel the namespace", namespaces, "patch", jsonPatch, `[{"op":"replace","path":"/metadata","value":{}}]`, 422, "labels"},
		"NamespaceMoveLabels":  {"would unlabel the namespace", namespaces, "patch", jsonPatch, `[{"op":"move","from":"/metadata/labels","path":"/metadata/annotations"}]`, 422, "move"},
		"NamespaceTooLong":     {"57 characters", namespaces, "create", "", `{"metadata":{"name":"` + strings.Repeat("n", 57) + `"}}`, 422, "56"},
		"NodeName":             {"placing is the scheduler's", pods, "create", "", pod(`"nodeName":"pool-a-0"`), 403, "nodeSelector"},
		"NodeNameApply":        {"by apply, which creates", pods, "patch", apply, pod(`"nodeName":"pool-a-0"`), 403, "spec.nodeName"},
		"NodeNameTemplate":     {"in templates always", deployments, "patch", merge0, deployment(`"spec":{"nodeName":"pool-a-0"}`), 403, "spec.template.spec.nodeName"},
		"NodeNameTemplatePath": {"by path", deployments, "patch", jsonPatch, `[{"op":"add","path":"/spec/template/spec/nodeName","value":"x"}]`, 403, "nodeName"},
		"Scheduler":            {"there is one", pods, "create", "", pod(`"schedulerName":"mine"`), 403, "mine"},
		"SystemPriority":       {"the operator's", pods, "create", "", pod(`"priorityClassName":"system-node-critical"`), 403, "system-node-critical"},
		"ExternalIPs":          {"taking addresses", services, "create", "", `{"spec":{"externalIPs":["1.2.3.4"]}}`, 403, "spec.externalIPs"},
		"ExternalIPsPatch":     {"one by one", services, "patch", jsonPatch, `[{"op":"add","path":"/spec/externalIPs/-","value":"1.2.3.4"}]`, 403, "externalIPs"},
		"TokenOfNode":          {"tells what nodes there are", tokenRequest, "create", "", `{"spec":{"boundObjectRef":{"apiVersion":"v1","kind":"Node","name":"n"}}}`, 403, "a token can be bound to a Pod or a Secret"},
		"TokenSecret":          {"long-lived tokens work at control", secrets, "create", "", `{"type":"kubernetes.io/service-account-token"}`, 403, "token"},
		"Audience":             {"a token for the API server itself", tokenRequest, "create", "", `{"spec":{"audiences":["https://kubernetes.default.svc"]}}`, 403, "spec.audiences"},
		"AudienceProjected":    {"the same in a pod", pods, "create", "", pod(`"volumes":[{"projected":{"sources":[{"serviceAccountToken":{"audience":"https://kubernetes.default.svc","path":"t"}}]}}]`), 403, "audience"},
		"NodeWrite":            {"nodes are read-only", nodes, "patch", merge0, `{"spec":{"unschedulable":true}}`, 403, "operator"},
		"MixedNames":           {"names that mean two things", roles, "create", "", `{"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["pods","namespaces"],"resourceNames":["default"]}]}`, 422, "one rule for namespaces"},
		"RoleRefPart":          {"a name without its kind", bindings, "patch", merge0, `{"roleRef":{"name":"x"}}`, 422, "kind"},
		"RolePath":             {"half a rule", roles, "patch", jsonPatch, `[{"op":"add","path":"/rules/0/resourceNames/-","value":"x"}]`, 422, "whole"},
		"SelectorUnknown":      {"a selector with more than selectors have", policies, "create", "", `{"spec":{"ingress":[{"from":[{"namespaceSelector":{"matchNames":["x"]}}]}]}}`, 422, "matchNames"},
		"SelectorPlatform":     {"asking for another tenant", policies, "create", "", `{"spec":{"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"vivarium.io/tenant":"canary"}}}]}]}}`, 403, "vivarium.io/tenant"},
		"CopyNamespace":        {"a translated value into text", pods, "patch", jsonPatch, `[{"op":"copy","from":"/metadata/namespace","path":"/metadata/annotations/x"}]`, 422, "copy"},
		"CopySelector":         {"out of a rule", policies, "patch", jsonPatch, `[{"op":"move","from":"/spec/ingress/0/from/0/namespaceSelector","path":"/spec/podSelector"}]`, 422, "move"},
		"WholePatch":           {"the whole document", pods, "patch", jsonPatch, `[{"op":"replace","path":"","value":{}}]`, 422, "members"},
		"BadPointer":           {"an escape nobody knows", pods, "patch", jsonPatch, `[{"op":"add","path":"/metadata/a~2b","value":1}]`, 400, "escape"},
		"UnknownOperation":     {"", pods, "patch", jsonPatch, `[{"op":"merge","path":"/metadata/a","value":1}]`, 400, "merge"},
		"PatchObject":          {"not a list of operations", pods, "patch", jsonPatch, `{}`, 400, "array"},
		"MergeArray":           {"", pods, "patch", merge0, `[]`, 400, "object"},
		"MergeNull":            {"", pods, "patch", merge0, `null`, 400, "object"},
		"ApplyString":          {"", pods, "patch", apply, `x`, 400, "object"},
		"CreateArray":          {"", pods, "create", "", `[]`, 400, "object"},
		"WrongKind":            {"the URL says Pod", pods, "create", "", `{"kind":"Service","apiVersion":"v1"}`, 400, "Service"},
		"WrongVersion":         {"the URL says apps/v1", deployments, "create", "", `{"kind":"Deployment","apiVersion":"extensions/v1beta1"}`, 400, "v1beta1"},
		"WrongNamespace":       {"the URL says default", pods, "create", "", `{"metadata":{"namespace":"other"}}`, 400, "does not match"},
		"ControlNamespace":     {"already in control's form", pods, "create", "", `{"metadata":{"namespace":"zq7x9k-default"}}`, 400, "does not match"},
		"WrongName":            {"the URL says n", namespaces, "update", "", `{"metadata":{"name":"other"}}`, 400, "does not match"},
		"Duplicate":            {"two namespaces", pods, "create", "", `{"metadata":{"namespace":"default","namespace":"kube-system"}}`, 400, `duplicate field "metadata.namespace"`},
		"Trailing":             {"two documents", pods, "create", "", `{}{}`, 400, "follows"},
		"Deep":                 {"", pods, "create", "", strings.Repeat(`{"a":`, 300) + "1" + strings.Repeat("}", 300), 400, "nesting"},
		"Many":                 {"", pods, "create", "", "[" + strings.Repeat("0,", 500_000) + "0]", 413, "values"},
		"Large":                {"", pods, "create", "", strings.Repeat(" ", MaxBody+1), 413, "bytes"},
		"YAMLDocuments":        {"", pods, "create", typeYAML, "{}\n---\n{}\n", 400, "more than one"},
		"YAMLDuplicate":        {"", pods, "create", typeYAML, "a: 1\na: 2\n", 400, "YAML"},
		"YAMLSecondEmpty":      {"", pods, "patch", apply, "a: 1\n...\n---\na: 2\n", 400, "more than one"},
		"YAMLJSONTwice":        {"", pods, "patch", apply, `{"kind":"Pod","kind":"Pod"}`, 400, "YAML"},
		"YAMLBomb":             {"", pods, "patch", apply, yamlBomb(), 400, ""},
		"CBOR":                 {"", pods, "create", "application/cbor", "x", 415, "cbor"},
		"ProtobufPatch":        {"there is none", pods, "patch", typeProto, "x", 415, "protobuf"},
		"ProtobufMagic":        {"", pods, "create", typeProto, "x", 400, "protobuf"},
		"ProtobufNothing":      {"", pods, "create", typeProto, "k8s\x00\x12\x05a", 400, "protobuf"},
		"CBORPatch":            {"", pods, "patch", "application/apply-patch+cbor", "x", 415, "cbor"},
		"NoPatchType":          {"", pods, "patch", "", "{}", 415, "patch"},
		"Charset":              {"", pods, "create", "application/json; charset=utf-16", "{}", 415, "parameter"},
		"DeleteUnsafe":         {"the operator's", pods, "delete", "", `{"ignoreStoreReadErrorWithClusterBreakingPotential":true}`, 422, "DeleteOptions"},
		"DeleteWrong":          {"", pods, "delete", "", `{"kind":"Pod"}`, 400, "DeleteOptions"},
		"UnknownKind":          {"no rules", Kind{Group: "example.com", Version: "v1", Kind: "Widget", Resource: "widgets", Namespaced: true}, "create", "", "{}", 404, "could not find"},
		"UnknownSubresource":   {"no rules", Kind{Version: "v1", Kind: "Pod", Resource: "pods", Namespaced: true, Subresource: "binding"}, "create", "", "{}", 404, "could not find"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			namespace, object := "", "p"
			if tc.kind.Namespaced {
				namespace = "default"
			}
			if tc.kind == namespaces && tc.verb == "update" {
				object = "n"
			}
			if tc.verb == "create" {
				object = ""
			}
			out, _, err := view.BodyToControl(tc.kind, tc.verb, tc.media, []byte(tc.body), namespace, object)
			var refusal *Error
			if !errors.As(err, &refusal) {
				t.Fatalf("got %.300s, %v; want an *Error (%s)", out, err, tc.reason)
			}
			if refusal.Code != tc.code || !strings.Contains(refusal.Error(), tc.says) {
				t.Errorf("got %d %.200q; want %d and %q (%s)", refusal.Code, refusal.Error(), tc.code, tc.says, tc.reason)
			}
			if strings.Contains(refusal.Error(), "zq7x9k-") && tc.says != "does not match" {
				t.Errorf("the refusal speaks in control's words: %s", refusal.Error())
			}
			if s := refusal.Status(); s.Code != int32(tc.code) || s.Status != "Failure" {
				t.Errorf("Status() = %v", s)
			}
		})
	}
}

func yamlBomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 10; i++ {
		ref := fmt.Sprintf("*a%d", i-1)
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.Join([]string{ref, ref, ref, ref, ref, ref, ref, ref, ref}, ","))
	}
	return b.String()
}

func TestBodies(t *testing.T) {
	cases := map[string]struct {
		kind  Kind
		verb  string
		media string
		body  string
		want  string
	}{
		"NamespaceCreate":     {namespaces, "create", "", `{"metadata":{"name":"web"}}`, `{"metadata":{"name":"zq7x9k-web","labels":{"vivarium.io/tenant":"zq7x9k","pod-security.kubernetes.io/enforce":"baseline","pod-security.kubernetes.io/enforce-version":"latest"}}}`},
		"NamespaceGenerate":   {namespaces, "create", "", `{"metadata":{"generateName":"victim-"}}`, `{"metadata":{"generateName":"zq7x9k-victim-","labels":{"vivarium.io/tenant":"zq7x9k","pod-security.kubernetes.io/enforce":"baseline","pod-security.kubernetes.io/enforce-version":"latest"}}}`},
		"NamespaceMerge":      {namespaces, "patch", merge0, `{"metadata":{"labels":{"a":"b","c":null}}}`, `{"metadata":{"labels":{"a":"b","c":null}}}`},
		"NamespaceLabels":     {namespaces, "patch", jsonPatch, `[{"op":"replace","path":"/metadata/labels","value":{"a":"b"}}]`, `[{"op":"replace","path":"/metadata/labels","value":{"a":"b","vivarium.io/tenant":"zq7x9k","pod-security.kubernetes.io/enforce":"baseline","pod-security.kubernetes.io/enforce-version":"latest"}}]`},
		"PodSecurityCreate":   {namespaces, "create", "", `{"metadata":{"name":"n","labels":{"pod-security.kubernetes.io/enforce":"privileged","pod-security.kubernetes.io/warn":"restricted"}}}`, `{"metadata":{"name":"zq7x9k-n","labels":{"pod-security.vivarium.io/enforce":"privileged","pod-security.kubernetes.io/warn":"restricted","pod-security.kubernetes.io/enforce":"baseline","vivarium.io/tenant":"zq7x9k","pod-security.kubernetes.io/enforce-version":"latest"}}}`},
		"PodSecurityRestrict": {namespaces, "update", "", `{"metadata":{"name":"p","labels":{"pod-security.kubernetes.io/enforce":"restricted","pod-security.kubernetes.io/enforce-version":"v1.30"}}}`, `{"metadata":{"name":"zq7x9k-p","labels":{"pod-security.vivarium.io/enforce":"restricted","pod-security.vivarium.io/enforce-version":"v1.30","pod-security.kubernetes.io/enforce":"restricted","vivarium.io/tenant":"zq7x9k","pod-security.kubernetes.io/enforce-version":"latest"}}}`},
		"PodSecurityMerge":    {namespaces, "patch", merge0, `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`, `{"metadata":{"labels":{"pod-security.vivarium.io/enforce":"restricted","pod-security.kubernetes.io/enforce":"restricted"}}}`},
		"PodSecurityUnset":    {namespaces, "patch", strategic, `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":null}}}`, `{"metadata":{"labels":{"pod-security.vivarium.io/enforce":null,"pod-security.kubernetes.io/enforce":"baseline"}}}`},
		"PodSecurityAdd":      {namespaces, "patch", jsonPatch, `[{"op":"add","path":"/metadata/labels/pod-security.kubernetes.io~1enforce","value":"restricted"},{"op":"test","path":"/metadata/labels/a","value":"b"}]`, `[{"op":"add","path":"/metadata/labels/pod-security.vivarium.io~1enforce","value":"restricted"},{"op":"add","path":"/metadata/labels/pod-security.kubernetes.io~1enforce","value":"restricted"},{"op":"test","path":"/metadata/labels/a","value":"b"}]`},
		"PodSecurityRemove":   {namespaces, "patch", jsonPatch, `[{"op":"remove","path":"/metadata/labels/pod-security.kubernetes.io~1enforce"}]`, `[{"op":"remove","path":"/metadata/labels/pod-security.vivarium.io~1enforce"},{"op":"add","path":"/metadata/labels/pod-security.kubernetes.io~1enforce","value":"baseline"}]`},
		"PodSecurityTest":     {namespaces, "patch", jsonPatch, `[{"op":"test","path":"/metadata/labels/pod-security.kubernetes.io~1enforce","value":"privileged"}]`, `[{"op":"test","path":"/metadata/labels/pod-security.vivarium.io~1enforce","value":"privileged"}]`},
		"PodSecurityReplace":  {namespaces, "patch", jsonPatch, `[{"op":"replace","path":"/metadata/labels","value":{"pod-security.kubernetes.io/enforce":"restricted"}}]`, `[{"op":"replace","path":"/metadata/labels","value":{"pod-security.vivarium.io/enforce":"restricted","pod-security.kubernetes.io/enforce":"restricted","vivarium.io/tenant":"zq7x9k","pod-security.kubernetes.io/enforce-version":"latest"}}]`},
		"PodSecurityApply":    {namespaces, "patch", apply, "apiVersion: v1\nkind: Namespace\nmetadata: {name: p, labels: {pod-security.kubernetes.io/enforce: restricted}}\n", `{"apiVersion":"v1","kind":"Namespace","metadata":{"labels":{"pod-security.vivarium.io/enforce":"restricted","pod-security.kubernetes.io/enforce":"restricted","vivarium.io/tenant":"zq7x9k","pod-security.kubernetes.io/enforce-version":"latest"},"name":"zq7x9k-p"}}`},
		"PodSecuritySelector": {policies, "create", "", `{"spec":{"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"pod-security.kubernetes.io/enforce":"privileged"},"matchExpressions":[{"key":"pod-security.kubernetes.io/enforce-version","operator":"Exists"}]}}]}]}}`, `{"spec":{"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"pod-security.vivarium.io/enforce":"privileged","vivarium.io/tenant":"zq7x9k"},"matchExpressions":[{"key":"pod-security.vivarium.io/enforce-version","operator":"Exists"}]}}]}]}}`},
		"NamespaceNameTest":   {namespaces, "patch", jsonPatch, `[{"op":"test","path":"/metadata/name","value":"p"}]`, `[{"op":"test","path":"/metadata/name","value":"zq7x9k-p"}]`},
		"TestNamespace":       {pods, "patch", jsonPatch, `[{"op":"test","path":"/metadata/namespace","value":"default"}]`, `[{"op":"test","path":"/metadata/namespace","value":"zq7x9k-default"}]`},
		"LooksPrefixed":       {configMaps, "create", "", `{"metadata":{"name":"zq7x9k-x"},"data":{"a":"zq7x9k-x"}}`, `{"metadata":{"name":"zq7x9k-x"},"data":{"a":"zq7x9k-x"}}`},
		"LastApplied":         {configMaps, "create", "", `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"metadata\":{\"namespace\":\"default\"}}"}}}`, `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"metadata\":{\"namespace\":\"default\"}}"}}}`},
		"YAML":                {configMaps, "create", typeYAML, "metadata: {name: a, namespace: default}\ndata: {on: \"yes\"}\n", `{"data":{"true":"yes"},"metadata":{"name":"a","namespace":"zq7x9k-default"}}`},
		"Apply":               {namespaces, "patch", apply, "apiVersion: v1\nkind: Namespace\nmetadata: {name: p}\n", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"zq7x9k-p","labels":{"vivarium.io/tenant":"zq7x9k","pod-security.kubernetes.io/enforce":"baseline","pod-security.kubernetes.io/enforce-version":"latest"}}}`},
		"ApplyJSON":           {configMaps, "patch", apply, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"p"},"data":{"a":"1e3"}}`, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"p"},"data":{"a":"1e3"}}`},
		"SelectorAll":         {policies, "create", "", `{"spec":{"ingress":[{"from":[{"namespaceSelector":{}},{"podSelector":{}}]}]}}`, `{"spec":{"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"vivarium.io/tenant":"zq7x9k"}}},{"podSelector":{}}]}]}}`},
		"SelectorName":        {policies, "create", "", `{"spec":{"egress":[{"to":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"web"},"matchExpressions":[{"key":"kubernetes.io/metadata.name","operator":"NotIn","values":["a","b"]}]}}]}]}}`, `{"spec":{"egress":[{"to":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"zq7x9k-web","vivarium.io/tenant":"zq7x9k"},"matchExpressions":[{"key":"kubernetes.io/metadata.name","operator":"NotIn","values":["zq7x9k-a","zq7x9k-b"]}]}}]}]}}`},
		"SelectorNullLabel":   {policies, "patch", merge0, `{"spec":{"ingress":[{"from":[{"namespaceSelector":{"matchLabels":null}}]}]}}`, `{"spec":{"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"vivarium.io/tenant":"zq7x9k"}}}]}]}}`},
		"SelectorRemove":      {policies, "patch", jsonPatch, `[{"op":"remove","path":"/spec/ingress/0/from/0/namespaceSelector/matchLabels"}]`, `[{"op":"replace","path":"/spec/ingress/0/from/0/namespaceSelector/matchLabels","value":{"vivarium.io/tenant":"zq7x9k"}}]`},
		"SelectorReplace":     {policies, "patch", jsonPatch, `[{"op":"replace","path":"/spec/ingress/0/from/0/namespaceSelector","value":{}}]`, `[{"op":"replace","path":"/spec/ingress/0/from/0/namespaceSelector","value":{"matchLabels":{"vivarium.io/tenant":"zq7x9k"}}}]`},
		"SelectorElement":     {policies, "patch", jsonPatch, `[{"op":"add","path":"/spec/ingress/-","value":{"from":[{"namespaceSelector":{}}]}}]`, `[{"op":"add","path":"/spec/ingress/-","value":{"from":[{"namespaceSelector":{"matchLabels":{"vivarium.io/tenant":"zq7x9k"}}}]}}]`},
		"AffinityNamespace":   {deployments, "patch", jsonPatch, `[{"op":"add","path":"/spec/template/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/namespaces/-","value":"web"}]`, `[{"op":"add","path":"/spec/template/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/namespaces/-","value":"zq7x9k-web"}]`},
		"Rules":               {clusterRoles, "create", "", `{"metadata":{"name":"r"},"rules":[{"verbs":["*"],"apiGroups":["","example.com","*"],"resources":["widgets"]},{"verbs":["get"],"apiGroups":[""],"resources":["namespaces"],"resourceNames":["web"]},{"verbs":["get"],"apiGroups":["apiextensions.k8s.io"],"resources":["customresourcedefinitions"],"resourceNames":["widgets.example.com"]},{"verbs":["impersonate"],"apiGroups":[""],"resources":["users"],"resourceNames":["alice"]},{"verbs":["get"],"nonResourceURLs":["/healthz"]}]}`, `{"metadata":{"name":"zq7x9k-r","labels":{"vivarium.io/tenant":"zq7x9k"}},"rules":[{"verbs":["*"],"apiGroups":["","zq7x9k-example.com","*"],"resources":["widgets"]},{"verbs":["get"],"apiGroups":[""],"resources":["namespaces"],"resourceNames":["zq7x9k-web"]},{"verbs":["get"],"apiGroups":["apiextensions.k8s.io"],"resources":["customresourcedefinitions"],"resourceNames":["widgets.zq7x9k-example.com"]},{"verbs":["impersonate"],"apiGroups":[""],"resources":["users"],"resourceNames":["zq7x9k-alice"]},{"verbs":["get"],"nonResourceURLs":["/healthz"]}]}`},
		"RulePath":            {roles, "patch", jsonPatch, `[{"op":"add","path":"/rules/-","value":{"verbs":["get"],"apiGroups":["example.com"],"resources":["*"]}},{"op":"add","path":"/rules/0/verbs/-","value":"list"}]`, `[{"op":"add","path":"/rules/-","value":{"verbs":["get"],"apiGroups":["zq7x9k-example.com"],"resources":["*"]}},{"op":"add","path":"/rules/0/verbs/-","value":"list"}]`},
		"Binding":             {clusterBinds, "create", "", `{"metadata":{"name":"b"},"roleRef":{"kind":"ClusterRole","name":"cluster-admin"},"subjects":[{"kind":"User","name":"alice"},{"kind":"Group","name":"system:authenticated"},{"kind":"Group","name":"system:serviceaccounts:web"},{"kind":"User","name":"system:serviceaccount:web:robo"},{"kind":"ServiceAccount","namespace":"web","name":"robo"}]}`, `{"metadata":{"name":"zq7x9k-b"},"roleRef":{"kind":"ClusterRole","name":"zq7x9k-cluster-admin"},"subjects":[{"kind":"User","name":"zq7x9k-alice"},{"kind":"Group","name":"zq7x9k-system:authenticated"},{"kind":"Group","name":"system:serviceaccounts:zq7x9k-web"},{"kind":"User","name":"system:serviceaccount:zq7x9k-web:robo"},{"kind":"ServiceAccount","namespace":"zq7x9k-web","name":"robo"}]}`},
		"Aggregation":         {clusterRoles, "create", "", `{"metadata":{"name":"r","labels":{"rbac.authorization.k8s.io/aggregate-to-view":"true"}},"aggregationRule":{"clusterRoleSelectors":[{},{"matchLabels":{"rbac.authorization.k8s.io/aggregate-to-edit":"true"}}]}}`, `{"metadata":{"name":"zq7x9k-r","labels":{"rbac.vivarium.io/aggregate-to-view":"true","vivarium.io/tenant":"zq7x9k"}},"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"vivarium.io/tenant":"zq7x9k"}},{"matchLabels":{"rbac.vivarium.io/aggregate-to-edit":"true","vivarium.io/tenant":"zq7x9k"}}]}}`},
		"AggregationPath":     {clusterRoles, "patch", jsonPatch, `[{"op":"remove","path":"/metadata/labels/rbac.authorization.k8s.io~1aggregate-to-view"}]`, `[{"op":"remove","path":"/metadata/labels/rbac.vivarium.io~1aggregate-to-view"}]`},
		"Token":               {tokenRequest, "create", "", `{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","spec":{"expirationSeconds":600}}`, `{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","spec":{"expirationSeconds":600,"audiences":["vivarium-gateway"]}}`},
		"TokenAudience":       {tokenRequest, "create", "", `{"spec":{"audiences":["vault"]}}`, `{"spec":{"audiences":["vault"]}}`},
		"Quota":               {quotas, "create", "", `{"spec":{"hard":{"count/widgets.example.com":"5","count/deployments.apps":"1","pods":"2","gold.storageclass.storage.k8s.io/requests.storage":"1Gi"}}}`, `{"spec":{"hard":{"count/widgets.zq7x9k-example.com":"5","count/deployments.apps":"1","pods":"2","zq7x9k-gold.storageclass.storage.k8s.io/requests.storage":"1Gi"}}}`},
		"QuotaPath":           {quotas, "patch", jsonPatch, `[{"op":"remove","path":"/spec/hard/count~1widgets.example.com"}]`, `[{"op":"remove","path":"/spec/hard/count~1widgets.zq7x9k-example.com"}]`},
		"EventOnNamespace":    {events, "create", "", `{"involvedObject":{"kind":"Namespace","apiVersion":"v1","name":"web"},"message":"created zq7x9k-x"}`, `{"involvedObject":{"kind":"Namespace","apiVersion":"v1","name":"zq7x9k-web","namespace":"zq7x9k-default"},"message":"created zq7x9k-zq7x9k-x"}`},
		"EventOnNode":         {events, "create", "", `{"involvedObject":{"kind":"Node","name":"pool-a-0"}}`, `{"involvedObject":{"kind":"Node","name":"pool-a-0","namespace":"zq7x9k-default"}}`},
		"EventSeries":         {events, "patch", strategic, `{"count":2,"message":"again"}`, `{"count":2,"message":"again"}`},
		"ClaimClass":          {Kind{Version: "v1", Resource: "persistentvolumeclaims", Kind: "PersistentVolumeClaim", Namespaced: true}, "create", "", `{"metadata":{"annotations":{"volume.beta.kubernetes.io/storage-class":"gold"}},"spec":{"storageClassName":"shared-disk","volumeAttributesClassName":"fast"}}`, `{"metadata":{"annotations":{"volume.beta.kubernetes.io/storage-class":"zq7x9k-gold"}},"spec":{"storageClassName":"shared-disk","volumeAttributesClassName":"zq7x9k-fast"}}`},
		"PodClasses":          {pods, "create", "", `{"spec":{"priorityClassName":"high","runtimeClassName":"kata"}}`, `{"spec":{"priorityClassName":"zq7x9k-high","runtimeClassName":"zq7x9k-kata"}}`},
		"QuotaScope":          {quotas, "create", "", `{"spec":{"scopeSelector":{"matchExpressions":[{"scopeName":"PriorityClass","operator":"In","values":["high"]},{"scopeName":"Terminating","operator":"Exists"}]}}}`, `{"spec":{"scopeSelector":{"matchExpressions":[{"scopeName":"PriorityClass","operator":"In","values":["zq7x9k-high"]},{"scopeName":"Terminating","operator":"Exists"}]}}}`},
		"BoundPodUpdate":      {pods, "update", "", `{"metadata":{"name":"p"},"spec":{"nodeName":"pool-a-0"}}`, `{"metadata":{"name":"p"},"spec":{"nodeName":"pool-a-0"}}`},
		"Eviction":            {Kind{Version: "v1", Kind: "Pod", Resource: "pods", Namespaced: true, Subresource: "eviction"}, "create", "", `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p","namespace":"default"}}`, `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p","namespace":"zq7x9k-default"}}`},
		"Scale":               {Kind{Group: "apps", Version: "v1", Kind: "Deployment", Resource: "deployments", Namespaced: true, Subresource: "scale"}, "update", "", `{"kind":"Scale","apiVersion":"autoscaling/v1","metadata":{"name":"p","namespace":"default"},"spec":{"replicas":3}}`, `{"kind":"Scale","apiVersion":"autoscaling/v1","metadata":{"name":"p","namespace":"zq7x9k-default"},"spec":{"replicas":3}}`},
		"ScalePatch":          {Kind{Group: "apps", Version: "v1", Kind: "Deployment", Resource: "deployments", Namespaced: true, Subresource: "scale"}, "patch", merge0, `{"spec":{"replicas":3}}`, `{"spec":{"replicas":3}}`},
		"Delete":              {pods, "delete", "", `{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"preconditions":{"uid":"x"}}`, `{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"preconditions":{"uid":"x"}}`},
		"DeleteEmpty":         {pods, "delete", "", ``, ``},
		"OwnerNamespace":      {configMaps, "create", "", `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Namespace","name":"web","uid":"u"},{"apiVersion":"v1","kind":"Node","name":"n","uid":"u"},{"apiVersion":"example.com/v1","kind":"Widget","name":"w","uid":"u"}]}}`, `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Namespace","name":"zq7x9k-web","uid":"u"},{"apiVersion":"v1","kind":"Node","name":"n","uid":"u"},{"apiVersion":"zq7x9k-example.com/v1","kind":"Widget","name":"w","uid":"u"}]}}`},
		"UnknownSurvive":      {pods, "create", "", `{"metadata":{"x":{"y":[1.0,1e2]}},"future":{"namespace":"default"}}`, `{"metadata":{"x":{"y":[1.0,1e2]}},"future":{"namespace":"default"}}`},
		"AccessReview":        {Kind{Group: "authorization.k8s.io", Version: "v1", Kind: "SubjectAccessReview", Resource: "subjectaccessreviews"}, "create", "", `{"spec":{"user":"alice","groups":["dev"],"resourceAttributes":{"verb":"get","resource":"namespaces","name":"web","namespace":"web"}}}`, `{"spec":{"user":"zq7x9k-alice","groups":["zq7x9k-dev"],"resourceAttributes":{"verb":"get","resource":"namespaces","name":"zq7x9k-web","namespace":"zq7x9k-web"}}}`},
		"SelfReview":          {Kind{Group: "authorization.k8s.io", Version: "v1", Kind: "SelfSubjectAccessReview", Resource: "selfsubjectaccessreviews"}, "create", "", `{"spec":{"resourceAttributes":{"verb":"list","group":"example.com","resource":"widgets"}}}`, `{"spec":{"resourceAttributes":{"verb":"list","group":"zq7x9k-example.com","resource":"widgets"}}}`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			namespace, object := "", "p"
			if tc.kind.Namespaced {
				namespace = "default"
			}
			if tc.verb == "create" && tc.kind.Subresource == "" {
				object = ""
			}
			if !Supported(tc.kind) {
				t.Fatal("not supported")
			}
			got, media, err := view.BodyToControl(tc.kind, tc.verb, tc.media, []byte(tc.body), namespace, object)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tc.want {
				t.Errorf("%s", firstDifference(string(got), tc.want))
			}
			if tc.verb == "patch" && media != tc.media || tc.verb != "patch" && media != "application/json" {
				t.Errorf("content type %q", media)
			}
		})
	}
}

func TestQueries(t *testing.T) {
	cases := map[string]struct {
		kind  Kind
		verb  string
		query string
		want  string // encoded; "" with code for a refusal
		code  int
	}{
		"Empty":             {pods, "list", "", "", 0},
		"Plain":             {pods, "list", "limit=500&labelSelector=app%3Dweb&resourceVersion=0", "labelSelector=app%3Dweb&limit=500&resourceVersion=0", 0},
		"Unknown":           {pods, "list", "shardSelector=x", "", 400},
		"NamespaceInQuery":  {pods, "get", "namespace=x", "", 400},
		"Repeated":          {pods, "list", "limit=1&limit=2", "", 400},
		"Negative":          {pods, "list", "timeoutSeconds=-1", "", 400},
		"Flag":              {pods, "list", "watch=maybe", "", 400},
		"Timeout":           {pods, "get", "timeout=30s", "timeout=30s", 0},
		"TimeoutWords":      {pods, "get", "timeout=forever", "", 400},
		"Force":             {pods, "patch", "force=true&fieldManager=kubectl", "fieldManager=kubectl&force=true", 0},
		"ForceOnGet":        {pods, "get", "force=true", "", 400},
		"PrettyWatch":       {pods, "watch", "pretty=true&watch=1", "watch=1", 0},
		"NamespaceByName":   {namespaces, "watch", "fieldSelector=metadata.name%3Dweb&watch=1", "fieldSelector=metadata.name%3Dzq7x9k-web&watch=1", 0},
		"NamespaceNotName":  {namespaces, "list", "fieldSelector=metadata.name%21%3Dweb", "fieldSelector=metadata.name%21%3Dzq7x9k-web", 0},
		"PodByName":         {pods, "list", "fieldSelector=metadata.name%3Dweb%2Cmetadata.namespace%3Ddefault%2Cspec.nodeName%3Dn", "fieldSelector=metadata.name%3Dweb%2Cmetadata.namespace%3Dzq7x9k-default%2Cspec.nodeName%3Dn", 0},
		"EventsOfPod":       {events, "list", "fieldSelector=involvedObject.name%3Dweb%2CinvolvedObject.namespace%3Ddefault%2CinvolvedObject.kind%3DPod", "fieldSelector=involvedObject.kind%3DPod%2CinvolvedObject.name%3Dweb%2CinvolvedObject.namespace%3Dzq7x9k-default", 0},
		"EventsOfNamespace": {events, "list", "fieldSelector=involvedObject.name%3Dweb%2CinvolvedObject.namespace%3D%2CinvolvedObject.kind%3DNamespace", "fieldSelector=involvedObject.kind%3DNamespace%2CinvolvedObject.name%3Dzq7x9k-web", 0},
		"NamespaceLabel":    {namespaces, "list", "labelSelector=kubernetes.io%2Fmetadata.name+in+%28a%2Cb%29%2Cx%21%3Dy", "labelSelector=kubernetes.io%2Fmetadata.name+in+%28zq7x9k-a%2Czq7x9k-b%29%2Cx%21%3Dy", 0},
		"PlatformLabel":     {pods, "list", "labelSelector=vivarium.io%2Ftenant%3Dcanary", "", 403},
		"AggregateLabel":    {clusterRoles, "list", "labelSelector=rbac.authorization.k8s.io%2Faggregate-to-view%3Dtrue", "labelSelector=rbac.vivarium.io%2Faggregate-to-view%3Dtrue", 0},
		"BadLabel":          {pods, "list", "labelSelector=a%3D%3D%3Db", "", 400},
		"LongLabel":         {pods, "list", "labelSelector=" + strings.Repeat("a", maxSelector+1), "", 400},
		"BadField":          {pods, "list", "fieldSelector=metadata.name", "", 400},
		"Nodes":             {nodes, "list", "labelSelector=type%3Dx", "labelSelector=type%3Dx%2Cvivarium.io%2Fpool", 0},
		"NodesAll":          {nodes, "watch", "", "labelSelector=vivarium.io%2Fpool", 0},
		"IncludeNone":       {pods, "list", "includeObject=None", "includeObject=Metadata", 0},
		"Log":               {Kind{Version: "v1", Resource: "pods", Kind: "Pod", Namespaced: true, Subresource: "log"}, "get", "container=web&follow=true&tailLines=5", "container=web&follow=true&tailLines=5", 0},
		"LogInsecure":       {Kind{Version: "v1", Resource: "pods", Kind: "Pod", Namespaced: true, Subresource: "log"}, "get", "insecureSkipTLSVerifyBackend=true", "", 400},
		"Exec":              {Kind{Version: "v1", Resource: "pods", Kind: "Pod", Namespaced: true, Subresource: "exec"}, "create", "command=ls&command=-l&stdout=true", "command=ls&command=-l&stdout=true", 0},
		"DryRunTwice":       {pods, "create", "dryRun=All&dryRun=All", "dryRun=All&dryRun=All", 0},
		"DeleteCollection":  {pods, "deletecollection", "labelSelector=a%3Db&propagationPolicy=Foreground", "labelSelector=a%3Db&propagationPolicy=Foreground", 0},
		"UnsafeDelete":      {pods, "delete", "ignoreStoreReadErrorWithClusterBreakingPotential=true", "", 400},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			q, err := url.ParseQuery(tc.query)
			if err != nil {
				t.Fatal(err)
			}
			got, err := view.QueryToControl(tc.kind, tc.verb, q)
			var refusal *Error
			if errors.As(err, &refusal) {
				if refusal.Code != tc.code {
					t.Errorf("refused with %d %s, want %d", refusal.Code, refusal, tc.code)
				}
				return
			}
			if err != nil || tc.code != 0 || got.Encode() != tc.want {
				t.Errorf("got %q, %v; want %q, code %d", got.Encode(), err, tc.want, tc.code)
			}
		})
	}
}

func TestErrorsNameTheirStatus(t *testing.T) {
	for _, e := range []*Error{malformed("x"), forbidden("a.b", "x"), invalid("a", "x"), tooLarge("x"), unsupportedMedia("x")} {
		if s := e.Status(); s.Message != e.Error() || http.StatusText(int(s.Code)) == "" || s.Reason == "" {
			t.Errorf("Status() = %+v", s)
		}
	}
}
