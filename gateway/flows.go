package gateway

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	flowcontrolclient "k8s.io/client-go/kubernetes/typed/flowcontrol/v1"
	"k8s.io/client-go/rest"

	"vivarium.io/vivarium/gateway/internal/control"
	"vivarium.io/vivarium/gateway/internal/flows"
	"vivarium.io/vivarium/gateway/internal/paging"
	"vivarium.io/vivarium/gateway/internal/tenants"
	"vivarium.io/vivarium/gateway/internal/translate"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
)

const (
	// mostKept is how many objects of a kind that is kept here a tenant may have: they are in this process's memory.
	mostKept = 100
	// stockEvery is how often it is looked whether a tenant that asks has what every cluster has; an API server looks as
	// often.
	stockEvery   = time.Minute
	stockTimeout = 10 * time.Second
	stockTenants = 4096
)

// stock remembers which tenants have the schemas and levels that every cluster has. They are made when a tenant first
// asks for the kinds: hardly anybody does.
type stock = expirable.LRU[types.UID, bool]

func newStock() *stock { return expirable.NewLRU[types.UID, bool](stockTenants, nil, stockEvery) }

// mayKeep is what the control cluster decides about other kinds: whether the user may, and whether there is room.
func (x *exchange) mayKeep(r *http.Request) error {
	ctx, request := r.Context(), x.facts.request
	if err := x.authorize(ctx, request.Verb); err != nil {
		return err
	}
	if ctx.Value(stocking{}) != nil {
		return nil
	}
	x.front.stockFlows(ctx, x.facts.tenant)
	applied := request.Verb == "patch" && request.Subresource == "" && translate.IsApply(r.Header.Get("Content-Type"))
	if request.Verb != "create" && !applied {
		return nil
	}
	return x.room(ctx, applied)
}

// room looks whether the tenant may have one more. Who applies may mean one that is there.
func (x *exchange) room(ctx context.Context, applied bool) error {
	request := x.facts.request
	res, err := x.front.control.Do(ctx, control.Call{
		Mode: control.Unary, As: &x.facts.identity, Method: http.MethodGet, Header: control.Headers(http.Header{}, metadataList, ""),
		Path:  "/apis/" + flows.GroupVersion.String() + "/" + request.Resource,
		Query: url.Values{"limit": {strconv.Itoa(mostKept)}, "continue": {paging.Start(x.facts.tenant.ID, paging.Latest)}},
	})
	if err != nil {
		return err
	}
	list, err := readMetadata(res)
	if err != nil {
		return fmt.Errorf("count what is kept of %s: %w", request.Resource, err)
	}
	count := 0
	for i := range list.Items {
		name, err := x.facts.tenant.ID.NameToTenant(list.Items[i].Name)
		switch {
		case err != nil:
		case applied && name == request.Name:
			return nil
		default:
			count++
		}
	}
	if applied {
		// It would be made.
		if err := x.authorize(ctx, "create"); err != nil {
			return err
		}
	}
	if count < mostKept {
		return nil
	}
	return apierrors.NewForbidden(request.GroupResource(), request.Name, fmt.Errorf("a cluster may have %d of these", mostKept))
}

// stocking marks requests that make what every cluster has.
type stocking struct{}

// stockFlows makes the schemas and levels that a tenant lacks of those that every cluster has. They are as inert as its own.
func (f *front) stockFlows(ctx context.Context, tenant tenants.Tenant) {
	if _, done := f.stock.Get(tenant.UID); done {
		return
	}
	f.stock.Add(tenant.UID, true)
	ctx, cancel := context.WithTimeout(context.WithValue(context.WithoutCancel(ctx), stocking{}, true), stockTimeout)
	defer cancel()
	if err := f.makeStock(ctx, tenant.ID); err != nil {
		f.stock.Remove(tenant.UID)
		boot.Logger(ctx).Error("The flow schemas that every cluster has cannot be made", "tenant", tenant.ID, "error", err)
	}
}

func (f *front) makeStock(ctx context.Context, id names.TenantID) error {
	config := &rest.Config{Host: "https://tenant.invalid", QPS: -1}
	client, err := flowcontrolclient.NewForConfigAndClient(config, &http.Client{Transport: inside{f, id}})
	if err != nil {
		return err
	}
	schemas, err := client.FlowSchemas().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	levels, err := client.PriorityLevelConfigurations().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for i := range schemas.Items {
		have["schema "+schemas.Items[i].Name] = true
	}
	for i := range levels.Items {
		have["level "+levels.Items[i].Name] = true
	}
	// This is what an API server writes beside its own, to know that nobody has taken them over.
	updates := map[string]string{"apf.kubernetes.io/autoupdate-spec": "true"}
	options := metav1.CreateOptions{FieldManager: "api-priority-and-fairness-config-producer-v1"}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for _, one := range slices.Concat(bootstrap.MandatoryFlowSchemas, bootstrap.SuggestedFlowSchemas) {
		if have["schema "+one.Name] {
			continue
		}
		one = one.DeepCopy()
		one.Annotations = updates
		group.Go(func() error {
			_, err := client.FlowSchemas().Create(ctx, one, options)
			return unlessThere(err)
		})
	}
	for _, one := range slices.Concat(bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.SuggestedPriorityLevelConfigurations) {
		if have["level "+one.Name] {
			continue
		}
		one = one.DeepCopy()
		one.Annotations = updates
		group.Go(func() error {
			_, err := client.PriorityLevelConfigurations().Create(ctx, one, options)
			return unlessThere(err)
		})
	}
	return group.Wait()
}

// unlessThere forgives whoever was second.
func unlessThere(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
