package podspec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/internal/names"
)

// AppliedAnnotation is on every pool pod and remembers what of it was last written from the control pod. A pool may
// change its pods (admission webhooks, defaults, the network plugin), so a live pool pod says nothing about what has to
// be written: only a difference between what was wanted and what is wanted now does. Nothing of it ever flows back.
const AppliedAnnotation = names.Domain + "/applied"

// applied is the value of AppliedAnnotation.
type applied struct {
	// Pod is a digest of what an update of the pod can change, Resources of what a resize can.
	Pod       string `json:"pod"`
	Resources string `json:"resources"`
	// Labels and Annotations are the keys that are ours to remove.
	Labels      []string `json:"labels,omitempty"`
	Annotations []string `json:"annotations,omitempty"`
}

// remember writes the annotation of a freshly translated pod.
func remember(pool *corev1.Pod) {
	record := applied{
		Pod:         sum(updatable(pool)),
		Resources:   sum(resources(pool)),
		Labels:      slices.Sorted(maps.Keys(pool.Labels)),
		Annotations: slices.Sorted(maps.Keys(pool.Annotations)),
	}
	raw, err := json.Marshal(record)
	if err != nil { // strings only: cannot happen
		return
	}
	pool.Annotations[AppliedAnnotation] = string(raw)
}

// containerPart is one container in a strategic merge patch.
type containerPart struct {
	Name      string                       `json:"name"`
	Image     string                       `json:"image,omitempty"`
	Resources *corev1.ResourceRequirements `json:"resources,omitempty"`
}

type specPart struct {
	ActiveDeadlineSeconds *int64                       `json:"activeDeadlineSeconds,omitempty"`
	InitContainers        []containerPart              `json:"initContainers,omitempty"`
	Containers            []containerPart              `json:"containers,omitempty"`
	EphemeralContainers   []corev1.EphemeralContainer  `json:"ephemeralContainers,omitempty"`
	Resources             *corev1.ResourceRequirements `json:"resources,omitempty"`
}

type metaPart struct {
	UID         types.UID      `json:"uid"`
	Labels      map[string]any `json:"labels,omitempty"`
	Annotations map[string]any `json:"annotations,omitempty"`
}

type podPatch struct {
	Metadata metaPart  `json:"metadata"`
	Spec     *specPart `json:"spec,omitempty"`
}

// updatable is what the API lets an update change.
func updatable(pool *corev1.Pod) any {
	return []any{pool.Labels, pool.Annotations, images(pool)}
}

func images(pool *corev1.Pod) specPart {
	part := specPart{ActiveDeadlineSeconds: pool.Spec.ActiveDeadlineSeconds}
	for _, c := range pool.Spec.InitContainers {
		part.InitContainers = append(part.InitContainers, containerPart{Name: c.Name, Image: c.Image})
	}
	for _, c := range pool.Spec.Containers {
		part.Containers = append(part.Containers, containerPart{Name: c.Name, Image: c.Image})
	}
	return part
}

func resources(pool *corev1.Pod) specPart {
	part := specPart{Resources: pool.Spec.Resources}
	for i := range pool.Spec.InitContainers {
		c := &pool.Spec.InitContainers[i]
		part.InitContainers = append(part.InitContainers, containerPart{Name: c.Name, Resources: &c.Resources})
	}
	for i := range pool.Spec.Containers {
		c := &pool.Spec.Containers[i]
		part.Containers = append(part.Containers, containerPart{Name: c.Name, Resources: &c.Resources})
	}
	return part
}

func sum(v any) string {
	raw, err := json.Marshal(v)
	if err != nil { // API types only: cannot happen, and a pod that compares unequal is merely written again
		return err.Error()
	}
	digest := sha256.Sum256(raw)
	return hex.EncodeToString(digest[:8])
}

// Changes are strategic merge patches that bring a pool pod to what is wanted; each is nil when there is nothing to do.
// They carry the pool pod's UID, so that they fail on another pod of its name.
type Changes struct {
	// Ephemeral is for the subresource ephemeralcontainers, Resize for resize. Pod is for the pod itself and comes last:
	// it records that the others are done.
	Ephemeral, Resize, Pod []byte
}

