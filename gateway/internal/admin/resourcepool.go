package admin

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/podsecurity"
	"vivarium.io/vivarium/internal/ranges"
)

func poolKind(serial *sync.Mutex) kind[v1alpha1.ResourcePool, *v1alpha1.ResourcePool] {
	return kind[v1alpha1.ResourcePool, *v1alpha1.ResourcePool]{
		resource:       "resourcepools",
		singular:       "resourcepool",
		serial:         serial,
		shortNames:     []string{"pool", "pools"},
		finalizers:     []string{v1alpha1.FinalizerPool},
		list:           func() runtime.Object { return &v1alpha1.ResourcePoolList{} },
		columns:        poolColumns(),
		validate:       validatePool,
		validateUpdate: validatePoolUpdate,
		warnings:       poolWarnings,
		parts: func(p *v1alpha1.ResourcePool) parts {
			return parts{
				spec:       p.Spec,
				status:     p.Status,
				conditions: p.Status.Conditions,
				copySpec:   func(from runtime.Object) { p.Spec = from.(*v1alpha1.ResourcePool).Spec },
				copyStatus: func(from runtime.Object) { p.Status = from.(*v1alpha1.ResourcePool).Status },
			}
		},
	}
}

func poolColumns() []column[*v1alpha1.ResourcePool] {
	type pool = *v1alpha1.ResourcePool
	return []column[pool]{
		nameOf[pool](),
		{name: "Ready", kind: text, description: "Whether pods can be placed in the pool.", value: func(p pool) any { return conditionStatus(p.Status.Conditions, v1alpha1.PoolReady) }},
		{name: "Nodes", kind: number, description: "Nodes of the pool that are ready and in use.", value: func(p pool) any { return int64(p.Status.Nodes) }},
		{name: "Virtual", kind: number, description: "Virtual Nodes that stand for the pool.", value: func(p pool) any { return int64(p.Status.VirtualNodes) }},
		{name: "Pods", kind: number, description: "Pods of tenants in the pool.", value: func(p pool) any { return int64(p.Status.Pods) }},
		{name: "Free", kind: text, description: "About the largest pod that can come now: processors and memory.", value: func(p pool) any { return size(p.Status.LargestFree) }},
		{name: "Version", kind: text, description: "Kubernetes version of the pool.", value: func(p pool) any { return p.Status.KubernetesVersion }},
		{name: "Zone", kind: text, description: "Failure domain of the pool.", value: func(p pool) any { return p.Spec.Location.Zone }},
		{name: "Simulated", kind: "boolean", description: "Whether the pool's nodes run no containers.", value: func(p pool) any { return p.Status.Simulated }},
		ageOf[pool](),
		{name: "Region", kind: text, wide: true, description: "Region of the pool.", value: func(p pool) any { return p.Spec.Location.Region }},
		{name: "Mode", kind: text, wide: true, description: "How capacity is cut into virtual Nodes.", value: func(p pool) any { return string(p.Spec.Nodes.Mode) }},
		{name: "Driver", kind: text, wide: true, description: "Network driver of the pool.", value: func(p pool) any { return p.Spec.Network.Driver }},
		{name: "Cordoned", kind: "boolean", wide: true, description: "Whether new pods are kept away.", value: func(p pool) any { return p.Spec.Cordoned || p.Spec.Drain != nil }},
		{name: "Tenants", kind: text, wide: true, description: "Whose pods may come.", value: func(p pool) any { return chosen(p.Spec.Tenants) }},
		{name: "Security", kind: text, wide: true, description: "Pod Security level that pods must meet.", value: func(p pool) any { return string(p.Spec.Pods.SecurityLevel) }},
		{name: "Failure", kind: text, wide: true, description: "What becomes of pods while the pool does not answer.", value: func(p pool) any { return string(p.Spec.Failure.Policy) }},
		{name: "Allocatable", kind: text, wide: true, description: "What the virtual Nodes offer together.", value: func(p pool) any { return size(p.Status.Allocatable) }},
		{name: "Capacity", kind: text, wide: true, description: "What the pool's nodes in use have.", value: func(p pool) any { return size(p.Status.Capacity) }},
		{name: "Kubelets", kind: text, wide: true, description: "Versions of the nodes in use.", value: func(p pool) any { return strings.Join(p.Status.KubeletVersions, ",") }},
		{name: "Message", kind: text, wide: true, description: "What the pool lacks.", value: func(p pool) any {
			return trouble(p.Status.Conditions, v1alpha1.PoolReachable, v1alpha1.PoolIdentified, v1alpha1.PoolAuthorized, v1alpha1.PoolReady, v1alpha1.PoolDrained)
		}},
	}
}

