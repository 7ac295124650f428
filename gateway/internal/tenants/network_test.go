package tenants_test

import (
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

func inVPC(x *v1alpha1.Tenant) {
	x.Spec.Network = v1alpha1.TenantNetwork{Mode: v1alpha1.NetworkVPC, Template: &v1alpha1.VPCTemplate{
		CIDRs: []string{"10.0.0.0/16"}, MTU: 1400,
		Subnets: []v1alpha1.SubnetTemplate{{Name: "a", CIDRs: []string{"10.0.1.0/24"}, Zone: "east"}, {Name: "b", CIDRs: []string{"10.0.2.0/24"}}},
	}}
}

// networkIs waits for the condition NetworkReady.
func (w *world) networkIs(name string, status metav1.ConditionStatus, words string) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("the network of tenant %s is ready: %s", name, status), func() error {
		c := meta.FindStatusCondition(w.get(name).Status.Conditions, v1alpha1.TenantNetworkReady)
		if c == nil || c.Status != status || !strings.Contains(c.Message, words) {
			return fmt.Errorf("condition %+v, want %s", c, words)
		}
		return nil
	})
}

func (w *world) read(o client.Object, name string) {
	w.t.Helper()
	if err := w.admin.Get(w.t.Context(), client.ObjectKey{Name: name}, o); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) gone(o client.Object, name string) {
	w.t.Helper()
	w.eventually(name+" is gone", func() error {
		if err := w.admin.Get(w.t.Context(), client.ObjectKey{Name: name}, o); !apierrors.IsNotFound(err) {
			return fmt.Errorf("%T %s: %v", o, name, err)
		}
		return nil
	})
}

// asNetwork plays the network controller: it finds objects ready, or lets go of those that are being deleted.
func (w *world) asNetwork(o client.Object, name string) {
	w.t.Helper()
	w.eventually("the network controller looks at "+name, func() error {
		if err := w.admin.Get(w.t.Context(), client.ObjectKey{Name: name}, o); err != nil {
			return err
		}
		if o.GetDeletionTimestamp() != nil {
			o.SetFinalizers(nil)
			return w.admin.Update(w.t.Context(), o)
		}
		ready := metav1.Condition{Type: v1alpha1.VPCReady, Status: metav1.ConditionTrue, Reason: "Ready"}
		switch o := o.(type) {
		case *v1alpha1.VPC:
			meta.SetStatusCondition(&o.Status.Conditions, ready)
		case *v1alpha1.Subnet:
			meta.SetStatusCondition(&o.Status.Conditions, ready)
		}
		return w.admin.Status().Update(w.t.Context(), o)
	})
}

// deleting waits until an object is asked to go.
func (w *world) deleting(o client.Object, name string) {
	w.t.Helper()
	w.eventually(name+" is asked to go", func() error {
		if err := w.admin.Get(w.t.Context(), client.ObjectKey{Name: name}, o); err != nil {
			return err
		}
		if o.GetDeletionTimestamp() == nil {
			return fmt.Errorf("it is not being deleted")
		}
		return nil
	})
}

