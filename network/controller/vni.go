package controller

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

const (
	// vniConfigMap is the object that all who give numbers write with the version that they read.
	vniConfigMap = "vivarium-network"
	vniKey       = "next-vni"
	maxVNI       = 1<<24 - 1
)

// nextVNI gives a segment number that no Subnet has and that nobody else is given. The numbers go round once before one
// comes back: that is its quarantine, and the only thing to remember is how far they are.
func (f *fabric) nextVNI(ctx context.Context) (uint32, error) {
	var subnets v1alpha1.SubnetList
	if err := f.admin.List(ctx, &subnets); err != nil {
		return 0, fmt.Errorf("read Subnets: %w", err)
	}
	taken := map[uint32]bool{}
	for i := range subnets.Items {
		taken[subnets.Items[i].Status.VNI] = true
	}
	maps := f.control.CoreV1().ConfigMaps(names.SystemNamespace)
	cursor, err := maps.Get(ctx, vniConfigMap, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return 0, fmt.Errorf("read ConfigMap %s: %w", vniConfigMap, err)
	}
	if missing {
		cursor = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: vniConfigMap}}
	}
	vni := freeVNI(cursor.Data[vniKey], taken)
	if vni == 0 {
		return 0, fmt.Errorf("all %d segment numbers are taken", maxVNI)
	}
	cursor.Data = map[string]string{vniKey: strconv.Itoa(int(vni) + 1)}
	if missing {
		_, err = maps.Create(ctx, cursor, metav1.CreateOptions{})
	} else {
		_, err = maps.Update(ctx, cursor, metav1.UpdateOptions{})
	}
	if err != nil {
		return 0, fmt.Errorf("write ConfigMap %s: %w", vniConfigMap, err)
	}
	return vni, nil
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

// overlapping gives another subnet of the VPC that has addresses of this one, and a number already: it was there first.
func (f *fabric) overlapping(ctx context.Context, subnet *v1alpha1.Subnet) (string, error) {
	var subnets v1alpha1.SubnetList
	if err := f.admin.List(ctx, &subnets); err != nil {
		return "", fmt.Errorf("read Subnets: %w", err)
	}
	for i := range subnets.Items {
		other := &subnets.Items[i]
		if other.UID == subnet.UID || other.Spec.VPC != subnet.Spec.VPC || other.Status.VNI == 0 {
			continue
		}
		if overlap(subnet.Spec.CIDRs, other.Spec.CIDRs) {
			return other.Name, nil
		}
	}
	return "", nil
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
