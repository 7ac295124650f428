package localcluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"vivarium.io/vivarium/internal/localcluster/node"
	"vivarium.io/vivarium/internal/localcluster/process"
)

// starterArg makes the test binary a starter that a test can kill.
const starterArg = "test-starter"

// TestMain lets the test binary stand in for `vivarium`, as the first process of nodes and as a starter.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 {
		var err error
		switch os.Args[1] {
		case node.InitArg:
			err = node.Run(os.Args[2])
		case starterArg:
			err = Up(context.Background(), testConfig(os.Args[2]))
		default:
			os.Exit(m.Run())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// testConfig is one pool with one real node, and no platform.
func testConfig(dir string) UpConfig {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return UpConfig{RunDir: dir, Self: self, PortBase: testPortBase(), Nodes: NodesReal, Pools: 1, Progress: NewProgress(os.Stderr)}
}

// testPortBase keeps clear of what people and other tests start.
func testPortBase() int {
	if base, err := strconv.Atoi(os.Getenv("LOCALCLUSTER_PORT_BASE")); err == nil {
		return base
	}
	return 18000
}

// newRunDir gives a run directory for a test that needs real nodes, and skips it where there can be none. Nothing of an
// instance is left there when the test ends.
func newRunDir(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts clusters, which -short rules out")
	}
	if err := node.Possible(); err != nil {
		t.Skip(err)
	}
	// The test looks at the machine with the same tools, before `up` would install them.
	if err := installTools(t.Context(), NewProgress(os.Stderr)); err != nil {
		t.Fatal(err)
	}
	source, err := FindSource()
	if err != nil {
		t.Fatal(err)
	}
	if binaries, err := OpenBinaries(source); err != nil {
		t.Fatal(err)
	} else if missing := binaries.Missing(); len(missing) > 0 && os.Getenv("CI") == "" {
		t.Skipf("%s is not built; run `make kubernetes` first", missing[0])
	}
	dir := filepath.Join(t.TempDir(), "run")
	t.Cleanup(func() {
		if t.Failed() {
			keepLogs(t, filepath.Join(dir, "logs"))
		}
		if err := Down(context.Background(), dir, false, nil); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func keepLogs(t *testing.T, logs string) {
	t.Helper()
	if artifacts := os.Getenv("ARTIFACTS"); artifacts != "" {
		_ = os.CopyFS(filepath.Join(artifacts, t.Name()), os.DirFS(logs))
	}
}

// machine is what an instance might leave behind.
type machine struct {
	Processes, Mounts, Links, Routes, Cgroups, Filters []string
}

// look lists what there is on the machine, except for what belongs to other instances by its name.
func look(t *testing.T, id, dir string) machine {
	t.Helper()
	other := regexp.MustCompile(`(?:vv|vivarium-)([0-9a-f]{8})`)
	keep := func(lines []string) []string {
		var kept []string
		for _, line := range lines {
			if match := other.FindStringSubmatch(line); match == nil || match[1] == id {
				kept = append(kept, line)
			}
		}
		slices.Sort(kept)
		return kept
	}
	output := func(name string, args ...string) []string {
		t.Helper()
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	lines := func(file string) []string {
		t.Helper()
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(raw)), "\n")
	}
	m := machine{
		Links:   keep(output("ip", "-o", "-br", "link")),
		Routes:  keep(output("ip", "route")),
		Filters: keep(append(output("nft", "list", "ruleset"), lines("/proc/sys/net/ipv4/ip_forward")...)),
	}
	for _, line := range lines("/proc/self/mountinfo") {
		mount := strings.Fields(line)[4]
		// Tests of other packages mount network namespaces in temporary directories of their own.
		if temp := os.TempDir() + "/"; strings.HasPrefix(mount, temp) && !strings.HasPrefix(mount, filepath.Dir(dir)+"/") {
			continue
		}
		m.Mounts = append(m.Mounts, mount)
	}
	m.Mounts = keep(m.Mounts)
	cgroups, _ := filepath.Glob("/sys/fs/cgroup/vivarium*")
	split, _ := filepath.Glob("/sys/fs/cgroup/*/vivarium*")
	m.Cgroups = keep(append(cgroups, split...))
	// Other processes come and go; those of the instance carry its mark, its directory or its cgroup. Containers carry
	// the last only.
	mark := processMark(id)
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range all {
		read := func(file string) string {
			raw, _ := os.ReadFile(filepath.Join(proc, file))
			return string(raw)
		}
		if filepath.Base(proc) == strconv.Itoa(os.Getpid()) || read("cmdline") == "" {
			continue
		}
		if strings.Contains(read("environ"), mark) || strings.Contains(read("cmdline"), dir) || strings.Contains(read("cgroup"), cgroupName(id)) {
			m.Processes = append(m.Processes, read("comm"))
		}
	}
	slices.Sort(m.Processes)
	return m
}

// TestLife follows an instance with a running container through accidents and repairs to its end, and looks whether the
// machine is as it was before.
func TestLife(t *testing.T) {
	dir := newRunDir(t)
	id := instanceID(dir)
	before := look(t, id, dir)
	if err := Up(t.Context(), testConfig(dir)); err != nil {
		t.Fatal(err)
	}
	instance := open(t, dir)
	client := poolClient(t, instance)
	runPod(t, client)

	t.Run("EverythingIsSeen", func(t *testing.T) {
		during := look(t, id, dir)
		for what, count := range map[string]int{
			"processes": len(during.Processes) - len(before.Processes) - 8, "links": len(during.Links) - len(before.Links) - 1,
			"cgroups": len(during.Cgroups) - len(before.Cgroups), "filters": len(during.Filters) - len(before.Filters),
		} {
			if count <= 0 {
				t.Errorf("the test is blind to the instance's %s", what)
			}
		}
		if diff := cmp.Diff(before.Mounts, during.Mounts); diff != "" {
			t.Errorf("the host sees mounts of the instance:\n%s", diff)
		}
		if status := instance.Status(); !status.Running || len(status.Pools) != 1 || status.Pools[0].Simulated {
			t.Errorf("status: %+v", status)
		}
	})

	t.Run("UpAgainChangesNothing", func(t *testing.T) {
		ids := processIDs(open(t, dir))
		if err := Up(t.Context(), testConfig(dir)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(ids, processIDs(open(t, dir))); diff != "" {
			t.Errorf("processes (-before +after):\n%s", diff)
		}
	})

	t.Run("DaemonDies", func(t *testing.T) {
		// containerd is not the node: its containers and the node live on, and it comes back by itself.
		pod := getPod(t, client)
		killDaemon(t, instance, "containerd")
		eventually(t, func() error {
			_, err := node.Import(t.Context(), instance.processes.Get("pool-a-node-0").ID(), mustRuntime(t), instance.nodeDir("pool-a", 0), archives(t)[0].Path)
			return err
		})
		if again := getPod(t, client); restarts(again) != restarts(pod) {
			t.Errorf("the container was restarted %d times", restarts(again))
		}
	})

	t.Run("NodeAndServerDie", func(t *testing.T) {
		instance := open(t, dir)
		for _, name := range []string{"pool-a-node-0", "pool-a-kube-apiserver"} {
			if err := instance.processes.Get(name).Stop(0); err != nil {
				t.Fatal(err)
			}
		}
		if instance.Status().Running {
			t.Error("status does not see that something has died")
		}
		if problems, err := Doctor(t.Context(), dir); err != nil || len(problems) < 2 {
			t.Errorf("doctor: %v, %v", problems, err)
		}
		if err := Up(t.Context(), testConfig(dir)); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if pod := getPod(t, client); restarts(pod) == 0 || !ready(pod) {
				return fmt.Errorf("the pod did not come back: %+v", pod.Status)
			}
			return nil
		})
	})

	if err := Down(t.Context(), dir, false, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, look(t, id, dir)); diff != "" {
		t.Errorf("down left something (-before +after):\n%s", diff)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the run directory is still there: %v", err)
	}
}

// TestDownAfterKill kills a starter at several moments, and once takes its directory away as well.
func TestDownAfterKill(t *testing.T) {
	for name, after := range map[string]time.Duration{"Early": 300 * time.Millisecond, "Middle": 1500 * time.Millisecond, "Late": 5 * time.Second} {
		t.Run(name, func(t *testing.T) {
			dir := newRunDir(t)
			id := instanceID(dir)
			before := look(t, id, dir)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			starter := exec.Command(self, starterArg, dir)
			starter.Stderr = os.Stderr
			if err := starter.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(after)
			if err := starter.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = starter.Wait()
			if name == "Late" {
				if err := os.RemoveAll(filepath.Join(dir, "run")); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(filepath.Join(dir, stateFile)); err != nil {
					t.Fatal(err)
				}
			}
			if err := Down(t.Context(), dir, false, nil); err != nil {
				t.Fatal(err)
			}
			after := look(t, id, dir)
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("down left something (-before +after):\n%s", diff)
			}
		})
	}
}

