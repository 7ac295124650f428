package policies

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"vivarium.io/vivarium/internal/names"
)

func rule(group, resource string, operations ...admissionregistrationv1.OperationType) admissionregistrationv1.NamedRuleWithOperations {
	return admissionregistrationv1.NamedRuleWithOperations{ResourceNames: []string{"x"}, RuleWithOperations: admissionregistrationv1.RuleWithOperations{
		Operations: operations, Rule: admissionregistrationv1.Rule{APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: []string{resource}},
	}}
}

func TestWhoIsAskedAbout(t *testing.T) {
	create, update := admissionregistrationv1.Create, admissionregistrationv1.Update
	policies := []policy{
		{"abc123-pods", []admissionregistrationv1.NamedRuleWithOperations{rule("", "pods", update, create)}},
		{"zzz999-pods", []admissionregistrationv1.NamedRuleWithOperations{rule("", "pods", create, update), rule("events.k8s.io", "events", create)}},
		{"abc123-unbound", []admissionregistrationv1.NamedRuleWithOperations{rule("apps", "deployments", create)}},
		{"vivarium-tenant-scope", []admissionregistrationv1.NamedRuleWithOperations{rule("*", "*/*", create)}},
		{"everyt-hing", nil},
	}
	bindings := []binding{
		{"zzz999-a", "of-tenant.zzz999-pods"},
		{"abc123-a", "of-tenant.abc123-pods"},
		{"abc123-b", "of-tenant.abc123-missing"},
		// None of these may make anybody be asked about: a foreign policy, the operator's own binding, one that binds for real.
		{"abc123-c", "of-tenant.zzz999-pods"},
		{"vivarium-tenant-scope", "vivarium-tenant-scope"},
		{"other1-a", "other1-pods"},
	}
	b := collect(policies, bindings)
	if diff := cmp.Diff([]names.TenantID{"abc123", "zzz999"}, b.tenants); diff != "" {
		t.Error(diff)
	}
	if len(b.asks) != 1 {
		t.Fatalf("asked: %+v", b.asks)
	}
	var said []string
	for _, r := range b.asks[0].rules {
		said = append(said, strings.Join(r.APIGroups, "|")+" "+strings.Join(r.APIVersions, "|")+" "+strings.Join(r.Resources, "|"))
	}
	// Versions and order make no difference, and both groups of Events are one.
	if diff := cmp.Diff([]string{"|events.k8s.io * events", " * pods"}, said); diff != "" {
		t.Error(diff)
	}
	client := admissionregistrationv1.WebhookClientConfig{}
	hooks := b.validating(client)
	if len(hooks) != 1 || *hooks[0].FailurePolicy != admissionregistrationv1.Fail || !strings.Contains(hooks[0].MatchConditions[0].Expression, "in ['abc123-', 'zzz999-']") {
		t.Errorf("%+v", hooks)
	}
	if hooks := collect(policies, bindings[3:]).validating(client); hooks != nil {
		t.Errorf("nobody has policies, and yet: %+v", hooks)
	}
	if hooks := collect(policies, nil).mutating(client); hooks != nil {
		t.Errorf("nobody has policies, and yet: %+v", hooks)
	}
}

// asked gives what the control cluster asks about for a tenant, or fails the test if there is not one webhook for it.
func asked(t *testing.T, hooks []admissionregistrationv1.ValidatingWebhook, id string) []string {
	t.Helper()
	var out []string
	found := 0
	for _, hook := range hooks {
		if !slices.Contains(hook.NamespaceSelector.MatchExpressions[0].Values, id) {
			continue
		}
		found++
		if !strings.Contains(hook.MatchConditions[0].Expression, "'"+id+"-'") {
			t.Errorf("cluster-scoped objects of %s are left out", id)
		}
		for _, r := range hook.Rules {
			out = append(out, r.Resources...)
		}
	}
	if found != 1 {
		t.Errorf("%s is in %d webhooks", id, found)
	}
	return out
}

