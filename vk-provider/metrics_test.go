package vkprovider_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"

	"vivarium.io/vivarium/internal/kubetest"
	"vivarium.io/vivarium/internal/localcluster"
)

// extend has a cluster find metrics.k8s.io at an address of this machine.
func extend(t *testing.T, cluster *kubetest.Cluster, service string, address net.Addr) {
	t.Helper()
	ca, err := os.ReadFile(cluster.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	create(t, cluster, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: kube-system}
spec: {type: ExternalName, externalName: 127.0.0.1}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  {group: metrics.k8s.io, version: v1beta1, groupPriorityMinimum: 100, versionPriority: 100, caBundle: %[2]s,
   service: {name: %[1]s, namespace: kube-system, port: %[3]d}}
`, service, base64.StdEncoding.EncodeToString(ca), address.(*net.TCPAddr).Port))
}

// measure plays the metrics-server of a pool: it answers as that does, in JSON, with figures of every pod that the pool has,
// and honours the selector.
func (p *pool) measure(t *testing.T) {
	t.Helper()
	pair := p.cluster.ServingPair(t, "metrics-server.kube-system.svc")
	cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if !strings.HasSuffix(r.URL.Path, "/v1beta1/pods") {
			fmt.Fprint(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"metrics.k8s.io/v1beta1","resources":[{"name":"pods","singularName":"","namespaced":true,"kind":"PodMetrics","verbs":["get","list"]}]}`)
			return
		}
		pods, err := p.client.CoreV1().Pods("").List(r.Context(), metav1.ListOptions{LabelSelector: r.URL.Query().Get("labelSelector")})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		var items []string
		for _, pod := range pods.Items {
			labels, _ := json.Marshal(pod.Labels)
			items = append(items, fmt.Sprintf(`{"metadata":{"name":%q,"namespace":%q,"creationTimestamp":"2026-11-20T17:10:05Z","labels":%s},"timestamp":"2026-11-20T17:09:44Z","window":"6.937s","containers":[{"name":%q,"usage":{"cpu":"192512038n","memory":"244Ki"}}]}`,
				pod.Name, pod.Namespace, labels, pod.Spec.Containers[0].Name))
		}
		fmt.Fprintf(w, `{"kind":"PodMetricsList","apiVersion":"metrics.k8s.io/v1beta1","metadata":{},"items":[%s]}`, strings.Join(items, ","))
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.StartTLS()
	t.Cleanup(server.Close)
	extend(t, p.cluster, "metrics-server", server.Listener.Addr())
}

