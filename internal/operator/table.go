package operator

import (
	"context"
	"fmt"
	"io"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"vivarium.io/vivarium/api/v1alpha1"
)

// Table asks the admin API for a resource as kubectl get shows it: one object, or all when name is empty. The server
// decides on the columns, so that there is one place that does.
func (o *Operator) Table(ctx context.Context, resource, name string) (*metav1.Table, error) {
	config := rest.CopyConfig(o.AdminConfig)
	config.GroupVersion = &v1alpha1.GroupVersion
	config.APIPath = "/apis"
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		return nil, fmt.Errorf("make a client of the admin API: %w", err)
	}
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	admin, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the admin API: %w", err)
	}
	table := &metav1.Table{}
	request := admin.Get().Resource(resource).SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	if name != "" {
		request = request.Name(name)
	}
	return table, o.admin(request.Do(ctx).Into(table))
}

// WriteTable prints a table, one tab between two cells, for a tabwriter.
func WriteTable(w io.Writer, table *metav1.Table, wide bool) {
	shown := func(i int) bool { return wide || table.ColumnDefinitions[i].Priority == 0 }
	var line []string
	for i := range table.ColumnDefinitions {
		if shown(i) {
			line = append(line, strings.ToUpper(table.ColumnDefinitions[i].Name))
		}
	}
	fmt.Fprintln(w, strings.Join(line, "\t"))
	for _, row := range table.Rows {
		line = line[:0]
		for i, cell := range row.Cells {
			if i < len(table.ColumnDefinitions) && shown(i) {
				text := fmt.Sprint(cell)
				if cell == nil || text == "" {
					text = "<none>"
				}
				line = append(line, text)
			}
		}
		fmt.Fprintln(w, strings.Join(line, "\t"))
	}
}

// Tenants lists the tenants, without their kubeconfigs: a list goes to screens and tickets.
func (o *Operator) Tenants(ctx context.Context) (*v1alpha1.TenantList, error) {
	list := &v1alpha1.TenantList{}
	if err := o.Admin.List(ctx, list); err != nil {
		return nil, o.admin(err)
	}
	list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("TenantList"))
	for i := range list.Items {
		list.Items[i] = *WithoutKubeconfig(&list.Items[i])
	}
	return list, nil
}

// WithoutKubeconfig is a Tenant to be shown: without its credentials.
func WithoutKubeconfig(tenant *v1alpha1.Tenant) *v1alpha1.Tenant {
	tenant = tenant.DeepCopy()
	tenant.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("Tenant"))
	delete(tenant.Annotations, v1alpha1.AnnotationKubeconfig)
	tenant.ManagedFields = nil
	return tenant
}

// Pools lists the pools.
func (o *Operator) Pools(ctx context.Context) (*v1alpha1.ResourcePoolList, error) {
	list := &v1alpha1.ResourcePoolList{}
	if err := o.Admin.List(ctx, list); err != nil {
		return nil, o.admin(err)
	}
	list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ResourcePoolList"))
	for i := range list.Items {
		list.Items[i].SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("ResourcePool"))
		list.Items[i].ManagedFields = nil
	}
	return list, nil
}
