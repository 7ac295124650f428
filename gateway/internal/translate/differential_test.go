package translate

import (
	"bytes"
	"encoding/json"
	"math/rand"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	"k8s.io/apimachinery/pkg/api/apitesting/roundtrip"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/randfill"

	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// words are what the strings of made-up objects are: those that mean something somewhere, in the tenant's world, in the
// control cluster and elsewhere.
var words = strings.Fields(`default web a v1 apps/v1 batch/v1 example.com/v1 example.com apps zq7x9k zq7x9k- zq7x9k-web zq7x9k-zq7x9k-web canary-web kube-system
	Namespace ClusterRole Role Pod Node StorageClass User Group ServiceAccount rbac.authorization.k8s.io/v1 rbac.authorization.k8s.io storage.k8s.io/v1
	system:masters system:authenticated system:serviceaccounts system:serviceaccount:web:x system:serviceaccounts:web system:serviceaccount:zq7x9k-web:x
	system:serviceaccounts:canary-web zq7x9k-system:masters canary-alice zq7x9k-alice shared-disk gold zq7x9k-gold canary-gold canary-example.com zq7x9k-example.com
	zq7x9k-example.com/v1 canary-example.com/v1 zq7x9k-apps/v1 namespaces pods clusterroles customresourcedefinitions * users groups widgets.example.com
	widgets.zq7x9k-example.com apiextensions.k8s.io kube-root-ca.crt zq7x9k-shared-disk é https://kubernetes.default.svc default-scheduler`)

var sentences = []string{
	`namespaces "zq7x9k-web" not found`, `User "system:serviceaccount:zq7x9k-web:x" cannot`, "plain words", "zq7x9k-zq7x9k-web", "azq7x9k-web é(zq7x9k-a)", "zq7x9k-", "",
}

var mapKeys = strings.Fields(`app app.kubernetes.io/name kubernetes.io/metadata.name pods requests.cpu count/widgets.example.com count/widgets.zq7x9k-example.com
	count/widgets.canary-example.com count/deployments.apps gold.storageclass.storage.k8s.io/requests.storage zq7x9k-gold.storageclass.storage.k8s.io/requests.storage
	shared-disk.storageclass.storage.k8s.io/requests.storage canary-gold.storageclass.storage.k8s.io/x rbac.authorization.k8s.io/aggregate-to-view
	volume.beta.kubernetes.io/storage-class kubernetes.io/ingress.class ca.crt`)

// platformKeys are keys that a tenant may not write and does not see.
var platformKeys = strings.Fields(`vivarium.io/tenant rbac.vivarium.io/aggregate-to-edit network.vivarium.io/ip pod-security.kubernetes.io/enforce`)

var fieldsV1 = []string{
	`{}`, `{"f:metadata":{"f:labels":{".":{},"f:app":{},"f:vivarium.io/tenant":{},"f:pod-security.kubernetes.io/enforce":{}}}}`,
	`{"f:spec":{"f:hard":{"f:count/widgets.example.com":{},"f:count/widgets.zq7x9k-example.com":{}}}}`,
	`{"f:metadata":{"f:labels":{"f:rbac.authorization.k8s.io/aggregate-to-view":{}}}}`, `{"f:metadata":{"f:labels":{"f:rbac.vivarium.io/aggregate-to-view":{}}}}`,
}

// filler makes up objects; wild ones hold words anywhere, platform keys included.
func filler(seed int64, wild bool) *randfill.Filler {
	key := func(c randfill.Continue) string {
		if wild && c.Intn(8) == 0 {
			return platformKeys[c.Intn(len(platformKeys))]
		}
		return mapKeys[c.Intn(len(mapKeys))]
	}
	funcs := func(codecs serializer.CodecFactory) []any {
		return []any{
			func(s *string, c randfill.Continue) {
				switch c.Intn(8) {
				case 0:
					*s = sentences[c.Intn(len(sentences))]
				case 1:
					*s = ""
				default:
					*s = words[c.Intn(len(words))]
				}
			},
			func(m *map[string]string, c randfill.Continue) {
				*m = map[string]string{}
				for range c.Intn(4) {
					(*m)[key(c)] = words[c.Intn(len(words))]
				}
			},
			func(m *corev1.ResourceList, c randfill.Continue) {
				*m = corev1.ResourceList{}
				for range c.Intn(4) {
					q := (*m)[corev1.ResourceName(key(c))]
					c.Fill(&q)
					(*m)[corev1.ResourceName(key(c))] = q
				}
			},
			func(e *metav1.ManagedFieldsEntry, c randfill.Continue) {
				c.FillNoCustom(e)
				// It is always the object's own.
				e.APIVersion = []string{"v1", "apps/v1", "zq7x9k-example.com/v1"}[c.Intn(3)]
				e.FieldsV1 = &metav1.FieldsV1{Raw: []byte(fieldsV1[c.Intn(len(fieldsV1))])}
			},
			func(a *authorizationv1.ResourceAttributes, c randfill.Continue) {
				c.FillNoCustom(a)
				fields := []string{"metadata.name=web", "metadata.name!=zq7x9k-web,metadata.namespace==web", "spec.nodeName=n", "metadata.namespace=zq7x9k-web"}
				labels := []string{"app=web", "kubernetes.io/metadata.name in (web,zq7x9k-web)", "!app,kubernetes.io/metadata.name!=zq7x9k-web", "rbac.authorization.k8s.io/aggregate-to-view"}
				a.FieldSelector = &authorizationv1.FieldSelectorAttributes{RawSelector: fields[c.Intn(len(fields))]}
				a.LabelSelector = &authorizationv1.LabelSelectorAttributes{RawSelector: labels[c.Intn(len(labels))]}
				if c.Bool() {
					a.FieldSelector = &authorizationv1.FieldSelectorAttributes{Requirements: []metav1.FieldSelectorRequirement{
						{Key: "metadata.name", Operator: "In", Values: []string{"web", "zq7x9k-web"}}, {Key: "metadata.namespace", Operator: "NotIn", Values: []string{"zq7x9k-web"}},
					}}
					a.LabelSelector = &authorizationv1.LabelSelectorAttributes{Requirements: []metav1.LabelSelectorRequirement{
						{Key: key(c), Operator: "In", Values: []string{"web", "zq7x9k-web"}}, {Key: "kubernetes.io/metadata.name", Operator: "Exists"},
					}}
				}
			},
			func(r *runtime.RawExtension, c randfill.Continue) { r.Raw = []byte(`{"a":"zq7x9k-web"}`) },
			func(s *metav1.LabelSelector, c randfill.Continue) {
				c.FillNoCustom(s)
				for i := range s.MatchExpressions {
					s.MatchExpressions[i].Key = key(c)
				}
			},
		}
	}
	return fuzzer.FuzzerFor(fuzzer.MergeFuzzerFuncs(metafuzzer.Funcs, funcs), rand.NewSource(seed), scheme.Codecs).NilChance(.3).NumElements(0, 3)
}

// tame gives the fields that a tenant cannot fill with just anything values that it may send.
func tame(v reflect.Value, choose *rand.Rand) {
	namespace := func(s *string) {
		*s = []string{"", "web", "default", "zq7x9k-web"}[choose.Intn(4)]
	}
	kind := func(s *string, kinds ...string) { *s = kinds[choose.Intn(len(kinds))] }
	optionally := func(s *string) {
		if s != nil {
			namespace(s)
		}
	}
	eachStruct(v, func(x any) {
		switch x := x.(type) {
		case *metav1.ObjectMeta:
			namespace(&x.Namespace)
			for i := range x.OwnerReferences {
				if r := &x.OwnerReferences[i]; r.Kind == "Namespace" {
					namespace(&r.Name)
				}
			}
		case *corev1.ObjectReference:
			namespace(&x.Namespace)
			if x.Kind == "Namespace" {
				namespace(&x.Name)
			}
		case *corev1.TypedObjectReference:
			optionally(x.Namespace)
		case *admissionregistrationv1.ParamRef:
			namespace(&x.Namespace)
		case *networkingv1.IngressClassParametersReference:
			optionally(x.Namespace)
		case *corev1.StorageOSVolumeSource:
			namespace(&x.VolumeNamespace)
		case *corev1.PodAffinityTerm:
			for i := range x.Namespaces {
				namespace(&x.Namespaces[i])
			}
		case *metav1.LabelSelector:
			if _, ok := x.MatchLabels["kubernetes.io/metadata.name"]; ok {
				x.MatchLabels["kubernetes.io/metadata.name"] = "web"
			}
			for i := range x.MatchExpressions {
				for j := range x.MatchExpressions[i].Values {
					x.MatchExpressions[i].Values[j] = "web"
				}
			}
		case *rbacv1.Subject:
			kind(&x.Kind, "User", "Group", "ServiceAccount")
			namespace(&x.Namespace)
		case *rbacv1.RoleRef:
			kind(&x.Kind, "Role", "ClusterRole")
		case *rbacv1.PolicyRule:
			if len(sortsOf(x.APIGroups, x.Resources)) > 1 && choose.Intn(3) > 0 {
				x.ResourceNames = nil
			}
		case *corev1.PodSpec:
			x.NodeName, x.SchedulerName = "", "default-scheduler"
		case *corev1.ServiceAccountTokenProjection:
			x.Audience = "vault"
		case *corev1.Secret:
			x.Type = "Opaque"
		case *corev1.ServiceSpec:
			x.ExternalIPs = nil
		case *authorizationv1.ResourceAttributes:
			namespace(&x.Namespace)
			if x.FieldSelector != nil && strings.Contains(x.FieldSelector.RawSelector, "Value") {
				x.FieldSelector, x.LabelSelector = nil, nil
			}
		case *authorizationv1.SelfSubjectRulesReviewSpec:
			namespace(&x.Namespace)
		case *corev1.Namespace:
			for key := range x.Labels {
				if key == "kubernetes.io/metadata.name" {
					x.Labels[key] = "web"
				}
			}
			namespace(&x.Name)
		}
		if f := reflect.ValueOf(x).Elem().FieldByName("Audiences"); f.IsValid() && f.Type() == reflect.TypeFor[[]string]() {
			f.Set(reflect.ValueOf([]string{"vault"}))
		}
	})
}

// eachStruct calls f for every struct below a value, innermost first, by pointer.
func eachStruct(v reflect.Value, f func(any)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			eachStruct(v.Elem(), f)
		}
	case reflect.Slice:
		for i := range v.Len() {
			eachStruct(v.Index(i), f)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				eachStruct(v.Field(i), f)
			}
		}
		if v.CanAddr() {
			f(v.Addr().Interface())
		}
	}
}