// TestWhatATenantAsksForIsItsOwn has tenants whose policies name more than a configuration can hold, or everything: it is
// they alone whose writes are all asked about, and the others' rules stay what they were.
func TestWhatATenantAsksForIsItsOwn(t *testing.T) {
	create := admissionregistrationv1.Create
	huge, odd := rule("", "pods", create), []admissionregistrationv1.NamedRuleWithOperations{}
	for i := range 20_000 {
		huge.Resources = append(huge.Resources, fmt.Sprintf("things%d", i))
		odd = append(odd, rule("example.com", fmt.Sprintf("things%d", i), create))
	}
	everyGroup, everyResource := rule("*", "pods", create), rule("", "*", create)
	cases := map[string][]admissionregistrationv1.NamedRuleWithOperations{
		"one huge rule": {huge}, "many rules": odd, "no rules": nil, "every group": {everyGroup}, "every resource": {everyResource},
		"one long name": {rule("", strings.Repeat("x", 1<<20), create)},
	}
	for name, rules := range cases {
		t.Run(name, func(t *testing.T) {
			policies := []policy{
				{"abc123-pods", []admissionregistrationv1.NamedRuleWithOperations{rule("", "pods", create)}},
				{"heavy0-pods", []admissionregistrationv1.NamedRuleWithOperations{rule("", "configmaps", create)}},
				{"heavy0-much", rules},
			}
			bindings := []binding{{"abc123-a", "of-tenant.abc123-pods"}, {"heavy0-a", "of-tenant.heavy0-pods"}, {"heavy0-b", "of-tenant.heavy0-much"}}
			hooks := collect(policies, bindings).validating(admissionregistrationv1.WebhookClientConfig{})
			if diff := cmp.Diff([]string{"pods"}, asked(t, hooks, "abc123")); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{"*/*"}, asked(t, hooks, "heavy0")); diff != "" {
				t.Error(diff)
			}
			if raw, err := json.Marshal(hooks); err != nil || len(raw) > 1<<16 {
				t.Errorf("%d bytes of configuration, %v", len(raw), err)
			}
		})
	}
	// Many tenants that name a little each make the heaviest among them be asked about everything.
	var policies []policy
	var bindings []binding
	add := func(id string, many int) {
		var rules []admissionregistrationv1.NamedRuleWithOperations
		for i := range many {
			rules = append(rules, rule(id+".example.com", fmt.Sprintf("things%d", i), create))
		}
		policies, bindings = append(policies, policy{id + "-a", rules}), append(bindings, binding{id + "-a", "of-tenant." + id + "-a"})
	}
	for i := range 100 {
		add(fmt.Sprintf("many%02d", i), 1+i%2)
	}
	for i := range 100 {
		add(fmt.Sprintf("more%02d", i), 50)
	}
	add("little", 1)
	hooks := collect(policies, bindings).validating(admissionregistrationv1.WebhookClientConfig{})
	if diff := cmp.Diff([]string{"*/*"}, asked(t, hooks, "more99")); diff != "" {
		t.Error(diff)
	}
	if slices.Contains(asked(t, hooks, "little"), "*/*") {
		t.Error("who names one kind is asked about everything")
	}
	if raw, err := json.Marshal(hooks); err != nil || len(raw) > 1<<17 {
		t.Errorf("%d bytes of configuration, %v", len(raw), err)
	}
}

// TestRulesAreNotMixedUp has a tenant write a rule that reads like somebody else's and says something else.
func TestRulesAreNotMixedUp(t *testing.T) {
	create := admissionregistrationv1.Create
	actual, mixed := rule("", "configmaps", create), rule("", "configmaps pods", create)
	actual.Resources = append(actual.Resources, "pods")
	hooks := collect([]policy{
		{"abc123-a", []admissionregistrationv1.NamedRuleWithOperations{actual}}, {"zzz999-a", []admissionregistrationv1.NamedRuleWithOperations{mixed}},
	}, []binding{{"zzz999-a", "of-tenant.zzz999-a"}, {"abc123-a", "of-tenant.abc123-a"}}).validating(admissionregistrationv1.WebhookClientConfig{})
	if got := asked(t, hooks, "abc123"); !slices.Contains(got, "pods") {
		t.Errorf("asked about %q", got)
	}
}
