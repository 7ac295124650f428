package translate

import (
	"errors"
	"testing"
)

// TestRepeatedKeys holds the words for bodies that a strict API server refuses for a key that stands twice.
func TestRepeatedKeys(t *testing.T) {
	deployments := Kind{Group: "apps", Version: "v1", Resource: "deployments", Kind: "Deployment", Namespaced: true}
	custom := Kind{Group: "example.com", Version: "v1", Resource: "widgets", Kind: "Widget", Namespaced: true, Custom: true, ListKind: "WidgetList"}
	for name, tc := range map[string]struct {
		kind       Kind
		verb, body string
		want       string
	}{
		"AsTheSuiteAsks": {deployments, "create", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"unknownField":"foo","replicas":2,"replicas":3}}`,
			`Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas"`},
		"InLists": {deployments, "update", `{"spec":{"template":{"spec":{"containers":[{"name":"a","image":"b","image":"c"}]}}},"metadata":{"labels":{"a":"b","a":"c"}}}`,
			`Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: duplicate field "spec.template.spec.containers[0].image", duplicate field "metadata.labels.a"`},
		"Escaped": {deployments, "create", `{"metadata":{"namespace":"default","name\u0073pace":"kube-system"}}`,
			`Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: duplicate field "metadata.namespace"`},
		"Custom": {custom, "create", `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"x":1,"x":2}}`,
			`Widget in version "v1" cannot be handled as a Widget: strict decoding error: duplicate field "spec.x"`},
		// Not what a strict reader finds first.
		"OtherFault": {deployments, "create", `{"spec":{"replicas":2,"replicas":"x"}}`, `the body cannot be read: the key "replicas" stands twice in one object at offset 32`},
		"Truncated":  {deployments, "create", `{"spec":{"replicas":2,"replicas":3}`, `the body cannot be read: the key "replicas" stands twice in one object at offset 32`},
		"Deletion":   {deployments, "delete", `{"gracePeriodSeconds":1,"gracePeriodSeconds":0}`, `the body cannot be read: the key "gracePeriodSeconds" stands twice in one object at offset 44`},
	} {
		t.Run(name, func(t *testing.T) {
			out, _, err := view.BodyToControl(tc.kind, tc.verb, "application/json", []byte(tc.body), "default", "")
			var refused *Error
			if !errors.As(err, &refused) || refused.Code != 400 || refused.Message != tc.want || out != nil {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
}