// canon is what an object says, whatever it was encoded in: its JSON without what is empty.
func canon(t testing.TB, obj runtime.Object) string {
	t.Helper()
	raw, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	out, err := json.MarshalIndent(prune(v), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if pruned := prune(value); pruned == nil {
				delete(v, key)
			} else {
				v[key] = pruned
			}
		}
		if len(v) == 0 {
			return nil
		}
	case string:
		if v == "" {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
		if len(v) == 0 {
			return nil
		}
	}
	return v
}

func oracleOf(root rules.Root, control bool) *oracle {
	return &oracle{gvk: gvkOf(root), namespaced: root.Namespaced, prefixed: root.Prefixed, control: control, namespace: map[bool]string{true: "web"}[root.Namespaced]}
}

// agree translates an object with both rewriters and with the oracle, and compares.
func agree(t testing.TB, root rules.Root, obj runtime.Object, control, create bool) (taken bool) {
	t.Helper()
	k := kindOf(root)
	obj.GetObjectKind().SetGroupVersionKind(gvkOf(root))
	plain, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	proto := toProto(t, obj.DeepCopyObject(), gvkOf(root))
	o := oracleOf(root, control)
	o.create = create
	want := decode(t, plain)
	o.object(want)
	verb := "update"
	if create {
		verb = "create"
	}
	for encoding, doc := range map[string][]byte{typeJSON: plain, typeProto: proto} {
		var out []byte
		var err error
		if control {
			out, _, err = view.BodyToControl(k, verb, encoding, doc, o.namespace, "")
		} else {
			var b bytes.Buffer
			err = view.ObjectToTenant(k, &b, bytes.NewReader(doc))
			out = b.Bytes()
		}
		if refused := o.refused != nil || o.foreign != nil; refused != (err != nil) {
			t.Errorf("%s: %v, the oracle says %v %v\n%s", encoding, err, o.refused, o.foreign, plain)
			continue
		} else if refused {
			continue
		}
		got, want := decode(t, out), want.DeepCopyObject()
		if role, ok := got.(*rbacv1.ClusterRole); ok && control {
			// One rule may have become several; what counts is what they grant.
			delete(role.Labels, "vivarium.io/split-rules")
			role.Rules = atoms(role.Rules)
			want := want.(*rbacv1.ClusterRole)
			want.Rules = atoms(want.Rules)
		}
		if diff := cmp.Diff(canon(t, clearType(want)), canon(t, clearType(got))); diff != "" {
			t.Errorf("%s (-oracle +wire):\n%s\nof %s", encoding, diff, plain)
		}
	}
	return o.refused == nil && o.foreign == nil
}

