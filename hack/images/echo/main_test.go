package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHandler(t *testing.T) {
	cases := map[string]struct {
		method, target, want string
	}{
		"Get":     {http.MethodGet, "/a/b?c=d", "hostname: pod\nmethod: GET\npath: /a/b?c=d\nremote: 192.0.2.1:1234\nhost: example.com\nX-One: 1, 2\n"},
		"Post":    {http.MethodPost, "/", "hostname: pod\nmethod: POST\npath: /\nremote: 192.0.2.1:1234\nhost: example.com\nX-One: 1, 2\n"},
		"Head":    {http.MethodHead, "/", ""},
		"Healthz": {http.MethodGet, "/healthz", "ok\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			request := httptest.NewRequest(tc.method, tc.target, nil)
			request.Header["X-One"] = []string{"1", "2"}
			answer := httptest.NewRecorder()
			handler("pod").ServeHTTP(answer, request)
			if diff := cmp.Diff(tc.want, answer.Body.String()); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}
