package protobody

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
)

func encode(t testing.TB, gvk schema.GroupVersionKind, object runtime.Object) []byte {
	t.Helper()
	object.GetObjectKind().SetGroupVersionKind(gvk)
	var out bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(object, &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func configMap(t testing.TB) []byte {
	t.Helper()
	return encode(t, corev1.SchemeGroupVersion.WithKind("ConfigMap"), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"z": "1", "b": "2", "a": "3"}},
		Data:       map[string]string{"k": "v"}, BinaryData: map[string][]byte{"x": {0, 255}},
	})
}

func TestToJSON(t *testing.T) {
	replicas := int32(3)
	cases := map[string]struct {
		gvk    schema.GroupVersionKind
		object runtime.Object
	}{
		"Deployment":    {appsv1.SchemeGroupVersion.WithKind("Deployment"), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: appsv1.DeploymentSpec{Replicas: &replicas}}},
		"Review":        {authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview"), &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get"}}}},
		"Token":         {authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"), &authenticationv1.TokenRequest{}},
		"Eviction":      {policyv1.SchemeGroupVersion.WithKind("Eviction"), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "a"}}},
		"DeleteOptions": {corev1.SchemeGroupVersion.WithKind("DeleteOptions"), &metav1.DeleteOptions{GracePeriodSeconds: new(int64)}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			out, err := ToJSON(encode(t, tc.gvk, tc.object))
			if err != nil {
				t.Fatal(err)
			}
			want, err := json.Marshal(tc.object)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out, want) {
				t.Errorf("ToJSON = %s, want %s", out, want)
			}
		})
	}
}

func TestToJSONRefuses(t *testing.T) {
	good := configMap(t)
	// An unknown field number 2000 with a varint, at the end of the object inside the envelope.
	var unknown runtime.Unknown
	if err := unknown.Unmarshal(good[4:]); err != nil {
		t.Fatal(err)
	}
	unknown.Raw = append(unknown.Raw, 0x80, 0x7d, 0x01)
	newer, err := unknown.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		body    []byte
		unknown bool
	}{
		"NewerField":  {append([]byte("k8s\x00"), newer...), true},
		"OtherKind":   {[]byte("k8s\x00\x0a\x0d\x0a\x06e.io/v\x12\x03Foo\x12\x00"), true},
		"Empty":       {nil, false},
		"NoMagic":     {good[4:], false},
		"Truncated":   {good[:len(good)-3], false},
		"JSON":        {[]byte("{}"), false},
		"Garbage":     {[]byte("k8s\x00\xff\xff\xff\xff"), false},
		"TrailingRaw": {append(bytes.Clone(good), 0x80, 0x7d, 0x01), true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			out, err := ToJSON(tc.body)
			if err == nil {
				t.Fatalf("ToJSON = %s", out)
			}
			if errors.Is(err, ErrUnknown) != tc.unknown {
				t.Errorf("ToJSON: %v, unknown should be %v", err, tc.unknown)
			}
			if strings.Contains(err.Error(), "proto:") {
				t.Errorf("the error shows what is behind: %v", err)
			}
		})
	}
}

func TestIs(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/vnd.kubernetes.protobuf": true, "Application/vnd.kubernetes.PROTOBUF": true, "application/json": false, "": false,
		"application/vnd.kubernetes.protobuf;type=x": false, "application/vnd.kubernetes.protobuf, application/json": false,
	} {
		if got := Is(contentType); got != want {
			t.Errorf("Is(%q) = %v", contentType, got)
		}
	}
}

// FuzzToJSON checks that nothing is ever half understood: what comes out is an object whose protobuf is what went in.
func FuzzToJSON(f *testing.F) {
	f.Add(configMap(f))
	f.Fuzz(func(t *testing.T, body []byte) {
		out, err := ToJSON(body)
		if err == nil && !json.Valid(out) {
			t.Fatalf("%q", out)
		}
	})
}