// None reports whether nothing has to be written.
func (c Changes) None() bool { return c.Ephemeral == nil && c.Resize == nil && c.Pod == nil }

// Diff compares what is wanted ([ToPool] and [EphemeralToPool] of the control pod of now) with what was last written to
// the live pool pod.
func Diff(wanted *corev1.Pod, ephemeral []corev1.EphemeralContainer, live *corev1.Pod) (Changes, error) {
	var changes Changes
	var was, want applied
	// A record that is unreadable is as good as none: everything is written again.
	_ = json.Unmarshal([]byte(live.Annotations[AppliedAnnotation]), &was)
	if err := json.Unmarshal([]byte(wanted.Annotations[AppliedAnnotation]), &want); err != nil {
		return changes, fmt.Errorf("read annotation %s of pod %s/%s: %w", AppliedAnnotation, wanted.Namespace, wanted.Name, err)
	}
	var err error
	if fresh := newEphemeral(ephemeral, live); len(fresh) > 0 {
		if changes.Ephemeral, err = patch(live, nil, nil, &specPart{EphemeralContainers: fresh}); err != nil {
			return Changes{}, err
		}
	}
	if was.Resources != want.Resources {
		part := resources(wanted)
		if changes.Resize, err = patch(live, nil, nil, &part); err != nil {
			return Changes{}, err
		}
	}
	if was.Pod != want.Pod || was.Resources != want.Resources {
		part := images(wanted)
		changes.Pod, err = patch(live, merge(was.Labels, wanted.Labels), merge(was.Annotations, wanted.Annotations), &part)
		if err != nil {
			return Changes{}, err
		}
	}
	return changes, nil
}

// merge gives the map part of a patch: what is wanted, and null for what was ours and is wanted no more.
func merge(was []string, wanted map[string]string) map[string]any {
	out := make(map[string]any, len(wanted))
	for _, key := range was {
		out[key] = nil
	}
	for key, value := range wanted {
		out[key] = value
	}
	return out
}

func patch(live *corev1.Pod, labels, annotations map[string]any, spec *specPart) ([]byte, error) {
	raw, err := json.Marshal(podPatch{Metadata: metaPart{UID: live.UID, Labels: labels, Annotations: annotations}, Spec: spec})
	if err != nil {
		return nil, fmt.Errorf("write a patch for pod %s/%s: %w", live.Namespace, live.Name, err)
	}
	return raw, nil
}

// newEphemeral gives the ephemeral containers that the pool pod lacks. They can only be added.
func newEphemeral(wanted []corev1.EphemeralContainer, live *corev1.Pod) []corev1.EphemeralContainer {
	there := map[string]bool{}
	for i := range live.Spec.EphemeralContainers {
		there[live.Spec.EphemeralContainers[i].Name] = true
	}
	var fresh []corev1.EphemeralContainer
	for i := range wanted {
		if !there[wanted[i].Name] {
			fresh = append(fresh, wanted[i])
		}
	}
	return fresh
}

// EphemeralToPool translates the ephemeral containers of a control pod. The only error it returns is *[Refused], and it
// says nothing about the pod, which may be running.
func EphemeralToPool(control *corev1.Pod, at Placement) ([]corev1.EphemeralContainer, error) {
	if len(control.Spec.EphemeralContainers) == 0 {
		return nil, nil
	}
	t := &translator{control: control.DeepCopy(), at: at, fields: map[string]string{}}
	t.checkPolicy()
	t.checkPool()
	out := t.ephemeral()
	if len(t.problems) > 0 {
		return nil, &Refused{Problems: t.problems}
	}
	return out, nil
}

func (t *translator) ephemeral() []corev1.EphemeralContainer {
	var out []corev1.EphemeralContainer
	for i := range t.control.Spec.EphemeralContainers {
		e := &t.control.Spec.EphemeralContainers[i]
		out = append(out, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon(t.container((*corev1.Container)(&e.EphemeralContainerCommon))),
			TargetContainerName:      e.TargetContainerName,
		})
	}
	return out
}
