package gateway

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// oneConn is a listener that has one connection.
type oneConn struct {
	conn chan net.Conn
	over chan struct{}
}

func (l oneConn) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conn:
		return conn, nil
	case <-l.over:
		return nil, io.EOF
	}
}
func (oneConn) Close() error   { return nil }
func (oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// serveInPod is a web server in a pod, for one connection.
func serveInPod(pod string, stream io.ReadWriteCloser) error {
	l := oneConn{conn: make(chan net.Conn, 1), over: make(chan struct{})}
	inside, outside := net.Pipe()
	l.conn <- inside
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Upgrade") == "echo":
			conn, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
			line, _ := buffered.ReadString('\n')
			_, _ = io.WriteString(conn, "again "+line)
		case r.URL.Path == "/page":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, `<html><body><a href="/style.css">x</a></body></html>`)
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/there", http.StatusFound)
		default:
			body, _ := io.ReadAll(r.Body)
			_, _ = fmt.Fprintf(w, "%s: %s %s with %q authorization %q as %q", pod, r.Method, r.RequestURI, body, r.Header.Get("Authorization"), r.Header.Get("Impersonate-User"))
		}
	})}
	go func() { _ = server.Serve(l) }()
	defer close(l.over)
	go func() { defer outside.Close(); _, _ = io.Copy(outside, stream) }()
	_, _ = io.Copy(stream, outside)
	return nil
}

