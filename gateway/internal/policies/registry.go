package policies

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
)

// Registry knows which tenants have bindings, and keeps the control cluster asking about them: it writes one configuration
// for validating and one for mutating policies, which the operator's manifests make and leave empty. Each replica does so;
// they agree, for they see the same objects. Safe for concurrent use.
type Registry struct {
	sorts []*sort
	// changed wakes Run.
	changed chan struct{}

	// mu guards what follows.
	mu sync.Mutex
	// bound are the sides that have bindings.
	bound map[side]bool
}

// sort is what differs between validating and mutating policies.
type sort struct {
	which, what                string
	policies, bindings, config cache.SharedIndexInformer
	// apply writes what is bound into the configuration as it is known, if that says anything else.
	apply func(ctx context.Context, known any, b bound) error

	// mu guards trouble: why the configuration does not say what it should.
	mu      sync.Mutex
	trouble error
}

// NewRegistry makes a Registry. control is the gateway's own identity, the others are how the control
// cluster reaches the gateway.
func NewRegistry(control *rest.Config, validating, mutating admissionregistrationv1.WebhookClientConfig) (*Registry, error) {
	config := rest.CopyConfig(control)
	config.QPS = -1
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client of the control cluster: %w", err)
	}
	r := &Registry{changed: make(chan struct{}, 1), bound: map[side]bool{}}
	all := informers.NewSharedInformerFactory(kube, 0).Admissionregistration().V1()
	ours := informers.NewSharedInformerFactoryWithOptions(kube, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, names.PolicyWebhooks).String()
	})).Admissionregistration().V1()
	r.sorts = []*sort{
		{
			which: Validating, what: "validating", policies: all.ValidatingAdmissionPolicies().Informer(), bindings: all.ValidatingAdmissionPolicyBindings().Informer(),
			config: ours.ValidatingWebhookConfigurations().Informer(),
			apply: func(ctx context.Context, known any, b bound) error {
				have := known.(*admissionregistrationv1.ValidatingWebhookConfiguration)
				want := have.DeepCopy()
				if want.Webhooks = b.validating(validating); equality.Semantic.DeepEqual(have.Webhooks, want.Webhooks) {
					return nil
				}
				_, err := kube.AdmissionregistrationV1().ValidatingWebhookConfigurations().Update(ctx, want, metav1.UpdateOptions{})
				return err
			},
		},
		{
			which: Mutating, what: "mutating", policies: all.MutatingAdmissionPolicies().Informer(), bindings: all.MutatingAdmissionPolicyBindings().Informer(),
			config: ours.MutatingWebhookConfigurations().Informer(),
			apply: func(ctx context.Context, known any, b bound) error {
				have := known.(*admissionregistrationv1.MutatingWebhookConfiguration)
				want := have.DeepCopy()
				if want.Webhooks = b.mutating(mutating); equality.Semantic.DeepEqual(have.Webhooks, want.Webhooks) {
					return nil
				}
				_, err := kube.AdmissionregistrationV1().MutatingWebhookConfigurations().Update(ctx, want, metav1.UpdateOptions{})
				return err
			},
		},
	}
	for _, s := range r.sorts {
		for _, informer := range []cache.SharedIndexInformer{s.policies, s.bindings, s.config} {
			if err := errors.Join(informer.SetTransform(slim), informer.AddIndexers(cache.Indexers{byTenant: tenantOf})); err != nil {
				return nil, fmt.Errorf("watch admission policies: %w", err)
			}
			_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
				AddFunc: func(any) { r.wake() }, UpdateFunc: func(any, any) { r.wake() }, DeleteFunc: func(any) { r.wake() },
			})
			if err != nil {
				return nil, fmt.Errorf("watch admission policies: %w", err)
			}
		}
	}
	return r, nil
}

// byTenant is an index of objects by the tenant whose prefix their names have.
const byTenant = "tenant"

func tenantOf(obj any) ([]string, error) {
	about, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	if id, _, ok := names.SplitNamespace(names.ControlNamespace(about.GetName())); ok {
		return []string{string(id)}, nil
	}
	return nil, nil
}

// slim drops what nobody here reads, expressions above all.
func slim(obj any) (any, error) {
	switch o := obj.(type) {
	case *admissionregistrationv1.ValidatingAdmissionPolicy:
		o.ObjectMeta = slimMeta(o.ObjectMeta)
		o.Status = admissionregistrationv1.ValidatingAdmissionPolicyStatus{}
		o.Spec = admissionregistrationv1.ValidatingAdmissionPolicySpec{MatchConstraints: slimMatches(o.Spec.MatchConstraints)}
	case *admissionregistrationv1.MutatingAdmissionPolicy:
		o.ObjectMeta = slimMeta(o.ObjectMeta)
		o.Spec = admissionregistrationv1.MutatingAdmissionPolicySpec{MatchConstraints: slimMatches(o.Spec.MatchConstraints)}
	case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
		o.ObjectMeta = slimMeta(o.ObjectMeta)
		o.Spec = admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: o.Spec.PolicyName}
	case *admissionregistrationv1.MutatingAdmissionPolicyBinding:
		o.ObjectMeta = slimMeta(o.ObjectMeta)
		o.Spec = admissionregistrationv1.MutatingAdmissionPolicyBindingSpec{PolicyName: o.Spec.PolicyName}
	}
	return obj, nil
}

// slimMeta keeps what says which object it is.
func slimMeta(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion}
}

