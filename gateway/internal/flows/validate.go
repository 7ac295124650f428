package flows

import (
	"fmt"
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/util/shufflesharding"

	"vivarium.io/vivarium/internal/names"
)

// exempt is the name of the one schema and the one level that are exempt from everything.
const exempt = flowcontrolv1.PriorityLevelConfigurationNameExempt

// mostQueues bounds the queues of a level, as in an API server.
const mostQueues = 10_000_000

// verbs are those that a rule may name, besides all of them.
func verbs() []string {
	return []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}
}

// tenantName is what the tenant calls an object; what has no tenant's name has none.
func tenantName(control string) string {
	_, name, _ := names.SplitName(control)
	return name
}

func validate(obj runtime.Object) field.ErrorList {
	spec := field.NewPath("spec")
	switch o := obj.(type) {
	case *flowcontrolv1.FlowSchema:
		problems := apivalidation.ValidateObjectMeta(&o.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
		name := tenantName(o.Name)
		problems = append(problems, validateSchema(name, &o.Spec, spec)...)
		for _, fixed := range bootstrap.MandatoryFlowSchemas {
			if name == fixed.Name && !equality.Semantic.DeepEqual(o.Spec, fixed.Spec) {
				problems = append(problems, field.Invalid(spec, o.Spec, fmt.Sprintf("spec of '%s' must equal the fixed value", name)))
			}
		}
		return append(problems, validateStatus(o)...)
	case *flowcontrolv1.PriorityLevelConfiguration:
		problems := apivalidation.ValidateObjectMeta(&o.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
		name := tenantName(o.Name)
		problems = append(problems, validateLevel(name, &o.Spec, spec)...)
		for _, fixed := range bootstrap.MandatoryPriorityLevelConfigurations {
			fixed, have := fixed.DeepCopy(), o.Spec.DeepCopy()
			defaultLevel(fixed)
			have.Exempt = fixed.Spec.Exempt // Of level exempt this may be chosen.
			if name == fixed.Name && !equality.Semantic.DeepEqual(*have, fixed.Spec) {
				problems = append(problems, field.Invalid(spec, o.Spec, fmt.Sprintf("spec of '%s' must equal the fixed value", name)))
			}
		}
		return append(problems, validateStatus(o)...)
	}
	return nil
}

func validateSchema(name string, spec *flowcontrolv1.FlowSchemaSpec, path *field.Path) field.ErrorList {
	var problems field.ErrorList
	precedence := path.Child("matchingPrecedence")
	switch n := spec.MatchingPrecedence; {
	case n <= 0:
		problems = append(problems, field.Invalid(precedence, n, "must be a positive value"))
	case n > flowcontrolv1.FlowSchemaMaxMatchingPrecedence:
		problems = append(problems, field.Invalid(precedence, n, fmt.Sprintf("must not be greater than %d", flowcontrolv1.FlowSchemaMaxMatchingPrecedence)))
	case n == 1 && name != exempt:
		problems = append(problems, field.Invalid(precedence, n, "only the schema named 'exempt' may have matchingPrecedence 1"))
	}
	if m := spec.DistinguisherMethod; m != nil {
		problems = append(problems, oneOf(path.Child("distinguisherMethod", "type"), string(m.Type),
			string(flowcontrolv1.FlowDistinguisherMethodByNamespaceType), string(flowcontrolv1.FlowDistinguisherMethodByUserType))...)
	}
	level := path.Child("priorityLevelConfiguration", "name")
	if spec.PriorityLevelConfiguration.Name == "" {
		problems = append(problems, field.Required(level, "must reference a priority level"))
	}
	for _, problem := range apivalidation.NameIsDNSSubdomain(spec.PriorityLevelConfiguration.Name, false) {
		if spec.PriorityLevelConfiguration.Name != "" {
			problems = append(problems, field.Invalid(level, spec.PriorityLevelConfiguration.Name, problem))
		}
	}
	for i := range spec.Rules {
		problems = append(problems, validateRules(&spec.Rules[i], path.Child("rules").Index(i))...)
	}
	return problems
}

func validateRules(r *flowcontrolv1.PolicyRulesWithSubjects, path *field.Path) field.ErrorList {
	var problems field.ErrorList
	if len(r.Subjects) == 0 {
		problems = append(problems, field.Required(path.Child("subjects"), "subjects must contain at least one value"))
	}
	for i := range r.Subjects {
		problems = append(problems, validateSubject(&r.Subjects[i], path.Child("subjects").Index(i))...)
	}
	if len(r.ResourceRules)+len(r.NonResourceRules) == 0 {
		problems = append(problems, field.Required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"))
	}
	for i, rule := range r.ResourceRules {
		at := path.Child("resourceRules").Index(i)
		problems = append(problems, validateVerbs(rule.Verbs, at.Child("verbs"))...)
		problems = append(problems, allOrSome(at.Child("apiGroups"), rule.APIGroups, "resource rules must supply at least one api group")...)
		problems = append(problems, allOrSome(at.Child("resources"), rule.Resources, "resource rules must supply at least one resource")...)
		if len(rule.Namespaces) == 0 && rule.ClusterScope {
			continue
		}
		namespaces := at.Child("namespaces")
		problems = append(problems, allOrSome(namespaces, rule.Namespaces, "resource rules that are not cluster scoped must supply at least one namespace")...)
		for j, ns := range rule.Namespaces {
			for _, problem := range apivalidation.ValidateNamespaceName(ns, false) {
				if ns != flowcontrolv1.NamespaceEvery {
					problems = append(problems, field.Invalid(namespaces.Index(j), ns, "each member of this list must be '*' or a DNS-1123 label; "+problem))
				}
			}
		}
	}
	for i, rule := range r.NonResourceRules {
		at := path.Child("nonResourceRules").Index(i)
		problems = append(problems, validateVerbs(rule.Verbs, at.Child("verbs"))...)
		urls := at.Child("nonResourceURLs")
		problems = append(problems, allOrSome(urls, rule.NonResourceURLs, "nonResourceURLs must contain at least one value")...)
		for j, url := range rule.NonResourceURLs {
			if problem := urlProblem(url); problem != "" {
				problems = append(problems, field.Invalid(urls.Index(j), url, problem))
			}
		}
	}
	return problems
}

func validateSubject(s *flowcontrolv1.Subject, path *field.Path) field.ErrorList {
	problems := oneOf(path.Child("kind"), string(s.Kind),
		string(flowcontrolv1.SubjectKindGroup), string(flowcontrolv1.SubjectKindServiceAccount), string(flowcontrolv1.SubjectKindUser))
	if len(problems) > 0 {
		return problems
	}
	for _, union := range []struct {
		kind  flowcontrolv1.SubjectKind
		field string
		set   bool
	}{
		{flowcontrolv1.SubjectKindUser, "user", s.User != nil},
		{flowcontrolv1.SubjectKindGroup, "group", s.Group != nil},
		{flowcontrolv1.SubjectKindServiceAccount, "serviceAccount", s.ServiceAccount != nil},
	} {
		switch at := path.Child(union.field); {
		case union.set && union.kind != s.Kind:
			problems = append(problems, field.Forbidden(at, fmt.Sprintf("%s is forbidden when subject kind is not '%s'", union.field, union.kind)))
		case !union.set && union.kind == s.Kind:
			return append(problems, field.Required(at, fmt.Sprintf("%s is required when subject kind is '%s'", union.field, union.kind)))
		}
	}
	switch s.Kind {
	case flowcontrolv1.SubjectKindUser:
		return append(problems, required(path.Child("user", "name"), s.User.Name, "")...)
	case flowcontrolv1.SubjectKindGroup:
		return append(problems, required(path.Child("group", "name"), s.Group.Name, "")...)
	}
	at := path.Child("serviceAccount")
	problems = append(problems, required(at.Child("name"), s.ServiceAccount.Name, "")...)
	problems = append(problems, required(at.Child("namespace"), s.ServiceAccount.Namespace, "must specify namespace for service account")...)
	if name := s.ServiceAccount.Name; name != "" && name != flowcontrolv1.NameAll {
		for _, problem := range apivalidation.ValidateServiceAccountName(name, false) {
			problems = append(problems, field.Invalid(at.Child("name"), name, problem))
		}
	}
	if ns := s.ServiceAccount.Namespace; ns != "" {
		for _, problem := range apivalidation.ValidateNamespaceName(ns, false) {
			problems = append(problems, field.Invalid(at.Child("namespace"), ns, problem))
		}
	}
	return problems
}

func validateLevel(name string, spec *flowcontrolv1.PriorityLevelConfigurationSpec, path *field.Path) field.ErrorList {
	var problems field.ErrorList
	kind := path.Child("type")
	if (name == exempt) != (spec.Type == flowcontrolv1.PriorityLevelEnablementExempt) {
		problems = append(problems, field.Invalid(kind, spec.Type, "must be 'Exempt' if and only if `name` is 'exempt'"))
	}
	problems = append(problems, oneOf(kind, string(spec.Type),
		string(flowcontrolv1.PriorityLevelEnablementExempt), string(flowcontrolv1.PriorityLevelEnablementLimited))...)
	switch spec.Type {
	case flowcontrolv1.PriorityLevelEnablementExempt:
		if spec.Limited != nil {
			problems = append(problems, field.Forbidden(path.Child("limited"), "must be nil if the type is not Limited"))
		}
		if e := spec.Exempt; e != nil {
			problems = append(problems, validateShares(e.NominalConcurrencyShares, e.LendablePercent, path.Child("exempt"))...)
		}
	case flowcontrolv1.PriorityLevelEnablementLimited:
		if spec.Exempt != nil {
			problems = append(problems, field.Forbidden(path.Child("exempt"), "must be nil if the type is Limited"))
		}
		limited := path.Child("limited")
		if spec.Limited == nil {
			return append(problems, field.Required(limited, "must not be empty when type is Limited"))
		}
		problems = append(problems, validateShares(spec.Limited.NominalConcurrencyShares, spec.Limited.LendablePercent, limited)...)
		if n := spec.Limited.BorrowingLimitPercent; n != nil && *n < 0 {
			problems = append(problems, field.Invalid(limited.Child("borrowingLimitPercent"), *n, "if specified, must be a non-negative integer"))
		}
		problems = append(problems, validateResponse(&spec.Limited.LimitResponse, limited.Child("limitResponse"))...)
	}
	return problems
}

func validateShares(shares, lendable *int32, path *field.Path) field.ErrorList {
	var problems field.ErrorList
	if shares != nil && *shares < 0 {
		problems = append(problems, field.Invalid(path.Child("nominalConcurrencyShares"), *shares, "must be a non-negative integer"))
	}
	if lendable != nil && (*lendable < 0 || *lendable > 100) {
		problems = append(problems, field.Invalid(path.Child("lendablePercent"), *lendable, "must be between 0 and 100, inclusive"))
	}
	return problems
}

func validateResponse(r *flowcontrolv1.LimitResponse, path *field.Path) field.ErrorList {
	problems := oneOf(path.Child("type"), string(r.Type), string(flowcontrolv1.LimitResponseTypeQueue), string(flowcontrolv1.LimitResponseTypeReject))
	queuing := path.Child("queuing")
	switch q := r.Queuing; {
	case r.Type == flowcontrolv1.LimitResponseTypeReject && q != nil:
		problems = append(problems, field.Forbidden(queuing, "must be nil if limited.limitResponse.type is not Limited"))
	case r.Type == flowcontrolv1.LimitResponseTypeQueue && q == nil:
		problems = append(problems, field.Required(queuing, "must not be empty if limited.limitResponse.type is Limited"))
	case r.Type == flowcontrolv1.LimitResponseTypeQueue:
		if q.QueueLengthLimit <= 0 {
			problems = append(problems, field.Invalid(queuing.Child("queueLengthLimit"), q.QueueLengthLimit, "must be positive"))
		}
		switch {
		case q.Queues <= 0:
			problems = append(problems, field.Invalid(queuing.Child("queues"), q.Queues, "must be positive"))
		case q.Queues > mostQueues:
			problems = append(problems, field.Invalid(queuing.Child("queues"), q.Queues, fmt.Sprintf("must not be greater than %d", mostQueues)))
		}
		hand := queuing.Child("handSize")
		switch {
		case q.HandSize <= 0:
			problems = append(problems, field.Invalid(hand, q.HandSize, "must be positive"))
		case q.HandSize > q.Queues:
			problems = append(problems, field.Invalid(hand, q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues)))
		default:
			if bits := shufflesharding.RequiredEntropyBits(int(q.Queues), int(q.HandSize)); bits > shufflesharding.MaxHashBits {
				problems = append(problems, field.Invalid(hand, q.HandSize, fmt.Sprintf(
					"required entropy bits of deckSize %d and handSize %d should not be greater than %d", q.Queues, q.HandSize, shufflesharding.MaxHashBits)))
			}
		}
	}
	return problems
}

func validateStatus(obj runtime.Object) field.ErrorList {
	var kinds []string
	switch o := obj.(type) {
	case *flowcontrolv1.FlowSchema:
		for _, condition := range o.Status.Conditions {
			kinds = append(kinds, string(condition.Type))
		}
	case *flowcontrolv1.PriorityLevelConfiguration:
		for _, condition := range o.Status.Conditions {
			kinds = append(kinds, string(condition.Type))
		}
	}
	var problems field.ErrorList
	path := field.NewPath("status", "conditions")
	for i, kind := range kinds {
		problems = append(problems, required(path.Index(i).Child("type"), kind, "")...)
		if slices.Contains(kinds[:i], kind) {
			problems = append(problems, field.Duplicate(path.Index(i).Child("type"), kind))
		}
	}
	return problems
}

func validateVerbs(have []string, path *field.Path) field.ErrorList {
	problems := allOrSome(path, have, "verbs must contain at least one value")
	for _, verb := range have {
		if verb != flowcontrolv1.VerbAll && !slices.Contains(verbs(), verb) {
			return append(problems, field.NotSupported(path, have, verbs()))
		}
	}
	return problems
}

// allOrSome checks a list that is either one star or names.
func allOrSome(path *field.Path, list []string, why string) field.ErrorList {
	switch {
	case len(list) == 0:
		return field.ErrorList{field.Required(path, why)}
	case len(list) > 1 && slices.Contains(list, "*"):
		return field.ErrorList{field.Invalid(path, list, "if '*' is present, must be the only member")}
	}
	return nil
}

func oneOf(path *field.Path, have string, known ...string) field.ErrorList {
	switch {
	case have == "":
		return field.ErrorList{field.Required(path, "")}
	case !slices.Contains(known, have):
		return field.ErrorList{field.NotSupported(path, have, known)}
	}
	return nil
}

func required(path *field.Path, have, why string) field.ErrorList {
	if have == "" {
		return field.ErrorList{field.Required(path, why)}
	}
	return nil
}

func urlProblem(url string) string {
	switch {
	case url == "*" || url == "/":
		return ""
	case url == "":
		return "must not be empty"
	case !strings.HasPrefix(url, "/"):
		return "must start with slash"
	case strings.Contains(url, " "):
		return "must not contain white-space"
	case strings.Contains(url, "//"):
		return "must not contain double slash"
	}
	if at := strings.IndexByte(url, '*'); at >= 0 && at < len(url)-1 {
		return "wildcard can only do suffix matching"
	} else if at > 0 && url[at-1] != '/' {
		return "wildcard can only do suffix matching behind a slash"
	}
	return ""
}