func TestNetworkOfATenant(t *testing.T) {
	w := newWorld(t)
	w.startController()
	w.startController() // two replicas make one network
	x := w.create("vpcten", inVPC)
	w.await("vpcten", v1alpha1.TenantActive)
	w.networkIs("vpcten", metav1.ConditionFalse, `VPC "vpcten-main": nobody has looked at it yet`)

	var vpc v1alpha1.VPC
	w.read(&vpc, "vpcten-main")
	if !metav1.IsControlledBy(&vpc, x) || vpc.Spec.Tenant != "vpcten" || vpc.Spec.MTU != 1400 || vpc.Spec.Egress != v1alpha1.EgressSharedNAT {
		t.Errorf("VPC %+v", vpc)
	}
	var a v1alpha1.Subnet
	w.eventually("the subnets are made", func() error { return w.admin.Get(t.Context(), client.ObjectKey{Name: "vpcten-a"}, &a) })
	if !metav1.IsControlledBy(&a, x) || a.Spec.VPC != "vpcten-main" || a.Spec.Zone != "east" {
		t.Errorf("subnet %+v", a)
	}
	for name, o := range map[string]client.Object{"vpcten-main": &v1alpha1.VPC{}, "vpcten-a": &v1alpha1.Subnet{}, "vpcten-b": &v1alpha1.Subnet{}} {
		w.asNetwork(o, name)
	}
	w.networkIs("vpcten", metav1.ConditionTrue, "")

	// What is missing comes back, also where nobody waits for the next look.
	if err := w.admin.Delete(t.Context(), &a); err != nil {
		t.Fatal(err)
	}
	w.asNetwork(&v1alpha1.Subnet{}, "vpcten-a")
	w.eventually("the subnet comes back", func() error {
		var again v1alpha1.Subnet
		err := w.admin.Get(t.Context(), client.ObjectKey{Name: "vpcten-a"}, &again)
		if err == nil && again.UID == a.UID {
			err = fmt.Errorf("it is the old one")
		}
		return err
	})
	w.networkIs("vpcten", metav1.ConditionFalse, `subnet "vpcten-a": nobody has looked at it yet`)

	// The operator's addition to a VPC that was made with a tenant goes with it.
	more := &v1alpha1.Subnet{ObjectMeta: metav1.ObjectMeta{Name: "vpcten-more"}, Spec: v1alpha1.SubnetSpec{VPC: "vpcten-main", CIDRs: []string{"10.0.3.0/24"}}}
	if err := w.admin.Create(t.Context(), more); err != nil {
		t.Fatal(err)
	}
	// Pods keep their network.
	block := &v1alpha1.IPBlock{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.IPBlockName(more.UID, 0), Labels: map[string]string{names.LabelSubnetUID: string(more.UID)}}, Spec: v1alpha1.IPBlockSpec{Subnet: more.Name, SubnetUID: more.UID, VPCUID: vpc.UID, Size: 256}}
	if err := w.admin.Create(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	block.Status.Allocations = []v1alpha1.IPAllocation{{Index: 9, PodUID: "p", Namespace: "vpcten-default", Name: "late", Pool: "east"}}
	if err := w.admin.Status().Update(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	w.delete("vpcten")
	w.deleting(&v1alpha1.Subnet{}, "vpcten-a")
	w.eventually("it says what it waits for", func() error {
		c := meta.FindStatusCondition(w.get("vpcten").Status.Conditions, v1alpha1.TenantCleaned)
		if c == nil || !strings.Contains(c.Message, "pods have addresses of it: vpcten-default/late") {
			return fmt.Errorf("condition %+v", c)
		}
		return nil
	})
	if found := w.find("vpcten"); len(found) > 0 {
		t.Errorf("the network goes before %v", found)
	}
	var still v1alpha1.VPC
	if w.read(&still, "vpcten-main"); still.DeletionTimestamp != nil {
		t.Error("the VPC goes before its subnets")
	}
	block.Status.Allocations = nil
	if err := w.admin.Status().Update(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vpcten-a", "vpcten-b", "vpcten-more"} {
		w.deleting(&v1alpha1.Subnet{}, name)
		w.asNetwork(&v1alpha1.Subnet{}, name)
		w.gone(&v1alpha1.Subnet{}, name)
	}
	w.deleting(&v1alpha1.VPC{}, "vpcten-main")
	if x := w.get("vpcten"); len(x.Finalizers) != 2 {
		t.Errorf("the tenant goes before its VPC: %v", x.Finalizers)
	}
	w.asNetwork(&v1alpha1.VPC{}, "vpcten-main")
	w.awaitReleased("vpcten")
}

// TestNetworkOfTheOperator leaves alone what was not made with the tenant.
func TestNetworkOfTheOperator(t *testing.T) {
	w := newWorld(t)
	own := &v1alpha1.VPC{ObjectMeta: metav1.ObjectMeta{Name: "vpcref-net"}, Spec: v1alpha1.VPCSpec{Tenant: "vpcref", CIDRs: []string{"10.0.0.0/16"}}}
	if err := w.admin.Create(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	w.create("vpcref", func(x *v1alpha1.Tenant) {
		x.Spec.Network = v1alpha1.TenantNetwork{Mode: v1alpha1.NetworkVPC, VPC: own.Name}
	})
	w.create("vpcfor", inVPC)
	foreign := &v1alpha1.VPC{ObjectMeta: metav1.ObjectMeta{Name: "vpcfor-main"}, Spec: v1alpha1.VPCSpec{Tenant: "vpcfor", CIDRs: []string{"10.9.0.0/16"}}}
	if err := w.admin.Create(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	w.create("flatte")
	w.startController()
	w.asNetwork(&v1alpha1.VPC{}, own.Name)
	w.networkIs("vpcref", metav1.ConditionFalse, `VPC "vpcref-net" has no subnet`)
	w.networkIs("vpcfor", metav1.ConditionFalse, `VPC "vpcfor-main" was not made with this tenant and is in its way`)
	for _, name := range []string{"vpcref", "vpcfor", "flatte"} {
		w.await(name, v1alpha1.TenantActive)
	}
	if c := meta.FindStatusCondition(w.get("flatte").Status.Conditions, v1alpha1.TenantNetworkReady); c != nil {
		t.Errorf("a flat tenant has the condition %+v", c)
	}
	for _, name := range []string{"vpcref", "vpcfor"} {
		w.delete(name)
		w.awaitReleased(name)
	}
	for _, vpc := range []*v1alpha1.VPC{own, foreign} {
		var still v1alpha1.VPC
		if w.read(&still, vpc.Name); still.DeletionTimestamp != nil {
			t.Errorf("VPC %s is deleted with a tenant that it was not made with", vpc.Name)
		}
	}
}
