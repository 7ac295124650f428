package admin

import (
	"fmt"
	"strings"
	"testing"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

func TestValidateVPC(t *testing.T) {
	type vpc = v1alpha1.VPC
	group := func(change func(*v1alpha1.SecurityRule)) func(*vpc) {
		return func(x *vpc) {
			rule := v1alpha1.SecurityRule{Protocol: v1alpha1.ProtocolTCP, Ports: []string{"443", "8000-8099"}, CIDRs: []string{"0.0.0.0/0", "::/0"}, Groups: []string{"db"}}
			change(&rule)
			x.Spec.SecurityGroups = []v1alpha1.SecurityGroup{{Name: "web", Ingress: []v1alpha1.SecurityRule{rule}}, {Name: "db"}}
		}
	}
	cidrs := func(cidrs ...string) func(*vpc) { return func(x *vpc) { x.Spec.CIDRs = cidrs } }
	cases := map[string]struct {
		change func(*vpc)
		want   string
	}{
		"Good":          {func(*vpc) {}, ""},
		"SixToo":        {cidrs("10.0.0.0/16", "fd00:1::/48"), ""},
		"Provider":      {func(x *vpc) { x.Spec.ProviderID = "vpc-0A.b_1" }, ""},
		"ProviderList":  {func(x *vpc) { x.Spec.ProviderID = "vpc-1,vpc-2" }, `spec.providerID: Invalid value: "vpc-1,vpc-2"`},
		"ProviderGroup": {func(x *vpc) { x.Spec.SecurityGroups = []v1alpha1.SecurityGroup{{Name: "web", ProviderID: "sg-1"}} }, ""},
		"GroupOfBoth": {func(x *vpc) {
			x.Spec.SecurityGroups = []v1alpha1.SecurityGroup{{Name: "web", ProviderID: "sg-1", Egress: []v1alpha1.SecurityRule{{}}}}
		}, "spec.securityGroups[0].providerID: Forbidden: a group of a provider has its rules there"},
		"NoTenant":      {func(x *vpc) { x.Spec.Tenant = "" }, "spec.tenant: Required value"},
		"BadTenant":     {func(x *vpc) { x.Spec.Tenant = "Demo" }, `spec.tenant: Invalid value: "Demo"`},
		"OthersName":    {func(x *vpc) { x.Name = "demo02-main" }, `metadata.name: Invalid value: "demo02-main": must be the tenant's ID, a dash and a name, as in "demo01-main"`},
		"NoPrefix":      {func(x *vpc) { x.Name = "main" }, "metadata.name"},
		"NoLabel":       {func(x *vpc) { x.Name = "demo01-" }, "metadata.name"},
		"BadLabel":      {func(x *vpc) { x.Name = "demo01-a.b" }, "metadata.name"},
		"LongLabel":     {func(x *vpc) { x.Name = "demo01-" + strings.Repeat("a", 64) }, "metadata.name"},
		"NoCIDRs":       {cidrs(), "spec.cidrs: Required value"},
		"ManyCIDRs":     {cidrs("10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16"), "spec.cidrs: Too many: 5: must have at most 4 items"},
		"HostBits":      {cidrs("10.0.0.1/16"), `spec.cidrs[0]: Invalid value: "10.0.0.1/16": must be written as 10.0.0.0/16`},
		"Nonsense":      {cidrs("ten"), "spec.cidrs[0]"},
		"TooBig":        {cidrs("10.0.0.0/15"), `spec.cidrs[0]: Invalid value: "10.0.0.0/15": must be from /16 to /28`},
		"TooSmall":      {cidrs("10.0.0.0/29"), "must be from /16 to /28"},
		"SixTooBig":     {cidrs("fd00::/47"), "must be from /48 to /120"},
		"SixTooSmall":   {cidrs("fd00:1::/121"), "must be from /48 to /120"},
		"Twice":         {cidrs("10.0.0.0/16", "10.0.3.0/24"), `spec.cidrs[1]: Invalid value: "10.0.3.0/24": overlaps 10.0.0.0/16 beside it`},
		"Loopback":      {cidrs("127.0.0.0/16"), "overlaps 127.0.0.0/8, which is for loopback"},
		"Metadata":      {cidrs("169.254.0.0/16"), "overlaps 169.254.0.0/16"},
		"Platforms":     {cidrs("198.19.0.0/16"), "overlaps 198.18.0.0/15, which is for the platform's own"},
		"PlatformsSix":  {cidrs("fd00:76:6976::/48"), "overlaps fd00:76:6976::/48"},
		"Mapped":        {cidrs("::ffff:10.0.0.0/112"), "must not be an IPv4 address written as IPv6"},
		"MTULow":        {func(x *vpc) { x.Spec.MTU = 1279 }, "spec.mtu: Invalid value: 1279: must be from 1280 to 9000"},
		"MTUHigh":       {func(x *vpc) { x.Spec.MTU = 9001 }, "spec.mtu"},
		"Egress":        {func(x *vpc) { x.Spec.Egress = "Open" }, `spec.egress: Unsupported value: "Open": supported values: "SharedNAT", "None"`},
		"Groups":        {group(func(*v1alpha1.SecurityRule) {}), ""},
		"GroupTwice":    {func(x *vpc) { x.Spec.SecurityGroups = []v1alpha1.SecurityGroup{{Name: "a"}, {Name: "a"}} }, "spec.securityGroups[1].name: Duplicate value"},
		"GroupName":     {func(x *vpc) { x.Spec.SecurityGroups = []v1alpha1.SecurityGroup{{Name: "A b"}} }, "spec.securityGroups[0].name"},
		"RuleProtocol":  {group(func(r *v1alpha1.SecurityRule) { r.Protocol = "SCTP" }), "spec.securityGroups[0].ingress[0].protocol: Unsupported value"},
		"RulePort":      {group(func(r *v1alpha1.SecurityRule) { r.Ports = []string{"0"} }), "spec.securityGroups[0].ingress[0].ports[0]"},
		"RulePortRange": {group(func(r *v1alpha1.SecurityRule) { r.Ports = []string{"9-8"} }), "must be a port or a range of ports"},
		"RulePortICMP":  {group(func(r *v1alpha1.SecurityRule) { r.Protocol = v1alpha1.ProtocolICMP }), "only protocols TCP and UDP have ports"},
		"RuleCIDR":      {group(func(r *v1alpha1.SecurityRule) { r.CIDRs = []string{"10.0.0.1/8"} }), "ingress[0].cidrs[0]"},
		"RuleGroup":     {group(func(r *v1alpha1.SecurityRule) { r.Groups = []string{"nobody"} }), `ingress[0].groups[0]: Not found: "nobody"`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			x := &vpc{Spec: v1alpha1.VPCSpec{Tenant: "demo01", CIDRs: []string{"10.0.0.0/16"}}}
			x.Name = "demo01-main"
			tc.change(x)
			v1alpha1.SetDefaultsVPC(x)
			check(t, validateVPC(x).ToAggregate(), tc.want)
		})
	}
}

