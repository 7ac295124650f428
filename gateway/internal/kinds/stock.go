package kinds

// What the table is made of. Verbs are those of RequestInfo.
const (
	everything = "create delete deletecollection get list patch update watch"
	reading    = "get list watch"
	// statusWrites are for the tenant's own controllers. Kinds whose status steers the platform (Services, claims) show
	// theirs only.
	statusWrites = "get patch update"
	// proxying are the methods of HTTP, as verbs.
	proxying = "create delete get patch update"
)

// Reasons that several kinds share.
const (
	whyAdmission = "admission webhooks are not called here yet: use a ValidatingAdmissionPolicy or a MutatingAdmissionPolicy"
	whyShared    = "this is configuration of the shared control cluster"
	whyStorage   = "storage is the platform's: ask for it with a PersistentVolumeClaim"
	whyDevices   = "devices are not served yet: pods cannot claim any"
	whyAddress   = "the addresses in the status of a Service become routes on every node: only the platform writes them"
	whyFromClass = "classes are the operator's: those that it exports can be read and named"
	whyParts     = "the components of the control plane are the platform's"
	whyBinding   = "pods are bound to nodes by the platform's scheduler"
	whyVolume    = "volumes are the platform's: those bound to your claims can be read; ask for one with a PersistentVolumeClaim"
	whyNetwork   = "the network is the operator's: pods and namespaces choose among what it has by annotations of network.vivarium.io"
	// whyGated is for what a stock API server does not serve unless somebody turns it on.
	whyGated = "not served by a stock API server"
)

func namespaced(group, resource, kind, verbs string) *Kind {
	return &Kind{
		Group: group, Resource: resource, Kind: kind, Versions: []string{"v1"}, Namespaced: true, Confined: ByNamespace,
		verbs: words(verbs), subresources: map[string][]string{}, reasons: map[string]string{}, readOnly: map[string]string{},
	}
}

func cluster(group, resource, kind, verbs string) *Kind {
	k := namespaced(group, resource, kind, verbs)
	k.Namespaced, k.Confined = false, ByName
	return k
}

// review is a kind of which nothing is stored.
func review(group, resource, kind string) *Kind {
	k := cluster(group, resource, kind, "create")
	k.Confined = Stateless
	return k
}

// denied is a kind that Kubernetes has and tenants have not.
func denied(group, resource, kind string, isNamespaced bool, reason string) *Kind {
	k := namespaced(group, resource, kind, "")
	if !isNamespaced {
		k.Namespaced, k.Confined = false, ByName
	}
	k.reason = reason
	return k
}

// absent is a kind that only API servers have whose operator turned an alpha or beta API on. Tenants do not hear of it.
func absent(group, resource, kind, versions string, isNamespaced bool) *Kind {
	k := denied(group, resource, kind, isNamespaced, whyGated)
	k.Versions, k.absent = words(versions), true
	return k
}

// without names versions that are not offered although an API server may have them.
func (k *Kind) without(versions string) *Kind {
	k.LeftOut = words(versions)
	return k
}

// class is a kind of which the operator exports objects to tenants.
func class(group, resource, kind string) *Kind {
	k := cluster(group, resource, kind, reading).because(whyFromClass)
	k.Confined = Exported
	return k
}

// keptHere is a kind whose objects the gateway keeps itself: the control cluster has the kind too and would act on them.
func (k *Kind) keptHere() *Kind {
	k.Kept = true
	return k
}

// nothing is a kind of which tenants have no object and may make none. What lists it works, and finds nothing.
func nothing(group, resource, kind string, isNamespaced bool, reason string) *Kind {
	k := denied(group, resource, kind, isNamespaced, reason).empty()
	k.verbs = words(reading)
	return k
}

func (k *Kind) versions(versions string) *Kind {
	k.Versions = words(versions)
	return k
}

func (k *Kind) sub(name, verbs string) *Kind {
	k.subresources[name] = words(verbs)
	return k
}

// readSub is a subresource that can be read and not written.
func (k *Kind) readSub(name, reason string) *Kind {
	k.readOnly[name] = reason
	return k.sub(name, "get")
}

func (k *Kind) noSub(name, reason string) *Kind {
	k.reasons[name] = reason
	return k
}

func (k *Kind) because(reason string) *Kind {
	k.reason = reason
	return k
}

func (k *Kind) byLabel() *Kind {
	k.Confined = ByLabel
	return k
}

func (k *Kind) claimed() *Kind {
	k.Confined = Claimed
	return k
}

func (k *Kind) empty() *Kind {
	k.Confined = Empty
	return k
}

// extension is a kind that the platform's extension of the control cluster serves, not its API server itself.
func (k *Kind) extension() *Kind {
	k.extended = true
	return k
}

