package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// TestValidatingPolicies lets a tenant have policies: they judge what its users and what controllers write, in its own
// words, and nobody else's.
func TestValidatingPolicies(t *testing.T) {
	w := theWorld(t)
	ctx := t.Context()
	kubeconfig, other := w.tenant(t, "vap00a"), w.tenant(t, "vap00b")
	kube, neighbour := clientset(t, client(t, kubeconfig)), clientset(t, client(t, other))
	w.must(t, kubeconfig, "", "create", "ns", "web")
	w.must(t, kubeconfig, "", "label", "ns", "web", "guarded=yes")
	w.must(t, other, "", "create", "ns", "web")
	w.must(t, other, "", "label", "ns", "web", "guarded=yes")

	const replicas = `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: replicas.example.com}
spec:
  failurePolicy: Fail
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: web}}
    resourceRules:
    - {apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}
  variables:
  - {name: count, expression: object.spec.replicas}
  validations:
  - expression: variables.count <= int(params.data.most)
    messageExpression: "'no more than ' + params.data.most + ' in ' + object.metadata.namespace + ' of ' + namespaceObject.metadata.name + ' (' + namespaceObject.metadata.labels.guarded + '), ' + request.userInfo.username + ' of ' + request.namespace"
    reason: Forbidden
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: replicas.example.com}
spec:
  policyName: replicas.example.com
  paramRef: {name: limits, namespace: default, parameterNotFoundAction: Deny}
  validationActions: [Deny]
`
	w.must(t, kubeconfig, replicas+`---
apiVersion: v1
kind: ConfigMap
metadata: {name: limits, namespace: default}
data: {most: "3"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: pods.example.com}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}
  matchConditions:
  - {name: marked, expression: "has(object.metadata.labels) && 'refuse' in object.metadata.labels"}
  validations:
  - {expression: "!request.userInfo.username.startsWith('system:serviceaccount:kube-system:')", message: controllers make none}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: pods.example.com}
spec: {policyName: pods.example.com, validationActions: [Deny]}
`, "apply", "-f", "-")

	deployment := func(name string, replicas int32, labels map[string]string) *appsv1.Deployment {
		return &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: appsv1.DeploymentSpec{
				Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}},
				Template: corev1.PodTemplateSpec{
					ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
					Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "vivarium.test/a"}}},
				},
			},
		}
	}
	try := func(kube kubernetes.Interface, namespace string, d *appsv1.Deployment) error {
		_, err := kube.AppsV1().Deployments(namespace).Create(ctx, d, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	const want = `deployments.apps "a" is forbidden: ValidatingAdmissionPolicy 'replicas.example.com' with binding 'replicas.example.com' denied request: no more than 3 in web of web (yes), admin of web`
	var refused error
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("refused last: %v", refused)
		}
	})
	eventually(t, "a policy is in force", func() bool {
		refused = try(kube, "web", deployment("a", 4, nil))
		return refused != nil && refused.Error() == want
	})
	if !apierrors.IsForbidden(refused) {
		t.Errorf("refused: %v\nwant:    %s", refused, want)
	}
	for what, err := range map[string]error{
		"fewer":             try(kube, "web", deployment("a", 3, nil)),
		"another namespace": try(kube, "default", deployment("a", 4, nil)),
		"another tenant":    try(neighbour, "web", deployment("a", 4, nil)),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}

	// What controllers write does not pass the gateway.
	marked := deployment("marked", 1, nil)
	marked.Spec.Template.Labels["refuse"] = "yes"
	for _, k := range []kubernetes.Interface{kube, neighbour} {
		if _, err := k.AppsV1().Deployments("default").Create(ctx, marked, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the neighbour's pod is made", func() bool {
		pods, err := neighbour.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=marked"})
		return err == nil && len(pods.Items) == 1
	})
	eventually(t, "a controller is refused, in an event in the tenant's words", func() bool {
		events, err := kube.CoreV1().Events("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events.Items {
			if e.Reason == "FailedCreate" {
				if !strings.HasPrefix(e.Message, `Error creating: pods "marked-`) || !strings.HasSuffix(e.Message, `ValidatingAdmissionPolicy 'pods.example.com' with binding 'pods.example.com' denied request: controllers make none`) {
					t.Errorf("event: %s", e.Message)
				}
				return true
			}
		}
		return false
	})
	if pods, err := kube.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=marked"}); err != nil || len(pods.Items) > 0 {
		t.Errorf("%d pods are there, %v", len(pods.Items), err)
	}

	// In the control cluster the bindings bind nothing.
	control := clientset(t, client(t, w.control)).AdmissionregistrationV1()
	stored, err := control.ValidatingAdmissionPolicyBindings().Get(ctx, "vap00a-replicas.example.com", metav1.GetOptions{})
	if err != nil || stored.Spec.PolicyName != "of-tenant.vap00a-replicas.example.com" {
		t.Errorf("in control: %+v, %v", stored, err)
	}
	bindings := kube.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	if own, err := bindings.Get(ctx, "replicas.example.com", metav1.GetOptions{}); err != nil || own.Spec.PolicyName != "replicas.example.com" || own.Spec.ParamRef.Namespace != "default" {
		t.Errorf("the tenant's: %+v, %v", own, err)
	}
	if list, err := neighbour.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
		t.Errorf("the neighbour sees %v, %v", list, err)
	}

	// A warning, and then nothing once the binding is gone.
	if _, err := bindings.Patch(ctx, "replicas.example.com", "application/json-patch+json", []byte(`[{"op":"replace","path":"/spec/validationActions","value":["Warn"]},{"op":"test","path":"/spec/policyName","value":"replicas.example.com"}]`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	manifest := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"w","namespace":"web"},"spec":{"replicas":5,"selector":{"matchLabels":{"app":"w"}},"template":{"metadata":{"labels":{"app":"w"}},"spec":{"containers":[{"name":"a","image":"vivarium.test/a"}]}}}}`
	eventually(t, "a warning instead", func() bool {
		out, err := w.run(kubeconfig, manifest, "create", "--dry-run=server", "-f", "-")
		return err == nil && strings.Contains(out, "Warning: Validation failed for ValidatingAdmissionPolicy 'replicas.example.com' with binding 'replicas.example.com': no more than 3 in web")
	})
	if out := w.must(t, kubeconfig, "", "get", "validatingadmissionpolicies,validatingadmissionpolicybindings"); !strings.Contains(out, "v1/ConfigMap") || !strings.Contains(out, "default/limits") {
		t.Errorf("tables:\n%s", out)
	}
	if err := bindings.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nobody is asked any more", func() bool {
		config, err := control.ValidatingWebhookConfigurations().Get(ctx, "vivarium-tenant-policies", metav1.GetOptions{})
		return err == nil && len(config.Webhooks) == 0
	})
	eventually(t, "the policies are out of force", func() bool { return try(kube, "web", deployment("a", 4, nil)) == nil })

	// Parameters are followed although there was no policy to name their kind for a while.
	if err := kube.AdmissionregistrationV1().ValidatingAdmissionPolicies().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second) // the plugins look every second
	w.must(t, kubeconfig, "", "patch", "configmap", "limits", "-p", `{"data":{"most":"9"}}`)
	w.must(t, kubeconfig, replicas, "apply", "-f", "-")
	eventually(t, "the policy is in force again, with what its parameter says now", func() bool {
		refused := try(kube, "web", deployment("a", 10, nil))
		return refused != nil && strings.Contains(refused.Error(), "no more than 9 in web")
	})

	// What is left goes with the tenant, whose policies cannot keep it.
	w.must(t, kubeconfig, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"web"},"spec":{"containers":[{"name":"a","image":"vivarium.test/a"}]}}`, "create", "-f", "-")
	w.must(t, kubeconfig, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: nothing.example.com}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: ["*"], apiVersions: ["*"], operations: ["*"], resources: ["*/*"]}
  validations: [{expression: "false", message: nothing may be written}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: nothing.example.com}
