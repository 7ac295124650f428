package podspec

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

// decision is what happens to a field of a control pod on its way to a pool.
type decision int

const (
	_         decision = iota
	copied             // crosses as it is
	dropped            // does not cross, and the pod runs without it
	refused            // a pod that sets it is refused
	rewritten          // crosses in another form; a test of its own says how
	judged             // crosses if the Pod Security check lets it
)

// decisions has every field of every API type that a pod spec is made of, as of the API version that we compile
// against. A field that is missing here was never thought about: decide, write it into the translation, then here.
var decisions = map[string]map[string]decision{
	"Pod": {"TypeMeta": dropped, "ObjectMeta": rewritten, "Spec": rewritten, "Status": dropped},
	"PodSpec": {
		"Volumes": rewritten, "InitContainers": rewritten, "Containers": rewritten, "EphemeralContainers": rewritten,
		"RestartPolicy": copied, "TerminationGracePeriodSeconds": copied, "ActiveDeadlineSeconds": copied,
		"DNSPolicy": rewritten, "DNSConfig": copied,
		"NodeSelector": dropped, "NodeName": dropped, "Affinity": rewritten, "SchedulerName": dropped, "Tolerations": dropped,
		"TopologySpreadConstraints": rewritten, "SchedulingGates": dropped, "SchedulingGroup": dropped,
		"PriorityClassName": dropped, "Priority": dropped, "PreemptionPolicy": dropped,
		"ServiceAccountName": dropped, "DeprecatedServiceAccount": dropped, "AutomountServiceAccountToken": rewritten,
		"HostNetwork": refused, "HostPID": refused, "HostIPC": refused, "HostUsers": copied,
		"ShareProcessNamespace": copied, "SecurityContext": judged, "ImagePullSecrets": copied,
		"Hostname": copied, "Subdomain": rewritten, "SetHostnameAsFQDN": rewritten, "HostnameOverride": copied, "HostAliases": copied,
		"ReadinessGates": dropped, "RuntimeClassName": refused, "Overhead": dropped, "EnableServiceLinks": rewritten,
		"OS": copied, "ResourceClaims": refused, "Resources": copied,
	},
	"Container": {
		"Name": copied, "Image": copied, "Command": copied, "Args": copied, "WorkingDir": copied, "Ports": rewritten,
		"EnvFrom": rewritten, "Env": rewritten, "Resources": copied, "ResizePolicy": copied, "RestartPolicy": copied,
		"RestartPolicyRules": copied, "VolumeMounts": copied, "VolumeDevices": refused, "LivenessProbe": judged,
		"ReadinessProbe": judged, "StartupProbe": judged, "Lifecycle": judged, "TerminationMessagePath": copied,
		"TerminationMessagePolicy": copied, "ImagePullPolicy": copied, "SecurityContext": judged, "Stdin": copied,
		"StdinOnce": copied, "TTY": copied,
	},
	"EphemeralContainer": {"EphemeralContainerCommon": rewritten, "TargetContainerName": copied},
	"ContainerPort":      {"Name": copied, "HostPort": refused, "ContainerPort": copied, "Protocol": copied, "HostIP": refused},
	"EnvVar":             {"Name": copied, "Value": copied, "ValueFrom": rewritten},
	"EnvVarSource":       {"FieldRef": rewritten, "ResourceFieldRef": copied, "ConfigMapKeyRef": rewritten, "SecretKeyRef": copied, "FileKeyRef": copied},
	"EnvFromSource":      {"Prefix": copied, "ConfigMapRef": rewritten, "SecretRef": copied},
	"VolumeSource": {
		"EmptyDir": copied, "Image": copied, "Secret": copied, "ConfigMap": rewritten, "DownwardAPI": rewritten, "Projected": rewritten,
		"PersistentVolumeClaim": refused, "Ephemeral": refused, "HostPath": refused, "GCEPersistentDisk": refused,
		"AWSElasticBlockStore": refused, "GitRepo": refused, "NFS": refused, "ISCSI": refused, "Glusterfs": refused, "RBD": refused,
		"FlexVolume": refused, "Cinder": refused, "CephFS": refused, "Flocker": refused, "FC": refused, "AzureFile": refused,
		"VsphereVolume": refused, "Quobyte": refused, "AzureDisk": refused, "PhotonPersistentDisk": refused, "PortworxVolume": refused,
		"ScaleIO": refused, "StorageOS": refused, "CSI": refused,
	},
	"Volume":                  {"Name": copied, "VolumeSource": rewritten},
	"ProjectedVolumeSource":   {"Sources": rewritten, "DefaultMode": copied},
	"VolumeProjection":        {"Secret": copied, "DownwardAPI": rewritten, "ConfigMap": rewritten, "ServiceAccountToken": rewritten, "ClusterTrustBundle": refused, "PodCertificate": refused},
	"DownwardAPIVolumeSource": {"Items": rewritten, "DefaultMode": copied},
	"DownwardAPIVolumeFile":   {"Path": copied, "FieldRef": rewritten, "ResourceFieldRef": copied, "Mode": copied},
	"ResourceRequirements":    {"Limits": copied, "Requests": copied, "Claims": refused},
	"Affinity":                {"NodeAffinity": dropped, "PodAffinity": rewritten, "PodAntiAffinity": rewritten},
	"PodAffinity":             {"RequiredDuringSchedulingIgnoredDuringExecution": rewritten, "PreferredDuringSchedulingIgnoredDuringExecution": rewritten},
	"PodAntiAffinity":         {"RequiredDuringSchedulingIgnoredDuringExecution": rewritten, "PreferredDuringSchedulingIgnoredDuringExecution": rewritten},
	"WeightedPodAffinityTerm": {"Weight": copied, "PodAffinityTerm": rewritten},
	"PodAffinityTerm":         {"LabelSelector": copied, "Namespaces": copied, "TopologyKey": rewritten, "NamespaceSelector": dropped, "MatchLabelKeys": dropped, "MismatchLabelKeys": dropped},
	"TopologySpreadConstraint": {
		"MaxSkew": copied, "TopologyKey": rewritten, "WhenUnsatisfiable": rewritten, "LabelSelector": copied, "MinDomains": dropped,
		"NodeAffinityPolicy": dropped, "NodeTaintsPolicy": dropped, "MatchLabelKeys": dropped,
	},
	"PodStatus": {
		"ObservedGeneration": rewritten, "Phase": rewritten, "Conditions": rewritten, "Message": rewritten, "Reason": copied,
		"NominatedNodeName": dropped, "HostIP": rewritten, "HostIPs": rewritten, "PodIP": rewritten, "PodIPs": rewritten, "StartTime": rewritten,
		"InitContainerStatuses": rewritten, "ContainerStatuses": rewritten, "EphemeralContainerStatuses": rewritten, "QOSClass": dropped,
		"Resize": copied, "ResourceClaimStatuses": dropped, "ExtendedResourceClaimStatus": dropped, "AllocatedResources": copied,
		"Resources": copied, "NodeAllocatableResourceClaimStatuses": dropped,
	},
	"PodCondition": {
		"Type": copied, "ObservedGeneration": rewritten, "Status": copied, "LastProbeTime": copied, "LastTransitionTime": rewritten,
		"Reason": copied, "Message": rewritten,
	},
}