// compared are the kinds that the oracle knows.
func compared(root rules.Root) bool {
	// A CustomResourceDefinition is none of client-go's types, and its schema has no end; TestDefinitions is about it.
	return root.Op != rules.VirtualNode && root.Kind != "ControllerRevision" && root.Kind != "CustomResourceDefinition"
}

// TestOracleOnPublishedObjects compares both rewriters with the oracle, both ways, over the published objects of every
// release, in which every field holds its own name, and over the objects that the API's own compatibility tests make.
func TestOracleOnPublishedObjects(t *testing.T) {
	both := func(t *testing.T, root rules.Root, tenant runtime.Object) {
		o := oracleOf(root, true)
		stored := tenant.DeepCopyObject()
		if agree(t, root, tenant, true, false) {
			o.object(stored)
			agree(t, root, stored, false, false)
		} else {
			t.Error("refused")
		}
	}
	fixtures(t, func(name string, root rules.Root, doc []byte) {
		if !compared(root) {
			return
		}
		t.Run(name, func(t *testing.T) {
			tenant := decode(t, acceptable(t, root, doc))
			eachStruct(reflect.ValueOf(tenant), func(x any) {
				if m, ok := x.(*metav1.ObjectMeta); ok && m.Namespace != "" {
					m.Namespace = "web"
				}
			})
			both(t, root, tenant)
		})
	})
	for _, root := range rules.All() {
		if !compared(root) {
			continue
		}
		t.Run("Compatibility/"+root.Group+"."+root.Version+"."+root.Kind, func(t *testing.T) {
			tenant, err := roundtrip.CompatibilityTestObject(scheme.Scheme, gvkOf(root), compatibilityFills())
			if err != nil {
				t.Fatal(err)
			}
			tame(reflect.ValueOf(tenant), rand.New(rand.NewSource(1)))
			setNamespace(root, tenant)
			both(t, root, tenant)
		})
	}
}