spec: {policyName: nothing.example.com, validationActions: [Deny]}
`, "apply", "-f", "-")
	eventually(t, "nothing may be written", func() bool {
		out, err := w.run(kubeconfig, "", "create", "clusterrole", "x", "--verb=get", "--resource=pods", "--dry-run=server")
		if strings.Contains(out, "webhook") {
			t.Fatalf("the tenant is told how the platform asks: %s", out)
		}
		return err != nil && strings.Contains(out, "nothing may be written")
	})
	// Nor do they bind the platform, which says how the tenant's pods are and takes them out of a pool.
	if out := w.fails(t, kubeconfig, "", "delete", "pod", "a", "-n", "web"); !strings.Contains(out, "nothing may be written") {
		t.Errorf("the tenant: %s", out)
	}
	w.must(t, w.control, "", "patch", "pod", "a", "-n", "vap00a-web", "--subresource=status", "-p", `{"status":{"message":"by the platform"}}`)
	w.must(t, w.control, "", "delete", "pod", "a", "-n", "vap00a-web", "--grace-period=0", "--force")
	w.must(t, w.operator, "", "delete", "tenant", "vap00a", "--wait=false")
	eventually(t, "the tenant's policies and namespaces are gone", func() bool {
		out := w.must(t, w.control, "", "get", "validatingadmissionpolicies,validatingadmissionpolicybindings,namespaces", "-o", "name")
		return !strings.Contains(out, "vap00a-")
	})
}

// TestManyPolicies has a tenant make more of them than it may have.
func TestManyPolicies(t *testing.T) {
	w := theWorld(t)
	kubeconfig := w.tenant(t, "vap00c")
	bindings := clientset(t, client(t, kubeconfig)).AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	made, refused := 0, error(nil)
	for ; made < 200 && refused == nil; made++ {
		_, refused = bindings.Create(t.Context(), &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("a", made)},
			Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
				PolicyName: "none", ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
			},
		}, metav1.CreateOptions{})
	}
	if made <= 100 || !apierrors.IsForbidden(refused) || !strings.Contains(refused.Error(), "a cluster may have 100 of these") {
		t.Errorf("%d were made, and then: %v", made-1, refused)
	}
	const again = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: NAME}
spec: {policyName: other, validationActions: [Deny]}
`
	w.must(t, kubeconfig, strings.ReplaceAll(again, "NAME", "a0"), "apply", "--server-side", "--force-conflicts", "-f", "-")
	if out := w.fails(t, kubeconfig, strings.ReplaceAll(again, "NAME", "b0"), "apply", "--server-side", "-f", "-"); !strings.Contains(out, "a cluster may have 100 of these") {
		t.Errorf("applied: %s", out)
	}
	w.must(t, kubeconfig, "", "delete", "validatingadmissionpolicybindings", "a1", "a2")
}

