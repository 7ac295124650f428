package vkprovider_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"vivarium.io/vivarium/internal/kubetest"
)

// What a run that stalls leaves for whoever has to find out why.

// settle waits until both sides agree, and tells all there is to know when they do not.
func (w *world) settle(t *testing.T, instances []*running, agree func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		for _, r := range instances {
			r.mustRun()
		}
		err := agree()
		if err == nil {
			w.tellRevived(t)
			return
		}
		if time.Now().After(deadline) {
			w.tell(t, instances...)
			t.Fatalf("both sides agree: %v", err)
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("both sides agree: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tell logs what is known of each pod that stands in the way, of the nodes, and of the program.
func (w *world) tell(t *testing.T, instances ...*running) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	above, below := map[types.UID]*corev1.Pod{}, map[types.UID]*corev1.Pod{}
	list, err := w.controlClient.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Logf("control: %v", err)
		return
	}
	for i := range list.Items {
		above[list.Items[i].UID] = &list.Items[i]
	}
	for name, p := range w.pools {
		list, err := p.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Logf("%s: %v", name, err)
			continue
		}
		for i := range list.Items {
			pod := &list.Items[i]
			below[controlUID(pod)] = pod
			if control := above[controlUID(pod)]; control == nil || isReady(pod) != nil || isReady(control) != nil {
				t.Logf("%s: %s", name, inShort(pod))
				tellEvents(ctx, t, p.client, pod)
			}
		}
		tellNodes(ctx, t, name, p.client)
	}
	for uid, pod := range above {
		if below[uid] == nil || isReady(pod) != nil {
			t.Logf("control: %s", inShort(pod))
			tellEvents(ctx, t, w.controlClient, pod)
		}
	}
	tellNodes(ctx, t, "control", w.controlClient)
	for _, r := range instances {
		r.tell(t)
	}
	w.tellRevived(t)
}

// tellRevived logs which of the clusters' own programs ended by themselves and were started again. A scheduler does so when
// a bound pod and a namesake of it have come and gone while its watch was down; see ADR 23.
func (w *world) tellRevived(t *testing.T) {
	t.Helper()
	told := func(where string, cluster *kubetest.Cluster) {
		for _, ended := range cluster.Revived() {
			lines := strings.Split(strings.TrimSpace(ended.Error()), "\n")
			t.Logf("%s: %s: %s", where, lines[0], lines[len(lines)-1])
		}
	}
	told("control", w.control)
	for name, p := range w.pools {
		told(name, p.cluster)
	}
}

func inShort(pod *corev1.Pod) string {
	var conditions []string
	for _, c := range pod.Status.Conditions {
		conditions = append(conditions, fmt.Sprintf("%s=%s %s %s", c.Type, c.Status, c.Reason, c.Message))
	}
	var writes []string
	for _, f := range pod.ManagedFields {
		writes = append(writes, fmt.Sprintf("%s %s at %s", f.Manager, f.Subresource, f.Time.Format(time.TimeOnly)))
	}
	return fmt.Sprintf("%s/%s uid %s for %s version %s on %q made %s deleted %v, %s %s %s [%s], written by [%s]", pod.Namespace, pod.Name, pod.UID, controlUID(pod),
		pod.ResourceVersion, pod.Spec.NodeName, pod.CreationTimestamp.Format(time.TimeOnly), pod.DeletionTimestamp, pod.Status.Phase, pod.Status.Reason, pod.Status.Message,
		strings.Join(conditions, "; "), strings.Join(writes, "; "))
}

func tellEvents(ctx context.Context, t *testing.T, client kubernetes.Interface, pod *corev1.Pod) {
	events, err := client.CoreV1().Events(pod.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(pod.UID)})
	if err != nil {
		t.Log(err)
		return
	}
	for _, e := range events.Items {
		t.Logf("    event %s x%d %s %s: %s", e.LastTimestamp.Format(time.TimeOnly), e.Count, e.Type, e.Reason, e.Message)
	}
}

func tellNodes(ctx context.Context, t *testing.T, where string, client kubernetes.Interface) {
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Logf("%s: %v", where, err)
		return
	}
	for _, node := range nodes.Items {
		var conditions []string
		for _, c := range node.Status.Conditions {
			conditions = append(conditions, fmt.Sprintf("%s=%s %s since %s", c.Type, c.Status, c.Reason, c.LastTransitionTime.Format(time.TimeOnly)))
		}
		t.Logf("%s: node %s unschedulable %t taints %v allocatable %v [%s]", where, node.Name, node.Spec.Unschedulable, node.Spec.Taints, node.Status.Allocatable, strings.Join(conditions, "; "))
	}
}

// tell logs the program's metrics, and has it write down what it is doing, at which it ends.
func (r *running) tell(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.health+"/metrics", nil)
	if err != nil {
		t.Log(err)
		return
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Log(err)
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Log(err)
	}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "vivarium_") && !strings.Contains(line, "_bucket{") {
			t.Log(strings.TrimSpace(line))
		}
	}
	_ = r.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case err := <-r.done:
		r.done <- err
	case <-ctx.Done():
	}
}

// keepLog puts all that the program has said beside the logs of the clusters.
func (r *running) keepLog(t *testing.T) {
	artifacts := os.Getenv("ARTIFACTS")
	if artifacts == "" {
		return
	}
	file := filepath.Join(artifacts, strings.NewReplacer("/", "_", " ", "_").Replace(t.Name()), fmt.Sprintf("vk-provider-%d.log", r.cmd.Process.Pid))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Log(err)
		return
	}
	if err := os.WriteFile(file, r.log.Bytes(), 0o644); err != nil {
		t.Log(err)
	}
}
