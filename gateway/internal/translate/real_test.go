package translate

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"vivarium.io/vivarium/internal/kubetest"
)

// forms are the ways in which the API server shows the same objects.
var forms = map[string]string{
	"JSON":         "application/json",
	"Protobuf":     "application/vnd.kubernetes.protobuf",
	"Table":        "application/json;as=Table;v=v1;g=meta.k8s.io",
	"Metadata":     "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
	"MetadataList": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
}

// control is a real control cluster, spoken to as the front would, without impersonation.
type control struct {
	*testing.T
	client *http.Client
	host   string
}

func (c *control) do(method, path, contentType, accept string, body []byte) (*http.Response, []byte) {
	c.Helper()
	req, err := http.NewRequestWithContext(c.Context(), method, c.host+path, bytes.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Accept", accept)
	resp, err := c.client.Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	return resp, b
}

// path gives where a kind lives for a tenant.
func (v View) path(k Kind, namespace, name string) string {
	p := "/apis/" + k.Group + "/" + k.Version
	if k.Group == "" {
		p = "/api/" + k.Version
	}
	if k.Namespaced && namespace != "" {
		p += "/namespaces/" + string(v.Tenant) + "-" + namespace
	}
	p += "/" + k.Resource
	if name != "" {
		if !k.Namespaced {
			name = string(v.Tenant) + "-" + name
		}
		p += "/" + name
	}
	if k.Subresource != "" {
		p += "/" + k.Subresource
	}
	return p
}

// send translates a body, sends it and translates the answer.
func (c *control) send(v View, k Kind, verb, media, namespace, name, body string) string {
	c.Helper()
	out, media, err := v.BodyToControl(k, verb, media, []byte(body), namespace, name)
	if err != nil {
		c.Fatalf("%s %s: %v", verb, k.Resource, err)
	}
	method := map[string]string{"create": http.MethodPost, "update": http.MethodPut, "patch": http.MethodPatch}[verb]
	urlName := name
	query := ""
	if verb == "patch" && media == typeApplyPatch {
		query = "?fieldManager=test&force=true"
	}
	resp, b := c.do(method, v.path(k, namespace, urlName)+query, media, "application/json", out)
	if resp.StatusCode > 299 {
		c.Fatalf("%s %s %s: %d %s", verb, k.Resource, body, resp.StatusCode, v.StatusToTenant(k, resp.StatusCode, b))
	}
	var shown bytes.Buffer
	if err := v.ObjectToTenant(k, &shown, bytes.NewReader(b)); err != nil {
		c.Fatalf("%s %s: %v\n%s", verb, k.Resource, err, b)
	}
	c.clean(v, shown.String())
	return shown.String()
}

// clean looks for other worlds in what a tenant sees.
func (c *control) clean(v View, text string) {
	c.Helper()
	for _, id := range []string{"zq7x9k", "canary", "vivarium.io/"} {
		if i := strings.Index(text, id); i >= 0 {
			c.Errorf("tenant %s sees …%s", v.Tenant, text[max(0, i-200):min(len(text), i+100)])
		}
	}
}

var realObjects = []struct {
	kind Kind
	name string
	body string
}{
	{configMaps, "web", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"web","labels":{"app":"web"}},"data":{"a":"b"}}`},
	{secrets, "web", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"web"},"stringData":{"a":"b"}}`},
	{services, "web", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"selector":{"app":"web"},"ports":[{"port":80}]}}`},
	{deployments, "web", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":1,"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"priorityClassName":"high","affinity":{"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"kubernetes.io/hostname","namespaces":["default"],"namespaceSelector":{}}]}},"containers":[{"name":"web","image":"vivarium.test/echo:v1"}]}}}}`},
	{policies, "web", `{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"web"},"spec":{"podSelector":{},"ingress":[{"from":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"default"}}}]}]}}`},
	{roles, "web", `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"web"},"rules":[{"verbs":["get"],"apiGroups":["","example.com"],"resources":["pods"]}]}`},
	{bindings, "web", `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"RoleBinding","metadata":{"name":"web"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"},"subjects":[{"kind":"User","name":"alice","apiGroup":"rbac.authorization.k8s.io"},{"kind":"Group","name":"system:authenticated","apiGroup":"rbac.authorization.k8s.io"},{"kind":"ServiceAccount","namespace":"default","name":"robo"}]}`},
	{clusterRoles, "web", `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"web","labels":{"rbac.authorization.k8s.io/aggregate-to-view":"true"}},"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["namespaces"],"resourceNames":["default"]}]}`},
	{clusterBinds, "web", `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"web"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"},"subjects":[{"kind":"User","name":"alice","apiGroup":"rbac.authorization.k8s.io"}]}`},
	{quotas, "web", `{"apiVersion":"v1","kind":"ResourceQuota","metadata":{"name":"web"},"spec":{"hard":{"count/widgets.example.com":"5","pods":"9","gold.storageclass.storage.k8s.io/requests.storage":"1Gi"}}}`},
	{events, "web", `{"apiVersion":"v1","kind":"Event","metadata":{"name":"web"},"involvedObject":{"apiVersion":"v1","kind":"Namespace","name":"default"},"reason":"Test","message":"hello","type":"Normal"}`},
	{Kind{Group: "batch", Version: "v1", Resource: "cronjobs", Kind: "CronJob", Namespaced: true}, "web", `{"apiVersion":"batch/v1","kind":"CronJob","metadata":{"name":"web"},"spec":{"schedule":"* * * * *","jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"a","image":"vivarium.test/shell:v1"}]}}}}}}`},
	{Kind{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers", Kind: "HorizontalPodAutoscaler", Namespaced: true}, "web", `{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":"web"},"spec":{"maxReplicas":3,"scaleTargetRef":{"apiVersion":"example.com/v1","kind":"Widget","name":"web"}}}`},
	{Kind{Version: "v1", Resource: "persistentvolumeclaims", Kind: "PersistentVolumeClaim", Namespaced: true}, "web", `{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"web"},"spec":{"storageClassName":"gold","accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}`},
	{Kind{Group: "networking.k8s.io", Version: "v1", Resource: "ingresses", Kind: "Ingress", Namespaced: true}, "web", `{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"web"},"spec":{"ingressClassName":"nginx","defaultBackend":{"service":{"name":"web","port":{"number":80}}}}}`},
	{Kind{Group: "coordination.k8s.io", Version: "v1", Resource: "leases", Kind: "Lease", Namespaced: true}, "web", `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"web"},"spec":{"holderIdentity":"a"}}`},
}

