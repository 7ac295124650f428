package usage

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"vivarium.io/vivarium/vk-provider/internal/capacity"
)

// pods serves PodMetrics. Unlike other servers of this group it knows limit and continue, with tokens like the API server's
// own: the gateway lists a tenant's pods in all namespaces by starting at its first key, as it does for every other kind.
type pods struct{ source *Source }

var (
	_ rest.Getter               = pods{}
	_ rest.Lister               = pods{}
	_ rest.Scoper               = pods{}
	_ rest.SingularNameProvider = pods{}
)

func (pods) New() runtime.Object     { return &v1beta1.PodMetrics{} }
func (pods) NewList() runtime.Object { return &v1beta1.PodMetricsList{} }
func (pods) Destroy()                {}
func (pods) NamespaceScoped() bool   { return true }
func (pods) GetSingularName() string { return "" }

func (p pods) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	m, ok := p.source.Pod(ctx, request.NamespaceValue(ctx), name)
	if !ok {
		return nil, apierrors.NewNotFound(groupResource("pods"), name)
	}
	return &m, nil
}

func (p pods) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	matches, err := selecting(options)
	if err != nil {
		return nil, err
	}
	keep := func(pod *corev1.Pod) bool { return matches(pod) }
	namespace := request.NamespaceValue(ctx)
	// Keys are as in the store of an API server: below the prefix of the list.
	prefix, limit, start := "/", 0, ""
	if namespace != "" {
		prefix = "/" + namespace + "/"
	}
	if options != nil {
		limit = int(min(options.Limit, 1<<20))
		if options.Continue != "" {
			if start, _, err = storage.DecodeContinue(options.Continue, prefix); err != nil {
				return nil, apierrors.NewBadRequest("continue key is not valid: " + err.Error())
			}
		}
	}
	start = strings.TrimPrefix(start, "/")
	ask := 0
	if limit > 0 {
		ask = limit + 1 // tells whether there are more
	}
	var found []v1beta1.PodMetrics
	if namespace == "" {
		found = p.source.From(ctx, start, ask, keep)
	} else {
		found = p.source.InNamespace(ctx, namespace, func(pod *corev1.Pod) bool { return pod.Namespace+"/"+pod.Name >= start && keep(pod) })
	}
	list := &v1beta1.PodMetricsList{Items: found}
	if limit > 0 && len(found) > limit {
		list.Items = found[:limit]
		// The figures have no revision; a token must have one.
		if list.Continue, err = storage.EncodeContinue("/"+path(&found[limit-1])+"\x00", prefix, 1); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
	}
	if list.Items == nil {
		list.Items = []v1beta1.PodMetrics{}
	}
	return list, nil
}

func (pods) ConvertToTable(_ context.Context, object, options runtime.Object) (*metav1.Table, error) {
	table := newTable(options)
	add := func(m *v1beta1.PodMetrics) {
		total := corev1.ResourceList{}
		for _, c := range m.Containers {
			capacity.Add(total, c.Usage)
		}
		addRow(table, m.Name, total, m.Window, m)
	}
	switch o := object.(type) {
	case *v1beta1.PodMetrics:
		add(o)
	case *v1beta1.PodMetricsList:
		table.ListMeta = o.ListMeta
		for i := range o.Items {
			add(&o.Items[i])
		}
	}
	return table, nil
}

// nodes serves NodeMetrics of virtual Nodes.
type nodes struct{ source *Source }

var (
	_ rest.Getter               = nodes{}
	_ rest.Lister               = nodes{}
	_ rest.Scoper               = nodes{}
	_ rest.SingularNameProvider = nodes{}
)

func (nodes) New() runtime.Object     { return &v1beta1.NodeMetrics{} }
func (nodes) NewList() runtime.Object { return &v1beta1.NodeMetricsList{} }
func (nodes) Destroy()                {}
func (nodes) NamespaceScoped() bool   { return false }
func (nodes) GetSingularName() string { return "" }

func (n nodes) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	if node, ok := n.source.cache.Node(name); ok {
		if m, ok := n.source.Node(ctx, node); ok {
			return &m, nil
		}
	}
	return nil, apierrors.NewNotFound(groupResource("nodes"), name)
}

func (n nodes) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	matches, err := selecting(options)
	if err != nil {
		return nil, err
	}
	list := &v1beta1.NodeMetricsList{Items: n.source.Nodes(ctx, func(node *corev1.Node) bool { return matches(node) })}
	if list.Items == nil {
		list.Items = []v1beta1.NodeMetrics{}
	}
	return list, nil
}

func (nodes) ConvertToTable(_ context.Context, object, options runtime.Object) (*metav1.Table, error) {
	table := newTable(options)
	switch o := object.(type) {
	case *v1beta1.NodeMetrics:
		addRow(table, o.Name, o.Usage, o.Window, o)
	case *v1beta1.NodeMetricsList:
		table.ListMeta = o.ListMeta
		for i := range o.Items {
			addRow(table, o.Items[i].Name, o.Items[i].Usage, o.Items[i].Window, &o.Items[i])
		}
	}
	return table, nil
}

// selecting reads selectors: by label, and by name and namespace.
func selecting(options *internalversion.ListOptions) (func(metav1.Object) bool, error) {
	byLabel, byField := labels.Everything(), fields.Everything()
	if options != nil && options.LabelSelector != nil {
		byLabel = options.LabelSelector
	}
	if options != nil && options.FieldSelector != nil {
		byField = options.FieldSelector
	}
	for _, r := range byField.Requirements() {
		if r.Field != "metadata.name" && r.Field != "metadata.namespace" {
			return nil, apierrors.NewBadRequest("field label not supported: " + r.Field)
		}
	}
	return func(o metav1.Object) bool {
		return byLabel.Matches(labels.Set(o.GetLabels())) &&
			byField.Matches(fields.Set{"metadata.name": o.GetName(), "metadata.namespace": o.GetNamespace()})
	}, nil
}

// newTable has the columns that metrics-server's tables have.
func newTable(options runtime.Object) *metav1.Table {
	table := &metav1.Table{Rows: []metav1.TableRow{}}
	if o, ok := options.(*metav1.TableOptions); ok && o.NoHeaders {
		return table
	}
	table.ColumnDefinitions = []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: "Name of the resource"},
		{Name: "cpu", Type: "string", Format: "quantity"},
		{Name: "memory", Type: "string", Format: "quantity"},
		{Name: "Window", Type: "string", Format: "duration"},
	}
	return table
}

func addRow(table *metav1.Table, name string, usage corev1.ResourceList, window metav1.Duration, object runtime.Object) {
	table.Rows = append(table.Rows, metav1.TableRow{
		Cells:  []any{name, usage.Cpu().String(), usage.Memory().String(), window.Duration.String()},
		Object: runtime.RawExtension{Object: object},
	})
}
