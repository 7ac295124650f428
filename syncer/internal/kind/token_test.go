package kind

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"vivarium.io/vivarium/internal/podrefs"
)

func tokenPod(projections ...corev1.ServiceAccountTokenProjection) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "abc123-web", Name: "p", UID: "u1"}, Spec: corev1.PodSpec{ServiceAccountName: "robot"}}
	for i := range projections {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: fmt.Sprintf("v%d", i), VolumeSource: corev1.VolumeSource{
			Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &projections[i]}}},
		}})
	}
	return pod
}

func seconds(n int64) *int64 { return &n }

// issuer plays the control cluster: it records requests, shortens lifetimes above limit, and accepts tokens with the
// audience "api" itself.
func issuer(limit int64, fail error) (*fake.Clientset, *[]authenticationv1.TokenRequestSpec) {
	var requests []authenticationv1.TokenRequestSpec
	client := fake.NewClientset()
	client.PrependReactor("create", "serviceaccounts", func(action clienttesting.Action) (bool, runtime.Object, error) {
		create, ok := action.(clienttesting.CreateActionImpl)
		if !ok || action.GetSubresource() != "token" {
			return false, nil, nil
		}
		if fail != nil {
			return true, nil, fail
		}
		request, ok := create.Object.(*authenticationv1.TokenRequest)
		if !ok {
			return true, nil, errors.New("not a TokenRequest")
		}
		requests = append(requests, *request.Spec.DeepCopy())
		request = request.DeepCopy()
		request.Spec.ExpirationSeconds = seconds(min(limit, *request.Spec.ExpirationSeconds))
		request.Status.Token = "token for " + request.Spec.Audiences[0]
		return true, request, nil
	})
	client.PrependReactor("create", "tokenreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
		create, ok := action.(clienttesting.CreateActionImpl)
		if !ok {
			return false, nil, nil
		}
		review, ok := create.Object.(*authenticationv1.TokenReview)
		if !ok || len(review.Spec.Audiences) > 0 {
			return true, nil, errors.New("a review that names audiences says nothing about the API server's own")
		}
		review.Status.Authenticated = review.Spec.Token == "token for api"
		return true, review, nil
	})
	return client, &requests
}

func TestTokens(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	day := int64(24 * 3600)
	cases := map[string]struct {
		reason  string
		pod     *corev1.Pod
		limit   int64
		jitter  float64
		want    []authenticationv1.TokenRequestSpec
		keys    map[string]string
		refresh time.Duration
		refused string
	}{
		"Default": {
			"no audience means the gateway, never the API server", tokenPod(corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: seconds(3607)}), day, 0,
			[]authenticationv1.TokenRequestSpec{{Audiences: []string{"gateway"}, ExpirationSeconds: seconds(3607)}},
			map[string]string{podrefs.TokenKey("v0", "token"): "token for gateway"}, 3607 * time.Second * 8 / 10, "",
		},
		"Jitter": {
			"tokens that were made together are not replaced together", tokenPod(corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: seconds(1000)}), day, 1,
			[]authenticationv1.TokenRequestSpec{{Audiences: []string{"gateway"}, ExpirationSeconds: seconds(1000)}},
			map[string]string{podrefs.TokenKey("v0", "token"): "token for gateway"}, 700 * time.Second, "",
		},
		"Shortest": {
			"the first to end decides", tokenPod(corev1.ServiceAccountTokenProjection{Path: "a", ExpirationSeconds: seconds(7200)}, corev1.ServiceAccountTokenProjection{Path: "b", Audience: "vault", ExpirationSeconds: seconds(600)}), day, 0,
			[]authenticationv1.TokenRequestSpec{{Audiences: []string{"gateway"}, ExpirationSeconds: seconds(7200)}, {Audiences: []string{"vault"}, ExpirationSeconds: seconds(600)}},
			map[string]string{podrefs.TokenKey("v0", "a"): "token for gateway", podrefs.TokenKey("v1", "b"): "token for vault"}, 480 * time.Second, "",
		},
		"Shortened": {
			"what was granted counts, not what was asked for", tokenPod(corev1.ServiceAccountTokenProjection{Path: "a", ExpirationSeconds: seconds(7200)}), 1000, 0,
			[]authenticationv1.TokenRequestSpec{{Audiences: []string{"gateway"}, ExpirationSeconds: seconds(7200)}},
			map[string]string{podrefs.TokenKey("v0", "a"): "token for gateway"}, 800 * time.Second, "",
		},
		"LongLife": {
			"a day at most", tokenPod(corev1.ServiceAccountTokenProjection{Path: "a", ExpirationSeconds: seconds(90 * day)}), 365 * day, 0,
			[]authenticationv1.TokenRequestSpec{{Audiences: []string{"gateway"}, ExpirationSeconds: seconds(90 * day)}},
			map[string]string{podrefs.TokenKey("v0", "a"): "token for gateway"}, 24 * time.Hour, "",
		},
		"ControlsOwn": {
			"a token that control accepts is not delivered; the others are", tokenPod(corev1.ServiceAccountTokenProjection{Path: "a", Audience: "api", ExpirationSeconds: seconds(600)}, corev1.ServiceAccountTokenProjection{Path: "b", ExpirationSeconds: seconds(3600)}), day, 0,
			[]authenticationv1.TokenRequestSpec{{Audiences: []string{"api"}, ExpirationSeconds: seconds(600)}, {Audiences: []string{"gateway"}, ExpirationSeconds: seconds(3600)}},
			map[string]string{podrefs.TokenKey("v1", "b"): "token for gateway"}, 2880 * time.Second, "TokenAudienceRefused",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			client, requests := issuer(tc.limit, nil)
			kinds := All(client, nil, TokenConfig{Audience: "gateway", Now: func() time.Time { return now }, Jitter: func() float64 { return tc.jitter }})
			got, err := kinds[Token].Read(t.Context(), Key{Token, "abc123-web", "vivarium-token-u1"}, tc.pod)
			var refused *RefusedError
			if errors.As(err, &refused) != (tc.refused != "") || refused != nil && (refused.Reason != tc.refused || !refused.Partial) {
				t.Fatalf("error %v", err)
			}
			for i := range tc.want {
				tc.want[i].BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "u1"}
			}
			if diff := cmp.Diff(tc.want, *requests); diff != "" {
				t.Errorf("%s: requests (-want +got):\n%s", tc.reason, diff)
			}
			data := map[string]string{}
			for key, value := range got.Data {
				data[key] = string(value)
			}
			if diff := cmp.Diff(tc.keys, data); diff != "" {
				t.Errorf("%s: data (-want +got):\n%s", tc.reason, diff)
			}
			if in := got.RefreshAfter.Sub(now); in != tc.refresh.Truncate(time.Nanosecond) {
				t.Errorf("%s: refresh in %s, want %s", tc.reason, in, tc.refresh)
			}
			if got.Source != TokenSource(tc.pod, "gateway") {
				t.Errorf("source %+v", got.Source)
			}
		})
	}
}

