package policies

import (
	"context"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"
)

// authorizing answers what expressions ask their "authorizer", by an access review in the tenant's cluster.
type authorizing struct{ kube kubernetes.Interface }

// Authorize implements authorizer.Authorizer.
func (a *authorizing) Authorize(ctx context.Context, about authorizer.Attributes) (authorizer.Decision, string, error) {
	review := &authorizationv1.SubjectAccessReview{}
	if who := about.GetUser(); who != nil {
		review.Spec.User, review.Spec.Groups, review.Spec.UID = who.GetName(), who.GetGroups(), who.GetUID()
	}
	if about.IsResourceRequest() {
		review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
			Namespace: about.GetNamespace(), Verb: about.GetVerb(), Group: about.GetAPIGroup(), Version: about.GetAPIVersion(),
			Resource: about.GetResource(), Subresource: about.GetSubresource(), Name: about.GetName(),
		}
		if requirements, err := about.GetFieldSelector(); err == nil && len(requirements) > 0 {
			review.Spec.ResourceAttributes.FieldSelector = &authorizationv1.FieldSelectorAttributes{Requirements: fieldRequirements(requirements)}
		}
		if requirements, err := about.GetLabelSelector(); err == nil && len(requirements) > 0 {
			review.Spec.ResourceAttributes.LabelSelector = &authorizationv1.LabelSelectorAttributes{Requirements: labelRequirements(requirements)}
		}
	} else {
		review.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Path: about.GetPath(), Verb: about.GetVerb()}
	}
	answer, err := a.kube.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	switch {
	case err != nil:
		return authorizer.DecisionNoOpinion, "", err
	case answer.Status.Denied:
		return authorizer.DecisionDeny, answer.Status.Reason, nil
	case answer.Status.Allowed:
		return authorizer.DecisionAllow, answer.Status.Reason, nil
	}
	return authorizer.DecisionNoOpinion, answer.Status.Reason, nil
}

func fieldRequirements(requirements fields.Requirements) []metav1.FieldSelectorRequirement {
	var out []metav1.FieldSelectorRequirement
	for _, r := range requirements {
		operator := metav1.FieldSelectorOpIn
		if r.Operator == selection.NotEquals {
			operator = metav1.FieldSelectorOpNotIn
		}
		out = append(out, metav1.FieldSelectorRequirement{Key: r.Field, Operator: operator, Values: []string{r.Value}})
	}
	return out
}

func labelRequirements(requirements labels.Requirements) []metav1.LabelSelectorRequirement {
	var out []metav1.LabelSelectorRequirement
	for _, r := range requirements {
		one := metav1.LabelSelectorRequirement{Key: r.Key(), Values: r.Values().List()}
		switch r.Operator() {
		case selection.In, selection.Equals, selection.DoubleEquals:
			one.Operator = metav1.LabelSelectorOpIn
		case selection.NotIn, selection.NotEquals:
			one.Operator = metav1.LabelSelectorOpNotIn
		case selection.Exists:
			one.Operator, one.Values = metav1.LabelSelectorOpExists, nil
		case selection.DoesNotExist:
			one.Operator, one.Values = metav1.LabelSelectorOpDoesNotExist, nil
		case selection.GreaterThan, selection.LessThan:
			// No review can carry it; without it more is asked for.
			continue
		}
		out = append(out, one)
	}
	return out
}
