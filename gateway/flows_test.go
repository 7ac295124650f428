package gateway

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// schemaLike is a schema that any API server takes.
func schemaLike(change func(*flowcontrolv1.FlowSchema)) *flowcontrolv1.FlowSchema {
	s := &flowcontrolv1.FlowSchema{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "made-", Labels: map[string]string{"mine": "yes"}},
		Spec: flowcontrolv1.FlowSchemaSpec{
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: "global-default"},
			Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
				Subjects: []flowcontrolv1.Subject{
					{Kind: "User", User: &flowcontrolv1.UserSubject{Name: "*"}},
					{Kind: "Group", Group: &flowcontrolv1.GroupSubject{Name: "system:authenticated"}},
					{Kind: "ServiceAccount", ServiceAccount: &flowcontrolv1.ServiceAccountSubject{Namespace: "web", Name: "*"}},
				},
				ResourceRules: []flowcontrolv1.ResourcePolicyRule{{
					Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}, Namespaces: []string{"*"}, ClusterScope: true,
				}},
				NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}},
			}},
		},
	}
	if change != nil {
		change(s)
	}
	return s
}

func levelLike(change func(*flowcontrolv1.PriorityLevelConfiguration)) *flowcontrolv1.PriorityLevelConfiguration {
	l := &flowcontrolv1.PriorityLevelConfiguration{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "made-", Labels: map[string]string{"mine": "yes"}},
		Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
			Type: "Limited",
			Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
				LimitResponse: flowcontrolv1.LimitResponse{Type: "Queue", Queuing: &flowcontrolv1.QueuingConfiguration{}},
			},
		},
	}
	if change != nil {
		change(l)
	}
	return l
}

