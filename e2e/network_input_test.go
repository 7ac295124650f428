package e2e

import (
	"strings"
	"testing"
)

// networkInput holds what operators and tenants are told whose wishes for networks cannot be met: the field, and why.
func networkInput(t *testing.T, v *vpcTenant) {
	operator := admin()
	main, web := v.name+"-main", v.name+"-web"
	vpc := func(cidrs string) string {
		return "{apiVersion: vivarium.io/v1alpha1, kind: VPC, metadata: {name: " + v.name + "-x}, spec: {tenant: " + v.name + ", cidrs: [" + cidrs + "]}}"
	}
	subnet := func(cidrs string) string {
		return "{apiVersion: vivarium.io/v1alpha1, kind: Subnet, metadata: {name: " + v.name + "-x}, spec: {vpc: " + main + ", cidrs: [" + cidrs + "]}}"
	}
	patch := func(kind, name, spec string) []string {
		return []string{"patch", kind, name, "--type=merge", "-p", `{"spec":` + spec + `}`}
	}
	// Local pools reserve the nodes' and the Services' ranges.
	reserved := operator.lines(t, "get", "resourcepool", "pool-a", "-o", "jsonpath={.spec.network.reserved[*]}")
	create := []string{"create", "-f", "-"}
	for name, tc := range map[string]struct {
		manifest string
		args     []string
		want     []string
	}{
		"TwiceInAVPC":    {vpc("10.1.0.0/16, 10.1.2.0/24"), create, []string{"spec.cidrs[1]", "overlaps 10.1.0.0/16"}},
		"ReservedByAll":  {vpc("169.254.0.0/16"), create, []string{"spec.cidrs[0]", "link-local addresses"}},
		"ReservedByPool": {vpc(reserved[0]), create, []string{"spec.cidrs[0]", `which resource pool "pool-a" uses itself`}},
		"HostBits":       {vpc("10.1.0.1/16"), create, []string{"spec.cidrs[0]", "must be written as 10.1.0.0/16"}},
		"OutsideTheVPC":  {subnet("10.9.0.0/24"), create, []string{"spec.cidrs[0]", "must be within 10.0.0.0/16"}},
		"OnAnother":      {subnet("10.0.1.128/25"), create, []string{"spec.cidrs[0]", "overlaps " + subnetOne, web}},
		"ShrinkSubnet":   {"", patch("subnet", web, `{"cidrs":["10.0.1.0/25","`+subnetSix+`"]}`), []string{"spec.cidrs", "cannot be changed"}},
		"ShrinkVPC":      {"", patch("vpc", main, `{"cidrs":["10.0.0.0/16"]}`), []string{"spec.cidrs", "may only be appended to"}},
		"ShrinkPools":    {"", patch("subnet", web, `{"pools":["pool-a"]}`), []string{"spec.pools", "may only grow"}},
		"AnotherTenants": {"", patch("vpc", main, `{"tenant":"`+red+`"}`), []string{"spec.tenant", "cannot be changed"}},
		"PoolOntoAVPC":   {"", patch("resourcepool", "pool-a", `{"network":{"reserved":["10.0.0.0/16"]}}`), []string{"spec.network.reserved[0]", main}},
		"SubnetWithPods": {"", []string{"delete", "subnet", web}, []string{"Conflict", "pods have addresses of it", v.name + "-default/"}},
		"VPCWithSubnets": {"", []string{"delete", "vpc", main}, []string{"Conflict", "it has subnets: " + web}},
	} {
		t.Run(name, func(t *testing.T) { operator.fails(t, tc.manifest, tc.args, tc.want...) })
	}
	networkWishes(t, v)
}

