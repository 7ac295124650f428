package admin

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/api/v1alpha1"
)

func TestValidateTenant(t *testing.T) {
	cases := map[string]struct {
		change func(*v1alpha1.Tenant)
		want   string
	}{
		"Defaults":       {func(*v1alpha1.Tenant) {}, ""},
		"Name":           {func(x *v1alpha1.Tenant) { x.Name = "xn--ab" }, "metadata.name"},
		"WeightLow":      {func(x *v1alpha1.Tenant) { x.Spec.Weight = -1 }, "spec.weight: Invalid value: -1: must be from 1 to 100"},
		"WeightHigh":     {func(x *v1alpha1.Tenant) { x.Spec.Weight = 101 }, "spec.weight"},
		"Rate":           {func(x *v1alpha1.Tenant) { x.Spec.Limits.RequestsPerSecond = -5 }, "spec.limits.requestsPerSecond"},
		"RateHigh":       {func(x *v1alpha1.Tenant) { x.Spec.Limits.RequestsPerSecond = 2_000_000_000 }, "spec.limits.requestsPerSecond"},
		"InFlight":       {func(x *v1alpha1.Tenant) { x.Spec.Limits.MaxInFlight = -5 }, "spec.limits.maxInFlight"},
		"Watches":        {func(x *v1alpha1.Tenant) { x.Spec.Limits.MaxWatches = -5 }, "spec.limits.maxWatches"},
		"Streams":        {func(x *v1alpha1.Tenant) { x.Spec.Limits.MaxStreams = -5 }, "spec.limits.maxStreams"},
		"Mode":           {func(x *v1alpha1.Tenant) { x.Spec.Network.Mode = "Own" }, `spec.network.mode: Unsupported value: "Own": supported values: "Flat", "VPC"`},
		"Annotation":     {func(x *v1alpha1.Tenant) { x.Annotations[v1alpha1.AnnotationMaxInFlight] = "many" }, "metadata.annotations[tce.kubezoo/max-requests-inflight]"},
		"AnnotationZero": {func(x *v1alpha1.Tenant) { x.Annotations[v1alpha1.AnnotationMaxInFlight] = "0" }, "must be a whole number from 1"},
		"AnnotationGood": {func(x *v1alpha1.Tenant) { x.Annotations[v1alpha1.AnnotationMaxInFlight] = "12" }, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			x := &v1alpha1.Tenant{}
			x.Name, x.Annotations = "demo01", map[string]string{}
			tc.change(x)
			v1alpha1.SetDefaultsTenant(x)
			check(t, validateTenant(x).ToAggregate(), tc.want)
		})
	}
}

