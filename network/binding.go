package network

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"vivarium.io/vivarium/internal/names"
)

// BindingAnnotation is on every pool pod of ours and says explicitly what network it is bound to. The pool's admission
// policy refuses our pods without it and pods whose binding names another tenant than their namespace does; the policy
// reads the text form, so its first field is always the tenant.
const BindingAnnotation = "network.vivarium.io/binding"

// Binding is the value of [BindingAnnotation].
type Binding struct {
	Tenant names.TenantID
	Driver string
	// VPC and Subnet are empty in a flat network.
	VPC, Subnet types.UID
}

// String spells the binding: "tenant=abc123,driver=flat", with ",vpc=<uid>,subnet=<uid>" where there is one.
// [ParseBinding] is its inverse.
func (b Binding) String() string {
	s := "tenant=" + string(b.Tenant) + ",driver=" + b.Driver
	if b.VPC != "" || b.Subnet != "" {
		s += ",vpc=" + string(b.VPC) + ",subnet=" + string(b.Subnet)
	}
	return s
}

// ParseBinding is the inverse of [Binding.String]. What String does not write is [ErrBindingMismatch].
func ParseBinding(s string) (Binding, error) {
	var b Binding
	for _, field := range strings.Split(s, ",") {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "tenant":
			b.Tenant = names.TenantID(value)
		case "driver":
			b.Driver = value
		case "vpc":
			b.VPC = types.UID(value)
		case "subnet":
			b.Subnet = types.UID(value)
		}
	}
	_, err := names.ParseTenantID(string(b.Tenant))
	if err != nil || len(validation.IsDNS1123Label(b.Driver)) > 0 || b.String() != s {
		return Binding{}, fmt.Errorf("%w: annotation %s is %q", ErrBindingMismatch, BindingAnnotation, s)
	}
	return b, nil
}

// BindingOf reads the binding of a pool's pod and checks that it is this driver's and the tenant's whose namespace the
// pod is in. Anything else, a missing binding included, is [ErrBindingMismatch].
func BindingOf(poolPod *corev1.Pod, driver string) (Binding, error) {
	b, err := ParseBinding(poolPod.Annotations[BindingAnnotation])
	if err != nil {
		return Binding{}, err
	}
	tenant, _, ok := names.SplitNamespace(names.ControlNamespace(poolPod.Namespace))
	switch {
	case !ok || tenant != b.Tenant:
		return Binding{}, fmt.Errorf("%w: bound for tenant %s in namespace %s", ErrBindingMismatch, b.Tenant, poolPod.Namespace)
	case b.Driver != driver:
		return Binding{}, fmt.Errorf("%w: bound by driver %q, not %q", ErrBindingMismatch, b.Driver, driver)
	}
	return b, nil
}
