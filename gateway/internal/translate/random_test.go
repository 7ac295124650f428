package translate

import (
	"bytes"
	"encoding/json"
	"math/rand"
	"reflect"
	"slices"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// oneWay are the kinds of which something is for the control cluster alone to say, so that what a tenant writes there does
// not come back.
var oneWay = strings.Fields("TokenReview TokenRequest SelfSubjectReview CustomResourceDefinition ControllerRevision")

// TestRoundTripOfRandomObjects holds the law of TestRoundTripOfPublishedObjects for objects that are made up: the way back
// undoes the way there, byte for byte, in both encodings. The oracle is not asked.
func TestRoundTripOfRandomObjects(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	for _, root := range rules.All() {
		if root.Op == rules.VirtualNode || slices.Contains(oneWay, root.Kind) || !scheme.Scheme.Recognizes(gvkOf(root)) {
			continue
		}
		t.Run(root.Group+"."+root.Version+"."+root.Kind, func(t *testing.T) {
			k, taken := kindOf(root), 0
			for seed := range int64(rounds) {
				choose := rand.New(rand.NewSource(seed))
				obj, err := scheme.Scheme.New(gvkOf(root))
				if err != nil {
					t.Fatal(err)
				}
				filler(seed, false).Fill(obj)
				tame(reflect.ValueOf(obj), choose)
				setNamespace(root, obj)
				settled(reflect.ValueOf(obj))
				proto := toProto(t, obj, gvkOf(root))
				plain, err := json.Marshal(obj)
				if err != nil {
					t.Fatal(err)
				}
				namespace := ""
				if root.Namespaced {
					namespace = "web"
				}
				for encoding, doc := range map[string][]byte{typeJSON: plain, typeProto: proto} {
					control, _, err := view.BodyToControl(k, "update", encoding, doc, namespace, "")
					if err != nil {
						continue
					}
					taken++
					var back bytes.Buffer
					if err := view.ObjectToTenant(k, &back, bytes.NewReader(control)); err != nil {
						t.Fatalf("seed %d, %s: back to the tenant: %v\n%s", seed, encoding, err, plain)
					}
					if got := back.String(); got != string(doc) {
						t.Fatalf("seed %d, %s: %s", seed, encoding, firstDifference(got, string(doc)))
					}
				}
			}
			if taken < rounds/3 {
				t.Errorf("only %d of %d documents were taken, which shows little", taken, 2*rounds)
			}
		})
	}
}

// settled takes out of a made-up object what a tenant cannot have read there: prose with names of the control cluster in
// it, the platform's part of the record of field managers, what nobody could have stored.
func settled(v reflect.Value) {
	plain := func(s string) string {
		if strings.Contains(s, "zq7x9k-") || strings.Contains(s, "canary") {
			return "plain"
		}
		return s
	}
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer, reflect.Interface:
			if !v.IsNil() {
				walk(v.Elem())
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.Map:
			for _, key := range v.MapKeys() {
				if key.Kind() != reflect.String {
					continue
				}
				value := v.MapIndex(key)
				if strings.Contains(key.String(), "zq7x9k-") || strings.Contains(key.String(), "canary") {
					v.SetMapIndex(key, reflect.Value{})
				} else if value.Kind() == reflect.String {
					v.SetMapIndex(key, reflect.ValueOf(plain(value.String())).Convert(value.Type()))
				}
			}
		case reflect.Struct:
			for i := range v.NumField() {
				if v.Type().Field(i).IsExported() {
					walk(v.Field(i))
				}
			}
		case reflect.String:
			if v.CanSet() {
				v.SetString(plain(v.String()))
			}
		}
	}
	walk(v)
	eachStruct(v, func(x any) {
		switch x := x.(type) {
		case *metav1.ObjectMeta:
			for i := range x.ManagedFields {
				x.ManagedFields[i].FieldsV1 = &metav1.FieldsV1{Raw: []byte(`{"f:metadata":{"f:labels":{".":{},"f:app":{}}}}`)}
				x.ManagedFields[i].APIVersion = "apps/v1"
			}
			if len(x.Labels) == 0 {
				// Where the platform adds a label there is a map of them, empty for the tenant.
				x.Labels = map[string]string{"app": "web"}
			}
		case *corev1.Event:
			// What an Event is about lives in its namespace.
			x.InvolvedObject.Namespace, x.InvolvedObject.Kind = "web", "Pod"
		case *eventsv1.Event:
			x.Regarding.Namespace, x.Regarding.Kind = "web", "Pod"
		case *rbacv1.Subject:
			if x.Name == "" {
				x.Name = "nobody"
			}
			if x.Kind == "ServiceAccount" && x.Namespace == "" {
				x.Namespace = "web"
			}
		case *certificatesv1.CertificateSigningRequestSpec:
			slices.Sort(x.Groups)
			x.Groups = slices.DeleteFunc(slices.Compact(x.Groups), func(g string) bool { return g == "" })
		}
	})
}
