package localcluster

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"text/template"

	"vivarium.io/vivarium/internal/localcluster/process"
	"vivarium.io/vivarium/internal/names"
)

// Pools measure what their pods use with metrics-server, as pools of real operators do, and the vk-provider serves the same
// group in the control cluster. Simulated nodes have nothing to measure.

var (
	//go:embed metrics.yaml
	metricsAPI      string
	metricsTemplate = template.Must(template.New("metrics").Parse(metricsAPI))
	//go:embed metrics-server.yaml
	metricsServerRights string
)

// The Service by which the control cluster finds the vk-provider's metrics.k8s.io.
const providerMetrics = "vivarium-metrics"

// extension says where an extension API server for metrics.k8s.io is.
type extension struct {
	Name, Namespace, Address string
	Port                     int
	// CA is the authority of its certificate, in base64.
	CA string
}

// host is the name that its certificate must have.
func (e extension) host() string { return e.Name + "." + e.Namespace + ".svc" }

// manifests are what makes a cluster ask it. caFile holds the authority of its certificate.
func (e extension) manifests(caFile string) ([]byte, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read the authority of %s: %w", e.Name, err)
	}
	e.CA = base64.StdEncoding.EncodeToString(ca)
	var out bytes.Buffer
	if err := metricsTemplate.Execute(&out, e); err != nil {
		return nil, fmt.Errorf("write the manifests of %s: %w", e.Name, err)
	}
	return out.Bytes(), nil
}

// applyManifests gives a cluster what a stream of manifests says.
func (s *starter) applyManifests(ctx context.Context, kubeconfig string, manifests []byte) error {
	cmd := exec.CommandContext(ctx, s.binaries.Path(Kubectl), "--kubeconfig="+kubeconfig,
		"--cache-dir="+s.instance.path("cache"), "apply", "--server-side", "--field-manager=vivarium-up", "--force-conflicts", "-f", "-")
	cmd.Stdin = bytes.NewReader(manifests)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, lastLines(out, 12))
	}
	return nil
}

// measure runs metrics-server for a pool. Nobody waits for its first figures.
func (s *starter) measure(ctx context.Context, plane *ControlPlane, index int) error {
	pool := s.state.Pools[index].Name
	e := extension{Name: MetricsServer, Namespace: "kube-system", Address: localhost, Port: measurerPort(s.state.PortBase, index)}
	kubeconfig, err := plane.kubeconfigFile(MetricsServer, MetricsServer)
	if err != nil {
		return err
	}
	serving, err := plane.Issue(Request{Name: MetricsServer, User: MetricsServer, Hosts: []string{localhost, e.host()}})
	if err != nil {
		return err
	}
	manifests, err := e.manifests(plane.CAFile())
	if err != nil {
		return err
	}
	if err := s.applyManifests(ctx, s.instance.poolKubeconfig(pool), append([]byte(metricsServerRights), manifests...)); err != nil {
		return fmt.Errorf("give %s its metrics-server: %w", pool, err)
	}
	_, err = s.ensure(process.Spec{
		Name: pool + "-" + MetricsServer,
		Path: s.measurer.Path(MetricsServer),
		Args: []string{
			"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
			"--bind-address=" + localhost, "--secure-port=" + strconv.Itoa(e.Port),
			"--tls-cert-file=" + serving.Cert, "--tls-private-key-file=" + serving.Key,
			"--kubelet-certificate-authority=" + plane.CAFile(),
			"--kubelet-preferred-address-types=InternalIP", "--kubelet-use-node-status-port",
			// The shortest that it takes: whoever tries out autoscaling waits for it.
			"--metric-resolution=10s", "--kubelet-request-timeout=5s",
		},
	})
	return err
}

// providerExtension is the vk-provider's metrics.k8s.io.
func (p *platform) providerExtension() extension {
	return extension{Name: providerMetrics, Namespace: names.SystemNamespace, Address: p.state.address(), Port: p.state.PortBase + portMetrics}
}
