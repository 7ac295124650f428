package policies

import (
	"cmp"
	"fmt"
	"maps"
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
	// asks are what the control cluster is told to ask. A tenant is in one of them.
	asks []ask
}

// ask is one webhook.
type ask struct {
	name string
	// tenants are those it is about, in order.
	tenants []names.TenantID
	// rules are what their policies name, in the control cluster's words and without repetition. They may say more than is
	// asked for and never less: the plugins decide.
	rules []admissionregistrationv1.RuleWithOperations
}

// maxRules is how many bytes of rules tenants have in common. Whose rules find no room, or name everything, is asked about
// everything, in a webhook apart: what one tenant writes into its policies must neither keep the configuration from being
// written nor slow the others' writes.
const maxRules = 16 << 10

// policy is what is kept of a policy, binding of a binding.
type policy struct {
	name  string
	rules []admissionregistrationv1.NamedRuleWithOperations
}

type binding struct{ name, policy string }

// wish is what one tenant's policies name, each rule by how it is spelled.
type wish struct {
	id    names.TenantID
	rules map[string]admissionregistrationv1.RuleWithOperations
	size  int
	// all says that it is everything, or too much to tell.
	all bool
}

func (w *wish) add(p policy) {
	// Without rules a policy is about everything.
	w.all = w.all || len(p.rules) == 0 || tooMuch(p.rules)
	if w.all {
		return
	}
	for _, rule := range p.rules {
		rule := everyVersion(rule.RuleWithOperations)
		key := spelled(rule)
		if _, ok := w.rules[key]; !ok {
			w.rules[key] = rule
			w.size += len(key)
		}
	}
	w.all = w.size > maxRules
}

// tooMuch reports whether rules are about everything, or so long that nobody needs to read them to the end.
func tooMuch(rules []admissionregistrationv1.NamedRuleWithOperations) bool {
	wild := func(s string) bool { return strings.HasPrefix(s, "*") }
	size := 0
	for _, r := range rules {
		for _, list := range [][]string{r.APIGroups, r.Resources} {
			for _, s := range list {
				if size += len(s) + 1; size > maxRules || wild(s) {
					return true
				}
			}
		}
		if size += len(r.Operations); size > maxRules {
			return true
		}
	}
	return false
}

// collect puts together what is bound.
func collect(policies []policy, bindings []binding) bound {
	byName := map[string]policy{}
	for _, p := range policies {
		byName[p.name] = p
	}
	wishes, seen := map[names.TenantID]*wish{}, map[string]bool{}
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
		if !ok || seen[p.name] {
			continue
		}
		seen[p.name] = true
		if wishes[id] == nil {
			wishes[id] = &wish{id: id, rules: map[string]admissionregistrationv1.RuleWithOperations{}}
		}
		wishes[id].add(p)
	}
	return share(slices.Collect(maps.Values(wishes)))
}

// share gives the room for rules to those who ask for the least.
func share(wishes []*wish) bound {
	slices.SortFunc(wishes, func(a, b *wish) int { return cmp.Or(cmp.Compare(a.size, b.size), cmp.Compare(a.id, b.id)) })
	named, all := ask{name: names.PolicyWebhook}, ask{name: names.PolicyWebhookAll, rules: []admissionregistrationv1.RuleWithOperations{anything()}}
	rules, left := map[string]admissionregistrationv1.RuleWithOperations{}, maxRules
	for _, w := range wishes {
		more := 0
		for key := range w.rules {
			if _, ok := rules[key]; !ok {
				more += len(key)
			}
		}
		if w.all || more > left {
			all.tenants = append(all.tenants, w.id)
			continue
		}
		maps.Copy(rules, w.rules)
		left -= more
		named.tenants = append(named.tenants, w.id)
	}
	for _, key := range slices.Sorted(maps.Keys(rules)) {
		named.rules = append(named.rules, rules[key])
	}
	var b bound
	for _, a := range []ask{named, all} {
		if len(a.tenants) == 0 {
			continue
		}
		slices.Sort(a.tenants)
		b.tenants, b.asks = append(b.tenants, a.tenants...), append(b.asks, a)
	}
	slices.Sort(b.tenants)
	return b
}

