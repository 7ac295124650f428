// Package pools turns ResourcePools into clients: it watches the ResourcePools and the Secrets with their kubeconfigs,
// proves that each kubeconfig leads to the cluster it was registered for, and hands out one [Pool] per ResourcePool for
// as long as that holds. vk-provider, syncer and network share it, so that all three believe the same about a pool.
//
// It must never hand out a pool whose identity it has not checked, write to a pool anything but our namespaces, or put a
// credential into an error, a log line or a status. Start at [Registry].
package pools

import (
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

// Pool is one pool that can be worked with. It is valid while the context that came with it lives; after that its
// credentials or its identity are no longer what was checked. Everything but the latest ResourcePool is immutable.
type Pool struct {
	// Name and UID are the ResourcePool's.
	Name string
	UID  types.UID
	// ClusterUID is the pool's identity, checked against spec.clusterUID before the Pool was handed out.
	ClusterUID types.UID
	// ControlUID is the identity of the control cluster, for names.LabelControl.
	ControlUID types.UID
	// Config reaches the pool's API server. Copy it before changing it.
	Config *rest.Config
	// Client is made from Config.
	Client kubernetes.Interface
	// Dynamic is made from Config too, for kinds that are not Kubernetes' own.
	Dynamic dynamic.Interface

	resource atomic.Pointer[v1alpha1.ResourcePool]
	history  history
}

// NewPool makes a Pool outside a [Registry], for tests.
func NewPool(resource *v1alpha1.ResourcePool, controlUID types.UID, config *rest.Config, client kubernetes.Interface) *Pool {
	p := &Pool{
		Name: resource.Name, UID: resource.UID,
		ClusterUID: resource.Spec.ClusterUID, ControlUID: controlUID,
		Config: config, Client: client,
	}
	if config != nil {
		// A configuration that no client can be made of has made Client fail before.
		p.Dynamic, _ = dynamic.NewForConfig(config)
	}
	p.resource.Store(resource)
	return p
}

// Spec is the latest spec of the ResourcePool; a change of anything but the credentials does not replace the Pool.
func (p *Pool) Spec() v1alpha1.ResourcePoolSpec { return *p.resource.Load().Spec.DeepCopy() }

// Labels marks a pool object as ours: made by component for the control object with the given UID, in a tenant's
// namespace. Together with the UID they are what [Pool.Owns] checks.
func (p *Pool) Labels(component string, tenant names.TenantID, controlObject types.UID) map[string]string {
	return map[string]string{
		names.LabelTenant:     string(tenant),
		names.LabelControl:    string(p.ControlUID),
		names.LabelControlUID: string(controlObject),
		names.LabelPool:       p.Name,
		names.LabelManagedBy:  component,
	}
}

// Owns reports whether a pool object was made by the component on behalf of this control cluster. The pool's name is not
// asked: a ResourcePool may be registered anew under another name.
func (p *Pool) Owns(component string, object metav1.Object) bool {
	labels := object.GetLabels()
	return p.ControlUID != "" && labels[names.LabelControl] == string(p.ControlUID) && labels[names.LabelManagedBy] == component
}

// Selector selects what [Pool.Owns] accepts.
func (p *Pool) Selector(component string) string {
	return names.LabelControl + "=" + string(p.ControlUID) + "," + names.LabelManagedBy + "=" + component
}

// NodePool gives the pool that a control Node stands for, and whether it is a virtual Node at all.
func NodePool(node *corev1.Node) (string, bool) {
	pool := node.Labels[names.LabelPool]
	return pool, pool != ""
}

// Finding is one thing that is known about a pool, in the terms of a condition.
type Finding struct {
	Status          metav1.ConditionStatus
	Reason, Message string
}

// Good reports whether the finding is a clear yes.
func (f Finding) Good() bool { return f.Status == metav1.ConditionTrue }

// Status is what is known about one ResourcePool, whether or not it can be handed out.
type Status struct {
	Reachable, Identified, Authorized Finding
	// Restored is good while the pool has been restored from a backup and its operator has not said yet that nothing else runs
	// there than what it knows. Otherwise it is the zero value.
	Restored Finding
	// Version is the pool's Kubernetes version; empty while unknown.
	Version string
}

// Lost reports whether the pool itself has stopped answering. When it is the credentials that are refused, missing or new and
// never worked, or when another cluster answers, the pool may be well and we are not.
func (s Status) Lost() bool {
	return s.Reachable.Status == metav1.ConditionFalse && s.Reachable.Reason == reasonNoAnswer
}