// TestProxy reaches a pod through the API, by its name and by a Service's.
func TestProxy(t *testing.T) {
	w := theWorld(t)
	kubeconfig, other := w.tenant(t, "proxy0"), w.tenant(t, "proxy1")
	startKubelet(t, w, "pool-proxy-0")
	eventually(t, "the default ServiceAccount", func() bool {
		_, err := w.run(kubeconfig, "", "get", "sa", "default")
		return err == nil
	})
	w.must(t, kubeconfig, "", "run", "p", "--image=vivarium.test/echo:v1", "--port=8080", "--labels=app=p")
	w.must(t, kubeconfig, "", "create", "service", "clusterip", "svc", "--tcp=80:8080")
	w.must(t, kubeconfig, "", "set", "selector", "service", "svc", "app=p")
	w.must(t, kubeconfig, "", "create", "service", "clusterip", "idle", "--tcp=80:8080")
	admin := clientset(t, w.cluster.Config)
	if err := admin.CoreV1().Pods("proxy0-default").Bind(t.Context(), &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: "p"}, Target: corev1.ObjectReference{Kind: "Node", Name: "pool-proxy-0"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CoreV1().Pods("proxy0-default").Patch(t.Context(), "p", types.MergePatchType, []byte(`{"status":{"phase":"Running","podIP":"10.9.9.9","podIPs":[{"ip":"10.9.9.9"}],"containerStatuses":[{"name":"p","ready":true,"restartCount":0,"image":"i","imageID":"i","state":{"running":{}}}],"conditions":[{"type":"Ready","status":"True"}]}}`), metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the endpoint", func() bool {
		out, err := w.run(kubeconfig, "", "get", "endpointslices", "-l", "kubernetes.io/service-name=svc", "-o", "jsonpath={.items[*].endpoints[*].targetRef.name}")
		return err == nil && out == "p"
	})
	ask := func(kubeconfig, method, path, body string, header http.Header) (*http.Response, string) {
		t.Helper()
		config := client(t, kubeconfig)
		roundTripper, err := rest.TransportFor(config)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), method, config.Host+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for name, values := range header {
			r.Header[name] = values
		}
		res, err := roundTripper.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		raw, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(raw)
	}
	const pod, service = "/api/v1/namespaces/default/pods/p", "/api/v1/namespaces/default/services/svc"
	for name, tc := range map[string]struct {
		method, path, body string
		code               int
		want               string
	}{
		"Pod":          {"GET", pod + "/proxy/a/b?x=1;y&x=2", "", 200, `p: GET /a/b?x=1;y&x=2 with ""`},
		"Port":         {"POST", pod + ":8080/proxy/a", "body", 200, `p: POST /a with "body"`},
		"Scheme":       {"DELETE", "/api/v1/namespaces/default/pods/http:p:8080/proxy/", "", 200, `p: DELETE / with ""`},
		"Escapes":      {"PUT", pod + "/proxy/a%2Fb/%E2%82%AC", "", 200, `p: PUT /a%2Fb/%E2%82%AC with ""`},
		"TwoSlashes":   {"GET", pod + "/proxy//api/health", "", 200, `p: GET //api/health with ""`},
		"NoHost":       {"GET", pod + "/proxy//x:abc", "", 200, `p: GET //x:abc with ""`},
		"Service":      {"PATCH", service + "/proxy/a", "", 200, `p: PATCH /a with ""`},
		"ServicePort":  {"GET", service + ":80/proxy/a", "", 200, `p: GET /a with ""`},
		"NamedPort":    {"GET", service + ":80-8080/proxy/a", "", 200, `p: GET /a with ""`},
		"Page":         {"GET", pod + "/proxy/page", "", 200, `href="` + pod + `/proxy/style.css"`},
		"NoSlash":      {"GET", pod + "/proxy", "", 301, ""},
		"Moved":        {"GET", service + "/proxy/moved", "", 302, ""},
		"NobodyThere":  {"GET", pod + ":8081/proxy/", "", 503, "error trying to reach service"},
		"NoSuchPod":    {"GET", "/api/v1/namespaces/default/pods/q/proxy/", "", 404, `pods \"q\" not found`},
		"NoSuchPort":   {"GET", service + ":81/proxy/", "", 503, "no service port 81 found"},
		"NoEndpoints":  {"GET", "/api/v1/namespaces/default/services/idle/proxy/", "", 503, "no endpoints available"},
		"NoSuchScheme": {"GET", "/api/v1/namespaces/default/pods/ftp:p:8080/proxy/", "", 400, "invalid pod request"},
	} {
		t.Run(name, func(t *testing.T) {
			res, body := ask(kubeconfig, tc.method, tc.path, tc.body, nil)
			if res.StatusCode != tc.code || !strings.Contains(body, tc.want) || strings.Contains(body, "10.1.2.3") {
				t.Errorf("%d %s, want %d %s", res.StatusCode, body, tc.code, tc.want)
			}
			switch location := res.Header.Get("Location"); {
			case name == "Moved" && !strings.HasSuffix(location, service+"/proxy/there"), name == "NoSlash" && !strings.HasSuffix(location, pod+"/proxy/"):
				t.Errorf("Location is %q", location)
			}
		})
	}
	t.Run("Credentials", func(t *testing.T) {
		token := strings.TrimSpace(w.must(t, kubeconfig, "", "create", "token", "default"))
		w.must(t, kubeconfig, "", "create", "clusterrolebinding", "all", "--clusterrole=cluster-admin", "--serviceaccount=default:default")
		w.may(t, kubeconfig, "get", "pods", "--subresource=proxy", "--as=system:serviceaccount:default:default")
		_, body := ask(kubeconfig, "GET", pod+"/proxy/", "", http.Header{"Authorization": {"Bearer " + token}, "Impersonate-User": {"admin"}, "Impersonate-Group": {"system:masters"}})
		if !strings.Contains(body, `authorization "" as ""`) {
			t.Errorf("the pod is told %s", body)
		}
	})
	t.Run("Rights", func(t *testing.T) {
		w.must(t, kubeconfig, "", "create", "role", "look", "--verb=get", "--resource=pods/proxy")
		w.must(t, kubeconfig, "", "create", "rolebinding", "look", "--role=look", "--user=bob")
		w.may(t, kubeconfig, "get", "pods", "--subresource=proxy", "--as=bob")
		as := http.Header{"Impersonate-User": {"bob"}}
		if res, body := ask(kubeconfig, "GET", pod+"/proxy/", "", as); res.StatusCode != 200 {
			t.Errorf("with the right: %d %s", res.StatusCode, body)
		}
		res, body := ask(kubeconfig, "POST", pod+"/proxy/", "", as)
		if want := `User \"bob\" cannot create resource \"pods/proxy\" in API group \"\" in the namespace \"default\"`; res.StatusCode != 403 || !strings.Contains(body, want) {
			t.Errorf("without the right: %d %s, want %s", res.StatusCode, body, want)
		}
		if res, body := ask(kubeconfig, "GET", service+"/proxy/", "", as); res.StatusCode != 403 {
			t.Errorf("for another resource: %d %s", res.StatusCode, body)
		}
		for _, path := range []string{pod, "/api/v1/namespaces/proxy0-default/pods/p"} {
			if res, body := ask(other, "GET", path+"/proxy/", "", nil); res.StatusCode != 404 {
				t.Errorf("for another tenant: %d %s", res.StatusCode, body)
			}
		}
	})
	t.Run("Policies", func(t *testing.T) {
		w.must(t, kubeconfig, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: connect.example.com}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CONNECT], resources: [pods/proxy, services/proxy]}
  validations:
  - expression: "!object.path.startsWith('/secret')"
    messageExpression: "request.userInfo.username + ' connects no ' + request.resource.resource + '/' + request.name + ' of ' + request.namespace + ' to ' + object.path"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: connect.example.com}
