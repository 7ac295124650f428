package podspec

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// TestServiceLinks compares with what a kubelet gives.
func TestServiceLinks(t *testing.T) {
	services := []Service{
		{Name: "my-db", ClusterIP: "192.0.2.7", Ports: []corev1.ServicePort{{Name: "sql-too", Port: 5432}, {Port: 53, Protocol: corev1.ProtocolUDP}}},
		{Name: "headless", ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 80}}},
		{Name: "elsewhere", Ports: []corev1.ServicePort{{Port: 80}}},
		{Name: "kubernetes", ClusterIP: "192.0.2.1", Ports: []corev1.ServicePort{{Port: 443}}},
	}
	all := map[string]string{
		"MY_DB_SERVICE_HOST": "192.0.2.7", "MY_DB_SERVICE_PORT": "5432", "MY_DB_SERVICE_PORT_SQL_TOO": "5432",
		"MY_DB_PORT": "tcp://192.0.2.7:5432", "MY_DB_PORT_5432_TCP": "tcp://192.0.2.7:5432", "MY_DB_PORT_5432_TCP_PROTO": "tcp",
		"MY_DB_PORT_5432_TCP_PORT": "5432", "MY_DB_PORT_5432_TCP_ADDR": "192.0.2.7",
		"MY_DB_PORT_53_UDP": "udp://192.0.2.7:53", "MY_DB_PORT_53_UDP_PROTO": "udp", "MY_DB_PORT_53_UDP_PORT": "53", "MY_DB_PORT_53_UDP_ADDR": "192.0.2.7",
	}
	cases := map[string]struct {
		reason string
		change func(*corev1.PodSpec)
		want   map[string]string
	}{
		"Default": {"a pod that says nothing gets links", func(*corev1.PodSpec) {}, all},
		"Refused": {"a pod may not want them", func(s *corev1.PodSpec) { s.EnableServiceLinks = ptr.To(false) }, nil},
		"EnvFrom": {"what comes from a ConfigMap must win, and could not", func(s *corev1.PodSpec) {
			s.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{}}}
		}, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := simplePod()
			tc.change(&pod.Spec)
			at := place()
			at.Services = services
			pool, err := ToPool(pod, at)
			if err != nil {
				t.Fatal(err)
			}
			var got map[string]string
			for _, e := range pool.Spec.Containers[0].Env[:len(pool.Spec.Containers[0].Env)-len((&translator{}).apiEnv())] {
				if got == nil {
					got = map[string]string{}
				}
				got[e.Name] = e.Value
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if own := pool.Spec.Containers[0].Env[len(got)]; own.Name != "KUBERNETES_SERVICE_HOST" || own.Value != "192.0.2.9" {
				t.Errorf("the API is at %+v", own)
			}
		})
	}
	t.Run("OwnVariableWins", func(t *testing.T) {
		pod := simplePod()
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "MY_DB_PORT", Value: "mine"}}
		at := place()
		at.Services = services
		pool, err := ToPool(pod, at)
		if err != nil {
			t.Fatal(err)
		}
		var values []string
		for _, e := range pool.Spec.Containers[0].Env {
			if e.Name == "MY_DB_PORT" {
				values = append(values, e.Value)
			}
		}
		if diff := cmp.Diff([]string{"mine"}, values); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