func TestValidatePool(t *testing.T) {
	type pool = v1alpha1.ResourcePool
	cases := map[string]struct {
		change func(*pool)
		want   string
	}{
		"Defaults":      {func(*pool) {}, ""},
		"Name":          {func(x *pool) { x.Name = "a.b" }, "metadata.name"},
		"LongName":      {func(x *pool) { x.Name = strings.Repeat("p", 41) }, "metadata.name: Invalid value: \"" + strings.Repeat("p", 41) + "\": must be no more than 40 characters"},
		"NoSecret":      {func(x *pool) { x.Spec.Credentials.KubeconfigSecret = "" }, "spec.credentials.kubeconfigSecret: Required value: name of a Secret in namespace vivarium-system"},
		"BadSecret":     {func(x *pool) { x.Spec.Credentials.KubeconfigSecret = "../x" }, "spec.credentials.kubeconfigSecret"},
		"NoUID":         {func(x *pool) { x.Spec.ClusterUID = "" }, "spec.clusterUID: Required value"},
		"BadUID":        {func(x *pool) { x.Spec.ClusterUID = "a b" }, "spec.clusterUID"},
		"Zone":          {func(x *pool) { x.Spec.Location.Zone = "zone one" }, "spec.location.zone"},
		"Region":        {func(x *pool) { x.Spec.Location.Region = "-" }, "spec.location.region"},
		"Mode":          {func(x *pool) { x.Spec.Nodes.Mode = "Sliced" }, `spec.nodes.mode: Unsupported value: "Sliced": supported values: "Shaped", "Mirrored", "Aggregate"`},
		"Mirrored":      {func(x *pool) { x.Spec.Nodes.Mode = v1alpha1.NodesMirrored }, ""},
		"Limits":        {func(x *pool) { x.Spec.Limits = corev1.ResourceList{"cpu": resource.MustParse("-1")} }, `spec.limits[cpu]: Invalid value: "-1": must not be negative`},
		"RuntimeClass":  {func(x *pool) { x.Spec.Pods.RuntimeClasses = map[string]string{"a": "K"} }, "spec.pods.runtimeClasses[a]"},
		"PriorityClass": {func(x *pool) { x.Spec.Pods.PriorityClasses = map[string]string{"a": "system-node-critical"} }, "spec.pods.priorityClasses[a]: Forbidden"},
		"Security":      {func(x *pool) { x.Spec.Pods.SecurityLevel = v1alpha1.SecurityRestricted }, ""},
		"Privileged":    {func(x *pool) { x.Spec.Pods.SecurityLevel = "privileged" }, "spec.pods.securityLevel: Forbidden: privileged pods of tenants run in no pool"},
		"SecurityLevel": {func(x *pool) { x.Spec.Pods.SecurityLevel = "Strict" }, `spec.pods.securityLevel: Unsupported value: "Strict": supported values: "baseline", "restricted"`},
		"Tenants":       {func(x *pool) { x.Spec.Tenants = &v1alpha1.TenantChoice{Names: []string{"demo01", "demo02"}} }, ""},
		"TenantName":    {func(x *pool) { x.Spec.Tenants = &v1alpha1.TenantChoice{Names: []string{"demo01", "Demo"}} }, `spec.tenants.names[1]: Invalid value: "Demo"`},
		"TenantTwice":   {func(x *pool) { x.Spec.Tenants = &v1alpha1.TenantChoice{Names: []string{"demo01", "demo01"}} }, `spec.tenants.names[1]: Duplicate value: "demo01"`},
		"TenantSelector": {func(x *pool) {
			x.Spec.Tenants = &v1alpha1.TenantChoice{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a b": "c"}}}
		}, "spec.tenants.selector.matchLabels"},
		"Bounce":         {func(x *pool) { x.Spec.Bounce.AfterSeconds = 86401 }, "spec.bounce.afterSeconds: Invalid value: 86401: must be from 1 to 86400"},
		"Failure":        {func(x *pool) { x.Spec.Failure.Policy = "Panic" }, `spec.failure.policy: Unsupported value: "Panic": supported values: "Evict", "Hold", "Fence"`},
		"Max":            {func(x *pool) { x.Spec.Nodes.Max = 1001 }, "spec.nodes.max"},
		"Selector":       {func(x *pool) { x.Spec.Nodes.Selector = map[string]string{"a b": "c"} }, "spec.nodes.selector"},
		"Labels":         {func(x *pool) { x.Spec.Nodes.Labels = map[string]string{"disk": "fast"} }, ""},
		"ReservedLabel":  {func(x *pool) { x.Spec.Nodes.Labels = map[string]string{"vivarium.io/pool": "b"} }, "is set by the platform"},
		"StandardLabel":  {func(x *pool) { x.Spec.Nodes.Labels = map[string]string{corev1.LabelTopologyZone: "b"} }, "is set by the platform"},
		"Shape":          {func(x *pool) { x.Spec.Nodes.Shape = corev1.ResourceList{"cpu": resource.MustParse("4")} }, ""},
		"ShapeNegative":  {func(x *pool) { x.Spec.Nodes.Shape = corev1.ResourceList{"cpu": resource.MustParse("-4")} }, "spec.nodes.shape[cpu]: Invalid value: \"-4\": must be greater than zero"},
		"ShapeBadName":   {func(x *pool) { x.Spec.Nodes.Shape = corev1.ResourceList{"c p u": resource.MustParse("4")} }, "spec.nodes.shape"},
		"NetworkDriver":  {func(x *pool) { x.Spec.Network.Driver = "calico" }, `spec.network.driver: Unsupported value: "calico": supported values: "flat", "vxlan", "kube-ovn"`},
		"DriverMisspelt": {func(x *pool) { x.Spec.Network.Driver = "Flat" }, "spec.network.driver"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			x := &pool{}
			x.Name = "pool-a"
			x.Spec.ClusterUID = "uid"
			x.Spec.Credentials.KubeconfigSecret = "pool-a"
			tc.change(x)
			v1alpha1.SetDefaultsResourcePool(x)
			check(t, validatePool(x).ToAggregate(), tc.want)
		})
	}
}

func TestChangePool(t *testing.T) {
	old := &v1alpha1.ResourcePool{}
	old.Spec.ClusterUID, old.Spec.Network.Driver = "uid", "flat"
	now := old.DeepCopy()
	now.Spec.Network.Driver = "other"
	check(t, validatePoolUpdate(now, old).ToAggregate(), "")
	old.Status.Pods = 3
	check(t, validatePoolUpdate(now, old).ToAggregate(), "spec.network.driver: Forbidden: cannot be changed while pods of tenants are in the pool (3)")
	now = old.DeepCopy()
	now.Spec.ClusterUID = "another"
	check(t, validatePoolUpdate(now, old).ToAggregate(), "spec.clusterUID: Forbidden")
}

func check(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestWarnings(t *testing.T) {
	x := &v1alpha1.Tenant{}
	x.Annotations = map[string]string{v1alpha1.AnnotationMaxInFlight: "5"}
	x.Spec.Limits = v1alpha1.TenantLimits{RequestsPerSecond: 100, Burst: 10, MaxInFlight: 50}
	v1alpha1.SetDefaultsTenant(x)
	if got := tenantWarnings(x); len(got) != 2 {
		t.Errorf("warnings %q", got)
	}
	p := &v1alpha1.ResourcePool{}
	p.Spec.Nodes = v1alpha1.PoolNodes{Mode: v1alpha1.NodesMirrored, Shape: corev1.ResourceList{"cpu": resource.MustParse("4")}}
	p.Spec.Tenants = &v1alpha1.TenantChoice{}
	if got := poolWarnings(p); len(got) != 2 {
		t.Errorf("warnings %q", got)
	}
}
