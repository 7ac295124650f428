package tenants

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	certificates "k8s.io/client-go/kubernetes/typed/certificates/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/gateway/internal/follow"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
)

// signer signs what users of a tenant ask for and its approvers have approved: certificates for the tenant's API, with the
// tenants' authority. In the control cluster the request names a signer with the tenant's prefix, which nobody else answers
// to. Level-triggered; several may run, and the resource version lets one win.
type signer struct {
	authority *Authority
	requests  cache.SharedIndexInformer
	// tenant gives a tenant that may have certificates now.
	tenant func(names.TenantID) (*v1alpha1.Tenant, bool)
	// as acts as a tenant's administrator, whom the control cluster's policies keep inside the tenant.
	as    func(names.TenantID) (certificates.CertificateSigningRequestInterface, error)
	queue workqueue.TypedRateLimitingInterface[string]
}

const (
	// userSigner is the signer of users' certificates, as every cluster calls it.
	userSigner = certificatesv1.KubeAPIServerClientSignerName
	// shortestLife is what a certificate lives at least, as at a stock signer.
	shortestLife = 10 * time.Minute
	// mostGroups bounds the groups of a certificate: each costs the control cluster a decision with each request.
	mostGroups = 32
)

func newSigner(authority *Authority, control *rest.Config, client kubernetes.Interface, tenant func(names.TenantID) (*v1alpha1.Tenant, bool)) (*signer, error) {
	all := client.CertificatesV1().CertificateSigningRequests()
	s := &signer{
		authority: authority, tenant: tenant,
		requests: cache.NewSharedIndexInformer(follow.ListWatch("signing requests",
			func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				return all.List(ctx, options)
			},
			func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				return all.Watch(ctx, options)
			},
		), &certificatesv1.CertificateSigningRequest{}, resync, cache.Indexers{}),
		as: func(id names.TenantID) (certificates.CertificateSigningRequestInterface, error) {
			config := rest.CopyConfig(control)
			// What the object remembers as its writer.
			config.UserAgent = "kube-controller-manager"
			config.Impersonate = rest.ImpersonationConfig{
				UserName: id.UserToControl(adminUser), Groups: []string{id.UserGroupToControl(mastersGroup), id.UserGroupToControl(authenticatedGroup)},
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return nil, fmt.Errorf("make a client of tenant %s: %w", id, err)
			}
			return client.CertificatesV1().CertificateSigningRequests(), nil
		},
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, slowestRetry),
			workqueue.TypedRateLimitingQueueConfig[string]{Name: "signing-requests"}),
	}
	if err := s.requests.SetTransform(onlyForUsers); err != nil {
		return nil, fmt.Errorf("watch signing requests: %w", err)
	}
	look := func(obj any) {
		if r, ok := obj.(*certificatesv1.CertificateSigningRequest); ok && waits(r) {
			s.queue.Add(r.Name)
		}
	}
	_, err := s.requests.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: look, UpdateFunc: func(_, now any) { look(now) }})
	if err != nil {
		return nil, fmt.Errorf("watch signing requests: %w", err)
	}
	return s, nil
}

// onlyForUsers keeps other signers' requests from filling the memory.
func onlyForUsers(obj any) (any, error) {
	if r, ok := obj.(*certificatesv1.CertificateSigningRequest); ok {
		r.ManagedFields = nil
		if _, ok := ofTenant(r); !ok || !waits(r) {
			r.ObjectMeta = metav1.ObjectMeta{Name: r.Name, UID: r.UID, ResourceVersion: r.ResourceVersion}
			r.Spec, r.Status = certificatesv1.CertificateSigningRequestSpec{}, certificatesv1.CertificateSigningRequestStatus{}
		}
	}
	return obj, nil
}

// ofTenant says whose request for a user's certificate it is. The name, the signer and whoever asked must agree.
func ofTenant(r *certificatesv1.CertificateSigningRequest) (names.TenantID, bool) {
	id, _, ok := names.SplitName(r.Name)
	if !ok || r.Spec.SignerName != id.NameToControl(userSigner) {
		return "", false
	}
	_, err := id.UserToTenant(r.Spec.Username)
	return id, err == nil
}

// waits reports whether a request is approved and nothing came of it yet.
func waits(r *certificatesv1.CertificateSigningRequest) bool {
	approved := false
	for _, c := range r.Status.Conditions {
		switch {
		case c.Type == certificatesv1.CertificateApproved:
			approved = true
		case c.Type == certificatesv1.CertificateDenied, c.Type == certificatesv1.CertificateFailed:
			return false
		}
	}
	return approved && len(r.Status.Certificate) == 0
}

