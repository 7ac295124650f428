package kind

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/podrefs"
)

// Tokens are replaced when four fifths of their life, or a day, is over, less up to a tenth of their life so that tokens
// made together are not replaced together. That leaves the shortest token, ten minutes, two minutes to reach its pod;
// kubelets take about one.
const (
	refreshShare = 0.8
	jitterShare  = 0.1
	refreshLimit = 24 * time.Hour
)

// TokenConfig is what tokens are made with.
type TokenConfig struct {
	// Audience is what a token that names none is for: the gateway.
	Audience string
	// Now is the control cluster's clock: another process may have to know when a token is old. Jitter gives a number in
	// [0, 1). Defaults: the clock here, and a random one.
	Now    func() time.Time
	Jitter func() float64
}

// Tokens makes the kind of ServiceAccount tokens: all projected tokens of one pod in one Secret, each requested from the
// control cluster for exactly the audience and lifetime that the pod asks for, bound to the pod. A token that the control
// API server itself would accept is never delivered: the tenant could use it there, past the gateway.
func Tokens(control kubernetes.Interface, config TokenConfig) Kind {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Jitter == nil {
		config.Jitter = rand.Float64
	}
	return Kind{
		Name:     Token,
		Resource: secrets,
		Read: func(ctx context.Context, key Key, pod *corev1.Pod) (Wanted, error) {
			owner, ok := names.TokenSecretOwner(key.Name)
			if !ok || pod == nil || pod.UID != owner || pod.Namespace != string(key.Namespace) {
				return Wanted{}, ErrGone
			}
			return readTokens(ctx, control, config, pod)
		},
	}
}

// TokenSource is the source of a pod's tokens; it changes when the pod's tokens have to be others.
func TokenSource(pod *corev1.Pod, audience string) Source {
	h := sha256.New()
	for _, token := range podrefs.Of(&pod.Spec).Tokens {
		field(h, token.Key, audienceOf(token, audience), strconv.FormatInt(token.ExpirationSeconds, 10))
	}
	field(h, serviceAccountOf(pod))
	return Source{UID: pod.UID, Version: "tokens/" + hex.EncodeToString(h.Sum(nil)[:8])}
}

func audienceOf(token podrefs.Token, gateway string) string {
	if token.Audience == "" {
		return gateway
	}
	return token.Audience
}

func serviceAccountOf(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName == "" {
		return "default"
	}
	return pod.Spec.ServiceAccountName
}

func readTokens(ctx context.Context, control kubernetes.Interface, config TokenConfig, pod *corev1.Pod) (Wanted, error) {
	wanted := Wanted{
		Source:  TokenSource(pod, config.Audience),
		Content: Content{Data: map[string][]byte{}, Type: corev1.SecretTypeOpaque},
	}
	var refused *RefusedError
	for _, token := range podrefs.Of(&pod.Spec).Tokens {
		audience := audienceOf(token, config.Audience)
		asked := config.Now()
		text, lifetime, err := requestToken(ctx, control, pod, audience, token.ExpirationSeconds)
		if err != nil {
			return Wanted{}, err
		}
		if audience != config.Audience {
			accepted, err := acceptedByControl(ctx, control, text)
			if err != nil {
				return Wanted{}, err
			}
			if accepted {
				refused = &RefusedError{
					Reason:  "TokenAudienceRefused",
					Partial: true,
					Message: fmt.Sprintf("volume %q asks for a token with audience %q, which tenants cannot have; leave the audience empty for a token that this cluster's API accepts", token.Volume, audience),
				}
				continue
			}
		}
		wanted.Data[token.Key] = []byte(text)
		after := asked.Add(refreshIn(lifetime, config.Jitter()))
		if wanted.RefreshAfter.IsZero() || after.Before(wanted.RefreshAfter) {
			wanted.RefreshAfter = after
		}
	}
	if refused != nil {
		return wanted, refused
	}
	return wanted, nil
}

// refreshIn is how long after its making a token is replaced.
func refreshIn(lifetime time.Duration, jitter float64) time.Duration {
	in := time.Duration(float64(lifetime) * (refreshShare - jitterShare*jitter))
	return min(in, refreshLimit)
}

// requestToken asks control for one token.
func requestToken(ctx context.Context, control kubernetes.Interface, pod *corev1.Pod, audience string, seconds int64) (string, time.Duration, error) {
	account := serviceAccountOf(pod)
	got, err := control.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{
			Audiences:         []string{audience},
			ExpirationSeconds: &seconds,
			BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
		},
	}, metav1.CreateOptions{})
	switch {
	case err == nil:
		lifetime := time.Duration(seconds) * time.Second
		if got.Spec.ExpirationSeconds != nil {
			// The control cluster may shorten it.
			lifetime = time.Duration(*got.Spec.ExpirationSeconds) * time.Second
		}
		return got.Status.Token, lifetime, nil
	case apierrors.IsConflict(err) || apierrors.IsNotFound(err) && about(err, "pods"):
		return "", 0, ErrGone
	case apierrors.IsNotFound(err):
		return "", 0, &RefusedError{
			Reason:  "TokenRequestFailed",
			Message: fmt.Sprintf("ServiceAccount %q not found", account),
			Cause:   fmt.Errorf("request a token of ServiceAccount %s/%s: %w", pod.Namespace, account, err),
		}
	case apierrors.IsInvalid(err):
		return "", 0, &RefusedError{
			Reason:  "TokenRequestFailed",
			Message: fmt.Sprintf("no token of ServiceAccount %q with audience %q and a lifetime of %d s can be had", account, audience, seconds),
		}
	default:
		return "", 0, fmt.Errorf("request a token of ServiceAccount %s/%s: %w", pod.Namespace, account, err)
	}
}

// about reports whether an API error is about a resource.
func about(err error, resource string) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Kind == resource
}

// acceptedByControl asks the control API server whether the token works there. Asking is surer than comparing audiences:
// which ones it takes depends on its flags, and on authenticators that no flag of ours knows.
func acceptedByControl(ctx context.Context, control kubernetes.Interface, token string) (bool, error) {
	review, err := control.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("review a token with a pod's own audience: %w", err)
	}
	return review.Status.Authenticated, nil
}
