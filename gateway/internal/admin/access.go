package admin

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"

	"vivarium.io/vivarium/api/v1alpha1"
)

// GroupComponents is the organization in the client certificates of our own components.
const GroupComponents = "vivarium:components"

// newAuthenticator knows two kinds of caller: the loopback, by the way it came in, and holders of a certificate from
// clientCA. There are no tokens and no anonymous requests.
func newAuthenticator(clientCA dynamiccertificates.CAContentProvider) authenticator.Request {
	certificates := x509.NewDynamic(clientCA.VerifyOptions, x509.CommonNameUserConversion)
	return union.NewFailOnError(authenticator.RequestFunc(authenticateLoopback), group.NewAuthenticatedGroupAdder(certificates))
}

func authenticateLoopback(req *http.Request) (*authenticator.Response, bool, error) {
	if !fromLoopback(req.Context()) {
		return nil, false, nil
	}
	return &authenticator.Response{User: &user.DefaultInfo{
		Name:   user.APIServerUser,
		Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated},
	}}, true, nil
}

// authorize decides by group alone. What a component may change inside an object is decided by admission.
func authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	groups := a.GetUser().GetGroups()
	if slices.Contains(groups, user.SystemPrivilegedGroup) {
		return authorizer.DecisionAllow, "", nil
	}
	if !a.IsResourceRequest() {
		if slices.Contains(groups, user.AllAuthenticated) && a.GetVerb() == "get" && openToAll(a.GetPath()) {
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionDeny, "only operators may", nil
	}
	if slices.Contains(groups, GroupComponents) && componentMay(a) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionDeny, "neither an operator nor a component that may", nil
}

// openToAll are the paths that say what the server is and not what it holds.
func openToAll(path string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "livez", "readyz", "healthz", "version", "api", "apis", "openapi":
		return true
	default:
		return false
	}
}

func componentMay(a authorizer.Attributes) bool {
	if a.GetAPIGroup() != v1alpha1.GroupVersion.Group {
		return false
	}
	switch a.GetVerb() {
	case "get", "list", "watch":
		return a.GetSubresource() == "" || a.GetSubresource() == "status"
	case "update", "patch":
		switch a.GetResource() {
		case "tenants", "resourcepools", "vpcs", "subnets", "ipblocks":
			return a.GetSubresource() == "" || a.GetSubresource() == "status"
		default:
			return false
		}
	case "create", "delete":
		// The records of addresses are the network controller's own; no operator makes one.
		return a.GetResource() == "ipblocks" && a.GetSubresource() == ""
	default:
		return false
	}
}