// TestAgainstARealControlCluster stores the same objects for two tenants and looks at them in every form, alone, in lists
// of one namespace and of all, and in watches.
func TestAgainstARealControlCluster(t *testing.T) {
	cluster := kubetest.ControlPlane(t)
	config := rest.CopyConfig(cluster.Config)
	config.DisableCompression = true
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	c := &control{T: t, client: client, host: config.Host}
	for _, v := range []View{view, other} {
		for _, ns := range []string{"default", "other"} {
			got := c.send(v, namespaces, "create", "", "", "", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"`+ns+`"}}`)
			if !strings.Contains(got, `"kubernetes.io/metadata.name":"`+ns+`"`) {
				t.Errorf("a namespace reads %s", got)
			}
		}
		for _, o := range realObjects {
			c.send(v, o.kind, "create", "", "default", "", o.body)
		}
	}
	for _, o := range append(realObjects, struct {
		kind Kind
		name string
		body string
	}{namespaces, "default", ""}) {
		for form, accept := range forms {
			t.Run(o.kind.Resource+"/"+form, func(t *testing.T) {
				c := &control{t, client, config.Host}
				c.object(o.kind, form, accept, o.name)
				c.lists(o.kind, form, accept, o.name)
				c.watch(o.kind, form, accept, o.name)
			})
		}
	}
	t.Run("Patches", func(t *testing.T) { (&control{t, client, config.Host}).patches() })
	t.Run("Reviews", func(t *testing.T) { (&control{t, client, config.Host}).reviews() })
	t.Run("Errors", func(t *testing.T) { (&control{t, client, config.Host}).errors() })
}

func (c *control) object(k Kind, form, accept, name string) {
	c.Helper()
	if form == "MetadataList" {
		return
	}
	_, body := c.do(http.MethodGet, view.path(k, "default", name), "", accept, nil)
	var shown bytes.Buffer
	if err := view.ObjectToTenant(k, &shown, bytes.NewReader(body)); err != nil {
		c.Fatalf("%v\n%s", err, body)
	}
	c.clean(view, shown.String())
	if !strings.Contains(shown.String(), name) {
		c.Errorf("shown as %s", shown.String())
	}
	if err := other.ObjectToTenant(k, io.Discard, bytes.NewReader(body)); err == nil {
		c.Error("another tenant can read it")
	}
}

func (c *control) lists(k Kind, form, accept, name string) {
	c.Helper()
	if form == "Metadata" {
		return
	}
	if k.Namespaced {
		_, body := c.do(http.MethodGet, view.path(k, "default", ""), "", accept, nil)
		var shown bytes.Buffer
		if err := view.ObjectToTenant(k, &shown, bytes.NewReader(body)); err != nil {
			c.Fatalf("%v\n%s", err, body)
		}
		c.clean(view, shown.String())
		if !strings.Contains(shown.String(), name) {
			c.Errorf("listed as %s", shown.String())
		}
	}
	for _, v := range []View{view, other} {
		start := base64.RawURLEncoding.EncodeToString([]byte(`{"v":"meta.k8s.io/v1","rv":-1,"start":"` + string(v.Tenant) + `-"}`))
		var all bytes.Buffer
		pages := 0
		err := v.ListToTenant(k, &all, ListOptions{First: start}, func(token string) (io.ReadCloser, error) {
			pages++
			resp, body := c.do(http.MethodGet, v.path(k, "", "")+"?limit=1&continue="+url.QueryEscape(token), "", accept, nil)
			if resp.StatusCode != http.StatusOK {
				return nil, fmt.Errorf("%d %s", resp.StatusCode, body)
			}
			return io.NopCloser(bytes.NewReader(body)), nil
		})
		if err != nil {
			c.Fatal(err)
		}
		c.clean(v, all.String())
		if !strings.Contains(all.String(), name) || pages < 2 && v.Tenant == "canary" {
			c.Errorf("%d pages make %s", pages, all.String())
		}
	}
}

func (c *control) watch(k Kind, form, accept, name string) {
	c.Helper()
	if form == "Metadata" {
		return
	}
	if form == "MetadataList" {
		accept = forms["Metadata"]
	}
	if form == "Protobuf" {
		accept += ";stream=watch"
	}
	ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.host+view.path(k, "", "")+"?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=10", nil)
	if err != nil {
		c.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := c.client.Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	var shown bytes.Buffer
	enough := func() {
		if bytes.Contains(shown.Bytes(), []byte("BOOKMARK")) {
			cancel()
		}
	}
	if err := view.WatchToTenant(k, &shown, enough, resp.Body, true); err != nil && ctx.Err() == nil {
		c.Fatalf("%v behind %s", err, shown.String())
	}
	c.clean(view, shown.String())
	for _, want := range []string{"ADDED", "BOOKMARK", name} {
		if !strings.Contains(shown.String(), want) {
			c.Errorf("no %s in %s", want, shown.String())
		}
	}
	if form != "Table" && !strings.Contains(shown.String(), "initial-events-end") {
		c.Errorf("no end of the initial events in %s", shown.String())
	}
}

func (c *control) patches() {
	c.Helper()
	for _, p := range []struct {
		kind              Kind
		media, name, body string
		want              string
	}{
		{namespaces, merge0, "default", `{"metadata":{"labels":{"a":"b"}}}`, `"a":"b"`},
		{namespaces, jsonPatch, "default", `[{"op":"test","path":"/metadata/name","value":"default"},{"op":"replace","path":"/metadata/labels","value":{"c":"d"}}]`, `"c":"d"`},
		{namespaces, strategic, "default", `{"metadata":{"labels":{"c":null,"e":"f"}}}`, `"e":"f"`},
		{namespaces, typeApplyPatch, "applied", "apiVersion: v1\nkind: Namespace\nmetadata: {name: applied, labels: {g: h}}\n", `"g":"h"`},
		{namespaces, typeApplyPatch, "applied", "apiVersion: v1\nkind: Namespace\nmetadata: {name: applied, labels: {i: j}}\n", `"i":"j"`},
		{namespaces, merge0, "default", `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted","pod-security.kubernetes.io/warn":"baseline"}}}`, `"pod-security.kubernetes.io/enforce":"restricted"`},
		{namespaces, jsonPatch, "default", `[{"op":"test","path":"/metadata/labels/pod-security.kubernetes.io~1enforce","value":"restricted"},{"op":"replace","path":"/metadata/labels/pod-security.kubernetes.io~1enforce","value":"privileged"}]`, `"pod-security.kubernetes.io/enforce":"privileged"`},
		{policies, jsonPatch, "web", `[{"op":"add","path":"/spec/ingress/-","value":{"from":[{"namespaceSelector":{}}]}},{"op":"remove","path":"/spec/ingress/0/from/0/namespaceSelector/matchLabels"}]`, `"namespaceSelector":{}`},
		{roles, strategic, "web", `{"rules":[{"verbs":["list"],"apiGroups":["example.com"],"resources":["widgets"]}]}`, `"apiGroups":["example.com"]`},
		{clusterRoles, jsonPatch, "web", `[{"op":"remove","path":"/metadata/labels/rbac.authorization.k8s.io~1aggregate-to-view"}]`, `"labels":{}`},
		{quotas, jsonPatch, "web", `[{"op":"replace","path":"/spec/hard/count~1widgets.example.com","value":"6"}]`, `"count/widgets.example.com":"6"`},
		{deployments, typeApplyPatch, "web", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"template":{"spec":{"priorityClassName":"higher"}}}}`, `"priorityClassName":"higher"`},
		{Kind{Group: "apps", Version: "v1", Resource: "deployments", Kind: "Deployment", Namespaced: true, Subresource: "scale"}, merge0, "web", `{"spec":{"replicas":3}}`, `"replicas":3`},
	} {
		got := c.send(view, p.kind, "patch", p.media, "default", p.name, p.body)
		if !strings.Contains(got, p.want) {
			c.Errorf("patch %s by %s: no %s in %s", p.kind.Resource, p.media, p.want, got)
		}
	}
	// The platform's labels are still there.
	_, body := c.do(http.MethodGet, view.path(namespaces, "", "default"), "", "application/json", nil)
	for _, label := range []string{`"vivarium.io/tenant":"zq7x9k"`, `"pod-security.kubernetes.io/enforce":"baseline"`} {
		if !bytes.Contains(body, []byte(label)) {
			c.Errorf("no %s in %s", label, body)
		}
	}
	// What was read can be written.
	_, body = c.do(http.MethodGet, view.path(deployments, "default", "web"), "", "application/json", nil)
	var shown bytes.Buffer
	if err := view.ObjectToTenant(deployments, &shown, bytes.NewReader(body)); err != nil {
		c.Fatal(err)
	}
	c.send(view, deployments, "update", "", "default", "web", shown.String())
}

func (c *control) reviews() {
	c.Helper()
	review := func(kind, resource string, namespaced bool) Kind {
		return Kind{Group: "authorization.k8s.io", Version: "v1", Kind: kind, Resource: resource, Namespaced: namespaced}
	}
	c.send(view, Kind{Version: "v1", Resource: "serviceaccounts", Kind: "ServiceAccount", Namespaced: true}, "create", "", "default", "", `{"metadata":{"name":"robo"}}`)
	for _, r := range []struct {
		kind       Kind
		name, body string
		want       string
	}{
		{review("LocalSubjectAccessReview", "localsubjectaccessreviews", true), "", `{"spec":{"user":"alice","resourceAttributes":{"namespace":"default","verb":"get","resource":"pods"}}}`, `"user":"alice"`},
		{review("SubjectAccessReview", "subjectaccessreviews", false), "", `{"spec":{"user":"alice","groups":["dev"],"resourceAttributes":{"verb":"get","resource":"namespaces","name":"default"}}}`, `"name":"default"`},
		{review("SelfSubjectAccessReview", "selfsubjectaccessreviews", false), "", `{"spec":{"resourceAttributes":{"namespace":"default","verb":"get","group":"example.com","resource":"widgets"}}}`, `"allowed":true`},
		{review("SelfSubjectRulesReview", "selfsubjectrulesreviews", false), "", `{"spec":{"namespace":"default"}}`, `"apiGroups":["*"]`},
		{tokenRequest, "robo", `{"spec":{"expirationSeconds":600}}`, `"token":"`},
	} {
		if got := c.send(view, r.kind, "create", "", "default", r.name, r.body); !strings.Contains(got, r.want) {
			c.Errorf("%s: no %s in %s", r.kind.Kind, r.want, got)
		}
	}
}

