package podspec

import (
	"sync"

	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// evaluator is Kubernetes' own Pod Security check; it keeps no state.
var evaluator = sync.OnceValues(func() (policy.Evaluator, error) {
	return policy.NewEvaluator(policy.DefaultChecks(), nil)
})

// checkPolicy refuses what a pool must never run for a tenant, whatever the control cluster let through: our own list
// first, for its clearer words and for what no Pod Security level knows, then level baseline. A pool enforces the same
// level in our namespaces.
func (t *translator) checkPolicy() {
	spec := &t.control.Spec
	for _, check := range []struct {
		found bool
		what  string
	}{
		{spec.HostNetwork, "hostNetwork is not allowed"},
		{spec.HostPID, "hostPID is not allowed"},
		{spec.HostIPC, "hostIPC is not allowed"},
		{spec.RuntimeClassName != nil, "runtimeClassName is not supported"},
		{len(spec.ResourceClaims) > 0, "resourceClaims are not supported"},
		// Without a subdomain the full name is the host name.
		{spec.SetHostnameAsFQDN != nil && *spec.SetHostnameAsFQDN && spec.Subdomain != "", "setHostnameAsFQDN with a subdomain is not supported"},
		{spec.Resources != nil && len(spec.Resources.Claims) > 0, "resource claims are not supported"},
	} {
		if check.found {
			t.refuse("%s", check.what)
		}
	}
	for _, secret := range spec.ImagePullSecrets {
		t.checkSecret(secret.Name)
	}
	checks, err := evaluator()
	if err != nil {
		// The checks are compiled in, so this is a broken build; refusing is the only safe answer.
		t.refuse("the pod security check is broken: %v", err)
		return
	}
	level := api.LevelVersion{Level: api.LevelBaseline, Version: api.LatestVersion()}
	result := policy.AggregateCheckResults(checks.EvaluatePod(level, &t.control.ObjectMeta, spec))
	if !result.Allowed {
		t.refuse("violates Pod Security level %q: %s", level.Level, result.ForbiddenDetail())
	}
}