// stock decides about every kind of a stock kube-apiserver.
func stock() []*Kind {
	var all []*Kind
	for _, group := range [][]*Kind{core(), workloads(), policies(), network(), platform()} {
		all = append(all, group...)
	}
	return all
}

func core() []*Kind {
	return []*Kind{
		denied("", "bindings", "Binding", true, whyBinding),
		cluster("", "componentstatuses", "ComponentStatus", "get list").empty().because(whyParts),
		namespaced("", "configmaps", "ConfigMap", everything),
		// An address of the tenant's choosing would let it reach what is not its own (CVE-2021-25740).
		namespaced("", "endpoints", "Endpoints", reading).because("endpoints are kept by the platform, for Services with a selector"),
		namespaced("", "events", "Event", everything),
		namespaced("", "limitranges", "LimitRange", everything),
		cluster("", "namespaces", "Namespace", "create delete get list patch update watch").
			sub("status", statusWrites).sub("finalize", "update"),
		cluster("", "nodes", "Node", reading).byLabel().because("nodes are the platform's: they can be read, not changed").
			noSub("status", "nodes are the platform's: get the node itself").noSub("proxy", "nodes are the platform's: use logs, exec or port-forward of a pod"),
		namespaced("", "persistentvolumeclaims", "PersistentVolumeClaim", everything).
			readSub("status", "the status of a claim is the word of the platform's storage"),
		cluster("", "persistentvolumes", "PersistentVolume", reading).claimed().because(whyVolume).noSub("status", whyVolume),
		namespaced("", "pods", "Pod", everything).
			sub("attach", "create get").sub("ephemeralcontainers", statusWrites).sub("eviction", "create").
			sub("exec", "create get").sub("log", "get").sub("portforward", "create get").sub("resize", statusWrites).
			// Conditions open readiness gates; everything else in it stays the node's word by an admission policy.
			sub("proxy", proxying).sub("status", statusWrites).
			noSub("binding", whyBinding),
		namespaced("", "podtemplates", "PodTemplate", everything),
		namespaced("", "replicationcontrollers", "ReplicationController", everything).
			sub("scale", statusWrites).sub("status", statusWrites),
		namespaced("", "resourcequotas", "ResourceQuota", everything).sub("status", statusWrites),
		namespaced("", "secrets", "Secret", everything),
		namespaced("", "serviceaccounts", "ServiceAccount", everything).sub("token", "create"),
		namespaced("", "services", "Service", everything).sub("proxy", proxying).readSub("status", whyAddress),
	}
}

func workloads() []*Kind {
	const (
		metrics     = "metrics.k8s.io"
		whyMeasured = "what pods and nodes use is measured by the platform: it can be got and listed"
	)
	return []*Kind{
		namespaced("apps", "controllerrevisions", "ControllerRevision", reading).because("revisions are kept by the platform"),
		namespaced("apps", "daemonsets", "DaemonSet", reading).sub("status", "get").
			because("DaemonSets run one pod on every node, and nodes are shared with other tenants; use a Deployment"),
		namespaced("apps", "deployments", "Deployment", everything).sub("scale", statusWrites).sub("status", statusWrites),
		namespaced("apps", "replicasets", "ReplicaSet", everything).sub("scale", statusWrites).sub("status", statusWrites),
		namespaced("apps", "statefulsets", "StatefulSet", everything).sub("scale", statusWrites).sub("status", statusWrites),
		namespaced("autoscaling", "horizontalpodautoscalers", "HorizontalPodAutoscaler", everything).
			versions("v1 v2").sub("status", statusWrites),
		namespaced(metrics, "pods", "PodMetrics", "get list").versions("v1beta1").extension().because(whyMeasured),
		cluster(metrics, "nodes", "NodeMetrics", "get list").versions("v1beta1").byLabel().extension().because(whyMeasured),
		namespaced("batch", "cronjobs", "CronJob", everything).sub("status", statusWrites),
		namespaced("batch", "jobs", "Job", everything).sub("status", statusWrites),
		namespaced("policy", "poddisruptionbudgets", "PodDisruptionBudget", everything).sub("status", statusWrites),
		namespaced("coordination.k8s.io", "leases", "Lease", everything),
		namespaced("events.k8s.io", "events", "Event", everything),
	}
}

