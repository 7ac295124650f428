package kinds

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

//go:generate go run ./internal/generate ../../../docs/kinds.md

// policy says in one word what a tenant gets of a kind. The words are explained in the document's head.
func (k *Kind) policy() string {
	switch {
	case k.absent:
		return "absent"
	case k.Confined == Empty:
		return "empty"
	case k.Confined == Exported:
		return "exported"
	case k.Confined == ByLabel, k.Confined == Claimed:
		return "view"
	case len(k.verbs) == 0:
		return "denied"
	case !k.Allows("", "create"):
		return "read-only"
	}
	return "full"
}

const documentHead = `# Kinds

What a tenant gets of every kind that a kube-apiserver of Kubernetes v1.36 serves, those included that appear only when an
operator turns on alpha or beta APIs. Whatever is not in this table is answered with 404. ` + "`make generate`" + ` writes this
file out of the table that the gateway decides by; a test walks the discovery of a real kube-apiserver and fails on a kind,
a version or a subresource that nobody decided about.

| policy | means |
| --- | --- |
| full | the tenant's own, as on a cluster of its own |
| read-only | the objects are in the tenant's namespaces, and the platform writes them |
| exported | classes of the operator: those with the label ` + "`vivarium.io/exported=true`" + ` can be read and named, see below |
| view | objects of the platform: those that concern the tenant can be read, with what concerns it |
| empty | lists are empty and watches silent, so that tools work; writing is refused with the reason |
| denied | refused with the reason |
| absent | 404, as on a cluster that does not have the kind |

Reading what is not the tenant's own needs the right to read it in the tenant's own RBAC, as on any cluster.

## Classes

An operator exports a StorageClass, VolumeAttributesClass, PriorityClass, RuntimeClass, IngressClass or DeviceClass with the
label ` + "`vivarium.io/exported=true`" + ` on the object in the control cluster: every tenant sees it under its own name, can use
it and cannot change it. The annotation ` + "`vivarium.io/exported-to`" + ` narrows that to the tenants whose labels (on the Tenant
object) a label selector matches; a selector that cannot be read exports to nobody. A class that is not exported does not
exist for a tenant, neither to read nor to name. A default StorageClass, PriorityClass or IngressClass of the control cluster
must be exported: the control cluster writes its name into objects of tenants, who could not update them otherwise.

## Networks

A tenant whose pods are in a VPC has two kinds more, ` + "`vpcs`" + ` and ` + "`subnets`" + ` of ` + "`vivarium.io/v1alpha1`" + `: its own can be
read and watched, and writing is refused with the reason. A tenant without a VPC does not have the group
([networking.md](networking.md)).

## Decisions

`

// Document is docs/kinds.md.
func Document() string {
	var b strings.Builder
	b.WriteString(documentHead)
	b.WriteString("| group | kind | versions | policy | verbs | subresources | reason |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	all := stock()
	slices.SortFunc(all, func(a, b *Kind) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Resource, b.Resource))
	})
	for _, k := range all {
		versions := strings.Join(k.Versions, ", ")
		if len(k.LeftOut) > 0 {
			versions += " (not " + strings.Join(k.LeftOut, ", ") + ")"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n",
			cmp.Or(k.Group, "core"), k.Kind, versions, k.policy(), verbs(k.verbs), k.describeSubresources(), cmp.Or(k.reason, k.remark(), "-"))
	}
	return b.String()
}

func verbs(list []string) string {
	if strings.Join(list, " ") == everything {
		return "all"
	}
	return cmp.Or(strings.Join(list, " "), "-")
}

func (k *Kind) describeSubresources() string {
	var out []string
	for _, sub := range slices.Sorted(maps.Keys(k.subresources)) {
		what := sub + ": " + verbs(k.subresources[sub])
		if why := k.readOnly[sub]; why != "" {
			what += " (" + why + ")"
		}
		out = append(out, what)
	}
	for _, sub := range slices.Sorted(maps.Keys(k.reasons)) {
		why := "refused"
		if k.reasons[sub] != k.reason {
			why += ", " + k.reasons[sub]
		}
		out = append(out, sub+": "+why)
	}
	return cmp.Or(strings.Join(out, "; "), "-")
}

// remark says what is not to be expected of a kind that is served in full.
func (k *Kind) remark() string {
	if k.Kept {
		return "kept by the gateway and not applied: they order no request (ADR 35)"
	}
	return ""
}
