package nodes

import (
	corev1 "k8s.io/api/core/v1"

	"vivarium.io/vivarium/vk-provider/internal/bounce"
	"vivarium.io/vivarium/vk-provider/internal/capacity"
)

// correct takes from a plan what the pool has shown that it does not have, and gives the version of what was known.
func (c *Controller) correct(pool string, plan []capacity.Node) (version int) {
	book := c.config.Books.Of(pool)
	version = book.Version()
	for i := range plan {
		below := book.Limits(plan[i].Name)
		if len(below) == 0 {
			continue
		}
		// Pods that wait for a place hold nothing, and leave nothing behind when they go.
		used := c.used(plan[i].Name, func(pod *corev1.Pod) bool { return !book.Waits(pod.UID) })
		plan[i].Offered = bounce.Within(plan[i].Allocatable, used, below)
	}
	return version
}

// used is what the chosen pods on a virtual Node have reserved.
func (c *Controller) used(node string, chosen func(*corev1.Pod) bool) corev1.ResourceList {
	sum := corev1.ResourceList{}
	for _, pod := range c.config.Cache.PodsOnNode(node) {
		if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed && chosen(pod) {
			capacity.Add(sum, capacity.Requests(pod))
		}
	}
	return sum
}

// largestFree is the room on that one of the Nodes which has the most processor time left and takes pods.
func (c *Controller) largestFree(p *pass) corev1.ResourceList {
	var best corev1.ResourceList
	for i := range p.plan {
		want := &p.plan[i]
		if node := p.nodes[want.Name]; node == nil || node.Spec.Unschedulable || !want.Ready || !p.health.ready {
			continue
		}
		left := capacity.Left(want.Offer(), c.used(want.Name, func(*corev1.Pod) bool { return true }))
		if best == nil || left.Cpu().Cmp(*best.Cpu()) > 0 {
			best = left
		}
	}
	return best
}
