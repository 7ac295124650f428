package translate

import (
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// knownRights translates what says who may do what.
func (o *oracle) knownRights(x any) bool {
	switch x := x.(type) {
	case *rbacv1.RoleRef:
		switch {
		case x.Name == "":
		case x.Kind == "ClusterRole" && o.control:
			x.Name = oraclePrefix + x.Name
		case x.Kind == "ClusterRole":
			x.Name, _ = cut(x.Name)
		case x.Kind != "Role" && o.control:
			o.refuse("roleRef.kind")
		}
	case *rbacv1.RoleBinding:
		x.Subjects = o.subjects(x.Subjects)
	case *rbacv1.ClusterRoleBinding:
		x.Subjects = o.subjects(x.Subjects)
	case *rbacv1.Role:
		x.Rules = o.rules(x.Rules)
		return true
	case *rbacv1.ClusterRole:
		x.Rules = o.rules(x.Rules)
		if x.AggregationRule != nil {
			o.aggregation(x.AggregationRule)
		}
		return true
	case *authorizationv1.ResourceAttributes:
		o.attributes(x)
		return true
	case *authorizationv1.SubjectAccessReviewSpec:
		if x.User != "" {
			x.User = o.shown(o.user(x.User))
		}
		for i, g := range x.Groups {
			if g != "" {
				x.Groups[i] = o.shown(o.userGroup(g))
			}
		}
	case *authorizationv1.SelfSubjectRulesReviewSpec:
		o.ns(&x.Namespace)
	case *authorizationv1.SubjectRulesReviewStatus:
		var rules []rbacv1.PolicyRule
		for _, r := range x.ResourceRules {
			rules = append(rules, rbacv1.PolicyRule{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
		}
		x.ResourceRules = nil
		for _, r := range o.rules(rules) {
			x.ResourceRules = append(x.ResourceRules, authorizationv1.ResourceRule{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
		}
		o.text(&x.EvaluationError)
		return true
	case *authenticationv1.TokenReviewSpec:
		x.Audiences = o.audiences(x.Audiences)
	case *authenticationv1.TokenRequestSpec:
		x.Audiences = o.audiences(x.Audiences)
	case *authenticationv1.TokenReviewStatus:
		if o.control {
			return true
		}
		o.text(&x.Error)
		if x.User.Username == "" && !x.Authenticated {
			return true
		}
		if !o.userInfo(&x.User) {
			*x = authenticationv1.TokenReviewStatus{}
		}
		return true
	case *admissionregistrationv1.ParamKind:
		x.APIVersion = o.shown(o.groupVersion(x.APIVersion))
		return true
	case *admissionregistrationv1.ParamRef:
		o.ns(&x.Namespace)
		return true
	case *admissionregistrationv1.Rule:
		for i, g := range x.APIGroups {
			x.APIGroups[i] = o.shown(o.group(g))
		}
		return true
	case *admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec:
		o.policy(&x.PolicyName)
	case *admissionregistrationv1.MutatingAdmissionPolicyBindingSpec:
		o.policy(&x.PolicyName)
	case *certificatesv1.CertificateSigningRequestSpec:
		// A signer is the tenant's as the name of an object is; whoever asks is shown as in a review.
		if o.control {
			if strings.HasPrefix(x.SignerName, "kubernetes.io/") && x.SignerName != "kubernetes.io/kube-apiserver-client" {
				o.refuse("signer " + x.SignerName)
			}
			if x.SignerName != "" {
				x.SignerName = oraclePrefix + x.SignerName
			}
			if x.Username != "" {
				x.Username, _ = o.user(x.Username)
			}
			for i, g := range x.Groups {
				if g != "" {
					x.Groups[i], _ = o.userGroup(g)
				}
			}
			return true
		}
		signer, ok := cut(x.SignerName)
		asks := authenticationv1.UserInfo{Username: x.Username, Groups: x.Groups}
		if !ok && x.SignerName != "" || !o.userInfo(&asks) {
			*x = certificatesv1.CertificateSigningRequestSpec{}
			return true
		}
		if x.SignerName != "" {
			x.SignerName = signer
		}
		x.Username, x.Groups = asks.Username, asks.Groups
		return true
	case *authenticationv1.UserInfo:
		if !o.control && !o.userInfo(x) {
			o.foreign = errForeignItem
		}
		return true
	}
	return false
}

// policy translates the name by which a binding refers to a policy, which is none of the control cluster's.
func (o *oracle) policy(name *string) {
	switch {
	case *name == "":
	case o.control:
		*name = "of-tenant." + oraclePrefix + *name
	default:
		own, ok := strings.CutPrefix(*name, "of-tenant.")
		*name, _ = cut(own)
		if !ok {
			*name = ""
		}
	}
}

func (o *oracle) shown(s string, ok bool) string {
	if !ok {
		return ""
	}
	return s
}

func (o *oracle) audiences(list []string) []string {
	if !o.control {
		return list
	}
	if slices.Contains(list, "https://kubernetes.default.svc") {
		o.refuse("audience")
	}
	if len(list) == 0 {
		return []string{"vivarium-gateway"}
	}
	return list
}

func (o *oracle) userInfo(u *authenticationv1.UserInfo) bool {
	if u.Username != "" {
		own, ok := o.user(u.Username)
		if !ok {
			return false
		}
		u.Username = own
	}
	var groups []string
	for _, g := range u.Groups {
		own, ok := o.userGroup(g)
		if g == "system:authenticated" || g == "system:serviceaccounts" {
			own, ok = g, true
		}
		if ok && !slices.Contains(groups, own) {
			groups = append(groups, own)
		}
	}
	u.Groups = groups
	return true
}

func (o *oracle) subjects(list []rbacv1.Subject) []rbacv1.Subject {
	var out []rbacv1.Subject
	for _, s := range list {
		ok := true
		switch s.Kind {
		case "User":
			if s.Name != "" || !o.control {
				s.Name, ok = o.user(s.Name)
			}
		case "Group":
			if s.Name != "" || !o.control {
				s.Name, ok = o.userGroup(s.Name)
			}
		case "ServiceAccount":
			o.ns(&s.Namespace)
			ok = o.control || s.Namespace != ""
		default:
			if ok = o.control; ok {
				o.refuse("subject of kind " + s.Kind)
			}
		}
		if ok {
			out = append(out, s)
		}
	}
	return out
}

// names of a resource are of one of these sorts.
const (
	sortPlain = "plain"
	sortOwn   = "own"
	sortCRD   = "crd"
	sortUser  = "user"
	sortGroup = "group"
)

var prefixedResources = strings.Fields(`/namespaces rbac.authorization.k8s.io/clusterroles rbac.authorization.k8s.io/clusterrolebindings storage.k8s.io/storageclasses
	storage.k8s.io/volumeattributesclasses scheduling.k8s.io/priorityclasses node.k8s.io/runtimeclasses networking.k8s.io/ingressclasses resource.k8s.io/deviceclasses
	admissionregistration.k8s.io/validatingwebhookconfigurations admissionregistration.k8s.io/mutatingwebhookconfigurations
	admissionregistration.k8s.io/validatingadmissionpolicies admissionregistration.k8s.io/validatingadmissionpolicybindings
	admissionregistration.k8s.io/mutatingadmissionpolicies admissionregistration.k8s.io/mutatingadmissionpolicybindings apiregistration.k8s.io/apiservices
	certificates.k8s.io/certificatesigningrequests certificates.k8s.io/signers flowcontrol.apiserver.k8s.io/flowschemas flowcontrol.apiserver.k8s.io/prioritylevelconfigurations
	networking.k8s.io/ipaddresses networking.k8s.io/servicecidrs`)

// sortsOf says which sorts the names of a rule's resources are.
func sortsOf(groups, resources []string) []string {
	var out []string
	add := func(s string) {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for _, resource := range resources {
		resource, _, _ = strings.Cut(resource, "/")
		for _, group := range groups {
			own := slices.ContainsFunc(prefixedResources, func(s string) bool {
				g, r, _ := strings.Cut(s, "/")
				return r == resource && (g == group || group == "*")
			})
			switch {
			case resource == "*":
				add(sortPlain)
				add(sortOwn)
			case resource == "users" && (!strings.Contains(group, ".") || group == "authentication.k8s.io"):
				add(sortUser)
			case resource == "groups" && (!strings.Contains(group, ".") || group == "authentication.k8s.io"):
				add(sortGroup)
			case resource == "customresourcedefinitions" && (group == "apiextensions.k8s.io" || group == "*"):
				add(sortCRD)
			case own:
				add(sortOwn)
			default:
				add(sortPlain)
			}
		}
	}
	return out
}

// named translates the name of an object of a sort.
func (o *oracle) named(sort, name string, resources []string) (string, bool) {
	switch sort {
	case sortOwn:
		if name == "shared-disk" && resources[0] == "storageclasses" {
			return name, true
		}
		if o.control {
			return oraclePrefix + name, true
		}
		return cut(name)
	case sortCRD:
		plural, group, ok := strings.Cut(name, ".")
		if !ok {
			return name, true
		}
		group, ok = o.group(group)
		return plural + "." + group, ok
	case sortUser:
		return o.user(name)
	case sortGroup:
		return o.userGroup(name)
	}
	return name, true
}

// rules translates rules of RBAC one by one.
func (o *oracle) rules(list []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	for _, r := range list {
		groups, had := []string(nil), len(r.APIGroups) > 0
		tenantGroups := r.APIGroups
		for _, g := range r.APIGroups {
			if own, ok := o.group(g); ok {
				groups = append(groups, own)
			}
		}
		r.APIGroups = groups
		if !o.control {
			tenantGroups = groups
		}
		if had && len(groups) == 0 {
			continue
		}
		if len(r.ResourceNames) > 0 {
			sorts := sortsOf(tenantGroups, r.Resources)
			switch {
			case len(sorts) > 1 && o.control && o.gvk.Kind == "Role":
				if slices.Contains(r.ResourceNames, o.namespace) {
					o.refuse("a rule about its own namespace and others")
				}
			case len(sorts) > 1 && o.control:
				out = append(out, o.apart(r, tenantGroups)...)
				continue
			}
			sort := sortPlain
			if len(sorts) == 1 {
				sort = sorts[0]
			}
			var own []string
			for _, name := range r.ResourceNames {
				n, ok := name, true
				if name != "" || !o.control {
					n, ok = o.named(sort, name, r.Resources)
				}
				if ok {
					own = append(own, n)
				}
			}
			if len(own) == 0 {
				continue
			}
			r.ResourceNames = own
		}
		out = append(out, r)
	}
	return out
}

// apart says what a rule means whose names are of several sorts: one rule for each group and resource.
func (o *oracle) apart(r rbacv1.PolicyRule, tenantGroups []string) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	one := func(group, resource, sort string) {
		p := rbacv1.PolicyRule{Verbs: r.Verbs, Resources: []string{resource}}
		control, _ := o.group(group)
		p.APIGroups = []string{control}
		for _, name := range r.ResourceNames {
			if name != "" {
				name, _ = o.named(sort, name, p.Resources)
			}
			p.ResourceNames = append(p.ResourceNames, name)
		}
		out = append(out, p)
	}
	for _, group := range tenantGroups {
		for _, resource := range r.Resources {
			base, sub, deep := strings.Cut(resource, "/")
			if base != "*" {
				one(group, resource, sortsOf([]string{group}, []string{base})[0])
				continue
			}
			one(group, resource, sortPlain)
			for _, special := range append([]string{"/users", "/groups", "apiextensions.k8s.io/customresourcedefinitions"}, prefixedResources...) {
				g, name, _ := strings.Cut(special, "/")
				sort := sortsOf([]string{group}, []string{name})[0]
				if sort == sortPlain || g != group && group != "*" && sort == sortOwn {
					continue
				}
				if deep {
					name += "/" + sub
				}
				one(group, name, sort)
			}
		}
	}
	return out
}

// atoms are what rules grant, one right each.
func atoms(list []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	seen := map[string]bool{}
	var keys []string
	each := func(list []string, f func(string)) {
		if len(list) == 0 {
			f("(none)")
		}
		for _, s := range list {
			f(s)
		}
	}
	for _, r := range list {
		each(r.Verbs, func(verb string) {
			each(r.APIGroups, func(group string) {
				each(r.Resources, func(resource string) {
					each(r.ResourceNames, func(name string) {
						each(r.NonResourceURLs, func(url string) {
							key := strings.Join([]string{verb, group, resource, name, url}, " | ")
							if !seen[key] && !strings.HasPrefix(name, "vivarium.io/rule:") {
								seen[key] = true
								keys = append(keys, key)
							}
						})
					})
				})
			})
		})
	}
	slices.Sort(keys)
	return []rbacv1.PolicyRule{{Verbs: keys}}
}

// aggregation keeps an aggregated role to roles of its tenant.
func (o *oracle) aggregation(a *rbacv1.AggregationRule) {
	for i := range a.ClusterRoleSelectors {
		s := &a.ClusterRoleSelectors[i]
		o.keys(s.MatchLabels, false, false, true, false)
		s.MatchExpressions = slices.DeleteFunc(s.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool {
			return !o.control && (reserved(r.Key) && !strings.HasPrefix(r.Key, "rbac.vivarium.io/aggregate-to-") || strings.HasPrefix(r.Key, "rbac.authorization.k8s.io/aggregate-to-"))
		})
		for j := range s.MatchExpressions {
			r := &s.MatchExpressions[j]
			one := map[string]string{r.Key: ""}
			o.keys(one, false, false, true, false)
			for key := range one {
				r.Key = key
			}
		}
		if !o.control {
			continue
		}
		if s.MatchLabels == nil {
			s.MatchLabels = map[string]string{}
		}
		s.MatchLabels["vivarium.io/tenant"] = oracleID
	}
}

// attributes translates what an access review asks about.
func (o *oracle) attributes(a *authorizationv1.ResourceAttributes) {
	sort := sortPlain
	group, _ := o.group(a.Group)
	tenantGroup := a.Group
	if !o.control {
		tenantGroup = group
	}
	if a.Resource != "*" {
		sort = sortsOf([]string{tenantGroup}, []string{a.Resource})[0]
	}
	a.Group = group
	o.selectors(a, tenantGroup)
	o.ns(&a.Namespace)
	if a.Name != "" {
		a.Name = o.shown(o.named(sort, a.Name, []string{a.Resource}))
	}
}

// selectors translates what a review selects by.
func (o *oracle) selectors(a *authorizationv1.ResourceAttributes, group string) {
	own := slices.Contains(prefixedResources, group+"/"+a.Resource)
	namespaces := group+"/"+a.Resource == "/namespaces"
	roles := group+"/"+a.Resource == "rbac.authorization.k8s.io/clusterroles"
	value := func(field string, s *string) {
		switch {
		case field == "metadata.namespace", field == "metadata.name" && namespaces:
			o.ns(s)
		case field == "metadata.name" && own && *s != "":
			if o.control {
				*s = oraclePrefix + *s
			} else {
				*s, _ = cut(*s)
			}
		}
	}
	if f := a.FieldSelector; f != nil {
		if strings.Contains(f.RawSelector, "metadata.") {
			// Of the few that the test makes.
			var out []string
			changed := false
			for _, term := range strings.Split(f.RawSelector, ",") {
				operator := "="
				if strings.Contains(term, "!=") {
					operator = "!="
				}
				at := strings.Index(term, operator)
				v := strings.TrimLeft(term[at+len(operator):], "=")
				was := v
				value(term[:at], &v)
				changed = changed || v != was
				out = append(out, term[:at]+operator+v)
			}
			if changed {
				f.RawSelector = strings.Join(out, ",")
			}
		}
		for i := range f.Requirements {
			for j := range f.Requirements[i].Values {
				value(f.Requirements[i].Key, &f.Requirements[i].Values[j])
			}
		}
	}
	l := a.LabelSelector
	if l == nil {
		return
	}
	const nameLabel = "kubernetes.io/metadata.name"
	name := func(s string) string {
		o.ns(&s)
		return s
	}
	switch {
	case namespaces && strings.Contains(l.RawSelector, " in "):
		values := []string{name("web"), name("zq7x9k-web")}
		slices.Sort(values)
		l.RawSelector = nameLabel + " in (" + strings.Join(values, ",") + ")"
	case namespaces && strings.Contains(l.RawSelector, "!="):
		l.RawSelector = "!app," + nameLabel + "!=" + name("zq7x9k-web")
	case roles && o.control && strings.Contains(l.RawSelector, "aggregate-to"):
		l.RawSelector = "rbac.vivarium.io/aggregate-to-view"
	case roles && strings.Contains(l.RawSelector, "aggregate-to"):
		l.RawSelector = ""
	}
	for i := range l.Requirements {
		r := &l.Requirements[i]
		one := map[string]string{r.Key: ""}
		o.keys(one, false, false, roles, false)
		switch {
		case namespaces && o.control && strings.HasPrefix(r.Key, "scheduler.alpha"):
			o.refuse("key")
		case namespaces && r.Key == "pod-security.kubernetes.io/enforce":
			one = map[string]string{map[bool]string{true: "pod-security.vivarium.io/enforce"}[o.control]: ""}
		case namespaces && r.Key == "pod-security.vivarium.io/enforce" && !o.control:
			one = map[string]string{"pod-security.kubernetes.io/enforce": ""}
		}
		r.Key = ""
		for key := range one {
			r.Key = key
		}
		if namespaces && r.Key == nameLabel {
			for j := range r.Values {
				r.Values[j] = name(r.Values[j])
			}
		}
	}
}