func TestTokenErrors(t *testing.T) {
	pods, accounts := corev1.Resource("pods"), corev1.Resource("serviceaccounts")
	cases := map[string]struct {
		reason string
		err    error
		gone   bool
		// told is the reason of an event, again whether it is tried again.
		told  string
		again bool
	}{
		"PodGone":     {"the pod was deleted meanwhile", apierrors.NewNotFound(pods, "p"), true, "", false},
		"OtherPod":    {"another pod of that name is there", apierrors.NewConflict(pods, "p", errors.New("uid")), true, "", false},
		"NoAccount":   {"somebody may make it yet", apierrors.NewNotFound(accounts, "robot"), false, "TokenRequestFailed", true},
		"BadLifetime": {"it will never be granted", apierrors.NewInvalid(authenticationv1.SchemeGroupVersion.WithKind("TokenRequest").GroupKind(), "", nil), false, "TokenRequestFailed", false},
		"Trouble":     {"passes", errors.New("connection refused"), false, "", true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			client, _ := issuer(1, tc.err)
			_, err := Tokens(client, TokenConfig{Audience: "gateway"}).Read(t.Context(), Key{Token, "abc123-web", "vivarium-token-u1"}, tokenPod(corev1.ServiceAccountTokenProjection{Path: "token"}))
			var refused *RefusedError
			told := errors.As(err, &refused)
			switch {
			case errors.Is(err, ErrGone) != tc.gone:
				t.Errorf("%s: got %v", tc.reason, err)
			case told != (tc.told != "") || told && (refused.Reason != tc.told || (refused.Cause != nil) != tc.again || refused.Partial):
				t.Errorf("%s: got %#v", tc.reason, err)
			}
		})
	}
	for name, pod := range map[string]*corev1.Pod{"OtherUID": {ObjectMeta: metav1.ObjectMeta{Namespace: "abc123-web", UID: "u2"}}, "OtherNamespace": {ObjectMeta: metav1.ObjectMeta{Namespace: "abc123-x", UID: "u1"}}, "NoPod": nil} {
		client, requests := issuer(1, nil)
		if _, err := Tokens(client, TokenConfig{Audience: "g"}).Read(t.Context(), Key{Token, "abc123-web", "vivarium-token-u1"}, pod); !errors.Is(err, ErrGone) || len(*requests) > 0 {
			t.Errorf("%s: %v, %d requests", name, err, len(*requests))
		}
	}
}

// TestTokenSource: what makes tokens others makes the source another.
func TestTokenSource(t *testing.T) {
	base := TokenSource(tokenPod(corev1.ServiceAccountTokenProjection{Path: "token"}), "gateway")
	other := tokenPod(corev1.ServiceAccountTokenProjection{Path: "token"})
	other.Spec.ServiceAccountName = "another"
	for name, source := range map[string]Source{
		"Audience":       TokenSource(tokenPod(corev1.ServiceAccountTokenProjection{Path: "token"}), "gateway2"),
		"OwnAudience":    TokenSource(tokenPod(corev1.ServiceAccountTokenProjection{Path: "token", Audience: "vault"}), "gateway"),
		"Lifetime":       TokenSource(tokenPod(corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: seconds(600)}), "gateway"),
		"ServiceAccount": TokenSource(other, "gateway"),
	} {
		if source.Version == base.Version {
			t.Errorf("%s: the version is the same", name)
		}
	}
	if TokenSource(tokenPod(corev1.ServiceAccountTokenProjection{Path: "token", Audience: "gateway"}), "gateway").Version != base.Version {
		t.Error("naming the gateway's audience is not the same as naming none")
	}
}