func policies() []*Kind {
	const rbac, authz, authn = "rbac.authorization.k8s.io", "authorization.k8s.io", "authentication.k8s.io"
	local := review(authz, "localsubjectaccessreviews", "LocalSubjectAccessReview")
	local.Namespaced = true
	return []*Kind{
		cluster(rbac, "clusterrolebindings", "ClusterRoleBinding", everything),
		cluster(rbac, "clusterroles", "ClusterRole", everything),
		namespaced(rbac, "rolebindings", "RoleBinding", everything),
		namespaced(rbac, "roles", "Role", everything),
		local,
		review(authz, "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
		review(authz, "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
		review(authz, "subjectaccessreviews", "SubjectAccessReview"),
		review(authn, "selfsubjectreviews", "SelfSubjectReview"),
		review(authn, "tokenreviews", "TokenReview"),
	}
}

func network() []*Kind {
	const group = "networking.k8s.io"
	return []*Kind{
		class(group, "ingressclasses", "IngressClass"),
		namespaced(group, "ingresses", "Ingress", everything).sub("status", statusWrites),
		namespaced(group, "networkpolicies", "NetworkPolicy", everything),
		nothing(group, "ipaddresses", "IPAddress", false, whyShared).without("v1beta1"),
		nothing(group, "servicecidrs", "ServiceCIDR", false, whyShared).without("v1beta1").noSub("status", whyShared),
		namespaced("discovery.k8s.io", "endpointslices", "EndpointSlice", reading).
			because("endpoint slices are kept by the platform, for Services with a selector"),
	}
}

// platform is what belongs to the operator of the control cluster.
func platform() []*Kind {
	const (
		admission = "admissionregistration.k8s.io"
		storage   = "storage.k8s.io"
		flow      = "flowcontrol.apiserver.k8s.io"
		devices   = "resource.k8s.io"

		certificates = "certificates.k8s.io"
	)
	const (
		whyAggregation = "aggregated APIs are not served yet"
	)
	return []*Kind{
		class(storage, "storageclasses", "StorageClass"),
		nothing(storage, "csidrivers", "CSIDriver", false, whyStorage),
		nothing(storage, "csinodes", "CSINode", false, whyStorage),
		nothing(storage, "csistoragecapacities", "CSIStorageCapacity", true, whyStorage),
		nothing(storage, "volumeattachments", "VolumeAttachment", false, whyStorage).noSub("status", whyStorage),
		class(storage, "volumeattributesclasses", "VolumeAttributesClass").without("v1beta1"),
		class("scheduling.k8s.io", "priorityclasses", "PriorityClass"),
		absent("scheduling.k8s.io", "podgroups", "PodGroup", "v1alpha2", true).noSub("status", whyGated),
		absent("scheduling.k8s.io", "workloads", "Workload", "v1alpha2", true),
		class("node.k8s.io", "runtimeclasses", "RuntimeClass"),

		class(devices, "deviceclasses", "DeviceClass").without("v1beta1 v1beta2"),
		nothing(devices, "resourceclaims", "ResourceClaim", true, whyDevices).without("v1beta1 v1beta2").noSub("status", whyDevices),
		nothing(devices, "resourceclaimtemplates", "ResourceClaimTemplate", true, whyDevices).without("v1beta1 v1beta2"),
		nothing(devices, "resourceslices", "ResourceSlice", false, whyDevices).without("v1beta1 v1beta2"),
		absent(devices, "devicetaintrules", "DeviceTaintRule", "v1alpha3 v1beta2", false).noSub("status", whyGated),
		absent(devices, "resourcepoolstatusrequests", "ResourcePoolStatusRequest", "v1alpha3", false).noSub("status", whyGated),

		definitions(),
		nothing("apiregistration.k8s.io", "apiservices", "APIService", false, whyAggregation).noSub("status", whyAggregation),

		// For the tenant's own signers: those of the control cluster never see a request of a tenant.
		cluster(certificates, "certificatesigningrequests", "CertificateSigningRequest", everything).
			sub("approval", statusWrites).sub("status", statusWrites),
		absent(certificates, "clustertrustbundles", "ClusterTrustBundle", "v1alpha1 v1beta1", false),
		absent(certificates, "podcertificaterequests", "PodCertificateRequest", "v1beta1", true).noSub("status", whyGated),

		// Kept where the control cluster does not apply them; the gateway does, in the tenant's world (package policies).
		cluster(admission, "mutatingadmissionpolicies", "MutatingAdmissionPolicy", everything).without("v1alpha1 v1beta1"),
		cluster(admission, "mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", everything).without("v1alpha1 v1beta1"),
		nothing(admission, "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", false, whyAdmission),
		cluster(admission, "validatingadmissionpolicies", "ValidatingAdmissionPolicy", everything).sub("status", statusWrites),
		cluster(admission, "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", everything),
		nothing(admission, "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", false, whyAdmission),

		cluster(flow, "flowschemas", "FlowSchema", everything).sub("status", statusWrites).keptHere(),
		cluster(flow, "prioritylevelconfigurations", "PriorityLevelConfiguration", everything).sub("status", statusWrites).keptHere(),

		absent("coordination.k8s.io", "leasecandidates", "LeaseCandidate", "v1alpha2 v1beta1", true),
		absent("internal.apiserver.k8s.io", "storageversions", "StorageVersion", "v1alpha1", false).noSub("status", whyGated),
		absent("storagemigration.k8s.io", "storageversionmigrations", "StorageVersionMigration", "v1beta1", false).noSub("status", whyGated),
	}
}
