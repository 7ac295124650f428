package localcluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"vivarium.io/vivarium/internal/localcluster/image"
	"vivarium.io/vivarium/internal/localcluster/node"
)

// The images that every local node has. No registry knows their domain.
const (
	pauseImage   = "vivarium.test/pause:v1"
	shellImage   = "vivarium.test/shell:v1"
	echoImage    = "vivarium.test/echo:v1"
	kubectlImage = "vivarium.test/kubectl:v1"
)

// Archive is an image in a file.
type Archive struct {
	// Name is the image's.
	Name string
	// Path is the file's; it names the content, too: other content has another path.
	Path string
}

// BuildImages gives the archives of all images for local nodes, made from the checkout's programs, the machine's busybox
// and kubectl on first use and cached like the programs of Kubernetes, which must be built.
func BuildImages(ctx context.Context, source string, binaries *Binaries, progress *Progress) ([]Archive, error) {
	busybox, err := staticBusybox()
	if err != nil {
		return nil, err
	}
	key, err := imagesKey(source, busybox, binaries)
	if err != nil {
		return nil, err
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "images-"+key)
	var archives []Archive
	missing := false
	for _, name := range []string{pauseImage, shellImage, echoImage, kubectlImage} {
		file := strings.TrimSuffix(filepath.Base(name), ":v1") + ".tar"
		archives = append(archives, Archive{Name: name, Path: filepath.Join(dir, file)})
		_, err := os.Stat(archives[len(archives)-1].Path)
		missing = missing || err != nil
	}
	if !missing {
		return archives, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make images: %w", err)
	}
	unlock, err := lockFile(ctx, filepath.Join(dir, ".lock"), func() { progress.Say("another process makes the images; waiting for it ...") })
	if err != nil {
		return nil, err
	}
	defer unlock()
	err = progress.Step("making images", func() error { return writeImages(ctx, source, dir, busybox, binaries, archives) })
	return archives, err
}

// imagesKey changes whenever an image would.
func imagesKey(source, busybox string, binaries *Binaries) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOARCH, filepath.Base(binaries.Dir()))
	files := []string{busybox, filepath.Join(source, "internal", "localcluster", "images.go")}
	for _, dir := range []string{filepath.Join(source, "hack", "images"), filepath.Join(source, "internal", "localcluster", "image")} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			return "", fmt.Errorf("find the images' sources: %w", err)
		}
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("find the images' sources: %w", err)
		}
		fmt.Fprintf(h, "%s %x\n", filepath.Base(file), sha256.Sum256(raw))
	}
	return fmt.Sprintf("%.12x", h.Sum(nil)), nil
}

func writeImages(ctx context.Context, source, dir, busybox string, binaries *Binaries, archives []Archive) error {
	read := map[string][]byte{}
	for _, name := range []string{"pause", "echo"} {
		if err := goBuild(ctx, source, program{name, "./hack/images/" + name}, filepath.Join(dir, name), "-s -w"); err != nil {
			return err
		}
		read[name] = nil
	}
	for name, path := range map[string]string{
		"pause": filepath.Join(dir, "pause"), "echo": filepath.Join(dir, "echo"), "busybox": busybox, "kubectl": binaries.Path(Kubectl),
	} {
		raw, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("make images: %w", err)
		}
		read[name] = raw
	}
	applets, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("list what %s can do: %w", busybox, err)
	}
	shell := shellLayer(read["busybox"], strings.Fields(string(applets)))
	path := []string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
	images := []image.Image{
		{Name: pauseImage, Layers: []image.Layer{programLayer("/pause", read["pause"])}, Config: image.Config{Entrypoint: []string{"/pause"}}},
		{Name: shellImage, Layers: []image.Layer{shell}, Config: image.Config{Env: path, Cmd: []string{"/bin/sh"}}},
		{Name: echoImage, Layers: []image.Layer{shell, programLayer("/echo", read["echo"])}, Config: image.Config{
			Env: path, Entrypoint: []string{"/echo"}, Ports: map[string]struct{}{"8080/tcp": {}},
		}},
		{Name: kubectlImage, Layers: []image.Layer{shell, programLayer("/usr/bin/kubectl", read["kubectl"])}, Config: image.Config{
			Env: path, Cmd: []string{"/bin/sh"},
		}},
	}
	for i, img := range images {
		img.Architecture = runtime.GOARCH
		var out bytes.Buffer
		if err := img.Write(&out); err != nil {
			return err
		}
		if err := writeFile(archives[i].Path, out.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func programLayer(path string, content []byte) image.Layer {
	return image.Layer{{Path: path, Mode: 0o755, Content: content}}
}

// shellLayer is busybox with a link for each of its commands, and what a system has to have besides.
func shellLayer(busybox []byte, applets []string) image.Layer {
	layer := image.Layer{
		{Path: "/bin/busybox", Mode: 0o755, Content: busybox},
		{Path: "/etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		{Path: "/etc/group", Mode: 0o644, Content: []byte("root:x:0:\nnogroup:x:65534:\n")},
		{Path: "/root", Mode: fs.ModeDir | 0o700},
		{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Path: "/var/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Path: "/var/run", Mode: fs.ModeDir | 0o755},
		{Path: "/usr/local/bin", Mode: fs.ModeDir | 0o755},
		{Path: "/usr/sbin", Mode: fs.ModeDir | 0o755},
		{Path: "/sbin", Mode: fs.ModeDir | 0o755},
	}
	slices.Sort(applets)
	for _, applet := range slices.Compact(applets) {
		if applet != "busybox" {
			layer = append(layer, image.File{Path: "/bin/" + applet, Link: "busybox"})
		}
	}
	return layer
}

// staticBusybox finds a busybox that runs without the machine's libraries.
func staticBusybox() (string, error) {
	path, ok := node.FindProgram("busybox")
	if !ok {
		return "", fmt.Errorf("find a shell for the images: no busybox; install the package busybox-static")
	}
	program, err := elf.Open(path)
	if err != nil {
		return "", fmt.Errorf("find a shell for the images: %w", err)
	}
	defer program.Close()
	for _, segment := range program.Progs {
		if segment.Type == elf.PT_INTERP {
			return "", fmt.Errorf("find a shell for the images: %s is not static; install the package busybox-static", path)
		}
	}
	return path, nil
}