// run signs until ctx is done.
func (s *signer) run(ctx context.Context) {
	context.AfterFunc(ctx, s.queue.ShutDown)
	for {
		name, stop := s.queue.Get()
		if stop {
			return
		}
		if err := s.sign(ctx, name); err != nil && ctx.Err() == nil {
			boot.Logger(ctx).Warn("A certificate is not issued yet", "name", name, "error", err)
			s.queue.AddRateLimited(name)
		} else {
			s.queue.Forget(name)
		}
		s.queue.Done(name)
	}
}

func (s *signer) sign(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, reconcileTimeout)
	defer cancel()
	obj, ok, err := s.requests.GetStore().GetByKey(name)
	if err != nil || !ok {
		return err
	}
	r := obj.(*certificatesv1.CertificateSigningRequest).DeepCopy()
	id, ok := ofTenant(r)
	if !ok || !waits(r) {
		return nil
	}
	t, ok := s.tenant(id)
	if !ok {
		return nil
	}
	var notBefore time.Time
	if at := t.Spec.CredentialsNotBefore; at != nil {
		notBefore = at.Time
	}
	template, key, err := userCertificate(&r.Spec)
	if err == nil {
		r.Status.Certificate, err = s.authority.signUser(principal{id: id, uid: t.UID}, template, key, lifeOf(&r.Spec), notBefore, time.Now())
		if err != nil {
			return err
		}
	} else {
		r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: "SignerValidationFailure", Message: err.Error(),
		})
	}
	client, err := s.as(id)
	if err != nil {
		return err
	}
	if _, err := client.UpdateStatus(ctx, r, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("answer a signing request of tenant %s: %w", id, err)
	}
	return nil
}

func lifeOf(spec *certificatesv1.CertificateSigningRequestSpec) time.Duration {
	if spec.ExpirationSeconds == nil {
		return certificateLife
	}
	return min(max(time.Duration(*spec.ExpirationSeconds)*time.Second, shortestLife), certificateLife)
}

// userCertificate reads what a request asks for. The error says, in the tenant's words, what a certificate for a user cannot
// have: what a stock signer of such certificates refuses, and names that no request could be made under.
func userCertificate(spec *certificatesv1.CertificateSigningRequestSpec) (*x509.Certificate, any, error) {
	request, err := parseRequest(spec.Request)
	if err != nil {
		return nil, nil, err
	}
	if err := request.CheckSignature(); err != nil {
		return nil, nil, errors.New("the request is not signed with its own key")
	}
	subject := request.Subject
	switch {
	case len(request.DNSNames)+len(request.EmailAddresses)+len(request.IPAddresses)+len(request.URIs) > 0:
		return nil, nil, errors.New("a user's certificate has no alternative names")
	case !names.IsPrincipal(subject.CommonName):
		return nil, nil, errors.New("the common name must be a printable name of a user, of at most 253 characters")
	case strings.HasPrefix(subject.CommonName, "system:serviceaccount:") || subject.CommonName == "system:anonymous":
		return nil, nil, fmt.Errorf("%q is not a user who could have a certificate", subject.CommonName)
	case slices.Contains(subject.Organization, mastersGroup):
		return nil, nil, fmt.Errorf("use of %s signer with %s group is not allowed", userSigner, mastersGroup)
	case len(subject.Organization) > mostGroups:
		return nil, nil, fmt.Errorf("a user's certificate has at most %d groups", mostGroups)
	case slices.ContainsFunc(subject.Organization, func(group string) bool { return !names.IsPrincipal(group) }):
		return nil, nil, errors.New("each organization must be a printable name of a group, of at most 253 characters")
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: subject.CommonName, Organization: subject.Organization},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	client := false
	for _, usage := range spec.Usages {
		switch usage {
		case certificatesv1.UsageDigitalSignature:
			template.KeyUsage |= x509.KeyUsageDigitalSignature
		case certificatesv1.UsageKeyEncipherment:
			template.KeyUsage |= x509.KeyUsageKeyEncipherment
		case certificatesv1.UsageClientAuth:
			client = true
		default:
			return nil, nil, fmt.Errorf("invalid usage for client certificate: %s", usage)
		}
	}
	if !client {
		return nil, nil, fmt.Errorf("missing required usage for client certificate: %s", certificatesv1.UsageClientAuth)
	}
	return template, request.PublicKey, nil
}

// parseRequest reads the PEM of a signing request.
func parseRequest(raw []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("the request is no PEM block of type CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the request cannot be read: %w", err)
	}
	return request, nil
}

// signUser issues a certificate for a user of a tenant. It names the tenant as the administrator's does and is revoked with
// it.
func (a *Authority) signUser(p principal, template *x509.Certificate, key any, life time.Duration, notBefore, now time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a certificate of tenant %s: %w", p.id, err)
	}
	of := p.subject()
	template.SerialNumber = serial
	template.Subject.OrganizationalUnit, template.Subject.SerialNumber = of.OrganizationalUnit, of.SerialNumber
	template.NotBefore, template.NotAfter = a.validity(notBefore, now, life)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate of tenant %s: %w", p.id, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