// TestMutatingPolicies lets a tenant's policies change what its users and what controllers write, as far as the tenant may
// write it itself.
func TestMutatingPolicies(t *testing.T) {
	w := theWorld(t)
	ctx := t.Context()
	kubeconfig, other := w.tenant(t, "map00a"), w.tenant(t, "map00b")
	// What judges for a tenant watches for as long as it has policies, and would be counted by tests that count watches.
	t.Cleanup(func() {
		w.must(t, w.operator, "", "delete", "tenant", "map00a", "--wait=false")
		eventually(t, "nothing judges for the tenant any more", func() bool {
			_, err := w.server.front.authenticator.Tenant("map00a")
			return err != nil
		})
	})
	kube, neighbour := clientset(t, client(t, kubeconfig)), clientset(t, client(t, other))
	w.must(t, kubeconfig, `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: settings.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: settings, singular: setting, kind: Setting, listKind: SettingList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {team: {type: string}}}}
`, "apply", "-f", "-")
	w.must(t, kubeconfig, "", "wait", "--for=condition=Established", "crd/settings.example.com", "--timeout=30s")
	w.must(t, kubeconfig, `
apiVersion: example.com/v1
kind: Setting
metadata: {name: all, namespace: default}
team: blue
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: team.example.com}
spec:
  reinvocationPolicy: IfNeeded
  paramKind: {apiVersion: example.com/v1, kind: Setting}
  matchConstraints:
    resourceRules:
    - apiGroups: ["", apps, example.com, discovery.k8s.io]
      apiVersions: ["*"]
      operations: [CREATE, UPDATE]
      resources: [pods, deployments, configmaps, settings, services, endpoints, endpointslices]
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration: {expression: "Object{metadata: Object.metadata{labels: {'team': params.team}, annotations: {'in': object.metadata.namespace}}}"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: team.example.com}
spec:
  policyName: team.example.com
  paramRef: {name: all, namespace: default, parameterNotFoundAction: Deny}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: nodes.example.com}
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}
  matchConditions:
  - {name: marked, expression: "has(object.metadata.labels) && 'elsewhere' in object.metadata.labels"}
  mutations:
  - patchType: JSONPatch
    jsonPatch: {expression: "[JSONPatch{op: 'add', path: '/spec/nodeName', value: 'somebodys'}]"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: nodes.example.com}
spec: {policyName: nodes.example.com}
`, "apply", "-f", "-")

	configMap := func(kube kubernetes.Interface) *corev1.ConfigMap {
		made, err := kube.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "a-"}}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			t.Log(err)
			return &corev1.ConfigMap{}
		}
		return made
	}
	eventually(t, "a policy changes what is written", func() bool {
		made := configMap(kube)
		return made.Labels["team"] == "blue" && made.Annotations["in"] == "default"
	})
	if made := configMap(neighbour); len(made.Labels) > 0 {
		t.Errorf("the neighbour's too: %v", made.Labels)
	}
	out := w.must(t, kubeconfig, `{"apiVersion":"example.com/v1","kind":"Setting","metadata":{"name":"one","namespace":"default"}}`, "create", "-f", "-", "-o", "jsonpath={.metadata.labels.team}")
	if out != "blue" {
		t.Errorf("a custom object: %s", out)
	}
	deployment := func(name string, labels map[string]string) {
		labels["app"] = name
		_, err := kube.AppsV1().Deployments("default").Create(ctx, &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: appsv1.DeploymentSpec{
				Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}},
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "vivarium.test/a"}}}},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	deployment("blue", map[string]string{})
	eventually(t, "a controller's pod carries what the policy adds", func() bool {
		pods, err := kube.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=blue,team=blue"})
		return err == nil && len(pods.Items) == 1 && pods.Items[0].Annotations["in"] == "default"
	})
	// Where traffic goes is not the tenant's to write, so that its policies do not change it. That they are there says that the
	// controllers could write them.
	service, err := kube.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "blue"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "blue"}, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	if err != nil || service.Annotations["in"] != "default" {
		t.Errorf("a Service: %v, %v", service.Annotations, err)
	}
	eventually(t, "endpoints are written, and nobody changes them", func() bool {
		slices, err := kube.DiscoveryV1().EndpointSlices("default").List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=blue"})
		endpoints, alsoErr := kube.CoreV1().Endpoints("default").Get(ctx, "blue", metav1.GetOptions{})
		if err != nil || alsoErr != nil || len(slices.Items) == 0 {
			return false
		}
		for _, made := range []map[string]string{slices.Items[0].Annotations, endpoints.Annotations} {
			if made["in"] != "" {
				t.Fatalf("a policy changed what the tenant may not: %v", made)
			}
		}
		return true
	})
	// What the tenant may not write itself its policy may not either.
	deployment("elsewhere", map[string]string{"elsewhere": "yes"})
	eventually(t, "a policy that reaches for a node is refused", func() bool {
		out := w.must(t, kubeconfig, "", "get", "events", "-o", "jsonpath={.items[*].message}")
		return strings.Contains(out, "pods are placed by the scheduler")
	})
	if pods, err := kube.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=elsewhere"}); err != nil || len(pods.Items) > 0 {
		t.Errorf("%d pods are there, %v", len(pods.Items), err)
	}
}