func setNamespace(root rules.Root, obj runtime.Object) {
	m := reflect.ValueOf(obj).Elem().FieldByName("ObjectMeta").Addr().Interface().(*metav1.ObjectMeta)
	if root.Namespaced {
		m.Namespace = "web"
	}
	if root.Prefixed {
		m.Name, m.GenerateName = "own1", "own"
	}
}

// TestOracleOnRequests compares them over objects that tenants might send, some of which are refused.
func TestOracleOnRequests(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 6
	}
	for _, root := range rules.All() {
		if !compared(root) {
			continue
		}
		t.Run(root.Group+"."+root.Version+"."+root.Kind, func(t *testing.T) {
			taken := 0
			for seed := range int64(rounds) {
				choose := rand.New(rand.NewSource(seed))
				obj, err := scheme.Scheme.New(gvkOf(root))
				if err != nil {
					t.Fatal(err)
				}
				wild := choose.Intn(6) == 0
				filler(seed, wild).Fill(obj)
				if choose.Intn(8) > 0 {
					tame(reflect.ValueOf(obj), choose)
					setNamespace(root, obj)
				}
				if agree(t, root, obj, true, choose.Intn(2) == 0) {
					taken++
				}
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
			if taken < rounds/6 {
				t.Errorf("only %d of %d objects were taken, which shows little", taken, rounds)
			}
		})
	}
}

// TestOracleOnResponses compares them over objects that could stand in the control cluster, of this tenant, of others and
// of the platform, in any mixture.
func TestOracleOnResponses(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 6
	}
	for _, root := range rules.All() {
		if !compared(root) {
			continue
		}
		t.Run(root.Group+"."+root.Version+"."+root.Kind, func(t *testing.T) {
			for seed := range int64(rounds) {
				choose := rand.New(rand.NewSource(seed))
				obj, err := scheme.Scheme.New(gvkOf(root))
				if err != nil {
					t.Fatal(err)
				}
				filler(seed, true).Fill(obj)
				if choose.Intn(8) > 0 {
					m := reflect.ValueOf(obj).Elem().FieldByName("ObjectMeta").Addr().Interface().(*metav1.ObjectMeta)
					if root.Namespaced {
						m.Namespace = "zq7x9k-web"
					}
					if root.Prefixed {
						m.Name = "zq7x9k-own1"
					}
				}
				agree(t, root, obj, false, false)
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

// compatibilityFills are for fields that are more than strings and numbers.
func compatibilityFills() map[reflect.Type]roundtrip.FillFunc {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return map[reflect.Type]roundtrip.FillFunc{
		reflect.TypeFor[*runtime.RawExtension](): func(_ string, _ int, x any) { x.(*runtime.RawExtension).Raw = []byte(`{"a":1}`) },
		reflect.TypeFor[*metav1.TypeMeta]():      func(string, int, any) {},
		reflect.TypeFor[*metav1.FieldsV1]():      func(_ string, _ int, x any) { x.(*metav1.FieldsV1).Raw = []byte(`{}`) },
		reflect.TypeFor[*metav1.Time]():          func(_ string, _ int, x any) { x.(*metav1.Time).Time = at },
		reflect.TypeFor[*metav1.MicroTime]():     func(_ string, _ int, x any) { x.(*metav1.MicroTime).Time = at },
		reflect.TypeFor[*intstr.IntOrString](): func(s string, _ int, x any) {
			*x.(*intstr.IntOrString) = intstr.FromString(s)
		},
	}
}
