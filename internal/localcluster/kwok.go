package localcluster

import (
	"context"
	"fmt"
	"runtime"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"vivarium.io/vivarium/internal/localcluster/process"
)

// SimulatedLabel marks nodes whose pods only look as if they ran.
const SimulatedLabel = "vivarium.io/simulated"

// simulateNodes gives a pool nodes that KWOK plays.
func (s *starter) simulateNodes(ctx context.Context, plane *ControlPlane, client kubernetes.Interface, index int) error {
	pool := s.state.Pools[index]
	kubeconfig, err := plane.kubeconfigFile(Kwok, "kwok", adminGroup)
	if err != nil {
		return err
	}
	if _, err := s.ensure(process.Spec{
		Name: pool.Name + "-" + Kwok,
		Path: s.kwok.Path(Kwok),
		Args: []string{
			"--kubeconfig=" + kubeconfig,
			"--manage-nodes-with-label-selector=" + SimulatedLabel + "=true",
			"--cidr=" + podNetwork(networks(s.state.PortBase)[0], index, 0).String(),
			"--node-ip=" + localhost,
			"--server-address=" + localhost + ":" + strconv.Itoa(simulatorPort(s.state.PortBase, index)),
		},
	}); err != nil {
		return err
	}
	for n := range pool.Nodes {
		_, err := client.CoreV1().Nodes().Create(ctx, simulatedNode(n), metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make a simulated node in %s: %w", pool.Name, err)
		}
	}
	return nil
}

func simulatedNode(n int) *corev1.Node {
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("16"),
		corev1.ResourceMemory:           resource.MustParse("64Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("100Gi"),
		corev1.ResourcePods:             resource.MustParse("110"),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: nodeName(n),
			Labels: map[string]string{
				SimulatedLabel:         "true",
				corev1.LabelHostname:   nodeName(n),
				corev1.LabelOSStable:   "linux",
				corev1.LabelArchStable: runtime.GOARCH,
				"kubernetes.io/role":   "agent",
				"type":                 "kwok",
			},
		},
		Status: corev1.NodeStatus{Capacity: capacity, Allocatable: capacity},
	}
}