// spelled is the same for rules that say the same, and for no others. Its order is that of the webhook, which must not change
// without cause.
func spelled(r admissionregistrationv1.RuleWithOperations) string {
	return fmt.Sprintf("%q %q %q", r.APIGroups, r.Resources, r.Operations)
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
	if slices.ContainsFunc(r.Resources, func(s string) bool { return s == "events" || s == "events/*" }) &&
		slices.ContainsFunc(r.APIGroups, func(g string) bool { return slices.Contains(sharedStorage, g) }) {
		r.APIGroups = append(slices.DeleteFunc(r.APIGroups, func(g string) bool { return slices.Contains(sharedStorage, g) }), sharedStorage...)
	}
	slices.Sort(r.APIGroups)
	slices.Sort(r.Resources)
	slices.Sort(r.Operations)
	return r
}

// selector leaves the namespaces of the tenants, and what is in them. It does not hold back cluster-scoped
// objects other than namespaces.
func (a ask) selector() *metav1.LabelSelector {
	values := make([]string, len(a.tenants))
	for i, id := range a.tenants {
		values[i] = string(id)
	}
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: names.LabelTenant, Operator: metav1.LabelSelectorOpIn, Values: values},
	}}
}

// conditions leave those cluster-scoped objects whose names tell of one of the tenants. An error in one would refuse a write of
// anybody's, so that nothing is read that may be missing.
func (a ask) conditions() []admissionregistrationv1.MatchCondition {
	const name = `(has(request.name) && request.name != '' ? request.name` +
		` : object == null || !has(object.metadata) ? ''` +
		` : has(object.metadata.name) && object.metadata.name != '' ? object.metadata.name` +
		` : has(object.metadata.generateName) ? object.metadata.generateName : '')`
	list := make([]string, len(a.tenants))
	for i, id := range a.tenants {
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

// validating gives the webhooks of the validating configuration: none where nobody has policies.
func (b bound) validating(client admissionregistrationv1.WebhookClientConfig) []admissionregistrationv1.ValidatingWebhook {
	fail, exact, none, timeout := admissionregistrationv1.Fail, admissionregistrationv1.Exact, admissionregistrationv1.SideEffectClassNone, int32(timeoutSeconds)
	var out []admissionregistrationv1.ValidatingWebhook
	for _, a := range b.asks {
		out = append(out, admissionregistrationv1.ValidatingWebhook{
			Name: a.name, ClientConfig: client, Rules: a.rules, NamespaceSelector: a.selector(), ObjectSelector: &metav1.LabelSelector{},
			MatchConditions: a.conditions(), FailurePolicy: &fail, MatchPolicy: &exact, SideEffects: &none, TimeoutSeconds: &timeout,
			AdmissionReviewVersions: []string{"v1"},
		})
	}
	return out
}

// mutating gives those of the mutating configuration. Policies that want to see what others changed are applied again
// here, within one call.
func (b bound) mutating(client admissionregistrationv1.WebhookClientConfig) []admissionregistrationv1.MutatingWebhook {
	fail, exact, none, timeout := admissionregistrationv1.Fail, admissionregistrationv1.Exact, admissionregistrationv1.SideEffectClassNone, int32(timeoutSeconds)
	never := admissionregistrationv1.NeverReinvocationPolicy
	var out []admissionregistrationv1.MutatingWebhook
	for _, a := range b.asks {
		out = append(out, admissionregistrationv1.MutatingWebhook{
			Name: a.name, ClientConfig: client, Rules: a.rules, NamespaceSelector: a.selector(), ObjectSelector: &metav1.LabelSelector{},
			MatchConditions: a.conditions(), FailurePolicy: &fail, MatchPolicy: &exact, SideEffects: &none, TimeoutSeconds: &timeout,
			AdmissionReviewVersions: []string{"v1"}, ReinvocationPolicy: &never,
		})
	}
	return out
}
