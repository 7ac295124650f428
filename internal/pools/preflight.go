package pools

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/version"
	apimachineryversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"vivarium.io/vivarium/api/v1alpha1"
)

// OldestVersion is the oldest Kubernetes that a pool may run: before it, native sidecars and the eviction conditions
// that status reflection relies on are not there.
const OldestVersion = "1.30.0"

// Right is one thing that the credentials of a pool must be allowed to do, cluster-wide.
type Right struct {
	Verb, Group, Resource, Subresource string
	// Without says what a pool lacks whose credentials lack the right, where it is a pool all the same; empty where it is none.
	Without string
}

// String spells the right for an operator: "create pods/exec", "list networkpolicies.networking.k8s.io".
func (r Right) String() string {
	s := r.Verb + " " + r.Resource
	if r.Group != "" {
		s += "." + r.Group
	}
	if r.Subresource != "" {
		s += "/" + r.Subresource
	}
	return s
}

// Rights lists everything that vk-provider, syncer and network do in a pool with the network driver. The ClusterRole
// vivarium-pool, with vivarium-pool-<driver> where there is one, grants exactly this; a test compares them.
func Rights(driver string) []Right {
	var rights []Right
	add := func(group, resource, subresource string, verbs ...string) {
		for _, verb := range verbs {
			rights = append(rights, Right{Verb: verb, Group: group, Resource: resource, Subresource: subresource})
		}
	}
	add("", "namespaces", "", "get", "list", "watch", "create", "delete")
	add("", "pods", "", "get", "list", "watch", "create", "patch", "delete")
	add("", "pods", "log", "get")
	// A WebSocket stream is a GET and a SPDY stream a POST; since 1.35 the API server asks for create on both.
	add("", "pods", "exec", "get", "create")
	add("", "pods", "attach", "get", "create")
	add("", "pods", "portforward", "get", "create")
	add("", "pods", "ephemeralcontainers", "patch")
	add("", "pods", "resize", "patch")
	add("", "secrets", "", "get", "list", "watch", "create", "update", "delete")
	add("", "configmaps", "", "get", "list", "watch", "create", "update", "delete")
	add("networking.k8s.io", "networkpolicies", "", "get", "list", "watch", "create", "update", "delete")
	add("", "nodes", "", "list", "watch")
	add("", "events", "", "list", "watch")
	rights = append(rights, Right{Verb: "list", Group: "metrics.k8s.io", Resource: "pods", Without: "its pods have no figures in kubectl top and for autoscalers"})
	switch driver {
	case v1alpha1.DriverKubeOVN:
		for _, resource := range []string{"vpcs", "subnets", "security-groups", "vpc-egress-gateways", "switch-lb-rules"} {
			add("kubeovn.io", resource, "", "get", "list", "create", "update", "delete")
		}
	case v1alpha1.DriverOVNUDN:
		add("k8s.ovn.org", "clusteruserdefinednetworks", "", "get", "list", "create", "update", "delete")
		add("k8s.cni.cncf.io", "network-attachment-definitions", "", "get")
	}
	return rights
}

// Report is what [Preflight] found out about a pool.
type Report struct {
	// ClusterUID is the UID of the pool's kube-system namespace: its identity.
	ClusterUID types.UID
	// Version is what its API server runs, as in "v1.36.3".
	Version string
	// Missing names, in words, every right that the credentials lack; empty when they suffice.
	Missing []string
	// Without says what the pool lacks because of rights that it can do without.
	Without []string
	// Problems names what else stands in the way, such as a version that is too old.
	Problems []string
}

// Preflight asks a cluster whether it can be a pool with the network driver. An error means that it could not be asked (unreachable, or the
// credentials are not accepted); everything that it answered is in the Report. It changes nothing.
func Preflight(ctx context.Context, config *rest.Config, driver string) (Report, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return Report{}, fmt.Errorf("make a client for %s: %w", config.Host, err)
	}
	return preflight(ctx, client, config.Host, driver)
}

func preflight(ctx context.Context, client kubernetes.Interface, host, driver string) (Report, error) {
	var report Report
	gitVersion, err := serverVersion(ctx, client)
	switch {
	case apierrors.IsUnauthorized(err):
		return report, fmt.Errorf("%s does not accept the credentials: %w", host, err)
	case apierrors.IsForbidden(err):
		// Some providers close /version; the version is then unknown, not wrong.
	case err != nil:
		return report, fmt.Errorf("reach %s: %w", host, err)
	default:
		report.Version = gitVersion
		if v, err := version.ParseGeneric(gitVersion); err == nil && v.LessThan(version.MustParseGeneric(OldestVersion)) {
			report.Problems = append(report.Problems, fmt.Sprintf("the pool runs Kubernetes %s; v%s or newer is needed", gitVersion, OldestVersion))
		}
	}
	report.Missing, report.Without, err = missingRights(ctx, client, driver)
	if err != nil {
		return report, fmt.Errorf("ask %s for our rights: %w", host, err)
	}
	uid, err := clusterUID(ctx, client)
	switch {
	case apierrors.IsForbidden(err):
		report.Problems = append(report.Problems, "the credentials may not read namespace kube-system, whose UID identifies the pool")
	case err != nil:
		return report, fmt.Errorf("identify %s: %w", host, err)
	}
	report.ClusterUID = uid
	return report, nil
}

// serverVersion asks for the version within ctx, which the discovery client cannot.
func serverVersion(ctx context.Context, client kubernetes.Interface) (string, error) {
	raw := client.Discovery().RESTClient()
	if raw == nil { // a fake
		info, err := client.Discovery().ServerVersion()
		if err != nil {
			return "", err
		}
		return info.GitVersion, nil
	}
	body, err := raw.Get().AbsPath("/version").Do(ctx).Raw()
	if err != nil {
		return "", err
	}
	var info apimachineryversion.Info
	if err := json.Unmarshal(body, &info); err != nil {
		return "", fmt.Errorf("read /version: %w", err)
	}
	return info.GitVersion, nil
}

// clusterUID reads a cluster's identity.
func clusterUID(ctx context.Context, client kubernetes.Interface) (types.UID, error) {
	namespace, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return namespace.UID, nil
}

func missingRights(ctx context.Context, client kubernetes.Interface, driver string) (words, without []string, err error) {
	var (
		mu      sync.Mutex // guards missing and without
		missing = map[string][]string{}
		group   errgroup.Group
	)
	group.SetLimit(8)
	for _, right := range Rights(driver) {
		group.Go(func() error {
			review, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
				Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
					Verb: right.Verb, Group: right.Group, Resource: right.Resource, Subresource: right.Subresource,
				}},
			}, metav1.CreateOptions{})
			if err != nil {
				return err
			}
			if !review.Status.Allowed {
				mu.Lock()
				defer mu.Unlock()
				if right.Without != "" {
					without = append(without, fmt.Sprintf("without the right to %s %s", right, right.Without))
					return nil
				}
				object := strings.TrimPrefix(right.String(), right.Verb+" ")
				missing[object] = append(missing[object], right.Verb)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	for object, verbs := range missing {
		slices.Sort(verbs)
		words = append(words, strings.Join(verbs, ", ")+" "+object)
	}
	slices.Sort(words)
	slices.Sort(without)
	return words, without, nil
}
