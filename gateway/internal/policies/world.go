package policies

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authorization/authorizer"
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
	worlds map[side]*world
}

// side is a tenant's policies of one sort, [Mutating] or [Validating].
type side struct {
	id    names.TenantID
	which string
}

// NewWorlds makes a Worlds; what it starts ends with ctx.
func NewWorlds(ctx context.Context, inside func(names.TenantID) http.RoundTripper) *Worlds {
	return &Worlds{ctx: ctx, inside: inside, worlds: map[side]*world{}}
}

// world is what an API server of a tenant's own would run for one side; the plugin of the other is nil. They are apart because
// the mutating one reads the tenant's schemas every few seconds.
type world struct {
	validating *validating.Plugin
	mutating   *mutating.Plugin
	stop       context.CancelFunc
	used       time.Time
	// slots bound the questions that are answered at once; further ones wait for as long as the control cluster does.
	slots chan struct{}
}

// questionsAtOnce is how many questions of one tenant are answered at the same time: its policies may be dear, and they are
// answered with what all tenants share.
const questionsAtOnce = 16

// idleFor is how long plugins stay that nobody asks and whose tenant is not known to have policies.
const idleFor = 2 * time.Minute

// of gives the plugin of a tenant's side and starts it if need be. It answers when it knows the tenant's policies.
func (w *Worlds) of(s side) (*world, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	one, ok := w.worlds[s]
	if !ok {
		var err error
		if one, err = start(w.ctx, w.inside(s.id), s.which); err != nil {
			return nil, fmt.Errorf("start the admission plugin of tenant %s: %w", s.id, err)
		}
		w.worlds[s] = one
	}
	one.used = time.Now()
	return one, nil
}

// Prune stops the plugins of tenants that have no policies of the sort any more.
func (w *Worlds) Prune(has func(id names.TenantID, which string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s, one := range w.worlds {
		if !has(s.id, s.which) && time.Since(one.used) > idleFor {
			one.stop()
			delete(w.worlds, s)
		}
	}
}

// Forget stops the plugins of a tenant that is not there any more.
func (w *Worlds) Forget(id names.TenantID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, which := range []string{Mutating, Validating} {
		if one, ok := w.worlds[side{id, which}]; ok {
			one.stop()
			delete(w.worlds, side{id, which})
		}
	}
}

// notStored are the kinds that an API server keeps from policies: a question is not a write.
var notStored = []schema.GroupResource{
	{Group: "authentication.k8s.io", Resource: "selfsubjectreviews"}, {Group: "authentication.k8s.io", Resource: "tokenreviews"},
	{Group: "authorization.k8s.io", Resource: "localsubjectaccessreviews"}, {Group: "authorization.k8s.io", Resource: "selfsubjectaccessreviews"},
	{Group: "authorization.k8s.io", Resource: "selfsubjectrulesreviews"}, {Group: "authorization.k8s.io", Resource: "subjectaccessreviews"},
}

func start(ctx context.Context, inside http.RoundTripper, which string) (*world, error) {
	ctx, cancel := context.WithCancel(ctx)
	one, err := startWith(ctx, &rest.Config{Host: "https://tenant.invalid", Transport: inside, QPS: -1, UserAgent: "vivarium-policies"}, which)
	if err != nil {
		cancel()
		return nil, err
	}
	one.stop = cancel
	return one, nil
}

// lasting starts informers for as long as a world lasts. A plugin would stop those of parameters with the last policy that names
// their kind, and the factory never starts one twice: the next policy would be judged by what there was then.
type lasting struct {
	informers.SharedInformerFactory
	end <-chan struct{}
}

// Start implements informers.SharedInformerFactory.
func (l lasting) Start(<-chan struct{}) { l.SharedInformerFactory.Start(l.end) }

// plugin is what the two plugins have in common.
type plugin interface {
	SetExternalKubeInformerFactory(informers.SharedInformerFactory)
	SetExternalKubeClientSet(kubernetes.Interface)
	SetEnabled(bool)
	SetExcludedAdmissionResources([]schema.GroupResource)
	SetDynamicClient(dynamic.Interface)
	SetDrainedNotification(<-chan struct{})
	SetAuthorizer(authorizer.Authorizer)
	SetRESTMapper(meta.RESTMapper)
	admission.InitializationValidator
}

func startWith(ctx context.Context, config *rest.Config, which string) (*world, error) {
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
	one := &world{slots: make(chan struct{}, questionsAtOnce)}
	var starting plugin
	if which == Mutating {
		one.mutating, err = mutating.NewPlugin(nil)
		starting = one.mutating
	} else {
		one.validating, err = validating.NewPlugin(nil)
		starting = one.validating
	}
	if err != nil {
		return nil, err
	}
	factory := lasting{informers.NewSharedInformerFactory(kube, 0), ctx.Done()}
	starting.SetEnabled(true)
	starting.SetExternalKubeInformerFactory(factory)
	starting.SetExternalKubeClientSet(kube)
	starting.SetExcludedAdmissionResources(notStored)
	starting.SetDynamicClient(objects)
	starting.SetDrainedNotification(ctx.Done())
	starting.SetAuthorizer(&authorizing{kube: kube})
	starting.SetRESTMapper(mapper)
	if err := starting.ValidateInitialization(); err != nil {
		return nil, err
	}
	factory.Start(ctx.Done())
	return one, nil
}