// takenWhole are types whose fields need no decision of their own: the value that holds them crosses as a whole, is
// judged as a whole by the Pod Security check, or does not cross. What a new field in one of them could do is the Pod
// Security check's to know, in the pool as well.
var takenWhole = []string{
	"AppArmorProfile", "Capabilities", "ClusterTrustBundleProjection", "ConfigMapEnvSource", "ConfigMapKeySelector", "ConfigMapProjection",
	"ConfigMapVolumeSource", "ContainerExtendedResourceRequest", "ContainerResizePolicy", "ContainerRestartRule", "ContainerRestartRuleOnExitCodes",
	"ContainerState", "ContainerStateRunning", "ContainerStateTerminated", "ContainerStateWaiting", "ContainerStatus", "ContainerUser",
	"DownwardAPIProjection", "EmptyDirVolumeSource", "ExecAction", "FileKeySelector", "GRPCAction", "HTTPGetAction", "HTTPHeader", "HostAlias", "HostIP",
	"ImageVolumeSource", "ImageVolumeStatus", "KeyToPath", "Lifecycle", "LifecycleHandler", "LinuxContainerUser", "LocalObjectReference",
	"NodeAffinity", "NodeAllocatableResourceClaimStatus", "NodeSelector", "NodeSelectorRequirement", "NodeSelectorTerm", "ObjectFieldSelector",
	"PodCertificateProjection", "PodDNSConfig", "PodDNSConfigOption", "PodExtendedResourceClaimStatus", "PodIP", "PodOS", "PodReadinessGate",
	"PodResourceClaim", "PodResourceClaimStatus", "PodSchedulingGate", "PodSchedulingGroup", "PodSecurityContext", "PreferredSchedulingTerm",
	"Probe", "ProbeHandler", "ResourceClaim", "ResourceFieldSelector", "ResourceHealth", "ResourceStatus", "SELinuxOptions", "SeccompProfile", "SecretEnvSource",
	"SecretKeySelector", "SecretProjection", "SecretVolumeSource", "SecurityContext", "ServiceAccountTokenProjection", "SleepAction",
	"Sysctl", "TCPSocketAction", "Toleration", "VolumeDevice", "VolumeMount", "VolumeMountStatus", "VolumeStatus", "WindowsSecurityContextOptions",
}

