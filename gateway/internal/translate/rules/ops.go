package rules

import "fmt"

// Op says what a field holds. Unless an operation says otherwise it applies to a string, to each string of a list, or to
// each value of a map.
type Op uint8

// The operations, in the words of fields.txt.
const (
	// Pass leaves the value alone.
	Pass Op = iota
	// Namespace is a namespace somewhere in an object. Foreign ones are hidden.
	Namespace
	// OwnNamespace is metadata.namespace of the object itself. A foreign one makes the object foreign.
	OwnNamespace
	// OwnName is metadata.name of a cluster-scoped object of the tenant. A foreign one makes the object foreign.
	OwnName
	// GenerateName is metadata.generateName of such an object.
	GenerateName
	// ObjectName is metadata.name of a namespaced object; remembered, since some rules depend on it.
	ObjectName
	// Group is an API group.
	Group
	// GroupVersion is an API group and version, "apps/v1".
	GroupVersion
	// User and UserGroup are principals.
	User
	UserGroup
	// Text is prose of the control cluster in which names occur. Only translated towards the tenant.
	Text
	// Keys are labels or annotations: the platform's keys are hidden and refused.
	Keys
	// PodKeys are labels or annotations of what ends up on a pod, its namespace or its Service: keys by which a network is
	// chosen are refused too.
	PodKeys
	// PodAnnotations are PodKeys among which a tenant in a VPC has four of its own.
	PodAnnotations
	// NamespaceLabels are the labels of a Namespace.
	NamespaceLabels
	// ClusterRoleLabels are the labels of a ClusterRole.
	ClusterRoleLabels
	// OwnerReferences is a list of owner references.
	OwnerReferences
	// ManagedFields is the list of field managers.
	ManagedFields
	// ObjectReference is an object reference to any kind.
	ObjectReference
	// InvolvedObject is the object reference of an Event.
	InvolvedObject
	// NamespaceSelector is a label selector over namespaces.
	NamespaceSelector
	// PolicyRules is a list of RBAC rules, or of resource rules of a review.
	PolicyRules
	// RoleRef is the role that a binding refers to.
	RoleRef
	// Subjects is a list of RBAC subjects.
	Subjects
	// AggregationRule is the aggregation rule of a ClusterRole.
	AggregationRule
	// ResourceAttributes are the attributes of an access review.
	ResourceAttributes
	// UserInfo is a user as a review shows it.
	UserInfo
	// TokenReviewStatus is the answer to a TokenReview.
	TokenReviewStatus
	// TokenAudiences are the audiences that a token is asked for.
	TokenAudiences
	// TokenAudience is the audience of a projected token in a pod.
	TokenAudience
	// BoundKind is the kind of object that a token is bound to.
	BoundKind
	// QuotaKeys is a map of quantities by quota resource.
	QuotaKeys
	// RootCA is the data of a ConfigMap, which may be kube-root-ca.crt.
	RootCA
	// RevisionData is the data of a ControllerRevision, JSON in which a pod template stands at spec.template.
	RevisionData
	// VirtualNode is a whole Node: a few fields are shown, the rest is not the tenant's business.
	VirtualNode
	// NodeName is the node that a pod is bound to. A tenant may not choose.
	NodeName
	// SchedulerName is the scheduler of a pod. A tenant may not choose.
	SchedulerName
	// StorageClass and those behind it are names of classes: the tenant's own, unless the operator exports one.
	StorageClass
	VolumeAttributesClass
	PriorityClass
	RuntimeClass
	IngressClass
	// ScopeSelector is a requirement of a quota's scope selector, which may list names of classes.
	ScopeSelector
	// ClassAnnotations are annotations of which some name classes.
	ClassAnnotations
	// SecretType is the type of a Secret: token Secrets are refused.
	SecretType
	// ExternalIPs are addresses that a Service claims. A tenant may not.
	ExternalIPs
	// Continue is a continue token.
	Continue
	// RemainingItems is the count of items that a page left out.
	RemainingItems
	// OwnedLabels are the labels of a cluster-scoped object whose tenant its label tells.
	OwnedLabels
	// DefinitionName is metadata.name of a CustomResourceDefinition of the tenant. A foreign one makes it foreign.
	DefinitionName
	// ConversionStrategy says how objects of a CustomResourceDefinition are converted.
	ConversionStrategy
	// SigningRequest says who asks which signer for a certificate. Signers are the tenant's own.
	SigningRequest
	// PolicyName is the admission policy that a binding binds. In the control cluster it must name none.
	PolicyName
	opCount
)

var opNames = [opCount]string{
	Pass: "pass", Namespace: "namespace", OwnNamespace: "own-namespace", OwnName: "own-name",
	GenerateName: "generate-name", ObjectName: "object-name", Group: "group", GroupVersion: "group-version", User: "user",
	UserGroup: "user-group", Text: "text", Keys: "keys", PodKeys: "pod-keys", PodAnnotations: "pod-annotations", NamespaceLabels: "namespace-labels",
	ClusterRoleLabels: "cluster-role-labels", OwnerReferences: "owner-references", ManagedFields: "managed-fields",
	ObjectReference: "object-reference", InvolvedObject: "involved-object", NamespaceSelector: "namespace-selector",
	PolicyRules: "policy-rules", RoleRef: "role-ref", Subjects: "subjects", AggregationRule: "aggregation-rule",
	ResourceAttributes: "resource-attributes", UserInfo: "user-info", TokenReviewStatus: "token-review-status",
	TokenAudiences: "token-audiences", TokenAudience: "token-audience", BoundKind: "bound-kind", QuotaKeys: "quota-keys", RootCA: "root-ca",
	RevisionData: "revision-data", VirtualNode: "node", NodeName: "node-name", SchedulerName: "scheduler-name", StorageClass: "storage-class", VolumeAttributesClass: "volume-attributes-class",
	PriorityClass: "priority-class", RuntimeClass: "runtime-class", IngressClass: "ingress-class", ScopeSelector: "scope-selector",
	ClassAnnotations: "class-annotations",
	SecretType:       "secret-type", ExternalIPs: "external-ips", Continue: "continue", RemainingItems: "remaining-items",
	OwnedLabels: "owned-labels", DefinitionName: "definition-name", ConversionStrategy: "conversion-strategy", SigningRequest: "signing-request",
	PolicyName: "policy-name",
}

// String gives the operation's name in fields.txt.
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return fmt.Sprintf("op(%d)", uint8(o))
}

// ParseOp is the inverse of [Op.String].
func ParseOp(name string) (Op, error) {
	for op, n := range opNames {
		if n == name {
			return Op(op), nil
		}
	}
	return Pass, fmt.Errorf("no operation is called %q", name)
}
