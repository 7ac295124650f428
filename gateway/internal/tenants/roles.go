package tenants

import (
	"context"
	"fmt"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// roles follows the control cluster's own admin, edit and view, which it aggregates from whatever is installed there. One
// watch for each: copying them is left to us because the control cluster's aggregation would look at every tenant's roles
// whenever any role changes.
type roles struct {
	informers map[string]cache.SharedIndexInformer
}

func newRoles(control kubernetes.Interface, changed func()) (*roles, error) {
	r := &roles{informers: map[string]cache.SharedIndexInformer{}}
	for _, name := range userRoles() {
		only := fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
		informer := cache.NewSharedIndexInformer(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				options.FieldSelector = only
				return control.RbacV1().ClusterRoles().List(ctx, options)
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				options.FieldSelector = only
				return control.RbacV1().ClusterRoles().Watch(ctx, options)
			},
		}, &rbacv1.ClusterRole{}, 0, cache.Indexers{})
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{UpdateFunc: func(old, now any) {
			if old.(*rbacv1.ClusterRole).ResourceVersion != now.(*rbacv1.ClusterRole).ResourceVersion {
				changed()
			}
		}})
		if err != nil {
			return nil, fmt.Errorf("watch clusterrole %s: %w", name, err)
		}
		r.informers[name] = informer
	}
	return r, nil
}

// rulesPatience is how long a caller waits for the first look at the control cluster's roles.
const rulesPatience = 10 * time.Second

// rules gives the rules of one of the roles, as the control cluster has them now.
func (r *roles) rules(ctx context.Context, name string) ([]rbacv1.PolicyRule, error) {
	informer := r.informers[name]
	if !informer.HasSynced() {
		// Only at start: the informers run before the workers.
		err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, rulesPatience, true, func(context.Context) (bool, error) {
			return informer.HasSynced(), nil
		})
		if err != nil {
			return nil, fmt.Errorf("read clusterrole %q of the control cluster: %w", name, err)
		}
	}
	obj, ok, err := informer.GetStore().GetByKey(name)
	if err != nil {
		return nil, fmt.Errorf("read clusterrole %q of the control cluster: %w", name, err)
	}
	if !ok {
		return nil, fmt.Errorf("the control cluster has no clusterrole %q", name)
	}
	return obj.(*rbacv1.ClusterRole).Rules, nil
}
