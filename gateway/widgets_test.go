package gateway

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"vivarium.io/vivarium/internal/localcluster"
)

// widget is a custom kind as the module of an operator has it.
type widget struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		Size int `json:"size,omitempty"`
	} `json:"spec,omitempty"`
	Status struct {
		Made int `json:"made,omitempty"`
	} `json:"status,omitempty"`
}

func (w *widget) DeepCopyObject() runtime.Object {
	out := *w
	w.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	return &out
}

type widgetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []widget `json:"items"`
}

func (l *widgetList) DeepCopyObject() runtime.Object {
	out := *l
	out.Items = nil
	for i := range l.Items {
		out.Items = append(out.Items, *l.Items[i].DeepCopyObject().(*widget))
	}
	return &out
}

var widgets = schema.GroupVersion{Group: "shop.example.com", Version: "v1"}

// TestManagerOfCustomResources runs an operator of a kind of the tenant's own, the same in two tenants at once.
func TestManagerOfCustomResources(t *testing.T) {
	w := theWorld(t)
	log.SetLogger(logr.Discard())
	for _, id := range []string{"kcmxc0", "kcmxd0"} {
		kubeconfig := w.tenant(t, id)
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			kubectl := w.client(t, localcluster.Kubectl, kubeconfig)
			kubectl.do(t, "", command{args: "apply -f testdata/shop/crds", says: []string{"customresourcedefinition.apiextensions.k8s.io/widgets.shop.example.com created"}})
			kubectl.do(t, "", command{args: "wait --for=condition=Established crd/widgets.shop.example.com --timeout=180s", says: []string{"condition met"}})
			types := runtime.NewScheme()
			if err := scheme.AddToScheme(types); err != nil {
				t.Fatal(err)
			}
			types.AddKnownTypeWithName(widgets.WithKind("Widget"), &widget{})
			types.AddKnownTypeWithName(widgets.WithKind("WidgetList"), &widgetList{})
			metav1.AddToGroupVersion(types, widgets)
			anyName := true
			mgr, err := ctrl.NewManager(client(t, kubeconfig), manager.Options{
				Scheme: types, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: &anyName},
			})
			if err != nil {
				t.Fatal(err)
			}
			maker := &widgetMaker{Client: mgr.GetClient()}
			if err := ctrl.NewControllerManagedBy(mgr).For(&widget{}).Owns(&corev1.ConfigMap{}).Complete(maker); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			over := make(chan error, 1)
			go func() { over <- mgr.Start(ctx) }()
			defer func() {
				cancel()
				if err := <-over; err != nil {
					t.Error(err)
				}
			}()

			c := clientset(t, client(t, kubeconfig))
			kubectl.do(t, "", command{args: "apply -f -", stdin: "{apiVersion: shop.example.com/v1, kind: Widget, metadata: {name: one, namespace: default}, spec: {size: 2}}", says: []string{"widget.shop.example.com/one created"}})
			made := func(n int) func() bool {
				return func() bool {
					list, err := c.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{LabelSelector: "widget=one"})
					if err != nil || len(list.Items) != n {
						return false
					}
					for _, cm := range list.Items {
						if o := metav1.GetControllerOf(&cm); o == nil || o.APIVersion != widgets.String() || o.Kind != "Widget" || o.Name != "one" {
							t.Fatalf("owners of %s: %v", cm.Name, cm.OwnerReferences)
						}
					}
					return true
				}
			}
			eventually(t, "two things are made", made(2))
			kubectl.do(t, "", command{args: "wait --for=jsonpath={.status.made}=2 wg/one --timeout=180s", says: []string{"condition met"}})
			kubectl.do(t, "", command{args: "patch widget one --type=merge -p {\"spec\":{\"size\":3}}", says: []string{"patched"}})
			kubectl.do(t, "", command{args: "wait --for=jsonpath={.status.made}=3 wg/one --timeout=180s", says: []string{"condition met"}})
			if err := c.CoreV1().ConfigMaps("default").Delete(t.Context(), "one-0", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "what was deleted is made again", made(3))
			kubectl.do(t, "", command{args: "get widgets -A", says: []string{"NAMESPACE", "NAME", "SIZE", "default", "one", "3"}})
			kubectl.do(t, "", command{args: "delete widget one --timeout=180s", says: []string{"deleted"}})
			eventually(t, "the things go with their widget", made(0))
			if maker.ended.Load() == 0 {
				t.Error("the finalizer was passed over")
			}
		})
	}
}

// widgetMaker makes as many ConfigMaps as a widget is large.
type widgetMaker struct {
	crclient.Client
	ended atomic.Int32
}

const widgetFinalizer = "shop.example.com/made"

func (m *widgetMaker) Reconcile(ctx context.Context, r ctrl.Request) (ctrl.Result, error) {
	var w widget
	if err := m.Get(ctx, r.NamespacedName, &w); err != nil {
		return ctrl.Result{}, crclient.IgnoreNotFound(err)
	}
	if w.DeletionTimestamp != nil {
		if controllerutil.RemoveFinalizer(&w, widgetFinalizer) {
			m.ended.Add(1)
			return ctrl.Result{}, crclient.IgnoreNotFound(m.Update(ctx, &w))
		}
		return ctrl.Result{}, nil
	}
	if controllerutil.AddFinalizer(&w, widgetFinalizer) {
		return ctrl.Result{}, m.Update(ctx, &w)
	}
	for i := range w.Spec.Size {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: fmt.Sprintf("%s-%d", w.Name, i), Labels: map[string]string{"widget": w.Name}}}
		if err := controllerutil.SetControllerReference(&w, cm, m.Scheme()); err != nil {
			return ctrl.Result{}, err
		}
		if err := m.Create(ctx, cm); err != nil && !apierrors.IsAlreadyExists(err) {
			return ctrl.Result{}, err
		}
	}
	if w.Status.Made == w.Spec.Size {
		return ctrl.Result{}, nil
	}
	w.Status.Made = w.Spec.Size
	return ctrl.Result{}, m.Status().Update(ctx, &w)
}