// networkWishes are those of the tenant. What can be seen in the object is refused when it is written, whichever way; what
// depends on others is told on the pod.
func networkWishes(t *testing.T, v *vpcTenant) {
	pod := func(annotation, container string) string {
		return "{apiVersion: v1, kind: Pod, metadata: {name: wishes, annotations: {" + annotation + "}}, spec: {containers: [{name: a, image: " + echoImage + container + "}]}}"
	}
	create := []string{"create", "-f", "-"}
	for name, tc := range map[string]struct {
		manifest string
		want     string
	}{
		"NoAddress":  {pod(`network.vivarium.io/ip: "10.0.1"`, ""), "the value of network.vivarium.io/ip must be an address"},
		"NoSubnet":   {pod(`network.vivarium.io/subnets: "A b"`, ""), "network.vivarium.io/subnets"},
		"Bandwidth":  {pod(`network.vivarium.io/bandwidth: fast`, ""), "network.vivarium.io/bandwidth"},
		"ProbeHTTP":  {pod("", ", readinessProbe: {httpGet: {port: 8080, host: 10.0.1.200}}"), "host"},
		"ProbeTCP":   {pod("", ", livenessProbe: {tcpSocket: {port: 8080, host: 198.18.0.2}}"), "host"},
		"Hook":       {pod("", ", lifecycle: {postStart: {httpGet: {port: 8080, host: 198.18.0.2}}}"), "host"},
		"HostPort":   {pod("", ", ports: [{containerPort: 8080, hostPort: 8080}]"), "hostPort"},
		"RawPackets": {pod("", ", securityContext: {capabilities: {add: [NET_ADMIN]}}"), "NET_ADMIN"},
	} {
		t.Run(name, func(t *testing.T) { v.fails(t, tc.manifest, create, tc.want) })
	}
	t.Run("OthersKeys", func(t *testing.T) { othersKeys(t, v) })
	v.fails(t, "", []string{"annotate", "namespace", "default", "network.vivarium.io/ip=10.0.1.9"}, "network.vivarium.io/ip")
	v.run(t, "run", "wishes", "--image="+echoImage, "--annotations=network.vivarium.io/subnets=db")
	v.shows(t, []string{"get", "pod", "wishes", "-o", "jsonpath={.status.conditions}"}, "InvalidSelection", `there is no subnet \"db\"`)
	v.shows(t, []string{"get", "events", "--field-selector=involvedObject.name=wishes"}, "InvalidSelection")
	v.run(t, "delete", "pod", "wishes", "--now")
}

// othersKeys brings keys by which others choose networks to what is there and to what makes pods, by every kind of write
// that a client can send. None comes through; the gateway's own tests try every key at every place.
func othersKeys(t *testing.T, v *vpcTenant) {
	for what, w := range map[string]struct{ key, before, pointer, after string }{
		"pod/" + v.web[0]:   {"network.vivarium.io/binding", "", "", ""},
		"deployment/web":    {"k8s.v1.cni.cncf.io/networks", `"spec":{"template":{`, "/spec/template", "}}"},
		"namespace/default": {"ovn.kubernetes.io/logical_switch", "", "", ""},
	} {
		merge := `{` + w.before + `"metadata":{"annotations":{"` + w.key + `":"x"}}` + w.after + `}`
		for kind, body := range map[string]string{
			"merge": merge, "strategic": merge,
			"json": `[{"op":"add","path":"` + w.pointer + `/metadata/annotations/` + strings.ReplaceAll(w.key, "/", "~1") + `","value":"x"}]`,
		} {
			v.fails(t, "", []string{"patch", what, "--type=" + kind, "-p", body}, w.key)
		}
	}
	const key = "vxlan.network.vivarium.io/place"
	note := `"annotations":{"` + key + `":"x"}`
	create := []string{"create", "-f", "-"}
	v.fails(t, `{"apiVersion":"v1","kind":"Service","metadata":{"name":"x",`+note+`},"spec":{"ports":[{"port":80}]}}`, create, key)
	v.fails(t, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"x",`+note+`}}`, create, key)
	v.fails(t, `{"apiVersion":"batch/v1","kind":"CronJob","metadata":{"name":"x"},"spec":{"schedule":"* * * * *","jobTemplate":{"spec":{"template":{"metadata":{`+note+
		`},"spec":{"restartPolicy":"Never","containers":[{"name":"a","image":"`+echoImage+`"}]}}}}}}`, []string{"apply", "--server-side", "-f", "-"}, key)
	// What is made in the name of a pod may not speak for it either: the API server would copy these to the pod.
	v.fails(t, `{"apiVersion":"v1","kind":"Binding","metadata":{"name":"`+v.web[0]+`",`+note+`},"target":{"kind":"Node","name":"pool-a-0"}}`,
		[]string{"create", "--raw", "/api/v1/namespaces/default/pods/" + v.web[0] + "/binding", "-f", "-"}, "platform's scheduler")
}