// chosen tells in a few words whose pods a pool takes.
func chosen(c *v1alpha1.TenantChoice) string {
	if c == nil || c.Selector != nil && len(c.Selector.MatchLabels)+len(c.Selector.MatchExpressions) == 0 {
		return "all"
	}
	words := slices.Clone(c.Names)
	if c.Selector != nil {
		words = append(words, metav1.FormatLabelSelector(c.Selector))
	}
	return strings.Join(words, ",")
}

// size tells processors and memory in a few characters.
func size(list corev1.ResourceList) string {
	cpu, memory := list.Cpu(), list.Memory()
	if cpu.IsZero() && memory.IsZero() {
		return ""
	}
	return fmt.Sprintf("%dm/%dMi", cpu.MilliValue(), memory.Value()>>20)
}

// longestPool leaves room in the name of a virtual Node, which starts with the pool's.
const longestPool = 40

func validatePool(p *v1alpha1.ResourcePool) field.ErrorList {
	var problems field.ErrorList
	name := field.NewPath("metadata", "name")
	for _, problem := range validation.IsDNS1123Label(p.Name) {
		problems = append(problems, field.Invalid(name, p.Name, problem))
	}
	if len(p.Name) > longestPool {
		problems = append(problems, field.Invalid(name, p.Name, fmt.Sprintf("must be no more than %d characters: the names of the pool's virtual nodes start with it", longestPool)))
	}
	spec := field.NewPath("spec")
	secret := spec.Child("credentials", "kubeconfigSecret")
	if p.Spec.Credentials.KubeconfigSecret == "" {
		problems = append(problems, field.Required(secret, fmt.Sprintf("name of a Secret in namespace %s of the control cluster whose key \"kubeconfig\" holds the pool's kubeconfig", names.SystemNamespace)))
	} else {
		for _, problem := range validation.IsDNS1123Subdomain(p.Spec.Credentials.KubeconfigSecret) {
			problems = append(problems, field.Invalid(secret, p.Spec.Credentials.KubeconfigSecret, problem))
		}
	}
	uid := spec.Child("clusterUID")
	if p.Spec.ClusterUID == "" {
		problems = append(problems, field.Required(uid, "UID of the pool's kube-system namespace"))
	} else {
		problems = append(problems, labelValue(uid, string(p.Spec.ClusterUID))...)
	}
	problems = append(problems, labelValue(spec.Child("location", "zone"), p.Spec.Location.Zone)...)
	problems = append(problems, labelValue(spec.Child("location", "region"), p.Spec.Location.Region)...)
	problems = append(problems, validatePoolNodes(p.Spec.Nodes, spec.Child("nodes"))...)
	problems = append(problems, outOfRange(spec.Child("bounce", "afterSeconds"), p.Spec.Bounce.AfterSeconds, 1, 24*60*60)...)
	if p.Spec.Tenants != nil {
		problems = append(problems, validateChoice(p.Spec.Tenants, spec.Child("tenants"))...)
	}
	problems = append(problems, validatePoolPods(p.Spec.Pods, spec.Child("pods"))...)
	for name, quantity := range p.Spec.Limits {
		limit := spec.Child("limits").Key(string(name))
		for _, problem := range validation.IsQualifiedName(string(name)) {
			problems = append(problems, field.Invalid(limit, name, problem))
		}
		if quantity.Sign() < 0 {
			problems = append(problems, field.Invalid(limit, quantity.String(), "must not be negative"))
		}
	}
	if policies := v1alpha1.FailurePolicies(); !slices.Contains(policies, p.Spec.Failure.Policy) {
		problems = append(problems, field.NotSupported(spec.Child("failure", "policy"), p.Spec.Failure.Policy, policies))
	}
	if drivers := v1alpha1.Drivers(); !slices.Contains(drivers, p.Spec.Network.Driver) {
		problems = append(problems, field.NotSupported(spec.Child("network", "driver"), p.Spec.Network.Driver, drivers))
	}
	for i, reserved := range p.Spec.Network.Reserved {
		if _, err := ranges.ParsePrefix(reserved); err != nil {
			problems = append(problems, field.Invalid(spec.Child("network", "reserved").Index(i), reserved, err.Error()))
		}
	}
	return problems
}