// TestEveryFieldIsDecided walks the API types.
func TestEveryFieldIsDecided(t *testing.T) {
	seen := map[reflect.Type]bool{}
	used := map[string]bool{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(typ.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[typ] || typ.PkgPath() != reflect.TypeFor[corev1.Pod]().PkgPath() {
			return
		}
		seen[typ] = true
		name := typ.Name()
		if name == "EphemeralContainerCommon" {
			name = "Container" // converted to it
		}
		used[name] = true
		fields, ok := decisions[name]
		if !ok {
			if !slices.Contains(takenWhole, name) {
				t.Errorf("nobody has decided about %s", name)
			}
			return
		}
		if slices.Contains(takenWhole, name) {
			t.Errorf("%s is decided twice", name)
		}
		for i := range typ.NumField() {
			field := typ.Field(i)
			decision, ok := fields[field.Name]
			if !ok {
				t.Errorf("nobody has decided about %s.%s", name, field.Name)
			}
			if decision != refused && decision != dropped || name == "Pod" {
				walk(field.Type)
			}
		}
		for field := range fields {
			if _, ok := typ.FieldByName(field); !ok {
				t.Errorf("%s.%s does not exist any more", name, field)
			}
		}
	}
	walk(reflect.TypeFor[corev1.Pod]())
	for name := range decisions {
		if !used[name] {
			t.Errorf("%s is decided about but not reached", name)
		}
	}
}

// TestDecisionsHold sets one field after another and looks at what crosses.
func TestDecisionsHold(t *testing.T) {
	specSamples := map[string]any{
		"RestartPolicy": corev1.RestartPolicyNever, "OS": &corev1.PodOS{Name: "linux"}, "SecurityContext": &corev1.PodSecurityContext{RunAsUser: ptr.To[int64](7)},
		"Resources": &corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1")}},
	}
	containerSamples := map[string]any{
		"SecurityContext": &corev1.SecurityContext{RunAsUser: ptr.To[int64](7)}, "Lifecycle": &corev1.Lifecycle{StopSignal: ptr.To(corev1.SIGUSR1)},
		"Resources":     corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1")}},
		"LivenessProbe": &corev1.Probe{PeriodSeconds: 7}, "ReadinessProbe": &corev1.Probe{PeriodSeconds: 7}, "StartupProbe": &corev1.Probe{PeriodSeconds: 7},
	}
	check := func(t *testing.T, decision decision, was, got any, err error) {
		t.Helper()
		var r *Refused
		switch decision {
		case copied, judged:
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(was, got); diff != "" {
				t.Errorf("did not cross (-was +got):\n%s", diff)
			}
		case dropped:
			if err != nil {
				t.Fatal(err)
			}
			if got != nil && !reflect.ValueOf(got).IsZero() {
				t.Errorf("crossed: %v", got)
			}
		case refused:
			if !errors.As(err, &r) {
				t.Errorf("got %v, want a refusal", err)
			}
		case rewritten:
		}
	}
	for field, decision := range decisions["PodSpec"] {
		t.Run("PodSpec."+field, func(t *testing.T) {
			pod := simplePod()
			set(t, reflect.ValueOf(&pod.Spec).Elem().FieldByName(field), specSamples[field])
			was := reflect.ValueOf(*pod.Spec.DeepCopy()).FieldByName(field).Interface()
			pool, err := ToPool(pod, place())
			var got any
			if err == nil {
				got = reflect.ValueOf(pool.Spec).FieldByName(field).Interface()
			}
			check(t, decision, was, got, err)
		})
	}
	for field, decision := range decisions["Container"] {
		t.Run("Container."+field, func(t *testing.T) {
			pod := simplePod()
			set(t, reflect.ValueOf(&pod.Spec.Containers[0]).Elem().FieldByName(field), containerSamples[field])
			was := reflect.ValueOf(*pod.Spec.Containers[0].DeepCopy()).FieldByName(field).Interface()
			pool, err := ToPool(pod, place())
			var got any
			if err == nil {
				got = reflect.ValueOf(pool.Spec.Containers[0]).FieldByName(field).Interface()
			}
			check(t, decision, was, got, err)
		})
	}
	for field, decision := range decisions["VolumeSource"] {
		t.Run("VolumeSource."+field, func(t *testing.T) {
			pod := simplePod()
			pod.Spec.Volumes = []corev1.Volume{{Name: "v"}}
			source := reflect.ValueOf(&pod.Spec.Volumes[0].VolumeSource).Elem().FieldByName(field)
			source.Set(reflect.New(source.Type().Elem()))
			was := reflect.ValueOf(*pod.Spec.Volumes[0].VolumeSource.DeepCopy()).FieldByName(field).Interface()
			pool, err := ToPool(pod, place())
			var got any
			if err == nil {
				got = reflect.ValueOf(pool.Spec.Volumes[0].VolumeSource).FieldByName(field).Interface()
			}
			check(t, decision, was, got, err)
		})
	}
}

// set gives a field a value that is not zero.
func set(t *testing.T, v reflect.Value, sample any) {
	t.Helper()
	if sample != nil {
		v.Set(reflect.ValueOf(sample))
		return
	}
	fill(t, v)
}

func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		value := reflect.New(v.Type().Elem()).Elem()
		fill(t, value)
		v.SetMapIndex(reflect.ValueOf("x").Convert(v.Type().Key()), value)
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.Kind() == reflect.String && f.CanSet() {
				f.SetString("x")
			}
		}
	default:
		t.Fatalf("cannot fill %s", v.Type())
	}
}
