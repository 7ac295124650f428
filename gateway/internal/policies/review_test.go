package policies

import (
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"

	"vivarium.io/vivarium/gateway/internal/translate"
)

// TestJudged: a tenant's policies are about what its users and the parts of a stock cluster write.
func TestJudged(t *testing.T) {
	for name, tc := range map[string]struct {
		writer               translate.Writer
		user                 string
		operation            admissionv1.Operation
		subresource          string
		validating, mutating bool
	}{
		"a user":                 {translate.User, "abc123-alice", admissionv1.Update, "", true, true},
		"a user's status":        {translate.User, "abc123-alice", admissionv1.Update, "status", true, true},
		"a controller":           {translate.StockPart, "system:serviceaccount:kube-system:job-controller", admissionv1.Create, "", true, true},
		"a controller's status":  {translate.StockPart, "system:serviceaccount:kube-system:job-controller", admissionv1.Update, "status", true, false},
		"a controller's removal": {translate.StockPart, "system:serviceaccount:kube-system:job-controller", admissionv1.Delete, "", true, true},
		"a binding":              {translate.StockPart, "system:kube-scheduler", admissionv1.Create, "binding", true, true},
		"preemption":             {translate.StockPart, "system:kube-scheduler", admissionv1.Delete, "", false, false},
		"the platform":           {translate.Platform, "vivarium-vk-provider", admissionv1.Update, "status", false, false},
		"its eviction":           {translate.Platform, "vivarium-vk-provider", admissionv1.Create, "eviction", false, false},
	} {
		request := &admissionv1.AdmissionRequest{UserInfo: authenticationv1.UserInfo{Username: tc.user}, Operation: tc.operation, SubResource: tc.subresource}
		if v, m := judged(request, tc.writer, Validating), judged(request, tc.writer, Mutating); v != tc.validating || m != tc.mutating {
			t.Errorf("%s: validating %v, mutating %v", name, v, m)
		}
	}
}
