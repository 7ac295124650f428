package admin

import (
	"fmt"

	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

func sharedKind() kind[v1alpha1.SharedAPI, *v1alpha1.SharedAPI] {
	return kind[v1alpha1.SharedAPI, *v1alpha1.SharedAPI]{
		resource:       "sharedapis",
		singular:       "sharedapi",
		shortNames:     []string{"shared"},
		list:           func() runtime.Object { return &v1alpha1.SharedAPIList{} },
		columns:        sharedColumns(),
		validate:       validateShared,
		validateUpdate: validateSharedUpdate,
		warnings:       sharedWarnings,
		parts: func(s *v1alpha1.SharedAPI) parts {
			return parts{
				spec:       s.Spec,
				status:     s.Status,
				conditions: s.Status.Conditions,
				copySpec:   func(from runtime.Object) { s.Spec = from.(*v1alpha1.SharedAPI).Spec },
				copyStatus: func(from runtime.Object) { s.Status = from.(*v1alpha1.SharedAPI).Status },
			}
		},
	}
}

func sharedColumns() []column[*v1alpha1.SharedAPI] {
	type shared = *v1alpha1.SharedAPI
	return []column[shared]{
		nameOf[shared](),
		{name: "Resource", kind: text, description: "Resource that is shared.", value: func(s shared) any { return s.Spec.Resource }},
		{name: "Group", kind: text, description: "API group of the resource.", value: func(s shared) any { return s.Spec.Group }},
		{name: "Kind", kind: text, description: "Kind of the shared objects.", value: func(s shared) any { return s.Status.Kind }},
		{name: "Tenants", kind: number, description: "Tenants that can use it.", value: func(s shared) any { return int64(s.Status.Tenants) }},
		{name: "Ready", kind: text, description: "Whether the chosen tenants can use it.", value: func(s shared) any { return conditionStatus(s.Status.Conditions, v1alpha1.SharedAPIReady) }},
		ageOf[shared](),
		{name: "Message", kind: text, wide: true, description: "What is missing.", value: func(s shared) any { return trouble(s.Status.Conditions, v1alpha1.SharedAPIReady) }},
	}
}

func validateShared(s *v1alpha1.SharedAPI) field.ErrorList {
	var problems field.ErrorList
	spec := field.NewPath("spec")
	group := spec.Child("group")
	switch _, _, tenants := names.SplitGroup(s.Spec.Group); {
	case s.Spec.Group == "":
		problems = append(problems, field.Required(group, "API group of a CustomResourceDefinition of the control cluster"))
	case tenants:
		problems = append(problems, field.Invalid(group, s.Spec.Group, "must not start as the groups of tenants do, with six of a-z and 0-9 and a dash"))
	case names.Reserved(s.Spec.Group + "/"):
		problems = append(problems, field.Invalid(group, s.Spec.Group, "belongs to the platform"))
	default:
		for _, problem := range validation.IsDNS1123Subdomain(s.Spec.Group) {
			problems = append(problems, field.Invalid(group, s.Spec.Group, problem))
		}
	}
	resource := spec.Child("resource")
	if s.Spec.Resource == "" {
		problems = append(problems, field.Required(resource, "plural name of the resource"))
	} else {
		for _, problem := range validation.IsDNS1035Label(s.Spec.Resource) {
			problems = append(problems, field.Invalid(resource, s.Spec.Resource, problem))
		}
	}
	return append(problems, validateChoice(&s.Spec.Tenants, spec.Child("tenants"))...)
}

func validateChoice(c *v1alpha1.TenantChoice, path *field.Path) field.ErrorList {
	var problems field.ErrorList
	seen := map[string]bool{}
	for i, name := range c.Names {
		if _, err := names.ParseTenantID(name); err != nil {
			problems = append(problems, field.Invalid(path.Child("names").Index(i), name, err.Error()))
		}
		if seen[name] {
			problems = append(problems, field.Duplicate(path.Child("names").Index(i), name))
		}
		seen[name] = true
	}
	if c.Selector != nil {
		problems = append(problems, metav1validation.ValidateLabelSelector(c.Selector, metav1validation.LabelSelectorValidationOptions{}, path.Child("selector"))...)
	}
	return problems
}

func validateSharedUpdate(s, old *v1alpha1.SharedAPI) field.ErrorList {
	var problems field.ErrorList
	for name, changed := range map[string]bool{"group": s.Spec.Group != old.Spec.Group, "resource": s.Spec.Resource != old.Spec.Resource} {
		if changed {
			problems = append(problems, field.Forbidden(field.NewPath("spec", name), "cannot be changed: share another API with another SharedAPI"))
		}
	}
	return problems
}

func sharedWarnings(s *v1alpha1.SharedAPI) []string {
	if len(s.Spec.Tenants.Names) == 0 && s.Spec.Tenants.Selector == nil {
		return []string{fmt.Sprintf("spec.tenants: chooses nobody, so that nobody can use %s.%s", s.Spec.Resource, s.Spec.Group)}
	}
	return nil
}
