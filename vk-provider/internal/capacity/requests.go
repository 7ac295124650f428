package capacity

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Requests is what the scheduler reserves for a pod, with the pod itself under "pods": the larger of what its containers
// take together and what its init containers take one after another on top of the sidecars that started before them.
func Requests(pod *corev1.Pod) corev1.ResourceList {
	total := corev1.ResourceList{}
	for i := range pod.Spec.Containers {
		Add(total, pod.Spec.Containers[i].Resources.Requests)
	}
	sidecars, peak := corev1.ResourceList{}, corev1.ResourceList{}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		now := sidecars.DeepCopy()
		Add(now, c.Resources.Requests)
		raise(peak, now)
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecars = now
		}
	}
	Add(total, sidecars)
	raise(total, peak)
	if r := pod.Spec.Resources; r != nil {
		for name, q := range r.Requests {
			total[name] = q.DeepCopy()
		}
	}
	Add(total, pod.Spec.Overhead)
	total[corev1.ResourcePods] = *resource.NewQuantity(1, resource.DecimalSI)
	return total
}

// raise lifts a to b wherever b is more.
func raise(a, b corev1.ResourceList) {
	for name, q := range b {
		if have, ok := a[name]; !ok || q.Cmp(have) > 0 {
			a[name] = q.DeepCopy()
		}
	}
}