func TestChangeVPC(t *testing.T) {
	type vpc = v1alpha1.VPC
	cases := map[string]struct {
		change func(*vpc)
		want   string
	}{
		"Append":       {func(x *vpc) { x.Spec.CIDRs = append(x.Spec.CIDRs, "10.2.0.0/16") }, ""},
		"Egress":       {func(x *vpc) { x.Spec.Egress = v1alpha1.EgressNone }, ""},
		"Shrink":       {func(x *vpc) { x.Spec.CIDRs = x.Spec.CIDRs[:1] }, "spec.cidrs: Forbidden: may only be appended to: must begin with 10.0.0.0/16, 10.1.0.0/16"},
		"Reorder":      {func(x *vpc) { x.Spec.CIDRs = []string{"10.1.0.0/16", "10.0.0.0/16"} }, "spec.cidrs"},
		"Tenant":       {func(x *vpc) { x.Spec.Tenant = "demo02" }, "spec.tenant: Forbidden"},
		"MTU":          {func(x *vpc) { x.Spec.MTU = 1400 }, "spec.mtu: Forbidden"},
		"Provider":     {func(x *vpc) { x.Spec.ProviderID = "vpc-2" }, "spec.providerID: Forbidden"},
		"LoseProvider": {func(x *vpc) { x.Spec.ProviderID = "" }, "spec.providerID: Forbidden"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			old := &vpc{Spec: v1alpha1.VPCSpec{Tenant: "demo01", CIDRs: []string{"10.0.0.0/16", "10.1.0.0/16"}, ProviderID: "vpc-1"}}
			x := old.DeepCopy()
			tc.change(x)
			check(t, validateVPCUpdate(x, old).ToAggregate(), tc.want)
		})
	}
}

