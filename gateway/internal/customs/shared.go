package customs

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/gateway/internal/tenants"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
)

const (
	// settle is how long changes are gathered before the status of what is shared is worked out again.
	settle = 100 * time.Millisecond
	// statusTimeout bounds one round of that.
	statusTimeout = 30 * time.Second
	// retryStatus is when a round that failed is tried again.
	retryStatus = 2 * time.Second
)

// Tenants tells who the tenants are.
type Tenants interface {
	Get(id names.TenantID) (tenants.Tenant, bool)
	All() []tenants.Tenant
}

// sharedClient reads and writes SharedAPIs at the admin API.
type sharedClient = gentype.ClientWithList[*v1alpha1.SharedAPI, *v1alpha1.SharedAPIList]

// Shared follows what operators share, and tells them how that goes.
type Shared struct {
	client   *sharedClient
	tenants  Tenants
	builtIn  func(group string) bool
	informer cache.SharedIndexInformer
	handled  cache.ResourceEventHandlerRegistration
	registry *Registry
	dirty    chan struct{}
}

// NewShared makes a Shared that reads the admin API through the loopback. builtIn knows the groups that no definition can
// take the place of.
func NewShared(loopback *rest.Config, known Tenants, builtIn func(group string) bool) (*Shared, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("make the client of the admin API: %w", err)
	}
	config := rest.CopyConfig(loopback)
	config.GroupVersion, config.APIPath = &v1alpha1.GroupVersion, "/apis"
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType = runtime.ContentTypeJSON
	restClient, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make the client of the admin API: %w", err)
	}
	s := &Shared{tenants: known, builtIn: builtIn, dirty: make(chan struct{}, 1)}
	s.client = gentype.NewClientWithList("sharedapis", restClient, runtime.NewParameterCodec(scheme), "",
		func() *v1alpha1.SharedAPI { return &v1alpha1.SharedAPI{} }, func() *v1alpha1.SharedAPIList { return &v1alpha1.SharedAPIList{} })
	s.informer = cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return s.client.List(ctx, options)
		},
		WatchFuncWithContext: s.client.Watch,
	}, &v1alpha1.SharedAPI{}, 0, cache.Indexers{})
	return s, nil
}

func (s *Shared) attach(r *Registry) error {
	s.registry = r
	changed := func() {
		r.everybodyChanged()
		s.trigger()
	}
	var err error
	s.handled, err = s.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { changed() },
		UpdateFunc: func(old, now any) {
			if !equality.Semantic.DeepEqual(old.(*v1alpha1.SharedAPI).Spec, now.(*v1alpha1.SharedAPI).Spec) {
				changed()
			}
		},
		DeleteFunc: func(any) { changed() },
	})
	if err != nil {
		return fmt.Errorf("watch shared APIs: %w", err)
	}
	return nil
}

func (s *Shared) hasSynced() bool { return s.handled.HasSynced() }

// trigger has the status of everything worked out again, soon.
func (s *Shared) trigger() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

func (s *Shared) run(ctx context.Context) {
	go s.informer.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), s.handled.HasSynced, s.registry.handled.HasSynced) {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.dirty:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(settle):
		}
		if err := s.report(ctx); err != nil && ctx.Err() == nil {
			boot.Logger(ctx).Error("The status of shared APIs cannot be written", "error", err)
			time.AfterFunc(retryStatus, s.trigger)
		}
	}
}

