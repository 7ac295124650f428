package admin

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

func ipBlockKind() kind[v1alpha1.IPBlock, *v1alpha1.IPBlock] {
	return kind[v1alpha1.IPBlock, *v1alpha1.IPBlock]{
		resource: "ipblocks",
		singular: "ipblock",
		// Two allocators that read the same version must not both win.
		conditional:    true,
		list:           func() runtime.Object { return &v1alpha1.IPBlockList{} },
		columns:        ipBlockColumns(),
		validate:       validateIPBlock,
		validateUpdate: validateIPBlockUpdate,
		validateStatus: validateAllocations,
		parts: func(b *v1alpha1.IPBlock) parts {
			return parts{
				spec:       b.Spec,
				status:     b.Status,
				copySpec:   func(from runtime.Object) { b.Spec = from.(*v1alpha1.IPBlock).Spec },
				copyStatus: func(from runtime.Object) { b.Status = from.(*v1alpha1.IPBlock).Status },
			}
		},
	}
}

func ipBlockColumns() []column[*v1alpha1.IPBlock] {
	type block = *v1alpha1.IPBlock
	return []column[block]{
		nameOf[block](),
		{name: "Subnet", kind: text, description: "Subnet that it is a part of.", value: func(b block) any { return b.Spec.Subnet }},
		{name: "First", kind: number, description: "First index of the block.", value: func(b block) any { return int64(b.Spec.First) }},
		{name: "Used", kind: number, description: "Indexes that are taken or in quarantine.", value: func(b block) any { return int64(len(b.Status.Allocations)) }},
		ageOf[block](),
	}
}

// mostIndexes is the size of a full block: one write changes so much and no more.
const mostIndexes = 256

func validateIPBlock(b *v1alpha1.IPBlock) field.ErrorList {
	var problems field.ErrorList
	spec := field.NewPath("spec")
	for name, value := range map[string]string{"subnet": b.Spec.Subnet, "subnetUID": string(b.Spec.SubnetUID), "vpcUID": string(b.Spec.VPCUID)} {
		if value == "" {
			problems = append(problems, field.Required(spec.Child(name), ""))
		}
	}
	if b.Spec.Size < 1 || b.Spec.Size > mostIndexes {
		problems = append(problems, field.Invalid(spec.Child("size"), b.Spec.Size, fmt.Sprintf("must be from 1 to %d", mostIndexes)))
	}
	if b.Spec.First%mostIndexes != 0 {
		problems = append(problems, field.Invalid(spec.Child("first"), b.Spec.First, fmt.Sprintf("must be a multiple of %d: blocks of one subnet do not overlap", mostIndexes)))
	}
	if want := v1alpha1.IPBlockName(b.Spec.SubnetUID, b.Spec.First); b.Name != want {
		problems = append(problems, field.Invalid(field.NewPath("metadata", "name"), b.Name, fmt.Sprintf("must be %q, after spec.subnetUID and spec.first", want)))
	}
	return append(problems, blockLabel(b)...)
}

// blockLabel holds blocks findable: one that its subnet does not find would be given out a second time.
func blockLabel(b *v1alpha1.IPBlock) field.ErrorList {
	if got := b.Labels[names.LabelSubnetUID]; got != string(b.Spec.SubnetUID) {
		path := field.NewPath("metadata", "labels").Key(names.LabelSubnetUID)
		return field.ErrorList{field.Invalid(path, got, fmt.Sprintf("must be %q, as spec.subnetUID", b.Spec.SubnetUID))}
	}
	return nil
}

func validateIPBlockUpdate(b, old *v1alpha1.IPBlock) field.ErrorList {
	if equality.Semantic.DeepEqual(b.Spec, old.Spec) {
		return blockLabel(b)
	}
	return field.ErrorList{field.Forbidden(field.NewPath("spec"), "cannot be changed")}
}

// validateAllocations holds the one law of allocations: an index has one owner, and a pod one index.
func validateAllocations(b, _ *v1alpha1.IPBlock) field.ErrorList {
	var problems field.ErrorList
	path := field.NewPath("status", "allocations")
	indexes := make(map[uint32]bool, len(b.Status.Allocations))
	for i, a := range b.Status.Allocations {
		if a.Index < b.Spec.First || a.Index-b.Spec.First >= b.Spec.Size {
			problems = append(problems, field.Invalid(path.Index(i).Child("index"), a.Index, "is not in this block"))
		}
		if indexes[a.Index] {
			problems = append(problems, field.Duplicate(path.Index(i).Child("index"), a.Index))
		}
		indexes[a.Index] = true
		if a.PodUID == "" {
			problems = append(problems, field.Required(path.Index(i).Child("podUID"), "an address belongs to a pod"))
		}
	}
	return problems
}
