package translate

// ResourceName gives the name by which the control cluster's authorizer knows one object of a resource: the one that the
// translation of a rule with resourceNames writes. Empty stays empty.
func (v View) ResourceName(group, resource, name string) string {
	if name == "" {
		return ""
	}
	return v.resourceNameToControl(v.nameClassOf(group, resource), name)
}

// Group gives the control cluster's name of an API group of the tenant's world.
func (v View) Group(group string) string { return v.groupToControl(group) }