func TestValidateSubnet(t *testing.T) {
	type subnet = v1alpha1.Subnet
	cidrs := func(cidrs ...string) func(*subnet) { return func(x *subnet) { x.Spec.CIDRs = cidrs } }
	gateway := func(addresses ...string) func(*subnet) { return func(x *subnet) { x.Spec.Gateway = addresses } }
	reserved := func(reserved ...string) func(*subnet) { return func(x *subnet) { x.Spec.Reserved = reserved } }
	cases := map[string]struct {
		change func(*subnet)
		want   string
	}{
		"Good":             {func(*subnet) {}, ""},
		"OneFamily":        {cidrs("10.0.1.0/24"), ""},
		"ProviderList":     {func(x *subnet) { x.Spec.ProviderID = "a b" }, "spec.providerID: Invalid value"},
		"NoVPC":            {func(x *subnet) { x.Spec.VPC = "" }, "spec.vpc: Required value"},
		"BadVPC":           {func(x *subnet) { x.Spec.VPC = "main" }, "spec.vpc: Invalid value"},
		"OthersVPC":        {func(x *subnet) { x.Spec.VPC = "demo02-main" }, `metadata.name: Invalid value: "demo01-web": must be the tenant's ID, a dash and a name, as in "demo02-main"`},
		"NoCIDRs":          {cidrs(), "spec.cidrs: Required value"},
		"TwoOfAFamily":     {cidrs("10.0.1.0/24", "10.0.2.0/24"), "spec.cidrs[1]: Invalid value: \"10.0.2.0/24\": must be the only prefix of its family"},
		"HostBits":         {cidrs("10.0.1.1/24"), "must be written as 10.0.1.0/24"},
		"TooSmall":         {cidrs("10.0.1.0/30"), "must be from /16 to /28"},
		"Pools":            {func(x *subnet) { x.Spec.Pools = []string{"a", "b"} }, ""},
		"PoolTwice":        {func(x *subnet) { x.Spec.Pools = []string{"a", "a"} }, "spec.pools[1]: Duplicate value"},
		"PoolName":         {func(x *subnet) { x.Spec.Pools = []string{"a b"} }, "spec.pools[0]"},
		"Zone":             {func(x *subnet) { x.Spec.Zone = "zone one" }, "spec.zone"},
		"Gateway":          {gateway("10.0.1.254", "fd00::2"), ""},
		"OneGateway":       {gateway("10.0.1.1"), "spec.gateway: Invalid value: \"10.0.1.1\": must have one address for each"},
		"GatewayElsewhere": {gateway("10.0.2.1", "fd00::1"), `spec.gateway[0]: Invalid value: "10.0.2.1": must be in 10.0.1.0/24`},
		"GatewayFirst":     {gateway("10.0.1.0", "fd00::1"), "must not be the first of the prefix"},
		"GatewayLast":      {gateway("10.0.1.255", "fd00::1"), "must not be the last of the prefix"},
		"GatewayNonsense":  {gateway("router", "fd00::1"), "spec.gateway[0]"},
		"GatewaysSwapped":  {gateway("fd00::1", "10.0.1.1"), "spec.gateway[0]"},
		"Reserved":         {reserved("10.0.1.5", "10.0.1.10-10.0.1.19", "10.0.1.64/28", "fd00::10-fd00::20"), ""},
		"ReservedOutside":  {reserved("10.0.1.250-10.0.2.5"), `spec.reserved[0]: Invalid value: "10.0.1.250-10.0.2.5": must be in one of spec.cidrs`},
		"ReservedBackward": {reserved("10.0.1.9-10.0.1.5"), "must not end before it begins"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			x := &subnet{Spec: v1alpha1.SubnetSpec{VPC: "demo01-main", CIDRs: []string{"10.0.1.0/24", "fd00::/64"}}}
			x.Name = "demo01-web"
			tc.change(x)
			v1alpha1.SetDefaultsSubnet(x)
			check(t, validateSubnet(x).ToAggregate(), tc.want)
		})
	}
}

