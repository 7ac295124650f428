package names

// How an operator exports a class (of storage, priority, runtime, ingress, devices) to tenants: on the class itself, in the
// control cluster. Tenants see neither.
const (
	// LabelExported, with the value "true", exports a class to every tenant.
	LabelExported = Domain + "/exported"
	// AnnotationExportedTo narrows that to tenants whose labels a label selector matches.
	AnnotationExportedTo = Domain + "/exported-to"
)
