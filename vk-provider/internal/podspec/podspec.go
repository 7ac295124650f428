// Package podspec is the translation of pods: a control pod into the pod that runs in a pool, and that pod's status back
// into the control pod's. It is pure: values in, values out, no clock, no client.
//
// A pod below must see its tenant's world (namespace, ServiceAccount, API address) and nothing of the control cluster or
// the pool. What must not cross, and why:
//   - ServiceAccount and its tokens: they would be the pool's; the tenant's come in a Secret made for the pod.
//   - node names, selectors, affinity, tolerations, scheduler, priority: the control scheduler has decided with them, and
//     in the pool they would name other things or take from other tenants.
//   - finalizers, owners, gates, claims: their controllers live in the control cluster.
//   - host namespaces, host paths, foreign volume types: refused, never dropped silently.
//
// The pool pod is built field by field, so a field that nobody has decided about never crosses; a test fails for it.
// The package must never guess at a field, let a mutable pool value flow back into a spec, or mention one world to
// another. Start at [ToPool] and [StatusToControl].
package podspec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
)

// Placement is where a control pod goes and what it must see there.
type Placement struct {
	Tenant    names.TenantID
	Namespace names.TenantNamespace
	// Node is the virtual node that the control scheduler chose.
	Node Node
	// Gateway is where the tenant's API is, seen from a pod.
	Gateway Gateway
	// Services are those of the pod's namespace, told to containers that are made now.
	Services []Service
	// Identity is put on the pool pod so that it is known to be ours and whose it is.
	Identity map[string]string
	// RuntimeClasses and PriorityClasses say what a tenant's names of classes are in the pool.
	RuntimeClasses, PriorityClasses map[string]string
	// Restricted says that the pool takes pods only that meet Pod Security level restricted.
	Restricted bool
	// Network is what the pool's network driver wants on the pod.
	Network network.PodMutation
	// VPC is what the pod sees of its VPC; nil in a flat network.
	VPC *InVPC
}

// Node is a virtual node.
type Node struct {
	// Name is its name in the control cluster.
	Name string
	// Addresses are its internal addresses: what a tenant sees as the host of its pods.
	Addresses []string
	// PoolNode is the pool's node that it mirrors; empty where it stands for no single one.
	PoolNode string
}

// Gateway is the address of the tenant's API.
type Gateway struct{ Host, Port string }

// Refused says that a pod can never run in a pool. Its text is for the tenant.
type Refused struct{ Problems []string }

// Error joins the problems.
func (r *Refused) Error() string { return strings.Join(r.Problems, "; ") }

// refuser collects problems in order of mention.
type refuser struct{ problems []string }

func (r *refuser) refuse(format string, args ...any) {
	problem := fmt.Sprintf(format, args...)
	if !slices.Contains(r.problems, problem) {
		r.problems = append(r.problems, problem)
	}
}

// ToPool gives the pool pod of a control pod. The only error it returns is *[Refused]. It modifies and shares nothing of
// the control pod, and equal input gives equal output.
func ToPool(control *corev1.Pod, at Placement) (*corev1.Pod, error) {
	control = control.DeepCopy()
	t := &translator{control: control, at: at, fields: map[string]string{}}
	// Ephemeral containers cannot be created with a pod, and a bad one must not end it. Only the annotations that their
	// environment refers to are needed now.
	debug := &translator{control: control.DeepCopy(), at: at, fields: t.fields}
	debug.ephemeral()
	control.Spec.EphemeralContainers = nil
	t.checkPolicy()
	pool := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: control.Name, Namespace: control.Namespace},
		Spec:       t.spec(&control.Spec),
	}
	pool.Labels, pool.Annotations = t.metadata()
	at.Network.Apply(&pool.ObjectMeta)
	if len(t.problems) > 0 {
		return nil, &Refused{Problems: t.problems}
	}
	remember(pool)
	return pool, nil
}

// translator is one run of ToPool.
type translator struct {
	refuser
	control *corev1.Pod
	at      Placement
	// fields are annotations that carry what the pod's downward API is to show; see fields.go.
	fields map[string]string
}

