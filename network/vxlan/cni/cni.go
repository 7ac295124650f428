//go:build linux

// Package cni is the network plugin of the driver vxlan, which a container runtime runs for every pod of a node. It reads
// out of the pod's annotations where the pod belongs, and plugs it in there: a VPC's pod into its VPC, a flat tenant's into
// the node's plain network by another plugin.
//
// A pod whose binding is missing, not its tenant's, or not possible here gets no network, whatever else: the package must
// never choose one for it. It asks nobody but the node. Start at [Main].
package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/network"
	"vivarium.io/vivarium/network/vxlan/internal/plane"
	"vivarium.io/vivarium/network/vxlan/internal/state"
)

// driver and driverMultus are the names by which bindings call this plugin's driver: where a runtime runs it, and where Multus
// does.
const (
	driver       = "vxlan"
	driverMultus = "multus"
)

// annotations is the capability by which a runtime gives a pod's annotations.
const annotations = "io.kubernetes.cri.pod-annotations"

// Codes of the plugins' protocol.
const (
	codeTryAgain = 11
	codeRefused  = 100
	codeFailed   = 101
)

// patience is how long a pod waits for its VPC to become known here, before the runtime is told to try again: a runtime
// takes many times as long until it does.
var patience = 8 * time.Second

// configuration is what the runtime gives.
type configuration struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	// Dir is the agent's.
	Dir string `json:"dir"`
	// Namespaces are the pool's own whose pods need no binding and are in the node's plain network.
	Namespaces []string `json:"namespaces"`
	// Delegate is the configuration of the plugin of the node's plain network.
	Delegate      map[string]any             `json:"delegate"`
	RuntimeConfig map[string]json.RawMessage `json:"runtimeConfig"`
	// Args is what Multus says about the pod: it passes on no annotations.
	Args struct {
		CNI map[string]any `json:"cni"`
	} `json:"args"`
}

// versions are those of the protocol that the plugin speaks.
var versions = []string{"0.3.1", "0.4.0", "1.0.0"}

// failure is an error with its code.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func refuse(format string, args ...any) error {
	return &failure{codeRefused, fmt.Errorf(format+" (refused)", args...)}
}

// Main does what the environment asks for, and gives the exit code.
func Main(env func(string) string, stdin io.Reader, stdout io.Writer) int {
	raw, err := io.ReadAll(stdin)
	if err != nil {
		return complain(stdout, "1.0.0", err)
	}
	if env("CNI_COMMAND") == "VERSION" {
		return write(stdout, map[string]any{"cniVersion": "1.0.0", "supportedVersions": versions})
	}
	config := configuration{CNIVersion: "1.0.0"}
	if err := json.Unmarshal(raw, &config); err != nil {
		return complain(stdout, config.CNIVersion, fmt.Errorf("read the configuration: %w", err))
	}
	if !slices.Contains(versions, config.CNIVersion) {
		return complain(stdout, "1.0.0", &failure{1, fmt.Errorf("cniVersion %q is none of %v", config.CNIVersion, versions)})
	}
	c := &call{configuration: config, env: env, stdout: stdout}
	switch command := env("CNI_COMMAND"); command {
	case "ADD":
		err = c.add()
	case "DEL":
		err = c.del()
	case "CHECK":
		err = c.check()
	default:
		err = fmt.Errorf("CNI_COMMAND %q", command)
	}
	if err != nil {
		return complain(stdout, config.CNIVersion, err)
	}
	return 0
}

func write(stdout io.Writer, value any) int {
	if err := json.NewEncoder(stdout).Encode(value); err != nil {
		return 1
	}
	return 0
}

func complain(stdout io.Writer, version string, err error) int {
	code := codeFailed
	if f := (*failure)(nil); errors.As(err, &f) {
		code = f.code
	}
	write(stdout, map[string]any{"cniVersion": version, "code": code, "msg": err.Error()})
	return 1
}

// call is one run of the plugin.
type call struct {
	configuration
	env    func(string) string
	stdout io.Writer
}

// args are the runtime's about the pod.
func (c *call) args() map[string]string {
	out := map[string]string{}
	for _, pair := range strings.Split(c.env("CNI_ARGS"), ";") {
		key, value, _ := strings.Cut(pair, "=")
		out[key] = value
	}
	return out
}