func TestChangeSubnet(t *testing.T) {
	type subnet = v1alpha1.Subnet
	cases := map[string]struct {
		change func(*subnet)
		want   string
	}{
		"Nothing":      {func(*subnet) {}, ""},
		"AnotherPool":  {func(x *subnet) { x.Spec.Pools = []string{"c", "a", "b"} }, ""},
		"EveryPool":    {func(x *subnet) { x.Spec.Pools = nil }, ""},
		"Reserved":     {func(x *subnet) { x.Spec.Reserved = []string{"10.0.1.9"} }, ""},
		"PoolLess":     {func(x *subnet) { x.Spec.Pools = []string{"a"} }, `spec.pools: Forbidden: may only grow: "b" is missing`},
		"VPC":          {func(x *subnet) { x.Spec.VPC = "demo01-other" }, "spec.vpc: Forbidden"},
		"CIDRs":        {func(x *subnet) { x.Spec.CIDRs = []string{"10.0.1.0/25"} }, "spec.cidrs: Forbidden"},
		"CIDRsGrow":    {func(x *subnet) { x.Spec.CIDRs = append(x.Spec.CIDRs, "fd00::/64") }, "spec.cidrs: Forbidden"},
		"Zone":         {func(x *subnet) { x.Spec.Zone = "b" }, "spec.zone: Forbidden"},
		"Gateway":      {func(x *subnet) { x.Spec.Gateway = []string{"10.0.1.2"} }, "spec.gateway: Forbidden"},
		"Provider":     {func(x *subnet) { x.Spec.ProviderID = "vsw-1" }, ""},
		"GatewayUnset": {func(x *subnet) { x.Spec.Gateway = nil; v1alpha1.SetDefaultsSubnet(x) }, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			old := &subnet{Spec: v1alpha1.SubnetSpec{VPC: "demo01-main", CIDRs: []string{"10.0.1.0/24"}, Pools: []string{"a", "b"}}}
			v1alpha1.SetDefaultsSubnet(old)
			x := old.DeepCopy()
			tc.change(x)
			check(t, validateSubnetUpdate(x, old).ToAggregate(), tc.want)
		})
	}
	old := &subnet{}
	if got := validateSubnetUpdate(&subnet{Spec: v1alpha1.SubnetSpec{Pools: []string{"a"}}}, old); len(got) == 0 {
		t.Error("from every pool to one is let through")
	}
}

func TestSubnetKeepsItsSegment(t *testing.T) {
	old, now := &v1alpha1.Subnet{}, &v1alpha1.Subnet{}
	now.Status.VNI = 7
	check(t, validateSubnetStatus(now, old).ToAggregate(), "")
	old.Status.VNI = 8
	check(t, validateSubnetStatus(now, old).ToAggregate(), "status.vni: Forbidden: cannot be changed")
}

func TestValidateIPBlock(t *testing.T) {
	type block = v1alpha1.IPBlock
	cases := map[string]struct {
		change func(*block)
		want   string
	}{
		"Good":       {func(*block) {}, ""},
		"NoSubnet":   {func(x *block) { x.Spec.Subnet = "" }, "spec.subnet: Required value"},
		"Size":       {func(x *block) { x.Spec.Size = 257 }, "spec.size"},
		"NoSize":     {func(x *block) { x.Spec.Size = 0 }, "spec.size"},
		"First":      {func(x *block) { x.Spec.First, x.Name = 17, "uid-00000011" }, "spec.first: Invalid value: 17: must be a multiple of 256"},
		"Name":       {func(x *block) { x.Name = "uid-100" }, `metadata.name: Invalid value: "uid-100": must be "uid-00000100"`},
		"Unlabeled":  {func(x *block) { x.Labels = nil }, `metadata.labels[vivarium.io/subnet-uid]: Invalid value: "": must be "uid"`},
		"Other":      {func(x *block) { x.Status.Allocations[1].Index = 512 }, "status.allocations[1].index: Invalid value: 512: is not in this block"},
		"Before":     {func(x *block) { x.Status.Allocations[1].Index = 255 }, "is not in this block"},
		"Twice":      {func(x *block) { x.Status.Allocations[1].Index = 256 }, "status.allocations[1].index: Duplicate value: 256"},
		"NobodysPod": {func(x *block) { x.Status.Allocations[0].PodUID = "" }, "status.allocations[0].podUID: Required value"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			x := &block{Spec: v1alpha1.IPBlockSpec{Subnet: "demo01-web", SubnetUID: "uid", VPCUID: "v", First: 256, Size: 256}}
			x.Name, x.Labels = v1alpha1.IPBlockName("uid", 256), map[string]string{names.LabelSubnetUID: "uid"}
			for i := range uint32(2) {
				x.Status.Allocations = append(x.Status.Allocations, v1alpha1.IPAllocation{Index: 256 + i, PodUID: "p"})
			}
			tc.change(x)
			check(t, append(validateIPBlock(x), validateAllocations(x, nil)...).ToAggregate(), tc.want)
		})
	}
	for first, want := range map[uint32]string{0: "uid-00000000", 0xabcdef00: "uid-abcdef00"} {
		if got := v1alpha1.IPBlockName("uid", first); got != want {
			t.Errorf("block %s, want %s", got, want)
		}
	}
	if got := fmt.Sprint(validateIPBlockUpdate(&block{Spec: v1alpha1.IPBlockSpec{SubnetUID: "uid"}}, &block{Spec: v1alpha1.IPBlockSpec{SubnetUID: "uid"}})); !strings.Contains(got, "metadata.labels") {
		t.Errorf("a block that loses its label: %s", got)
	}
	if got := fmt.Sprint(validateIPBlockUpdate(&block{Spec: v1alpha1.IPBlockSpec{First: 256}}, &block{})); !strings.Contains(got, "spec: Forbidden") {
		t.Errorf("a block that becomes another: %s", got)
	}
}

