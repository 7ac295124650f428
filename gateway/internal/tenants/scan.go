package tenants

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"vivarium.io/vivarium/internal/names"
)

// Scanner finds what the control cluster holds under a tenant's prefix. It asks for each kind in etcd's own order from
// the prefix on, so that the cost does not depend on how much there is of others. Safe for concurrent use.
type Scanner struct {
	discovery discovery
	objects   metadata.Interface
}

// NewScanner makes a Scanner that asks with the given identity, which must be allowed to list every cluster-scoped kind.
func NewScanner(control *rest.Config) (*Scanner, error) {
	config := rest.CopyConfig(control)
	// A scan is a burst of small requests; the control cluster's own fairness bounds it.
	config.QPS = -1
	// Nobody reads deprecation warnings about kinds that are only listed to be looked at.
	config.WarningHandler = rest.NoWarnings{}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make the client of the control cluster: %w", err)
	}
	objects, err := metadata.NewForConfigAndClient(config, client)
	if err != nil {
		return nil, fmt.Errorf("make the client of the control cluster: %w", err)
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("make the client of the control cluster: %w", err)
	}
	return &Scanner{discovery: discovery{client: client, base: base}, objects: objects}, nil
}

// scanParallel is how many kinds are listed at once.
const scanParallel = 16

// scanMost bounds how many objects of a kind are named: enough to see what is left, few enough to read.
const scanMost = 20

// groupFound is what a group found under the prefix is called.
const groupFound = "API group "

// Find names what belongs to the tenant by its name, kind first: cluster-scoped objects of every kind that can be listed,
// namespaces among them, and API groups. An error means that it could not be told.
func (s *Scanner) Find(ctx context.Context, id names.TenantID) ([]string, error) {
	groups, kinds, err := s.discovery.clusterScoped(ctx)
	if err != nil {
		return nil, err
	}
	var (
		found []string
		mu    sync.Mutex // guards found
	)
	for _, group := range groups {
		if id.Owns(group) {
			found = append(found, fmt.Sprintf(groupFound+"%q", group))
		}
	}
	parallel, ctx := errgroup.WithContext(ctx)
	parallel.SetLimit(scanParallel)
	for _, k := range kinds {
		parallel.Go(func() error {
			objects, err := s.list(ctx, k.resource, id, scanMost)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, object := range objects {
				found = append(found, fmt.Sprintf("%s %q", strings.ToLower(k.kind), object.Name))
			}
			return nil
		})
	}
	if err := parallel.Wait(); err != nil {
		return nil, err
	}
	slices.Sort(found)
	return found, nil
}

// list gives the tenant's objects of a cluster-scoped kind, at most limit of them, in order of name.
func (s *Scanner) list(ctx context.Context, resource schema.GroupVersionResource, id names.TenantID, limit int64) ([]metav1.PartialObjectMetadata, error) {
	page, err := s.page(ctx, resource, startAt(id.Prefix()), limit)
	if apierrors.IsBadRequest(err) || apierrors.IsResourceExpired(err) || apierrors.IsInvalid(err) {
		return s.listAll(ctx, resource, id)
	}
	if err != nil || page == nil {
		return nil, err
	}
	if len(page.Items) > 0 && page.Items[0].Name < id.Prefix() {
		// An aggregated API that does not know where it was asked to start.
		return s.listAll(ctx, resource, id)
	}
	return owned(page, id), nil
}

// listAll reads a kind from its beginning, for servers that understand no token but their own.
func (s *Scanner) listAll(ctx context.Context, resource schema.GroupVersionResource, id names.TenantID) ([]metav1.PartialObjectMetadata, error) {
	var out []metav1.PartialObjectMetadata
	for token := ""; ; {
		page, err := s.page(ctx, resource, token, 500)
		if err != nil || page == nil {
			return nil, err
		}
		out = append(out, owned(page, id)...)
		if token = page.Continue; token == "" {
			return out, nil
		}
	}
}

// page gives nil for a kind that has disappeared since it was discovered, or cannot be listed after all.
func (s *Scanner) page(ctx context.Context, resource schema.GroupVersionResource, token string, limit int64) (*metav1.PartialObjectMetadataList, error) {
	page, err := s.objects.Resource(resource).List(ctx, metav1.ListOptions{Limit: limit, Continue: token})
	if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s of the control cluster: %w", resource.GroupResource(), err)
	}
	return page, nil
}

func owned(page *metav1.PartialObjectMetadataList, id names.TenantID) []metav1.PartialObjectMetadata {
	return slices.DeleteFunc(page.Items, func(o metav1.PartialObjectMetadata) bool { return !id.Owns(o.Name) })
}

// startAt is a continue token that makes a list begin at a name, at the newest revision. The API server hands out tokens
// of this very form when an old one has expired. Sent with a resource version, token and limit would be ignored.
func startAt(name string) string {
	token, err := json.Marshal(struct {
		APIVersion      string `json:"v"`
		ResourceVersion int64  `json:"rv"`
		StartKey        string `json:"start"`
	}{"meta.k8s.io/v1", -1, name})
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(token)
}

// errStale says that a part of the control cluster's API is out of reach.
var errStale = errors.New("its server does not answer")
