package policies

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"vivarium.io/vivarium/internal/names"
)

// Worlds are the admission plugins of the tenants that have policies. Safe for concurrent use.
type Worlds struct {
	ctx context.Context //nolint:containedctx // the life of what runs, not of a call
	// inside gives a tenant's own API, as its administrator.
	inside func(names.TenantID) http.RoundTripper

	// mu guards what follows.
	mu     sync.Mutex
	worlds map[names.TenantID]*world
}

// NewWorlds makes a Worlds; what it starts ends with ctx.
func NewWorlds(ctx context.Context, inside func(names.TenantID) http.RoundTripper) *Worlds {
	return &Worlds{ctx: ctx, inside: inside, worlds: map[names.TenantID]*world{}}
}

// world is what an API server of a tenant's own would run.
type world struct {
	validating *validating.Plugin
	mutating   *mutating.Plugin
	stop       context.CancelFunc
	used       time.Time
}

// idleFor is how long plugins stay that nobody asks and whose tenant is not known to have policies.
const idleFor = 2 * time.Minute

// of gives the plugins of a tenant and starts them if need be. They answer when they know the tenant's policies.
func (w *Worlds) of(id names.TenantID) (*world, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	one, ok := w.worlds[id]
	if !ok {
		var err error
		if one, err = start(w.ctx, w.inside(id)); err != nil {
			return nil, fmt.Errorf("start the admission plugins of tenant %s: %w", id, err)
		}
		w.worlds[id] = one
	}
	one.used = time.Now()
	return one, nil
}

// Prune stops the plugins of tenants that have no policies any more.
func (w *Worlds) Prune(has func(names.TenantID) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, one := range w.worlds {
		if !has(id) && time.Since(one.used) > idleFor {
			one.stop()
			delete(w.worlds, id)
		}
	}
}

// Forget stops the plugins of a tenant that is not there any more.
func (w *Worlds) Forget(id names.TenantID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if one, ok := w.worlds[id]; ok {
		one.stop()
		delete(w.worlds, id)
	}
}

// notStored are the kinds that an API server keeps from policies: a question is not a write.
var notStored = []schema.GroupResource{
	{Group: "authentication.k8s.io", Resource: "selfsubjectreviews"}, {Group: "authentication.k8s.io", Resource: "tokenreviews"},
	{Group: "authorization.k8s.io", Resource: "localsubjectaccessreviews"}, {Group: "authorization.k8s.io", Resource: "selfsubjectaccessreviews"},
	{Group: "authorization.k8s.io", Resource: "selfsubjectrulesreviews"}, {Group: "authorization.k8s.io", Resource: "subjectaccessreviews"},
}

func start(ctx context.Context, inside http.RoundTripper) (*world, error) {
	ctx, cancel := context.WithCancel(ctx)
	one, err := startWith(ctx, &rest.Config{Host: "https://tenant.invalid", Transport: inside, QPS: -1, UserAgent: "vivarium-policies"})
	if err != nil {
		cancel()
		return nil, err
	}
	one.stop = cancel
	return one, nil
}

func startWith(ctx context.Context, config *rest.Config) (*world, error) {
	encoded := rest.CopyConfig(config)
	encoded.ContentType, encoded.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	kube, err := kubernetes.NewForConfig(encoded)
	if err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	mapper, err := apiutil.NewDynamicRESTMapper(config, &http.Client{Transport: config.Transport})
	if err != nil {
		return nil, err
	}
	one := &world{}
	if one.validating, err = validating.NewPlugin(nil); err != nil {
		return nil, err
	}
	if one.mutating, err = mutating.NewPlugin(nil); err != nil {
		return nil, err
	}
	factory := informers.NewSharedInformerFactory(kube, 0)
	for _, plugin := range []interface {
		SetExternalKubeInformerFactory(informers.SharedInformerFactory)
		SetExternalKubeClientSet(kubernetes.Interface)
		SetEnabled(bool)
		SetExcludedAdmissionResources([]schema.GroupResource)
		SetDynamicClient(dynamic.Interface)
		SetDrainedNotification(<-chan struct{})
		admission.InitializationValidator
	}{one.validating, one.mutating} {
		plugin.SetEnabled(true)
		plugin.SetExternalKubeInformerFactory(factory)
		plugin.SetExternalKubeClientSet(kube)
		plugin.SetExcludedAdmissionResources(notStored)
		plugin.SetDynamicClient(objects)
		plugin.SetDrainedNotification(ctx.Done())
	}
	authorizer := &authorizing{kube: kube}
	one.validating.SetAuthorizer(authorizer)
	one.mutating.SetAuthorizer(authorizer)
	one.validating.SetRESTMapper(mapper)
	one.mutating.SetRESTMapper(mapper)
	for _, plugin := range []admission.InitializationValidator{one.validating, one.mutating} {
		if err := plugin.ValidateInitialization(); err != nil {
			return nil, err
		}
	}
	factory.Start(ctx.Done())
	return one, nil
}
