package controller

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/network"
)

// servicesOf follows the Services of a tenant into the pool; another tenant's are nobody's here.
func servicesOf(t *testing.T, w *vpcWorld, vpc types.UID) {
	make := func(namespace string) *corev1.Service {
		t.Helper()
		made, err := w.control.CoreV1().Services(namespace).Create(t.Context(), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "db"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	make("zzz999-web")
	made := make("red001-web")
	led := func(backends ...string) {
		t.Helper()
		want := network.Service{Namespace: "web", Name: "db", IPs: []netip.Addr{netip.MustParseAddr(made.Spec.ClusterIP)}, Ports: []network.ServicePort{{Protocol: "TCP", Port: 80}}}
		for _, text := range backends {
			want.Ports[0].Backends = append(want.Ports[0].Backends, netip.MustParseAddrPort(text))
		}
		eventually(t, fmt.Sprintf("led to %v", backends), func() error {
			if diff := cmp.Diff([]network.Service{want}, w.driver.Services("pool-a", vpc), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})); diff != "" {
				return fmt.Errorf("-want +got:\n%s", diff)
			}
			return nil
		})
	}
	led()
	name, port := "", int32(8080)
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "db-1", Labels: map[string]string{discoveryv1.LabelServiceName: "db"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.2"}}},
	}
	slices := w.control.DiscoveryV1().EndpointSlices
	_, err := slices("zzz999-web").Create(t.Context(), slice.DeepCopy(), metav1.CreateOptions{})
	w.must(nil, err)
	slice, err = slices("red001-web").Create(t.Context(), slice, metav1.CreateOptions{})
	w.must(nil, err)
	led("10.0.0.2:8080")
	// A pool that refuses is asked again until it does not.
	broken := "EnsureServices"
	w.broken.Store(&broken)
	slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.0.0.3"}})
	w.must(slices("red001-web").Update(t.Context(), slice, metav1.UpdateOptions{}))
	eventually(t, "two refused calls", func() error {
		calls := 0
		for _, c := range w.driver.Calls() {
			if c.Method == broken {
				calls++
			}
		}
		if calls < 4 {
			return fmt.Errorf("%d calls", calls)
		}
		return nil
	})
	w.broken.Store(nil)
	led("10.0.0.2:8080", "10.0.0.3:8080")
	w.must(nil, slices("red001-web").Delete(t.Context(), slice.Name, metav1.DeleteOptions{}))
	led()
	w.must(nil, w.control.CoreV1().Services("red001-web").Delete(t.Context(), "db", metav1.DeleteOptions{}))
	eventually(t, "no Service", func() error {
		if got := w.driver.Services("pool-a", vpc); len(got) > 0 {
			return fmt.Errorf("has %+v", got)
		}
		return nil
	})
}