func validatePoolPods(pods v1alpha1.PoolPods, path *field.Path) field.ErrorList {
	var problems field.ErrorList
	level := path.Child("securityLevel")
	switch levels := v1alpha1.PodSecurityLevels(); {
	case string(pods.SecurityLevel) == podsecurity.Privileged:
		problems = append(problems, field.Forbidden(level, "privileged pods of tenants run in no pool"))
	case !slices.Contains(levels, pods.SecurityLevel):
		problems = append(problems, field.NotSupported(level, pods.SecurityLevel, levels))
	}
	for _, table := range []struct {
		path    *field.Path
		classes map[string]string
	}{{path.Child("runtimeClasses"), pods.RuntimeClasses}, {path.Child("priorityClasses"), pods.PriorityClasses}} {
		for from, to := range table.classes {
			for _, name := range []string{from, to} {
				for _, problem := range validation.IsDNS1123Subdomain(name) {
					problems = append(problems, field.Invalid(table.path.Key(from), name, problem))
				}
			}
		}
	}
	for from, to := range pods.PriorityClasses {
		if strings.HasPrefix(to, "system-") {
			problems = append(problems, field.Forbidden(path.Child("priorityClasses").Key(from), "system- priorities are the pool's own components'"))
		}
	}
	return problems
}

func validatePoolNodes(nodes v1alpha1.PoolNodes, path *field.Path) field.ErrorList {
	var problems field.ErrorList
	if modes := v1alpha1.NodeModes(); !slices.Contains(modes, nodes.Mode) {
		problems = append(problems, field.NotSupported(path.Child("mode"), nodes.Mode, modes))
	}
	problems = append(problems, outOfRange(path.Child("max"), nodes.Max, 1, 1000)...)
	problems = append(problems, metav1validation.ValidateLabels(nodes.Selector, path.Child("selector"))...)
	problems = append(problems, metav1validation.ValidateLabels(nodes.Labels, path.Child("labels"))...)
	for key := range nodes.Labels {
		if names.Reserved(key) || slices.Contains(standardNodeLabels(), key) {
			problems = append(problems, field.Forbidden(path.Child("labels").Key(key), "is set by the platform"))
		}
	}
	for name, quantity := range nodes.Shape {
		shape := path.Child("shape").Key(string(name))
		for _, problem := range validation.IsQualifiedName(string(name)) {
			problems = append(problems, field.Invalid(shape, name, problem))
		}
		if quantity.Sign() <= 0 {
			problems = append(problems, field.Invalid(shape, quantity.String(), "must be greater than zero"))
		}
	}
	return problems
}

// standardNodeLabels are those that the platform computes for a virtual Node.
func standardNodeLabels() []string {
	return []string{
		corev1.LabelHostname, corev1.LabelOSStable, corev1.LabelArchStable,
		corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelNodeExcludeBalancers, "type",
	}
}

func labelValue(path *field.Path, value string) field.ErrorList {
	var problems field.ErrorList
	for _, problem := range validation.IsValidLabelValue(value) {
		problems = append(problems, field.Invalid(path, value, problem))
	}
	return problems
}

func validatePoolUpdate(p, old *v1alpha1.ResourcePool) field.ErrorList {
	var problems field.ErrorList
	if p.Spec.ClusterUID != old.Spec.ClusterUID {
		problems = append(problems, field.Forbidden(field.NewPath("spec", "clusterUID"),
			"cannot be changed: it says which cluster this pool is; register another cluster as another pool"))
	}
	if p.Spec.Network.Driver != old.Spec.Network.Driver && old.Status.Pods > 0 {
		problems = append(problems, field.Forbidden(field.NewPath("spec", "network", "driver"),
			fmt.Sprintf("cannot be changed while pods of tenants are in the pool (%d), whose network is the driver's: drain it first", old.Status.Pods)))
	}
	return problems
}

func poolWarnings(p *v1alpha1.ResourcePool) []string {
	var warnings []string
	if t := p.Spec.Tenants; t != nil && len(t.Names) == 0 && t.Selector == nil {
		warnings = append(warnings, "spec.tenants: chooses nobody, so that no pod can come to the pool")
	}
	nodes := p.Spec.Nodes
	if len(nodes.Shape) == 0 || nodes.Mode == v1alpha1.NodesShaped {
		return warnings
	}
	var sizes []string
	for name := range nodes.Shape {
		sizes = append(sizes, string(name))
	}
	slices.Sort(sizes)
	return append(warnings, fmt.Sprintf("spec.nodes.shape: %s has no effect in mode %s", strings.Join(sizes, ", "), nodes.Mode))
}
