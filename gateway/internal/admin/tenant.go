package admin

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

func tenantKind() kind[v1alpha1.Tenant, *v1alpha1.Tenant] {
	return kind[v1alpha1.Tenant, *v1alpha1.Tenant]{
		resource:       "tenants",
		singular:       "tenant",
		shortNames:     []string{"tn"},
		finalizers:     []string{v1alpha1.FinalizerControl, v1alpha1.FinalizerPools},
		list:           func() runtime.Object { return &v1alpha1.TenantList{} },
		columns:        tenantColumns(),
		validate:       validateTenant,
		validateUpdate: validateTenantUpdate,
		warnings:       tenantWarnings,
		parts: func(t *v1alpha1.Tenant) parts {
			return parts{
				spec:       t.Spec,
				status:     t.Status,
				conditions: t.Status.Conditions,
				copySpec:   func(from runtime.Object) { t.Spec = from.(*v1alpha1.Tenant).Spec },
				copyStatus: func(from runtime.Object) { t.Status = from.(*v1alpha1.Tenant).Status },
			}
		},
	}
}

func tenantColumns() []column[*v1alpha1.Tenant] {
	type tenant = *v1alpha1.Tenant
	return []column[tenant]{
		nameOf[tenant](),
		{name: "Phase", kind: text, description: "Pending, Ready, Suspended or Terminating.", value: func(t tenant) any { return tenantPhase(t) }},
		{name: "Weight", kind: number, description: "Share of the control cluster's request capacity.", value: func(t tenant) any { return int64(t.Spec.Weight) }},
		{name: "Network", kind: text, description: "Flat, or the tenant's VPC.", value: func(t tenant) any {
			if vpc := names.TenantID(t.Name).VPC(t.Spec.Network); vpc != "" {
				return vpc
			}
			return string(t.Spec.Network.Mode)
		}},
		ageOf[tenant](),
		{name: "Server", kind: text, wide: true, description: "Where the tenant reaches its API.", value: func(t tenant) any { return t.Status.Server }},
		{name: "Certificate", kind: text, wide: true, description: "Time until the tenant's certificate expires.", value: func(t tenant) any {
			if t.Status.CertificateExpiry == nil {
				return ""
			}
			return duration.HumanDuration(time.Until(t.Status.CertificateExpiry.Time))
		}},
		{name: "Message", kind: text, wide: true, description: "What the tenant is waiting for.", value: func(t tenant) any {
			return trouble(t.Status.Conditions, v1alpha1.TenantReady, v1alpha1.TenantCleaned, v1alpha1.TenantNetworkReady)
		}},
	}
}

// tenantPhase runs ahead of status where the object itself already says more.
func tenantPhase(t *v1alpha1.Tenant) string {
	switch {
	case t.DeletionTimestamp != nil:
		return string(v1alpha1.TenantTerminating)
	case t.Status.Phase == "":
		return string(v1alpha1.TenantPending)
	default:
		return string(t.Status.Phase)
	}
}

// mostRequests bounds every limit of a tenant: beyond it, a limit is a slip of the finger.
const mostRequests = 1_000_000

// mostDefinitions is what a control cluster can be expected to serve for one tenant.
const mostDefinitions = 10_000

// clockSkew is how far apart the clocks of an operator and of the gateway may be.
const clockSkew = time.Minute

func validateTenant(t *v1alpha1.Tenant) field.ErrorList {
	var problems field.ErrorList
	if _, err := names.ParseTenantID(t.Name); err != nil {
		problems = append(problems, field.Invalid(field.NewPath("metadata", "name"), t.Name, err.Error()))
	}
	if value, ok := t.Annotations[v1alpha1.AnnotationMaxInFlight]; ok {
		path := field.NewPath("metadata", "annotations").Key(v1alpha1.AnnotationMaxInFlight)
		if n, err := strconv.ParseInt(value, 10, 32); err != nil || n < 1 || n > mostRequests {
			problems = append(problems, field.Invalid(path, value, fmt.Sprintf("must be a whole number from 1 to %d", mostRequests)))
		}
	}
	spec := field.NewPath("spec")
	problems = append(problems, outOfRange(spec.Child("weight"), t.Spec.Weight, 1, 100)...)
	limits := spec.Child("limits")
	problems = append(problems, outOfRange(limits.Child("requestsPerSecond"), t.Spec.Limits.RequestsPerSecond, 1, mostRequests)...)
	// The default of burst is twice the rate, which must not be refused where the rate is not.
	problems = append(problems, outOfRange(limits.Child("burst"), t.Spec.Limits.Burst, 1, 2*mostRequests)...)
	problems = append(problems, outOfRange(limits.Child("maxInFlight"), t.Spec.Limits.MaxInFlight, 1, mostRequests)...)
	problems = append(problems, outOfRange(limits.Child("maxWatches"), t.Spec.Limits.MaxWatches, 1, mostRequests)...)
	problems = append(problems, outOfRange(limits.Child("maxStreams"), t.Spec.Limits.MaxStreams, 1, mostRequests)...)
	problems = append(problems, outOfRange(limits.Child("customResourceDefinitions"), t.Spec.Limits.CustomResourceDefinitions, 1, mostDefinitions)...)
	return append(problems, validateTenantNetwork(names.TenantID(t.Name), t.Spec.Network, spec.Child("network"))...)
}

func validateTenantUpdate(t, old *v1alpha1.Tenant) field.ErrorList {
	var problems field.ErrorList
	spec := field.NewPath("spec")
	network, was := t.Spec.Network, old.Spec.Network
	for part, same := range map[string]bool{
		"mode": network.Mode == was.Mode, "vpc": network.VPC == was.VPC, "template": equality.Semantic.DeepEqual(network.Template, was.Template),
	} {
		if !same {
			problems = append(problems, field.Forbidden(spec.Child("network", part), "cannot be changed after the tenant was created"))
		}
	}
	path := spec.Child("credentialsNotBefore")
	now, before := t.Spec.CredentialsNotBefore, old.Spec.CredentialsNotBefore
	if before != nil && (now == nil || now.Time.Before(before.Time)) {
		problems = append(problems, field.Invalid(path, now, fmt.Sprintf("must not be before %s: certificates that were revoked would be good again", before.UTC().Format(time.RFC3339))))
	}
	return problems
}

// validateRevocation is apart from validateTenant because it depends on the time: a stored object must stay valid.
func validateRevocation(t *v1alpha1.Tenant, now time.Time) field.ErrorList {
	at := t.Spec.CredentialsNotBefore
	if at == nil || !at.After(now.Add(clockSkew)) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("spec", "credentialsNotBefore"), at,
		fmt.Sprintf("must not be in the future: it is %s, and no certificate would be good until then", now.UTC().Format(time.RFC3339)))}
}

func tenantWarnings(t *v1alpha1.Tenant) []string {
	var warnings []string
	limits := t.Spec.Limits
	if limits.Burst < limits.RequestsPerSecond {
		warnings = append(warnings, "spec.limits.burst: is less than requestsPerSecond; even a steady stream of requests will be refused now and then")
	}
	if value, ok := t.Annotations[v1alpha1.AnnotationMaxInFlight]; ok && limits.MaxInFlight != v1alpha1.DefaultMaxInFlight {
		if n, err := strconv.ParseInt(value, 10, 32); err == nil && n <= math.MaxInt32 && int32(n) != limits.MaxInFlight {
			warnings = append(warnings, fmt.Sprintf("spec.limits.maxInFlight: has no effect, the annotation %s says %s", v1alpha1.AnnotationMaxInFlight, value))
		}
	}
	return warnings
}