spec: {policyName: connect.example.com, validationActions: [Deny]}
`, "apply", "-f", "-")
		eventually(t, "a policy is in force", func() bool {
			res, _ := ask(kubeconfig, "GET", pod+"/proxy/secret/a", "", nil)
			return res.StatusCode == 422
		})
		for path, want := range map[string]string{
			pod + ":8080/proxy/secret?x=1": "admin connects no pods/p:8080 of default to /secret", pod + ":8080/proxy/%73ecret": "admin connects no pods/p:8080 of default to /secret", service + "/proxy/secret": "admin connects no services/svc of default to /secret",
		} {
			res, body := ask(kubeconfig, "GET", path, "", nil)
			if res.StatusCode != 422 || !strings.Contains(body, want) || !strings.Contains(body, "ValidatingAdmissionPolicy 'connect.example.com' with binding 'connect.example.com' denied request") {
				t.Errorf("%s: %d %s", path, res.StatusCode, body)
			}
		}
		if res, body := ask(kubeconfig, "GET", pod+"/proxy/open", "", nil); res.StatusCode != 200 {
			t.Errorf("what the policy allows: %d %s", res.StatusCode, body)
		}
		w.must(t, kubeconfig, "", "delete", "validatingadmissionpolicybinding", "connect.example.com")
		eventually(t, "the policy is out of force", func() bool {
			res, _ := ask(kubeconfig, "GET", pod+"/proxy/secret", "", nil)
			return res.StatusCode == 200
		})
	})
	t.Run("Upgrade", func(t *testing.T) {
		config := client(t, kubeconfig)
		tlsConfig, err := rest.TLSConfigFor(config)
		if err != nil {
			t.Fatal(err)
		}
		tlsConfig.NextProtos = []string{"http/1.1"}
		conn, err := dialTLS(strings.TrimPrefix(config.Host, "https://"), tlsConfig)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = fmt.Fprintf(conn, "GET %s/proxy/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", pod)
		reader := bufio.NewReader(conn)
		res, err := http.ReadResponse(reader, nil)
		if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("upgrade: %+v %v", res, err)
		}
		_, _ = io.WriteString(conn, "hello\n")
		if line, err := reader.ReadString('\n'); line != "again hello\n" {
			t.Errorf("echo is %q %v", line, err)
		}
	})
}

func dialTLS(address string, config *tls.Config) (net.Conn, error) {
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(soon))
}