func open(t *testing.T, dir string) *Instance {
	t.Helper()
	instance, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return instance
}

func processIDs(i *Instance) map[string]process.ID {
	ids := map[string]process.ID{}
	for _, p := range i.processes.All() {
		ids[p.Name()] = p.ID()
	}
	return ids
}

func poolClient(t *testing.T, i *Instance) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", i.poolKubeconfig("pool-a"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// runPod starts a pod with a container and waits until it runs.
func runPod(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	eventually(t, func() error {
		_, err := client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "pod"},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{
				Name: "c", Image: shellImage, Command: []string{"sleep", "100000"}, ImagePullPolicy: corev1.PullNever,
			}}},
		}, metav1.CreateOptions{})
		return err
	})
	eventually(t, func() error {
		if pod := getPod(t, client); !ready(pod) {
			return fmt.Errorf("the pod is not ready: %+v", pod.Status)
		}
		return nil
	})
	pod := getPod(t, client)
	if addr, err := netip.ParseAddr(pod.Status.PodIP); err != nil || !podNetwork(networks(testPortBase())[0], 0, 0).Contains(addr) {
		t.Logf("the pod's address is %s", pod.Status.PodIP) // another network where the first is taken
	}
}

func getPod(t *testing.T, client kubernetes.Interface) *corev1.Pod {
	t.Helper()
	pod, err := client.CoreV1().Pods("default").Get(t.Context(), "pod", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func restarts(pod *corev1.Pod) int32 {
	if len(pod.Status.ContainerStatuses) == 0 {
		return 0
	}
	return pod.Status.ContainerStatuses[0].RestartCount
}

// killDaemon kills a daemon of the node: a child of the node's first process.
func killDaemon(t *testing.T, i *Instance, name string) {
	t.Helper()
	parent := strconv.Itoa(i.processes.Get("pool-a-node-0").ID().PID)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		raw, _ := os.ReadFile(file)
		fields := strings.Fields(string(raw))
		if len(fields) > 3 && fields[1] == "("+name+")" && fields[3] == parent {
			pid, err := strconv.Atoi(fields[0])
			if err == nil {
				err = syscall.Kill(pid, syscall.SIGKILL)
			}
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("the node has no %s", name)
}

func mustRuntime(t *testing.T) node.Runtime {
	t.Helper()
	runtime, missing := node.FindRuntime()
	if len(missing) > 0 {
		t.Fatal(missing)
	}
	return runtime
}

func archives(t *testing.T) []Archive {
	t.Helper()
	source, err := FindSource()
	if err != nil {
		t.Fatal(err)
	}
	binaries, err := OpenBinaries(source)
	if err != nil {
		t.Fatal(err)
	}
	all, err := BuildImages(t.Context(), source, binaries, nil)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
