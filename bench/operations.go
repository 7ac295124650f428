package main

import (
	"context"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	mediaJSON     = "application/json"
	mediaProtobuf = "application/vnd.kubernetes.protobuf"
	// mediaTable is what kubectl get asks for.
	mediaTable = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

	core = "/api/v1"
)

// The tenant's namespaces, by what they are for.
const (
	nsObjects = "objects"
	nsCreated = "created"
	nsPods    = "pods"
	nsLong    = "long"
	nsWatched = "watched"
)

// prepare fills the tenant's namespaces.
func prepare(ctx context.Context, w *world, scale Scale) error {
	for _, name := range []string{nsObjects, nsCreated, nsPods, nsLong, nsWatched} {
		if err := w.namespace(ctx, name); err != nil {
			return err
		}
	}
	for _, at := range []struct{ namespace, name string }{{nsObjects, "one"}, {nsWatched, "one"}} {
		object := sampleConfigMap(at.name)
		_, err := w.admin.CoreV1().ConfigMaps(tenant.Prefix()+at.namespace).Create(ctx, object, metav1.CreateOptions{})
		if err != nil {
			return err
		}
	}
	s, err := openStore(w)
	if err != nil {
		return err
	}
	defer s.close()
	return s.pods(ctx, tenant.Prefix()+nsPods, scale.Pods)
}

// sampleConfigMap is of two kilobytes, as many are.
func sampleConfigMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "web", "tier": "front"}},
		Data:       map[string]string{"config.yaml": text(1800), "mode": "production"},
	}
}

func text(length int) string {
	line := "listen: 0.0.0.0:8080 # where the server listens\n"
	out := make([]byte, length)
	for i := range out {
		out[i] = line[i%len(line)]
	}
	return string(out)
}

func get(rest, namespace, accept string) func(int) request {
	return func(int) request {
		return request{method: http.MethodGet, group: core, namespace: namespace, rest: rest, accept: accept}
	}
}

func zipped(make func(int) request) func(int) request {
	return func(n int) request {
		r := make(n)
		r.gzip = true
		return r
	}
}

// operations are those that every lane can do alike.
func operations(w *world, scale Scale) []operation {
	pods := fmt.Sprintf("list of %d pods", scale.Pods)
	return []operation{
		{name: "get-json", what: "get a ConfigMap, JSON", clients: 1, request: get("/configmaps/one", nsObjects, mediaJSON), aims: []aim{p50AtMost(1.25)}},
		{name: "get-protobuf", what: "get a ConfigMap, protobuf", clients: 1, request: get("/configmaps/one", nsObjects, mediaProtobuf), aims: []aim{p50AtMost(1.25)}},
		{name: "create", what: "create a ConfigMap, JSON", clients: 1, request: createConfigMap(), aims: []aim{p50AtMost(1.30)}, after: w.removeCreated},
		{name: "list-json", what: pods + ", JSON", clients: 1, request: get("/pods", nsPods, mediaJSON), aims: []aim{p50AtMost(1.15)}},
		{name: "list-json-gzip", what: pods + ", JSON, compressed", clients: 1, request: zipped(get("/pods", nsPods, mediaJSON)), aims: []aim{p50AtMost(1.15)}},
		{name: "list-protobuf", what: pods + ", protobuf", clients: 1, request: get("/pods", nsPods, mediaProtobuf), aims: []aim{p50AtMost(1.30)}},
		{name: "list-table", what: pods + ", Table", clients: 1, request: get("/pods", nsPods, mediaTable), aims: []aim{p50AtMost(1.30)}},
		{name: "get-throughput", what: "get a ConfigMap, JSON", clients: scale.Clients, request: get("/configmaps/one", nsObjects, mediaJSON), aims: []aim{rateAtLeast(.80)}},
		{name: "list-throughput", what: pods + ", JSON", clients: scale.Clients, request: get("/pods", nsPods, mediaJSON), aims: []aim{rateAtLeast(.85)}},
	}
}

func createConfigMap() func(int) request {
	data := text(1800)
	return func(n int) request {
		body := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"created-%d","labels":{"app":"web"}},"data":{"config.yaml":%q}}`, n, data)
		return request{method: http.MethodPost, group: core, namespace: nsCreated, rest: "/configmaps", accept: mediaJSON, contentType: mediaJSON, body: []byte(body)}
	}
}

func (w *world) removeCreated(ctx context.Context) error {
	return w.admin.CoreV1().ConfigMaps(tenant.Prefix()+nsCreated).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
}