// TestMetrics asks the control cluster what pods use, through both clusters' aggregation and with exactly the shipped rights.
func TestMetrics(t *testing.T) {
	w := newWorld(t, "east")
	east := w.pools["east"]
	east.measure(t)
	pair := w.control.ServingPair(t, "127.0.0.1", "vivarium-metrics.kube-system.svc")
	ports, err := localcluster.FreePorts()
	if err != nil {
		t.Fatal(err)
	}
	address := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: ports.APIServer}
	extend(t, w.control, "vivarium-metrics", address)
	w.start(t, "--tls-cert-file="+pair.Cert, "--tls-private-key-file="+pair.Key,
		"--metrics-listen="+address.String(), "--metrics-client-ca-file="+w.control.FrontProxyCAFile)
	w.ready(t, "east")
	for _, ns := range []string{"abc123-web", "xyz789-web"} {
		w.tenant(t, ns)
		w.makePod(t, ns, echoPod("echo"))
		w.waitPod(t, ns, "echo", isReady)
	}

	client, err := metricsclient.NewForConfig(w.control.Config)
	if err != nil {
		t.Fatal(err)
	}
	var list *v1beta1.PodMetricsList
	eventually(t, "figures of both pods", func() error {
		if list, err = client.PodMetricses("").List(t.Context(), metav1.ListOptions{}); err != nil {
			return err
		}
		if len(list.Items) != 2 {
			return fmt.Errorf("%d pods", len(list.Items))
		}
		return nil
	})
	first := list.Items[0]
	if first.Namespace != "abc123-web" || first.Name != "echo" || first.Labels["app"] != "echo" || first.Containers[0].Name != "echo" ||
		first.Containers[0].Usage.Cpu().MilliValue() != 193 || first.Window.Duration != 6937*time.Millisecond || first.Timestamp.UTC().Format(time.TimeOnly) != "17:09:44" {
		t.Errorf("figures %+v", first)
	}
	one, err := client.PodMetricses("xyz789-web").Get(t.Context(), "echo", metav1.GetOptions{})
	if err != nil || one.Namespace != "xyz789-web" {
		t.Errorf("figures of one pod: %+v, %v", one, err)
	}
	page, err := client.PodMetricses("").List(t.Context(), metav1.ListOptions{Limit: 1})
	if err != nil || len(page.Items) != 1 || page.Continue == "" {
		t.Fatalf("the first page: %+v, %v", page, err)
	}
	page, err = client.PodMetricses("").List(t.Context(), metav1.ListOptions{Limit: 1, Continue: page.Continue})
	if err != nil || len(page.Items) != 1 || page.Continue != "" || page.Items[0].Namespace != "xyz789-web" {
		t.Errorf("the second page: %+v, %v", page, err)
	}
	nodes, err := client.NodeMetricses().List(t.Context(), metav1.ListOptions{LabelSelector: "vivarium.io/pool=east"})
	if err != nil || len(nodes.Items) == 0 {
		t.Fatalf("nodes: %+v, %v", nodes, err)
	}
	var used int64
	for _, node := range nodes.Items {
		used += node.Usage.Cpu().MilliValue()
	}
	if used != 386 && used != 385 {
		t.Errorf("the nodes use %dm, their pods 385m", used)
	}

	raw := func(accept, path string) string {
		t.Helper()
		out, err := w.controlClient.Discovery().RESTClient().Get().AbsPath(path).SetHeader("Accept", accept).DoRaw(t.Context())
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		return string(out)
	}
	const group = "/apis/metrics.k8s.io/v1beta1"
	for what, text := range map[string]string{
		`"cells":["echo","192512038n","244Ki","6.937s"]`: raw("application/json;as=Table;v=v1;g=meta.k8s.io", group+"/namespaces/abc123-web/pods"),
		`"kind":"PodMetrics"`:                            raw("application/json", group),
	} {
		if !strings.Contains(text, what) {
			t.Errorf("%s is not in %.500s", what, text)
		}
	}

	// The control cluster's API server asks for the schemas in its own time.
	eventually(t, "the schemas are published", func() error {
		out, err := w.controlClient.Discovery().RESTClient().Get().AbsPath("/openapi/v3" + group).DoRaw(t.Context())
		if err == nil && !strings.Contains(string(out), "v1beta1.PodMetrics") {
			err = fmt.Errorf("v1beta1.PodMetrics is not in %.500s", out)
		}
		return err
	})

	// Nobody but the API server is answered, whatever it says of itself.
	for name, config := range map[string]*rest.Config{"Stranger": {}, "Admin": rest.CopyConfig(w.control.Config)} {
		config.Host, config.Insecure, config.CAData, config.CAFile = "https://"+address.String(), true, nil, ""
		direct, err := rest.HTTPClientFor(config)
		if err != nil {
			t.Fatal(err)
		}
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, config.Host+group+"/pods", http.NoBody)
		request.Header.Set("X-Remote-User", "admin")
		request.Header.Set("X-Remote-Group", "system:masters")
		response, err := direct.Do(request)
		if err != nil {
			continue // the certificate was refused at once
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s is answered %d", name, response.StatusCode)
		}
	}

	// What a pool's silence hides comes back with it.
	east.line.setCut(true)
	eventually(t, "figures are missing", func() error {
		if list, err = client.PodMetricses("").List(t.Context(), metav1.ListOptions{}); err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%d pods", len(list.Items))
		}
		return err
	})
	east.line.setCut(false)
	eventually(t, "figures are back", func() error {
		if list, err = client.PodMetricses("").List(t.Context(), metav1.ListOptions{}); err == nil && len(list.Items) != 2 {
			err = fmt.Errorf("%d pods", len(list.Items))
		}
		return err
	})
}
