package tenants

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/gateway/internal/follow"
	"vivarium.io/vivarium/internal/names"
)

// roles knows what a tenant's admin, edit and view are to say: what the control cluster's own say, which it aggregates
// from whatever is installed there, and what the tenant's own roles with an aggregation label add.
//
// Aggregation is done here and not by aggregation rules on the tenants' roles, because the control cluster's controller
// looks at every aggregated role of all tenants whenever any role changes.
type roles struct {
	// stock has one informer for each of userRoles, additions one for the roles that tenants add to it.
	stock, additions map[string]cache.SharedIndexInformer
}

// feeds says for each role whose additions it gets: as everywhere, who may edit may view, and who administers may edit.
func feeds(role string) []string {
	switch role {
	case "admin":
		return []string{"view", "edit", "admin"}
	case "edit":
		return []string{"view", "edit"}
	default:
		return []string{"view"}
	}
}

const byTenant = "tenant"

// newRoles makes the informers. It calls everyone when the control cluster's roles change and one when a tenant's do.
func newRoles(control kubernetes.Interface, everyone func(), one func(names.TenantID)) (*roles, error) {
	r := &roles{stock: map[string]cache.SharedIndexInformer{}, additions: map[string]cache.SharedIndexInformer{}}
	for _, name := range userRoles() {
		stock := clusterRoles(control, func(options *metav1.ListOptions) {
			options.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
		}, cache.Indexers{})
		_, err := stock.AddEventHandler(cache.ResourceEventHandlerFuncs{UpdateFunc: func(old, now any) {
			if !reflect.DeepEqual(old.(*rbacv1.ClusterRole).Rules, now.(*rbacv1.ClusterRole).Rules) {
				everyone()
			}
		}})
		if err != nil {
			return nil, fmt.Errorf("watch clusterrole %s: %w", name, err)
		}
		additions := clusterRoles(control, func(options *metav1.ListOptions) {
			options.LabelSelector = names.LabelAggregateTo + name + "=true," + names.LabelTenant
		}, cache.Indexers{byTenant: func(obj any) ([]string, error) {
			if id, ok := additionOf(obj); ok {
				return []string{string(id)}, nil
			}
			return nil, nil
		}})
		if err := additions.SetTransform(withoutCopies); err != nil {
			return nil, fmt.Errorf("watch additions to clusterrole %s: %w", name, err)
		}
		changed := func(obj any) {
			if tombstone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = tombstone.Obj
			}
			if id, ok := additionOf(obj); ok {
				one(id)
			}
		}
		_, err = additions.AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
			AddFunc: func(obj any, initial bool) {
				if !initial {
					changed(obj)
				}
			},
			UpdateFunc: func(_, now any) { changed(now) },
			DeleteFunc: changed,
		})
		if err != nil {
			return nil, fmt.Errorf("watch additions to clusterrole %s: %w", name, err)
		}
		r.stock[name], r.additions[name] = stock, additions
	}
	return r, nil
}

func clusterRoles(control kubernetes.Interface, only func(*metav1.ListOptions), indexers cache.Indexers) cache.SharedIndexInformer {
	roles := control.RbacV1().ClusterRoles()
	return cache.NewSharedIndexInformer(follow.ListWatch("cluster roles",
		func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			only(&options)
			return roles.List(ctx, options)
		},
		func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			only(&options)
			return roles.Watch(ctx, options)
		},
	), &rbacv1.ClusterRole{}, 0, indexers)
}

// additionOf gives the tenant that a role adds something for: its name and its label must agree, and it must not be one of
// the copies made here.
func additionOf(obj any) (names.TenantID, bool) {
	role, ok := obj.(*rbacv1.ClusterRole)
	if !ok {
		return "", false
	}
	id, err := names.ParseTenantID(role.Labels[names.LabelTenant])
	if err != nil {
		return "", false
	}
	name, err := id.NameToTenant(role.Name)
	return id, err == nil && !slices.Contains(userRoles(), name)
}

// withoutCopies keeps the copies made here, which carry the labels too, from filling the memory.
func withoutCopies(obj any) (any, error) {
	role, ok := obj.(*rbacv1.ClusterRole)
	if !ok {
		return obj, nil
	}
	role.ManagedFields = nil
	if _, ok := additionOf(role); !ok {
		role.Rules, role.Annotations = nil, nil
	}
	return role, nil
}

// run keeps everything up to date until ctx is done, starting each informer by start.
func (r *roles) run(start func(cache.SharedIndexInformer)) {
	for _, name := range userRoles() {
		start(r.stock[name])
		start(r.additions[name])
	}
}

func (r *roles) synced() bool {
	for _, name := range userRoles() {
		if !r.stock[name].HasSynced() || !r.additions[name].HasSynced() {
			return false
		}
	}
	return true
}

// rolesPatience is how long a caller waits for the first look at the control cluster's roles.
const rolesPatience = 10 * time.Second

// rules gives what one of userRoles is to say for a tenant.
func (r *roles) rules(ctx context.Context, id names.TenantID, name string) ([]rbacv1.PolicyRule, error) {
	if !r.synced() {
		// Only at start.
		err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, rolesPatience, true, func(context.Context) (bool, error) { return r.synced(), nil })
		if err != nil {
			return nil, fmt.Errorf("read the roles of the control cluster: %w", err)
		}
	}
	obj, ok, err := r.stock[name].GetStore().GetByKey(name)
	if err != nil {
		return nil, fmt.Errorf("read clusterrole %q of the control cluster: %w", name, err)
	}
	if !ok {
		return nil, fmt.Errorf("the control cluster has no clusterrole %q", name)
	}
	rules := slices.Clone(obj.(*rbacv1.ClusterRole).Rules)
	for _, feed := range feeds(name) {
		added, err := r.additions[feed].GetIndexer().ByIndex(byTenant, string(id))
		if err != nil {
			return nil, fmt.Errorf("read additions to clusterrole %q: %w", name, err)
		}
		// The order must be the same each time, or the role would be written each time.
		slices.SortFunc(added, func(a, b any) int {
			return strings.Compare(a.(*rbacv1.ClusterRole).Name, b.(*rbacv1.ClusterRole).Name)
		})
		for _, role := range added {
			rules, _ = addMissing(rules, role.(*rbacv1.ClusterRole).Rules, sameRule)
		}
	}
	return rules, nil
}

func sameRule(a, b rbacv1.PolicyRule) bool { return reflect.DeepEqual(a, b) }
