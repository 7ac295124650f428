package controller

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

const (
	// vniConfigMap is the object that all who give numbers write with the version that they read.
	vniConfigMap = "vivarium-network"
	vniKey       = "next-vni"
	// givenKey is the UID of the Subnet that was given the last number, and the number.
	givenKey = "given-vni"
	maxVNI   = 1<<24 - 1
)

// numberSubnet gives a new subnet its segment number, once: one that no Subnet has and that nobody else is given. The
// numbers go round once before one comes back: that is its quarantine.
//
// A subnet without a number is nowhere, and none is given to one with addresses of another that has one: two gateways may
// let such a pair pass when they are asked at once. So numbers are given one after the other, whoever gives them: the object
// says to whom the last one went, and that it stands in that Subnet is seen to before the next is given.
func (f *fabric) numberSubnet(ctx context.Context, o *v1alpha1.Subnet) error {
	maps := f.control.CoreV1().ConfigMaps(names.SystemNamespace)
	cursor, err := maps.Get(ctx, vniConfigMap, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return fmt.Errorf("read ConfigMap %s: %w", vniConfigMap, err)
	}
	if missing {
		cursor = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: vniConfigMap}}
	}
	// Read after the cursor: who is numbered later has changed it, and the write below fails.
	var subnets v1alpha1.SubnetList
	if err := f.admin.List(ctx, &subnets); err != nil {
		return fmt.Errorf("read Subnets: %w", err)
	}
	if err := f.finish(ctx, cursor.Data[givenKey], subnets.Items); err != nil {
		return err
	}
	at := slices.IndexFunc(subnets.Items, func(s v1alpha1.Subnet) bool { return s.UID == o.UID })
	if at < 0 || subnets.Items[at].Status.VNI != 0 {
		return nil // the cache is late
	}
	o = &subnets.Items[at]
	if other := overlapping(o, subnets.Items); other != "" {
		return f.writeSubnet(ctx, o, nil, notReady(reasonOverlap, "has addresses of Subnet "+other+", which was there first"))
	}
	taken := map[uint32]bool{}
	for i := range subnets.Items {
		taken[subnets.Items[i].Status.VNI] = true
	}
	vni := freeVNI(cursor.Data[vniKey], taken)
	if vni == 0 {
		return fmt.Errorf("all %d segment numbers are taken", maxVNI)
	}
	cursor.Data = map[string]string{vniKey: strconv.Itoa(int(vni) + 1), givenKey: fmt.Sprintf("%s %d", o.UID, vni)}
	if missing {
		_, err = maps.Create(ctx, cursor, metav1.CreateOptions{})
	} else {
		_, err = maps.Update(ctx, cursor, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("write ConfigMap %s: %w", vniConfigMap, err)
	}
	return f.writeVNI(ctx, o, vni)
}

// finish writes the number that was given last into its Subnet, where that has not been done.
func (f *fabric) finish(ctx context.Context, given string, subnets []v1alpha1.Subnet) error {
	uid, number, _ := strings.Cut(given, " ")
	vni, err := strconv.ParseUint(number, 10, 24)
	if err != nil {
		return nil //nolint:nilerr // None was given yet.
	}
	for i := range subnets {
		if string(subnets[i].UID) == uid && subnets[i].Status.VNI == 0 {
			return f.writeVNI(ctx, &subnets[i], uint32(vni))
		}
	}
	return nil
}

func (f *fabric) writeVNI(ctx context.Context, o *v1alpha1.Subnet, vni uint32) error {
	o.Status.VNI = vni
	if err := f.admin.Status().Update(ctx, o); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("number Subnet %s: %w", o.Name, err)
	}
	return nil
}

// freeVNI gives the first number from the cursor on that is not taken; 0 when there is none.
func freeVNI(cursor string, taken map[uint32]bool) uint32 {
	next, err := strconv.ParseUint(cursor, 10, 32)
	if err != nil || next < 1 || next > maxVNI {
		next = 1
	}
	for range maxVNI {
		if !taken[uint32(next)] {
			return uint32(next)
		}
		if next++; next > maxVNI {
			next = 1
		}
	}
	return 0
}

// overlapping names another subnet of the VPC that has addresses of this one, and a number already.
func overlapping(subnet *v1alpha1.Subnet, subnets []v1alpha1.Subnet) string {
	for i := range subnets {
		other := &subnets[i]
		if other.UID != subnet.UID && other.Spec.VPC == subnet.Spec.VPC && other.Status.VNI != 0 && overlap(subnet.Spec.CIDRs, other.Spec.CIDRs) {
			return other.Name
		}
	}
	return ""
}

func overlap(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			p, err := netip.ParsePrefix(x)
			q, otherErr := netip.ParsePrefix(y)
			if err == nil && otherErr == nil && p.Overlaps(q) {
				return true
			}
		}
	}
	return false
}
