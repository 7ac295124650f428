package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/network/ipam"
)

// numbersRace has two controllers number two subnets with the same addresses at once, which two gateways let pass. The
// second does all its work where the first stands still: exactly one subnet gets a number, and the first's number is not
// lost.
func numbersRace(t *testing.T, w *vpcWorld) {
	for name, tc := range map[string]struct {
		standsStill string
		wins        int
	}{
		"BeforeTheNumberIsTaken":  {"list", 1},
		"BeforeItIsWrittenAtOnce": {"update", 0},
	} {
		t.Run(name, func(t *testing.T) {
			var subnets []*v1alpha1.Subnet
			for i := range 2 {
				s := &v1alpha1.Subnet{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("red009-%s%d", tc.standsStill, i)}, Spec: v1alpha1.SubnetSpec{VPC: "red009-main", CIDRs: []string{"10.0.0.0/24"}}}
				w.create(s)
				subnets = append(subnets, s)
			}
			numberer := func(admin client.WithWatch) *fabric {
				return &fabric{admin: admin, control: w.control, addresses: ipam.New(ipam.Config{Store: ipam.NewStore(admin)})}
			}
			// Whoever loses a write tries again, as its queue would.
			number := func(f *fabric, s *v1alpha1.Subnet) {
				t.Helper()
				for range 5 {
					err := f.numberSubnet(t.Context(), s.DeepCopy())
					if err == nil {
						return
					}
					if cause := errors.Unwrap(err); !apierrors.IsConflict(cause) && !apierrors.IsAlreadyExists(cause) {
						t.Fatal(err)
					}
				}
				t.Fatalf("%s gets neither a number nor a refusal", s.Name)
			}
			second := func(at string) {
				if at == tc.standsStill {
					tc.standsStill = ""
					number(numberer(w.admin), subnets[1])
				}
			}
			number(numberer(interceptor.NewClient(w.admin, interceptor.Funcs{
				List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
					err := c.List(ctx, list, opts...)
					second("list")
					return err
				},
				SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
					second("update")
					return c.SubResource(sub).Update(ctx, o, opts...)
				},
			})), subnets[0])
			for i, s := range subnets {
				if err := w.admin.Get(t.Context(), client.ObjectKeyFromObject(s), s); err != nil {
					t.Fatal(err)
				}
				ready := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.VPCReady)
				if lost := ready != nil && ready.Reason == reasonOverlap; lost == (i == tc.wins) || (s.Status.VNI != 0) != (i == tc.wins) {
					t.Errorf("%s has number %d and %+v", s.Name, s.Status.VNI, ready)
				}
				if err := w.admin.Delete(t.Context(), s); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
