package policies

import (
	"fmt"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/internal/names"
)

// bound is what the bindings of a control cluster ask for.
type bound struct {
	// tenants are those that have a binding to a policy of theirs, in order.
	tenants []names.TenantID
	// rules are what their policies name, in the control cluster's words and without repetition. They may say more than is
	// asked for and never less: the plugins decide.
	rules []admissionregistrationv1.RuleWithOperations
}

// maxRules is how many rules a webhook carries before it asks about everything instead.
const maxRules = 100

// policy is what is kept of a policy, binding of a binding.
type policy struct {
	name  string
	rules []admissionregistrationv1.NamedRuleWithOperations
}

type binding struct{ name, policy string }

// collect puts together what is bound.
func collect(policies []policy, bindings []binding) bound {
	byName := map[string]policy{}
	for _, p := range policies {
		byName[p.name] = p
	}
	var b bound
	seen := map[string]bool{}
	for _, one := range bindings {
		id, _, ok := names.SplitNamespace(names.ControlNamespace(one.name))
		if !ok {
			continue
		}
		name, err := id.PolicyToTenant(one.policy)
		if err != nil {
			continue
		}
		p, ok := byName[id.NameToControl(name)]
		if !ok {
			continue
		}
		b.tenants = append(b.tenants, id)
		if len(p.rules) == 0 {
			// Without rules a policy is about everything.
			p.rules = []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: anything()}}
		}
		for _, rule := range p.rules {
			rule := everyVersion(rule.RuleWithOperations)
			if key := spelled(rule); !seen[key] {
				seen[key] = true
				b.rules = append(b.rules, rule)
			}
		}
	}
	slices.Sort(b.tenants)
	b.tenants = slices.Compact(b.tenants)
	slices.SortFunc(b.rules, func(a, b admissionregistrationv1.RuleWithOperations) int {
		return strings.Compare(spelled(a), spelled(b))
	})
	if len(b.rules) > maxRules {
		b.rules = []admissionregistrationv1.RuleWithOperations{anything()}
	}
	return b
}

// spelled is the same for rules that say the same. Its order is that of the webhook, which must not change without cause.
func spelled(r admissionregistrationv1.RuleWithOperations) string {
	return fmt.Sprint(r.APIGroups, r.APIVersions, r.Resources, r.Operations)
}

func anything() admissionregistrationv1.RuleWithOperations {
	all := []string{"*"}
	scope := admissionregistrationv1.AllScopes
	return admissionregistrationv1.RuleWithOperations{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.OperationAll},
		Rule:       admissionregistrationv1.Rule{APIGroups: all, APIVersions: all, Resources: []string{"*/*"}, Scope: &scope},
	}
}

// sharedStorage are groups whose resources are each other's in another version, so that a policy about one is about both.
var sharedStorage = []string{"", "events.k8s.io"}

// everyVersion makes a rule ask about whatever version an object is written in, unconverted.
func everyVersion(r admissionregistrationv1.RuleWithOperations) admissionregistrationv1.RuleWithOperations {
	scope := admissionregistrationv1.AllScopes
	r = *r.DeepCopy()
	r.APIVersions, r.Scope = []string{"*"}, &scope
	if slices.ContainsFunc(r.Resources, func(s string) bool { return s == "events" || strings.HasPrefix(s, "*") }) &&
		slices.ContainsFunc(r.APIGroups, func(g string) bool { return slices.Contains(sharedStorage, g) }) {
		r.APIGroups = append(slices.DeleteFunc(r.APIGroups, func(g string) bool { return slices.Contains(sharedStorage, g) }), sharedStorage...)
	}
	slices.Sort(r.APIGroups)
	slices.Sort(r.Resources)
	slices.Sort(r.Operations)
	return r
}

// selector leaves the namespaces, and what is in them, of tenants that have policies. It does not hold back cluster-scoped
// objects other than namespaces.
func (b bound) selector() *metav1.LabelSelector {
	values := make([]string, len(b.tenants))
	for i, id := range b.tenants {
		values[i] = string(id)
	}
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: names.LabelTenant, Operator: metav1.LabelSelectorOpIn, Values: values},
	}}
}

// conditions leave those cluster-scoped objects whose names tell of such a tenant. An error in one would refuse a write of
// anybody's, so that nothing is read that may be missing.
func (b bound) conditions() []admissionregistrationv1.MatchCondition {
	const name = `(has(request.name) && request.name != '' ? request.name` +
		` : object == null || !has(object.metadata) ? ''` +
		` : has(object.metadata.name) && object.metadata.name != '' ? object.metadata.name` +
		` : has(object.metadata.generateName) ? object.metadata.generateName : '')`
	list := make([]string, len(b.tenants))
	for i, id := range b.tenants {
		list[i] = "'" + id.Prefix() + "'"
	}
	return []admissionregistrationv1.MatchCondition{{
		Name: "of-a-tenant-with-policies",
		Expression: fmt.Sprintf(`has(request.namespace) && request.namespace != '' `+
			`|| request.resource.group == '' && request.resource.resource == 'namespaces' `+
			`|| (request.resource.group == 'apiextensions.k8s.io' ? [%[1]s.substring(%[1]s.indexOf('.') + 1)] : [%[1]s])`+
			`.exists(n, size(n) > 7 && n.substring(0, 7) in [%[2]s])`, name, strings.Join(list, ", ")),
	}}
}

const timeoutSeconds = 10

// validating gives the webhooks of the validating configuration: one, or none where nobody has policies.
func (b bound) validating(client admissionregistrationv1.WebhookClientConfig) []admissionregistrationv1.ValidatingWebhook {
	if len(b.tenants) == 0 {
		return nil
	}
	fail, exact, none, timeout := admissionregistrationv1.Fail, admissionregistrationv1.Exact, admissionregistrationv1.SideEffectClassNone, int32(timeoutSeconds)
	return []admissionregistrationv1.ValidatingWebhook{{
		Name: names.PolicyWebhook, ClientConfig: client, Rules: b.rules, NamespaceSelector: b.selector(), ObjectSelector: &metav1.LabelSelector{},
		MatchConditions: b.conditions(), FailurePolicy: &fail, MatchPolicy: &exact, SideEffects: &none, TimeoutSeconds: &timeout,
		AdmissionReviewVersions: []string{"v1"},
	}}
}

// mutating gives those of the mutating configuration. Policies that want to see what others changed are applied again
// here, within one call.
func (b bound) mutating(client admissionregistrationv1.WebhookClientConfig) []admissionregistrationv1.MutatingWebhook {
	if len(b.tenants) == 0 {
		return nil
	}
	fail, exact, none, timeout := admissionregistrationv1.Fail, admissionregistrationv1.Exact, admissionregistrationv1.SideEffectClassNone, int32(timeoutSeconds)
	never := admissionregistrationv1.NeverReinvocationPolicy
	return []admissionregistrationv1.MutatingWebhook{{
		Name: names.PolicyWebhook, ClientConfig: client, Rules: b.rules, NamespaceSelector: b.selector(), ObjectSelector: &metav1.LabelSelector{},
		MatchConditions: b.conditions(), FailurePolicy: &fail, MatchPolicy: &exact, SideEffects: &none, TimeoutSeconds: &timeout,
		AdmissionReviewVersions: []string{"v1"}, ReinvocationPolicy: &never,
	}}
}