// all gives what is shared, in the order of groups.
func (s *Shared) all() []*v1alpha1.SharedAPI {
	var out []*v1alpha1.SharedAPI
	for _, obj := range s.informer.GetStore().List() {
		if one, ok := obj.(*v1alpha1.SharedAPI); ok {
			out = append(out, one)
		}
	}
	slices.SortFunc(out, func(a, b *v1alpha1.SharedAPI) int {
		if c := strings.Compare(a.Spec.Group, b.Spec.Group); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

// chooses reports whether a tenant is among those chosen.
func chooses(chosen *v1alpha1.TenantChoice, t *tenants.Tenant) bool {
	have, err := labels.ConvertSelectorToLabelsMap(t.Labels)
	return err == nil && chosen.Chooses(string(t.ID), have)
}

// with gives what is shared with a tenant, in the order of groups. Groups of its own it keeps.
func (s *Shared) with(id names.TenantID, own func(group string) bool) []*Resource {
	t, ok := s.tenants.Get(id)
	if !ok {
		return nil
	}
	var out []*Resource
	seen := map[string]bool{}
	for _, one := range s.all() {
		name := names.JoinDefinition(one.Spec.Resource, one.Spec.Group)
		if seen[name] || own(one.Spec.Group) || s.builtIn(one.Spec.Group) || !chooses(&one.Spec.Tenants, &t) {
			continue
		}
		crd, why := s.definition(name)
		if why != "" {
			continue
		}
		seen[name] = true
		out = append(out, resourceOf(crd, one.Spec.Group, true))
	}
	return out
}

// definition finds a definition of the operator's that is served, or says why there is none.
func (s *Shared) definition(name string) (*apiextensionsv1.CustomResourceDefinition, string) {
	obj, exists, err := s.registry.informer.GetStore().GetByKey(name)
	if err != nil || !exists {
		return nil, v1alpha1.SharedAPIReasonMissing
	}
	crd := obj.(*apiextensionsv1.CustomResourceDefinition)
	if crd.Labels[names.LabelTenant] != "" {
		return nil, v1alpha1.SharedAPIReasonTenants
	}
	if !is(crd, apiextensionsv1.Established) {
		return nil, v1alpha1.SharedAPIReasonNotEstablished
	}
	return crd, ""
}

// ClusterScoped gives the cluster-scoped resources that are shared with anybody.
func (s *Shared) ClusterScoped() []schema.GroupVersionResource {
	var out []schema.GroupVersionResource
	for _, one := range s.all() {
		crd, why := s.definition(names.JoinDefinition(one.Spec.Resource, one.Spec.Group))
		if why != "" || crd.Spec.Scope != apiextensionsv1.ClusterScoped {
			continue
		}
		if resource := resourceOf(crd, one.Spec.Group, true); len(resource.Versions) > 0 {
			out = append(out, schema.GroupVersionResource{Group: one.Spec.Group, Version: resource.Versions[0].Name, Resource: one.Spec.Resource})
		}
	}
	return out
}

// report writes the status of everything that is shared where it is not what it should be.
func (s *Shared) report(ctx context.Context) error {
	shared := s.all()
	if len(shared) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	groups := map[names.TenantID]map[string]bool{}
	for _, obj := range s.registry.informer.GetStore().List() {
		if id, group, ok := tenantOf(obj.(*apiextensionsv1.CustomResourceDefinition)); ok {
			if groups[id] == nil {
				groups[id] = map[string]bool{}
			}
			groups[id][group] = true
		}
	}
	known := s.tenants.All()
	var failed error
	for _, one := range shared {
		now := one.DeepCopy()
		now.Status = s.statusOf(one, known, groups)
		if equality.Semantic.DeepEqual(one.Status, now.Status) {
			continue
		}
		if _, err := s.client.UpdateStatus(ctx, now, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			failed = err
		} else if apierrors.IsConflict(err) {
			// Somebody else's write arrives here next.
			time.AfterFunc(settle, s.trigger)
		}
	}
	return failed
}

func (s *Shared) statusOf(one *v1alpha1.SharedAPI, known []tenants.Tenant, groups map[names.TenantID]map[string]bool) v1alpha1.SharedAPIStatus {
	status := *one.Status.DeepCopy()
	status.ObservedGeneration, status.Tenants, status.Kind = one.Generation, 0, ""
	name := names.JoinDefinition(one.Spec.Resource, one.Spec.Group)
	ready := metav1.Condition{
		Type: v1alpha1.SharedAPIReady, Status: metav1.ConditionTrue, Reason: v1alpha1.SharedAPIReasonServed, ObservedGeneration: one.Generation,
		Message: "the chosen tenants can use it",
	}
	crd, why := s.definition(name)
	if s.builtIn(one.Spec.Group) {
		why = v1alpha1.SharedAPIReasonBuiltIn
	}
	var keep []string
	if why == "" {
		status.Kind = crd.Status.AcceptedNames.Kind
		for i := range known {
			switch t := &known[i]; {
			case !chooses(&one.Spec.Tenants, t):
			case groups[t.ID][one.Spec.Group]:
				keep = append(keep, string(t.ID))
			default:
				status.Tenants++
			}
		}
		if len(keep) > 0 {
			why = v1alpha1.SharedAPIReasonClash
		}
	}
	if why != "" {
		slices.Sort(keep)
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, why, explain(why, name, one.Spec.Group, keep)
	}
	meta.SetStatusCondition(&status.Conditions, ready)
	return status
}

// explain says why something cannot be shared, to the operator.
func explain(why, name, group string, keep []string) string {
	switch why {
	case v1alpha1.SharedAPIReasonMissing:
		return fmt.Sprintf("the control cluster has no CustomResourceDefinition %q", name)
	case v1alpha1.SharedAPIReasonNotEstablished:
		return fmt.Sprintf("CustomResourceDefinition %q of the control cluster is not established", name)
	case v1alpha1.SharedAPIReasonTenants:
		return fmt.Sprintf("CustomResourceDefinition %q of the control cluster is a tenant's own", name)
	case v1alpha1.SharedAPIReasonBuiltIn:
		return fmt.Sprintf("group %q is one of Kubernetes, whose kinds tenants have anyway or must not have", group)
	case v1alpha1.SharedAPIReasonClash:
		shown := keep[:min(len(keep), 10)]
		return fmt.Sprintf("%d of the chosen tenants have CustomResourceDefinitions of their own in group %q and keep those: %s", len(keep), group, strings.Join(shown, ", "))
	default:
		slog.Error("A reason without an explanation", "reason", why)
		return why
	}
}