func (t *translator) spec(in *corev1.PodSpec) corev1.PodSpec {
	no := false
	out := corev1.PodSpec{
		RestartPolicy:                 in.RestartPolicy,
		TerminationGracePeriodSeconds: in.TerminationGracePeriodSeconds,
		ActiveDeadlineSeconds:         in.ActiveDeadlineSeconds,
		ShareProcessNamespace:         in.ShareProcessNamespace,
		SecurityContext:               in.SecurityContext,
		ImagePullSecrets:              in.ImagePullSecrets,
		Hostname:                      in.Hostname,
		HostnameOverride:              in.HostnameOverride,
		HostAliases:                   in.HostAliases,
		OS:                            in.OS,
		HostUsers:                     in.HostUsers,
		Resources:                     in.Resources,

		RuntimeClassName: t.runtimeClass(in),
		// The pool's admission fills in the number. Without an entry it is the pool's default.
		PriorityClassName: t.at.PriorityClasses[in.PriorityClassName],

		// The tenant's ServiceAccount does not exist in the pool; its token comes as a Secret. The pool's default one
		// must not be mounted.
		AutomountServiceAccountToken: &no,
		// The links would be to the pool's Services; those to the tenant's are variables.
		EnableServiceLinks: &no,

		Affinity:                  t.affinity(in),
		TopologySpreadConstraints: spread(in.TopologySpreadConstraints),
	}
	out.DNSPolicy, out.DNSConfig = t.dns(in)
	for i := range in.Volumes {
		out.Volumes = append(out.Volumes, t.volume(&in.Volumes[i]))
	}
	for i := range in.InitContainers {
		out.InitContainers = append(out.InitContainers, t.container(&in.InitContainers[i]))
	}
	for i := range in.Containers {
		out.Containers = append(out.Containers, t.container(&in.Containers[i]))
	}
	t.hosts(&out)
	return out
}

func (t *translator) container(in *corev1.Container) corev1.Container {
	out := corev1.Container{
		Name:                     in.Name,
		Image:                    in.Image,
		Command:                  in.Command,
		Args:                     in.Args,
		WorkingDir:               in.WorkingDir,
		EnvFrom:                  t.envFrom(in.EnvFrom),
		Env:                      t.env(in),
		Resources:                in.Resources,
		ResizePolicy:             in.ResizePolicy,
		RestartPolicy:            in.RestartPolicy,
		RestartPolicyRules:       in.RestartPolicyRules,
		VolumeMounts:             in.VolumeMounts,
		LivenessProbe:            in.LivenessProbe,
		ReadinessProbe:           in.ReadinessProbe,
		StartupProbe:             in.StartupProbe,
		Lifecycle:                in.Lifecycle,
		TerminationMessagePath:   in.TerminationMessagePath,
		TerminationMessagePolicy: in.TerminationMessagePolicy,
		ImagePullPolicy:          in.ImagePullPolicy,
		SecurityContext:          in.SecurityContext,
		Stdin:                    in.Stdin,
		StdinOnce:                in.StdinOnce,
		TTY:                      in.TTY,
	}
	for _, port := range in.Ports {
		if port.HostPort != 0 || port.HostIP != "" {
			t.refuse("container %q asks for a port of the host", in.Name)
		}
		out.Ports = append(out.Ports, corev1.ContainerPort{Name: port.Name, ContainerPort: port.ContainerPort, Protocol: port.Protocol})
	}
	if len(in.VolumeDevices) > 0 {
		t.refuse("container %q uses block devices, which are not supported", in.Name)
	}
	if len(in.Resources.Claims) > 0 {
		t.refuse("container %q uses resource claims, which are not supported", in.Name)
	}
	return out
}

// metadata gives the labels and annotations of the pool pod: the tenant's that may cross, and ours.
func (t *translator) metadata() (labels, annotations map[string]string) {
	labels, annotations = map[string]string{}, map[string]string{}
	for key, value := range t.control.Labels {
		if labelCrosses(key) {
			labels[key] = value
		}
	}
	maps.Copy(labels, t.at.Identity)
	for key, value := range t.control.Annotations {
		if annotationCrosses(key) {
			annotations[key] = value
		}
	}
	maps.Copy(annotations, t.fields)
	return labels, annotations
}