// TestFlows lets a tenant have flow schemas and priority levels of its own: with everything that can be done to an object,
// without any of them in the control cluster, and without a sight of anybody else's.
func TestFlows(t *testing.T) {
	w := theWorld(t)
	ctx := t.Context()
	kubeconfig, other := w.tenant(t, "flow0a"), w.tenant(t, "flow0b")
	control := clientset(t, client(t, w.control))
	inControl := func() (names []string) {
		schemas, err := control.FlowcontrolV1().FlowSchemas().List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		levels, err := control.FlowcontrolV1().PriorityLevelConfigurations().List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range schemas.Items {
			names = append(names, "schema "+schemas.Items[i].Name)
		}
		for i := range levels.Items {
			names = append(names, "level "+levels.Items[i].Name)
		}
		slices.Sort(names)
		return slices.DeleteFunc(names, func(name string) bool { return !strings.Contains(name, " flow0") })
	}
	var before []string
	eventually(t, "each tenant has a level and a schema of the platform's", func() bool {
		before = inControl()
		return !slices.ContainsFunc([]string{"level flow0a", "schema flow0a", "level flow0b", "schema flow0b"}, func(made string) bool {
			return !slices.Contains(before, made+"-tenant-requests")
		})
	})

	t.Run("Stock", func(t *testing.T) {
		schemas := strings.Fields(w.must(t, kubeconfig, "", "get", "flowschemas", "-o", "name"))
		levels := strings.Fields(w.must(t, kubeconfig, "", "get", "prioritylevelconfigurations", "-o", "name"))
		for _, want := range []string{"exempt", "catch-all", "global-default"} {
			if !slices.Contains(schemas, "flowschema.flowcontrol.apiserver.k8s.io/"+want) || !slices.Contains(levels, "prioritylevelconfiguration.flowcontrol.apiserver.k8s.io/"+want) {
				t.Errorf("no %s in %v and %v", want, schemas, levels)
			}
		}
		table := w.must(t, kubeconfig, "", "get", "flowschemas", "exempt")
		if fields := strings.Fields(table); len(fields) != 12 || strings.Join(fields[:6], " ") != "NAME PRIORITYLEVEL MATCHINGPRECEDENCE DISTINGUISHERMETHOD AGE MISSINGPL" || strings.Join(fields[6:10], " ") != "exempt exempt 1 <none>" {
			t.Errorf("%d %s", len(fields), table)
		}
		if out := w.fails(t, kubeconfig, "", "patch", "flowschema", "exempt", "--type=merge", "-p", `{"spec":{"matchingPrecedence":7}}`); !strings.Contains(out, "spec of 'exempt' must equal the fixed value") {
			t.Errorf("%s", out)
		}
	})
	for encoding, contentType := range map[string]string{"JSON": "application/json", "Protobuf": "application/vnd.kubernetes.protobuf"} {
		t.Run(encoding, func(t *testing.T) {
			config := rest.CopyConfig(client(t, kubeconfig))
			config.ContentType = contentType
			kube := kubernetes.NewForConfigOrDie(config)
			schemas, levels := kube.FlowcontrolV1().FlowSchemas(), kube.FlowcontrolV1().PriorityLevelConfigurations()
			mine := metav1.ListOptions{LabelSelector: "mine=yes"}
			made, err := schemas.Create(ctx, schemaLike(nil), metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(made.Name, "made-") || made.Spec.MatchingPrecedence != 1000 || made.Generation != 1 ||
				made.Spec.Rules[0].Subjects[1].Group.Name != "system:authenticated" || made.Spec.PriorityLevelConfiguration.Name != "global-default" {
				t.Errorf("%+v", made)
			}
			if c := made.Status.Conditions; len(c) != 1 || c[0].Type != "Applied" || c[0].Status != "False" || c[0].Message == "" {
				t.Errorf("status %+v", c)
			}
			list, err := schemas.List(ctx, mine)
			if err != nil || len(list.Items) != 1 {
				t.Fatalf("%v %v", list, err)
			}
			events, err := schemas.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion, LabelSelector: mine.LabelSelector})
			if err != nil {
				t.Fatal(err)
			}
			defer events.Stop()
			if _, err := schemas.Patch(ctx, made.Name, types.StrategicMergePatchType, []byte(`{"spec":{"matchingPrecedence":9}}`), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			event := <-events.ResultChan()
			changed, ok := event.Object.(*flowcontrolv1.FlowSchema)
			if !ok || event.Type != watch.Modified || changed.Spec.MatchingPrecedence != 9 || changed.Generation != 2 || changed.Name != made.Name {
				t.Fatalf("%+v", event)
			}
			told, err := schemas.Patch(ctx, made.Name, types.MergePatchType, []byte(`{"metadata":{"labels":null},"spec":{"matchingPrecedence":8},"status":{"conditions":[{"type":"Mine","status":"True"}]}}`), metav1.PatchOptions{}, "status")
			if err != nil || len(told.Status.Conditions) != 1 || told.Status.Conditions[0].Type != "Mine" || told.Spec.MatchingPrecedence != 9 || told.Labels["mine"] != "yes" {
				t.Errorf("%+v %v", told, err)
			}
			level, err := levels.Create(ctx, levelLike(nil), metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if l := level.Spec.Limited; *l.NominalConcurrencyShares != 30 || *l.LendablePercent != 0 || l.LimitResponse.Queuing.Queues != 64 || l.LimitResponse.Queuing.HandSize != 8 {
				t.Errorf("%+v", l)
			}
			level.Spec.Limited.NominalConcurrencyShares = new(int32)
			if level, err = levels.Update(ctx, level, metav1.UpdateOptions{}); err != nil || *level.Spec.Limited.NominalConcurrencyShares != 0 {
				t.Errorf("%+v %v", level, err)
			}
			if err := levels.Delete(ctx, level.Name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
			if _, err := levels.Get(ctx, level.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("%v", err)
			}
			if err := schemas.DeleteCollection(ctx, metav1.DeleteOptions{}, mine); err != nil {
				t.Error(err)
			}
			if list, err = schemas.List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) == 0 || slices.ContainsFunc(list.Items, func(s flowcontrolv1.FlowSchema) bool { return s.Name == made.Name }) {
				t.Errorf("%v %v", list, err)
			}
		})
	}
	t.Run("Apply", func(t *testing.T) {
		manifest := func(precedence int) string {
			return fmt.Sprintf(`
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: applied}
spec: {matchingPrecedence: %d, priorityLevelConfiguration: {name: applied}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: applied}
spec: {type: Limited, limited: {limitResponse: {type: Reject}}}
`, precedence)
		}
		w.must(t, kubeconfig, manifest(500), "apply", "-f", "-")
		w.must(t, kubeconfig, manifest(501), "apply", "-f", "-")
		w.must(t, kubeconfig, manifest(502), "apply", "--server-side", "--force-conflicts", "-f", "-")
		if out := w.must(t, kubeconfig, "", "get", "flowschema", "applied", "-o", "jsonpath={.spec.matchingPrecedence} {.spec.priorityLevelConfiguration.name}"); out != "502 applied" {
			t.Errorf("%s", out)
		}
		if out := w.must(t, kubeconfig, "", "explain", "flowschema.spec.matchingPrecedence"); !strings.Contains(out, "FlowSchema") {
			t.Errorf("%s", out)
		}
		if out := w.must(t, other, "", "get", "flowschemas", "-o", "name"); strings.Contains(out, "applied") {
			t.Errorf("a neighbour sees %s", out)
		}
		w.fails(t, other, "", "get", "flowschema", "applied")
	})
	t.Run("Rights", func(t *testing.T) {
		w.must(t, kubeconfig, "", "create", "clusterrole", "looks", "--verb=get,list,watch,patch", "--resource=flowschemas.flowcontrol.apiserver.k8s.io")
		w.must(t, kubeconfig, "", "create", "clusterrolebinding", "looks", "--clusterrole=looks", "--user=bob")
		w.may(t, kubeconfig, "list", "flowschemas.flowcontrol.apiserver.k8s.io", "--as=bob")
		w.must(t, kubeconfig, "", "get", "flowschemas", "--as=bob")
		for _, args := range [][]string{
			{"get", "prioritylevelconfigurations"}, {"delete", "flowschema", "applied"}, {"get", "flowschema", "applied", "--subresource=status"},
		} {
			if out := w.fails(t, kubeconfig, "", append(args, "--as=bob")...); !strings.Contains(out, "Forbidden") && !strings.Contains(out, "forbidden") {
				t.Errorf("%v: %s", args, out)
			}
		}
		// Who applies what is not there makes it.
		out := w.fails(t, kubeconfig, "{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: FlowSchema, metadata: {name: bobs}, spec: {priorityLevelConfiguration: {name: applied}}}",
			"apply", "--server-side", "-f", "-", "--as=bob")
		if !strings.Contains(out, `cannot create resource "flowschemas"`) {
			t.Errorf("%s", out)
		}
	})
	t.Run("Limit", func(t *testing.T) {
		levels := clientset(t, client(t, other)).FlowcontrolV1().PriorityLevelConfigurations()
		for i := range mostKept + 1 {
			_, err := levels.Create(ctx, levelLike(nil), metav1.CreateOptions{})
			if apierrors.IsForbidden(err) && i > mostKept/2 {
				return
			}
			if err != nil {
				t.Fatalf("%d: %v", i, err)
			}
		}
		t.Error("there is no end")
	})
	t.Run("Spelling", func(t *testing.T) {
		// However the content type is spelled, what applies makes one more.
		request := clientset(t, client(t, other)).FlowcontrolV1().RESTClient().Patch(types.ApplyPatchType).Resource("prioritylevelconfigurations").Name("more")
		err := request.Param("fieldManager", "test").SetHeader("Content-Type", "Application/Apply-Patch+yaml").Body([]byte(
			`{"apiVersion":"flowcontrol.apiserver.k8s.io/v1","kind":"PriorityLevelConfiguration","metadata":{"name":"more"},"spec":{"type":"Limited","limited":{"limitResponse":{"type":"Reject"}}}}`)).Do(ctx).Error()
		if !apierrors.IsForbidden(err) {
			t.Errorf("one more than there may be: %v", err)
		}
	})
	t.Run("Removed", func(t *testing.T) {
		levels := clientset(t, client(t, other)).FlowcontrolV1().PriorityLevelConfigurations()
		_, err := levels.Patch(ctx, "exempt", types.MergePatchType, []byte(`{"metadata":{"finalizers":["example.com/nobody"]}}`), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		kept := func() string {
			return w.must(t, w.operator, "", "get", "flowschemas,prioritylevelconfigurations", "-o", "name")
		}
		if all := kept(); !strings.Contains(all, "/flow0b-exempt") || !strings.Contains(all, "/flow0b-catch-all") {
			t.Errorf("%s", all)
		}
		w.must(t, w.operator, "", "delete", "tenant", "flow0b", "--wait=false")
		eventually(t, "what was kept goes with its tenant", func() bool { return !strings.Contains(kept(), "/flow0b-") })
	})
	before = slices.DeleteFunc(before, func(name string) bool { return strings.Contains(name, "flow0b") })
	eventually(t, "the control cluster has what it had, but for the removed tenant's", func() bool { return cmp.Equal(before, inControl()) })
}

// TestFlowsAreChecked sends what is wrong to a stock API server too: both must find the same faults.
func TestFlowsAreChecked(t *testing.T) {
	w := theWorld(t)
	kube := clientset(t, client(t, w.tenant(t, "flow0c")))
	control := clientset(t, client(t, w.control))
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	faults := func(err error) (found []string) {
		var status *apierrors.StatusError
		if err == nil {
			return nil
		}
		if !errors.As(err, &status) || status.ErrStatus.Details == nil {
			t.Fatal(err)
		}
		for _, cause := range status.ErrStatus.Details.Causes {
			found = append(found, fmt.Sprintf("%s %s", cause.Type, cause.Field))
		}
		slices.Sort(found)
		return slices.Compact(found)
	}
	type schema = flowcontrolv1.FlowSchema
	for name, change := range map[string]func(*schema){
		"Fine":         nil,
		"Precedence":   func(s *schema) { s.Spec.MatchingPrecedence = -1 },
		"First":        func(s *schema) { s.Spec.MatchingPrecedence = 1 },
		"Late":         func(s *schema) { s.Spec.MatchingPrecedence = 10001 },
		"Method":       func(s *schema) { s.Spec.DistinguisherMethod = &flowcontrolv1.FlowDistinguisherMethod{Type: "ByMood"} },
		"NoLevel":      func(s *schema) { s.Spec.PriorityLevelConfiguration.Name = "" },
		"Level":        func(s *schema) { s.Spec.PriorityLevelConfiguration.Name = "A" },
		"NoSubjects":   func(s *schema) { s.Spec.Rules[0].Subjects = nil },
		"NoRules":      func(s *schema) { s.Spec.Rules[0].ResourceRules, s.Spec.Rules[0].NonResourceRules = nil, nil },
		"NoKind":       func(s *schema) { s.Spec.Rules[0].Subjects[0].Kind = "Robot" },
		"OtherSubject": func(s *schema) { s.Spec.Rules[0].Subjects[0].Group = &flowcontrolv1.GroupSubject{Name: "a"} },
		"NoUser":       func(s *schema) { s.Spec.Rules[0].Subjects[0].User = nil },
		"NoUserName":   func(s *schema) { s.Spec.Rules[0].Subjects[0].User.Name = "" },
		"NoAccount":    func(s *schema) { *s.Spec.Rules[0].Subjects[2].ServiceAccount = flowcontrolv1.ServiceAccountSubject{} },
		"BadAccount": func(s *schema) {
			*s.Spec.Rules[0].Subjects[2].ServiceAccount = flowcontrolv1.ServiceAccountSubject{Namespace: "a.b", Name: "A"}
		},
		"NoVerbs":      func(s *schema) { s.Spec.Rules[0].ResourceRules[0].Verbs = nil },
		"Verb":         func(s *schema) { s.Spec.Rules[0].ResourceRules[0].Verbs = []string{"get", "take"} },
		"AllVerbs":     func(s *schema) { s.Spec.Rules[0].NonResourceRules[0].Verbs = []string{"get", "*"} },
		"NoGroups":     func(s *schema) { s.Spec.Rules[0].ResourceRules[0].APIGroups = nil },
		"AllResources": func(s *schema) { s.Spec.Rules[0].ResourceRules[0].Resources = []string{"*", "pods"} },
		"NoNamespaces": func(s *schema) {
			s.Spec.Rules[0].ResourceRules[0].ClusterScope, s.Spec.Rules[0].ResourceRules[0].Namespaces = false, nil
		},
		"Namespace":     func(s *schema) { s.Spec.Rules[0].ResourceRules[0].Namespaces = []string{"a.b"} },
		"AllNamespaces": func(s *schema) { s.Spec.Rules[0].ResourceRules[0].Namespaces = []string{"a", "*"} },
		"NoURLs":        func(s *schema) { s.Spec.Rules[0].NonResourceRules[0].NonResourceURLs = nil },
		"URL": func(s *schema) {
			s.Spec.Rules[0].NonResourceRules[0].NonResourceURLs = []string{"a", "/b//c", "/d*", "/e f", "/g/*/h"}
		},
	} {
		t.Run("FlowSchema/"+name, func(t *testing.T) {
			_, stock := control.FlowcontrolV1().FlowSchemas().Create(t.Context(), schemaLike(change), dry)
			_, ours := kube.FlowcontrolV1().FlowSchemas().Create(t.Context(), schemaLike(change), dry)
			if diff := cmp.Diff(faults(stock), faults(ours)); diff != "" {
				t.Errorf("(-stock +ours):\n%s\n%v\n%v", diff, stock, ours)
			}
		})
	}
	type level = flowcontrolv1.PriorityLevelConfiguration
	minus := int32(-1)
	for name, change := range map[string]func(*level){
		"Fine":       nil,
		"NoType":     func(l *level) { l.Spec.Type = "" },
		"Type":       func(l *level) { l.Spec.Type = "Endless" },
		"Exempt":     func(l *level) { l.Spec.Type = "Exempt" },
		"Both":       func(l *level) { l.Spec.Exempt = &flowcontrolv1.ExemptPriorityLevelConfiguration{} },
		"Nothing":    func(l *level) { l.Spec.Limited = nil },
		"Shares":     func(l *level) { l.Spec.Limited.NominalConcurrencyShares = &minus },
		"Lend":       func(l *level) { l.Spec.Limited.LendablePercent = &minus },
		"Borrow":     func(l *level) { l.Spec.Limited.BorrowingLimitPercent = &minus },
		"NoResponse": func(l *level) { l.Spec.Limited.LimitResponse = flowcontrolv1.LimitResponse{} },
		"Response":   func(l *level) { l.Spec.Limited.LimitResponse.Type = "Shrug" },
		"Reject":     func(l *level) { l.Spec.Limited.LimitResponse.Type = "Reject" },
		"NoQueue":    func(l *level) { l.Spec.Limited.LimitResponse.Queuing = nil },
		"Queues":     func(l *level) { l.Spec.Limited.LimitResponse.Queuing.Queues = 10_000_001 },
		"Negative": func(l *level) {
			*l.Spec.Limited.LimitResponse.Queuing = flowcontrolv1.QueuingConfiguration{Queues: -1, HandSize: -1, QueueLengthLimit: -1}
		},
		"Hand":    func(l *level) { l.Spec.Limited.LimitResponse.Queuing.HandSize = 65 },
		"Entropy": func(l *level) { l.Spec.Limited.LimitResponse.Queuing.HandSize = 60 },
	} {
		t.Run("PriorityLevel/"+name, func(t *testing.T) {
			_, stock := control.FlowcontrolV1().PriorityLevelConfigurations().Create(t.Context(), levelLike(change), dry)
			_, ours := kube.FlowcontrolV1().PriorityLevelConfigurations().Create(t.Context(), levelLike(change), dry)
			if diff := cmp.Diff(faults(stock), faults(ours)); diff != "" {
				t.Errorf("(-stock +ours):\n%s\n%v\n%v", diff, stock, ours)
			}
		})
	}
}