func TestValidateTenantNetwork(t *testing.T) {
	type network = v1alpha1.TenantNetwork
	template := func(change func(*v1alpha1.VPCTemplate)) func(*network) {
		return func(x *network) {
			x.VPC = ""
			x.Template = &v1alpha1.VPCTemplate{CIDRs: []string{"10.0.0.0/16"}, Subnets: []v1alpha1.SubnetTemplate{
				{Name: "a", CIDRs: []string{"10.0.1.0/24"}}, {Name: "b", CIDRs: []string{"10.0.2.0/24"}},
			}}
			change(x.Template)
		}
	}
	cases := map[string]struct {
		change func(*network)
		want   string
	}{
		"Reference":       {func(*network) {}, ""},
		"Template":        {template(func(*v1alpha1.VPCTemplate) {}), ""},
		"Neither":         {func(x *network) { x.VPC = "" }, "spec.network.vpc: Required value"},
		"Both":            {func(x *network) { template(func(*v1alpha1.VPCTemplate) {})(x); x.VPC = "demo01-main" }, "spec.network.template: Forbidden: excludes spec.network.vpc"},
		"OthersVPC":       {func(x *network) { x.VPC = "demo02-main" }, `spec.network.vpc: Invalid value: "demo02-main": is not this tenant's: its VPCs are named as in "demo01-main"`},
		"FlatVPC":         {func(x *network) { x.Mode = "Flat" }, "spec.network.vpc: Forbidden: is for mode VPC alone"},
		"FlatTemplate":    {func(x *network) { template(func(*v1alpha1.VPCTemplate) {})(x); x.Mode = "Flat" }, "spec.network.template: Forbidden"},
		"FlatSubnets":     {func(x *network) { *x = network{DefaultSubnets: []string{"a"}} }, "spec.network.defaultSubnets: Forbidden"},
		"SubnetTwice":     {func(x *network) { x.DefaultSubnets = []string{"a", "a"} }, "spec.network.defaultSubnets[1]: Duplicate value"},
		"SubnetName":      {func(x *network) { x.DefaultSubnets = []string{"A"} }, "spec.network.defaultSubnets[0]"},
		"NoSubnets":       {template(func(x *v1alpha1.VPCTemplate) { x.Subnets = nil }), "spec.network.template.subnets: Required value"},
		"TemplateCIDR":    {template(func(x *v1alpha1.VPCTemplate) { x.CIDRs = []string{"10.0.0.1/16"} }), "spec.network.template.cidrs[0]"},
		"TemplateMTU":     {template(func(x *v1alpha1.VPCTemplate) { x.MTU = 100 }), "spec.network.template.mtu"},
		"TemplateEgress":  {template(func(x *v1alpha1.VPCTemplate) { x.Egress = "x" }), "spec.network.template.egress"},
		"TemplateName":    {template(func(x *v1alpha1.VPCTemplate) { x.Subnets[1].Name = "B" }), "spec.network.template.subnets[1].name"},
		"TemplateTwice":   {template(func(x *v1alpha1.VPCTemplate) { x.Subnets[1].Name = "a" }), "spec.network.template.subnets[1].name: Duplicate value"},
		"TemplateOutside": {template(func(x *v1alpha1.VPCTemplate) { x.Subnets[1].CIDRs[0] = "10.1.0.0/24" }), "spec.network.template.subnets[1].cidrs[0]: Invalid value: \"10.1.0.0/24\": must be within 10.0.0.0/16 of the VPC"},
		"TemplateOverlap": {template(func(x *v1alpha1.VPCTemplate) { x.Subnets[1].CIDRs[0] = "10.0.1.128/25" }), "overlaps 10.0.1.0/24 of subnet \"a\""},
		"TemplatePools":   {template(func(x *v1alpha1.VPCTemplate) { x.Subnets[1].Pools = []string{"A B"} }), "spec.network.template.subnets[1].pools[0]"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			x := &v1alpha1.Tenant{Spec: v1alpha1.TenantSpec{Network: network{Mode: v1alpha1.NetworkVPC, VPC: "demo01-main"}}}
			x.Name = "demo01"
			tc.change(&x.Spec.Network)
			v1alpha1.SetDefaultsTenant(x)
			check(t, validateTenant(x).ToAggregate(), tc.want)
		})
	}
}