// slimMatches keeps the rules, and none where they are as good as all: a policy without rules is about everything.
func slimMatches(m *admissionregistrationv1.MatchResources) *admissionregistrationv1.MatchResources {
	if m == nil || tooMuch(m.ResourceRules) {
		return nil
	}
	for i := range m.ResourceRules {
		// Rules are told without them.
		m.ResourceRules[i].ResourceNames, m.ResourceRules[i].APIVersions = nil, nil
	}
	return &admissionregistrationv1.MatchResources{ResourceRules: m.ResourceRules}
}

func (r *Registry) wake() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

const (
	// retryAfter is how long after a write that failed it is tried again.
	retryAfter = time.Second
	// settle is how long after one write the next one comes at the earliest: a burst of bindings is told at once, and
	// replicas of two versions, which do not agree, do not write against each other without end.
	settle = 250 * time.Millisecond
)

// Run follows the control cluster until ctx is done.
func (r *Registry) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	for _, s := range r.sorts {
		for _, informer := range []cache.SharedIndexInformer{s.policies, s.bindings, s.config} {
			group.Go(func() { informer.RunWithContext(ctx) })
		}
	}
	for {
		var again <-chan time.Time
		if !r.sync(ctx) {
			again = time.After(retryAfter)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(settle):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.changed:
		case <-again:
		}
	}
}

// sync makes the configurations say what is bound, and reports whether they do.
func (r *Registry) sync(ctx context.Context) bool {
	has, done := map[side]bool{}, true
	for _, s := range r.sorts {
		b, err := s.sync(ctx)
		s.mu.Lock()
		said := s.trouble
		s.trouble = err
		s.mu.Unlock()
		done = done && err == nil
		if err != nil && ctx.Err() == nil && !errors.Is(err, errNotKnown) && (said == nil || said.Error() != err.Error()) {
			boot.Logger(ctx).Error("Tenants' admission policies are not applied as they should be", "kind", s.what, "error", err)
		}
		for _, id := range b.tenants {
			has[side{id, s.which}] = true
		}
	}
	r.mu.Lock()
	r.bound = has
	r.mu.Unlock()
	return done
}

// errNotKnown says that the control cluster has not told yet what there is.
var errNotKnown = errors.New("what policies there are is not known yet")

func (s *sort) sync(ctx context.Context) (bound, error) {
	if !s.policies.HasSynced() || !s.bindings.HasSynced() || !s.config.HasSynced() {
		return bound{}, errNotKnown
	}
	var policies []policy
	for _, obj := range s.policies.GetStore().List() {
		switch p := obj.(type) {
		case *admissionregistrationv1.ValidatingAdmissionPolicy:
			policies = append(policies, policyOf(p.Name, p.Spec.MatchConstraints))
		case *admissionregistrationv1.MutatingAdmissionPolicy:
			policies = append(policies, policyOf(p.Name, p.Spec.MatchConstraints))
		}
	}
	var bindings []binding
	for _, obj := range s.bindings.GetStore().List() {
		switch b := obj.(type) {
		case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
			bindings = append(bindings, binding{b.Name, b.Spec.PolicyName})
		case *admissionregistrationv1.MutatingAdmissionPolicyBinding:
			bindings = append(bindings, binding{b.Name, b.Spec.PolicyName})
		}
	}
	b := collect(policies, bindings)
	known, ok, err := s.config.GetStore().GetByKey(names.PolicyWebhooks)
	switch {
	case err != nil:
		return b, fmt.Errorf("read the %s webhook configuration: %w", s.what, err)
	case !ok:
		return b, fmt.Errorf("the control cluster has no %s webhook configuration %q: apply the chart's policies", s.what, names.PolicyWebhooks)
	}
	if err := s.apply(ctx, known, b); apierrors.IsConflict(err) {
		// The informer will tell what is there now.
		return b, nil
	} else if err != nil {
		return b, fmt.Errorf("update the %s webhook configuration: %w", s.what, err)
	}
	return b, nil
}

func policyOf(name string, matches *admissionregistrationv1.MatchResources) policy {
	if matches == nil {
		return policy{name: name}
	}
	return policy{name: name, rules: matches.ResourceRules}
}

// Has reports whether a tenant is known to have policies of a sort that are bound.
func (r *Registry) Has(id names.TenantID, which string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bound[side{id, which}]
}

// MayHave is Has for who must not miss any: it is true also for a binding that has no policy yet, and for every tenant while
// it is not known what bindings there are.
func (r *Registry) MayHave(id names.TenantID, which string) bool {
	for _, s := range r.sorts {
		if s.which == which && s.bindings.HasSynced() {
			have, err := s.bindings.GetIndexer().IndexKeys(byTenant, string(id))
			return err != nil || len(have) > 0
		}
	}
	return true
}

// Check gives the reason why bindings would not be applied at the moment; nil while they are.
func (r *Registry) Check() error {
	for _, s := range r.sorts {
		s.mu.Lock()
		err := s.trouble
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// Most is how many policies of a sort a tenant may have, and how many bindings: every replica holds and compiles them all.
const Most = 100

// Room reports whether a tenant may have an object of a resource: it has one of that name, or fewer than [Most]. Objects
// that are made at the same instant may pass together.
func (r *Registry) Room(id names.TenantID, resource, name string) bool {
	for _, s := range r.sorts {
		for suffix, informer := range map[string]cache.SharedIndexInformer{"admissionpolicies": s.policies, "admissionpolicybindings": s.bindings} {
			if resource != s.what+suffix {
				continue
			}
			all := informer.GetIndexer()
			if _, has, err := all.GetByKey(id.NameToControl(name)); has && err == nil {
				return true
			}
			have, err := all.IndexKeys(byTenant, string(id))
			return err == nil && len(have) < Most
		}
	}
	return true
}