// pod reads where the pod belongs, nil where that is the node's plain network.
func (c *call) pod() (*plane.Pod, names.TenantID, error) {
	args := c.args()
	namespace, name := args["K8S_POD_NAMESPACE"], args["K8S_POD_NAME"]
	notes := map[string]string{}
	if raw, ok := c.RuntimeConfig[annotations]; ok {
		if err := json.Unmarshal(raw, &notes); err != nil {
			return nil, "", fmt.Errorf("read the annotations of pod %s/%s: %w", namespace, name, err)
		}
	}
	if notes == nil { // null
		notes = map[string]string{}
	}
	by := driver
	for _, key := range []string{network.BindingAnnotation, state.PlaceAnnotation} {
		if text, ok := c.Args.CNI[key].(string); ok {
			if _, twice := notes[key]; twice && by == driver {
				return nil, "", refuse("pod %s/%s is bound by its runtime and by Multus", namespace, name)
			}
			notes[key], by = text, driverMultus
		}
	}
	tenant, _, isTenants := names.SplitNamespace(names.ControlNamespace(namespace))
	text, bound := notes[network.BindingAnnotation]
	if !bound {
		if slices.Contains(c.Namespaces, namespace) && !isTenants {
			return nil, "", nil
		}
		return nil, "", refuse("pod %s/%s has no binding", namespace, name)
	}
	binding, err := network.ParseBinding(text)
	switch {
	case err != nil:
		return nil, "", refuse("pod %s/%s: %w", namespace, name, err)
	case !isTenants || tenant != binding.Tenant || binding.Driver != by:
		return nil, "", refuse("pod %s/%s is bound as %q", namespace, name, text)
	case binding.VPC == "":
		return nil, "", nil
	}
	var place state.Place
	if err := json.Unmarshal([]byte(notes[state.PlaceAnnotation]), &place); err != nil || place.Pod == "" {
		return nil, "", refuse("pod %s/%s has the place %q in its VPC", namespace, name, notes[state.PlaceAnnotation])
	}
	return &plane.Pod{
		Container: c.env("CNI_CONTAINERID"), NetNS: c.env("CNI_NETNS"), Interface: c.env("CNI_IFNAME"),
		UID: place.Pod, Namespace: namespace, Name: name, VPC: binding.VPC, Subnet: binding.Subnet, IPs: place.IPs, MAC: place.MAC, Groups: place.Groups, Rates: place.Rates,
	}, binding.Tenant, nil
}

func (c *call) add() error {
	pod, tenant, err := c.pod()
	if err != nil {
		return err
	}
	if pod == nil {
		return c.delegate("ADD")
	}
	var attached *plane.Attached
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if attached, err = c.attach(pod, tenant); !errors.Is(err, plane.ErrNotReady) || time.Now().After(deadline) {
			break
		}
	}
	switch {
	case errors.Is(err, plane.ErrNotReady):
		return &failure{codeTryAgain, err}
	case errors.Is(err, plane.ErrRefused):
		return &failure{codeRefused, err}
	case err != nil:
		return err
	}
	// The pool knows the pod by the address that its node does.
	ip := map[string]any{"address": fmt.Sprintf("%s/%d", attached.Infra, attached.Infra.BitLen())}
	for i, link := range attached.Interfaces {
		if link.Sandbox != "" {
			ip["interface"] = i
		}
	}
	if c.CNIVersion < "1.0.0" {
		ip["version"] = "6"
		if attached.Infra.Is4() {
			ip["version"] = "4"
		}
	}
	write(c.stdout, map[string]any{"cniVersion": c.CNIVersion, "interfaces": attached.Interfaces, "ips": []any{ip}})
	return nil
}

// attach plugs the pod in, once the VPC is seen to be its tenant's.
func (c *call) attach(pod *plane.Pod, tenant names.TenantID) (*plane.Attached, error) {
	node, err := plane.Open(c.Dir)
	if err != nil {
		return nil, err
	}
	defer node.Close()
	desired, err := node.Stored(pod.VPC)
	if err != nil {
		return nil, err
	}
	if desired.Tenant != tenant {
		return nil, fmt.Errorf("%w: VPC %s is not tenant %s's", plane.ErrRefused, pod.VPC, tenant)
	}
	return node.Attach(*pod)
}

// del unplugs; what is not there is no error. Without a word of ours about the container, it is or was in the plain network.
func (c *call) del() error {
	node, err := plane.Open(c.Dir)
	if errors.Is(err, plane.ErrNotReady) {
		return c.delegate("DEL")
	}
	if err != nil {
		return err
	}
	defer node.Close()
	ours, err := node.Has(c.env("CNI_CONTAINERID"))
	if err != nil {
		return err
	}
	if ours {
		return node.Detach(c.env("CNI_CONTAINERID"))
	}
	return c.delegate("DEL")
}

func (c *call) check() error {
	pod, _, err := c.pod()
	if err != nil {
		return err
	}
	if pod == nil {
		return c.delegate("CHECK")
	}
	node, err := plane.Open(c.Dir)
	if err != nil {
		return err
	}
	defer node.Close()
	return node.Check(pod.Container)
}

// delegate has the plugin of the plain network do it, and passes on what that says.
func (c *call) delegate(command string) error {
	kind, _ := c.Delegate["type"].(string)
	if kind == "" || kind != filepath.Base(kind) {
		if command == "DEL" && kind == "" {
			return nil
		}
		return refuse("this node has no plain network")
	}
	config := map[string]any{}
	for key, value := range c.Delegate {
		config[key] = value
	}
	config["cniVersion"], config["name"] = c.CNIVersion, c.Name
	raw, err := json.Marshal(config)
	if err != nil {
		return fmt.Errorf("configure plugin %s: %w", kind, err)
	}
	program := ""
	for _, dir := range filepath.SplitList(c.env("CNI_PATH")) {
		if _, err := os.Stat(filepath.Join(dir, kind)); err == nil {
			program = filepath.Join(dir, kind)
			break
		}
	}
	if program == "" {
		return fmt.Errorf("plugin %s is not in %s", kind, c.env("CNI_PATH"))
	}
	var out bytes.Buffer
	cmd := exec.Command(program)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(raw), &out, os.Stderr
	for _, name := range []string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH", "CNI_ARGS", "PATH"} {
		cmd.Env = append(cmd.Env, name+"="+c.env(name))
	}
	cmd.Env = append(cmd.Env, "CNI_COMMAND="+command)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("plugin %s: %w: %s", kind, err, bytes.TrimSpace(out.Bytes()))
	}
	_, err = c.stdout.Write(out.Bytes())
	return err
}
