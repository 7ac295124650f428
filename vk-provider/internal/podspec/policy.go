package podspec

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// evaluator is Kubernetes' own Pod Security check; it keeps no state.
var evaluator = sync.OnceValues(func() (policy.Evaluator, error) {
	return policy.NewEvaluator(policy.DefaultChecks(), nil)
})

// runtimeClass gives the pool's name of the runtime class that a pod asks for; nil when it has none.
func (t *translator) runtimeClass(in *corev1.PodSpec) *string {
	if in.RuntimeClassName == nil {
		return nil
	}
	if name, ok := t.at.RuntimeClasses[*in.RuntimeClassName]; ok {
		return &name
	}
	return nil
}

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
		{len(spec.ResourceClaims) > 0, "resourceClaims are not supported"},
		// Without a subdomain the full name is the host name. With one, a kubelet would make it of the pool's namespace.
		{spec.SetHostnameAsFQDN != nil && *spec.SetHostnameAsFQDN && spec.Subdomain != "", "setHostnameAsFQDN with a subdomain is not supported"},
		{spec.Resources != nil && len(spec.Resources.Claims) > 0, "resource claims are not supported"},
	} {
		if check.found {
			t.refuse("%s", check.what)
		}
	}
	if name := spec.RuntimeClassName; name != nil && t.runtimeClass(spec) == nil {
		// Another runtime may isolate less than the one that was asked for.
		t.refuse("runtimeClassName %q is not supported in the pool", *name)
	}
	for _, secret := range spec.ImagePullSecrets {
		t.checkSecret(secret.Name)
	}
	t.checkLevel(api.LevelBaseline)
}

// checkLevel refuses what does not meet a Pod Security level.
func (t *translator) checkLevel(level api.Level) {
	checks, err := evaluator()
	if err != nil {
		// The checks are compiled in, so this is a broken build; refusing is the only safe answer.
		t.refuse("the pod security check is broken: %v", err)
		return
	}
	at := api.LevelVersion{Level: level, Version: api.LatestVersion()}
	result := policy.AggregateCheckResults(checks.EvaluatePod(at, &t.control.ObjectMeta, &t.control.Spec))
	if !result.Allowed {
		t.refuse("violates Pod Security level %q: %s", level, result.ForbiddenDetail())
	}
}

// checkPool refuses what the pool asks of pods beyond what no pool takes.
func (t *translator) checkPool() {
	if t.at.Restricted {
		t.checkLevel(api.LevelRestricted)
	}
}

// Fits tells whether a control pod that [ToPool] translates may run in this very pool; another one may ask for less. The only
// error it returns is *[Refused]. Ephemeral containers are not looked at: they come later.
func Fits(control *corev1.Pod, at Placement) error {
	control = control.DeepCopy()
	control.Spec.EphemeralContainers = nil
	t := &translator{control: control, at: at}
	t.checkPool()
	if len(t.problems) > 0 {
		return &Refused{Problems: t.problems}
	}
	return nil
}