func (c *control) errors() {
	c.Helper()
	for form, accept := range map[string]string{"JSON": "application/json", "Protobuf": forms["Protobuf"]} {
		for path, k := range map[string]Kind{
			view.path(configMaps, "none", "x"): configMaps, view.path(namespaces, "", "none"): namespaces,
			view.path(clusterRoles, "", "none"): clusterRoles,
		} {
			resp, body := c.do(http.MethodGet, path, "", accept, nil)
			got := string(view.StatusToTenant(k, resp.StatusCode, body))
			c.clean(view, got)
			if resp.StatusCode != http.StatusNotFound || !strings.Contains(got, "not found") {
				c.Errorf("%s: %d %s", form, resp.StatusCode, got)
			}
		}
	}
	body, media, err := view.BodyToControl(configMaps, "create", "", []byte(`{"metadata":{"name":"zq7x9k_X"}}`), "default", "")
	if err != nil {
		c.Fatal(err)
	}
	resp, answer := c.do(http.MethodPost, view.path(configMaps, "default", ""), media, "application/json", body)
	if got := string(view.StatusToTenant(configMaps, resp.StatusCode, answer)); resp.StatusCode != 422 || !strings.Contains(got, "zq7x9k_X") {
		c.Errorf("an invalid name: %s", got)
	}
}
