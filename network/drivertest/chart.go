package drivertest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/network"
)

// Chart puts into a cluster what `vivarium pool register` does for a driver, and gives the cluster as the platform then has it:
// with the rights and under the admission policies of the chart and no others. It returns once the rights hold; for policies
// there is [Refused]. with are other drivers whose files the driver needs.
func Chart(t *testing.T, admin *rest.Config, driver string, with ...string) network.Pool {
	t.Helper()
	c, err := client.New(admin, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	files := []string{"clusterrole.yaml", "access.yaml", "policy.yaml"}
	for _, part := range append(with, driver) {
		files = append(files, part+"/access.yaml", part+"/policy.yaml")
	}
	for _, file := range files {
		for _, object := range Manifest(t, file) {
			if err := c.Create(t.Context(), object); err != nil && !apierrors.IsAlreadyExists(err) {
				t.Fatalf("%s: %v", file, err)
			}
		}
	}
	config := rest.CopyConfig(admin)
	config.QPS = -1
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:vivarium-system:vivarium"}
	await(t, "the rights of driver "+driver, func() error {
		report, err := pools.Preflight(t.Context(), config, driver)
		if err == nil && len(report.Missing) > 0 {
			err = errors.New(strings.Join(report.Missing, "; "))
		}
		return err
	})
	return network.Pool{Name: "pool-a", ControlUID: "control", Client: kubernetes.NewForConfigOrDie(config), Dynamic: dynamic.NewForConfigOrDie(config)}
}

// Manifest reads a file of the pool's chart; none where there is no such file. It is called in a driver's own package.
func Manifest(t *testing.T, file string) []*unstructured.Unstructured {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "charts", "vivarium-pool", "files", file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var all []*unstructured.Unstructured
	for document := range strings.SplitSeq(string(raw), "\n---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if len(object.Object) > 0 {
			all = append(all, object)
		}
	}
	return all
}

// Refused waits until something is refused by an admission policy, in these words: policies hold a moment after they were made.
func Refused(t *testing.T, words string, try func() error) {
	t.Helper()
	await(t, "a refusal with "+words, func() error {
		err := try()
		if apierrors.IsForbidden(err) && strings.Contains(err.Error(), words) {
			return nil
		}
		if err == nil {
			err = errors.New("it was allowed")
		}
		return err
	})
}

// DryRun is for what is tried and must not be there afterwards.
var DryRun = metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}

func await(t *testing.T, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) || t.Context().Err() != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}
