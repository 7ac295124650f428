package localcluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"vivarium.io/vivarium/internal/localcluster/image"
)

// suiteRepositories tells the suite where its images are instead of at registries that a machine may not reach.
const suiteRepositories = `promoterE2eRegistry: vivarium.test/e2e-test-images
buildImageRegistry: vivarium.test/build-image
invalidRegistry: vivarium.test/invalid
gcEtcdRegistry: vivarium.test
gcRegistry: vivarium.test
sigStorageRegistry: vivarium.test/sig-storage
privateRegistry: vivarium.test/private
dockerLibraryRegistry: vivarium.test/library
cloudProviderGcpRegistry: vivarium.test/cloud-provider-gcp
`

// SuiteEnvironment is what the suite needs in its environment to look for the images of [BuildSuiteImages].
func SuiteEnvironment(dir string) ([]string, error) {
	path := filepath.Join(dir, "repositories.yaml")
	return []string{"KUBE_TEST_REPO_LIST=" + path}, writeFile(path, []byte(suiteRepositories), 0o644)
}

// BuildSuiteImages gives the archives of those images of the suite that can be made without a registry: from the programs
// of the suite, which must be built, from busybox, and from packages of Debian. It says which it had to leave out.
func BuildSuiteImages(ctx context.Context, source string, suite *Binaries, progress *Progress) ([]Archive, error) {
	busybox, err := staticBusybox()
	if err != nil {
		return nil, err
	}
	key, err := suiteImagesKey(source, busybox, suite)
	if err != nil {
		return nil, err
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "suite-images-"+key)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the suite's images: %w", err)
	}
	unlock, err := lockFile(ctx, filepath.Join(dir, ".lock"), func() { progress.Say("another process makes the images; waiting for it ...") })
	if err != nil {
		return nil, err
	}
	defer unlock()
	wanted, err := listSuiteImages(ctx, suite, dir)
	if err != nil {
		return nil, err
	}
	b := &suiteImages{source: source, suite: suite, busybox: busybox, dir: dir, progress: progress}
	var archives []Archive
	for _, name := range wanted {
		archive := Archive{Name: name, Path: filepath.Join(dir, strings.NewReplacer("/", "_", ":", "_").Replace(name)+".tar")}
		if _, err := os.Stat(archive.Path); err != nil {
			if err := progress.Step("making "+name, func() error { return b.write(ctx, archive) }); err != nil {
				progress.Say("%s is left out, and the specs that need it will fail: %v", name, err)
				continue
			}
		}
		archives = append(archives, archive)
	}
	return archives, nil
}

// suiteImagesKey changes whenever an image would.
func suiteImagesKey(source, busybox string, suite *Binaries) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, filepath.Base(suite.Dir()))
	here := filepath.Join(source, "internal", "localcluster")
	for _, file := range []string{
		busybox, filepath.Join(here, "suite.go"), filepath.Join(here, "debian.go"), filepath.Join(here, "images.go"),
		filepath.Join(here, "image", "image.go"), filepath.Join(source, "hack", "images", "pause", "main.go"),
	} {
		raw, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("find the images' sources: %w", err)
		}
		fmt.Fprintf(h, "%s %x\n", filepath.Base(file), sha256.Sum256(raw))
	}
	return fmt.Sprintf("%.12x", h.Sum(nil)), nil
}

// listSuiteImages asks the suite which images it uses, and keeps those that there is a recipe for.
func listSuiteImages(ctx context.Context, suite *Binaries, dir string) ([]string, error) {
	env, err := SuiteEnvironment(dir)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, suite.Path(E2ETest), "--list-images")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the suite's images: %w", err)
	}
	var names []string
	for name := range strings.FieldsSeq(string(out)) {
		folder, base := path.Split(name)
		recipe, _, _ := strings.Cut(base, ":")
		if (folder == "vivarium.test/" || folder == "vivarium.test/e2e-test-images/") && recipes[recipe] != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// suiteImages makes images of the suite. What several images need is made once.
type suiteImages struct {
	source, busybox, dir string
	suite                *Binaries
	progress             *Progress

	shell   image.Layer
	agnhost []image.Layer
}

// recipes say what is in an image that the suite knows under a name.
var recipes = map[string]func(context.Context, *suiteImages) (image.Image, error){
	"agnhost": func(ctx context.Context, b *suiteImages) (image.Image, error) {
		layers, err := b.agnhostLayers(ctx)
		return image.Image{Layers: layers, Config: image.Config{
			Env: searchPath, Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"},
			Ports: map[string]struct{}{"80/tcp": {}, "5000/tcp": {}, "8080/tcp": {}, "8081/tcp": {}, "9376/tcp": {}},
		}}, err
	},
	"busybox": func(ctx context.Context, b *suiteImages) (image.Image, error) {
		shell, err := b.shellLayer(ctx)
		if err != nil {
			return image.Image{}, err
		}
		bash, err := debianLayer(ctx, "bash-static", b.progress)
		return image.Image{Layers: []image.Layer{shell, bash, bashIsShell}, Config: image.Config{Env: searchPath, Cmd: []string{"sh"}}}, err
	},
	"nonroot": func(ctx context.Context, b *suiteImages) (image.Image, error) {
		shell, err := b.shellLayer(ctx)
		return image.Image{Layers: []image.Layer{shell}, Config: image.Config{Env: searchPath, Cmd: []string{"sh"}, User: "1234"}}, err
	},
	"pause": func(ctx context.Context, b *suiteImages) (image.Image, error) {
		pause := filepath.Join(b.dir, "pause")
		if err := goBuild(ctx, b.source, program{"pause", "./hack/images/pause"}, pause, "-s -w"); err != nil {
			return image.Image{}, err
		}
		raw, err := os.ReadFile(pause)
		return image.Image{Layers: []image.Layer{programLayer("/pause", raw)}, Config: image.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"}}, err
	},
	"nonewprivs": func(ctx context.Context, b *suiteImages) (image.Image, error) {
		shell, err := b.shellLayer(ctx)
		if err != nil {
			return image.Image{}, err
		}
		nnp := filepath.Join(b.dir, "nnp")
		if err := goBuild(ctx, b.suite.module, program{"nnp", "k8s.io/kubernetes/test/images/nonewprivs"}, nnp, "-s -w"); err != nil {
			return image.Image{}, err
		}
		raw, err := os.ReadFile(nnp)
		// It tells which rights it got; that it asks for its owner's is its point.
		asOwner := image.Layer{{Path: "/usr/local/bin/nnp", Mode: fs.ModeSetuid | fs.ModeSetgid | 0o755, Content: raw}}
		return image.Image{Layers: []image.Layer{shell, asOwner}, Config: image.Config{Env: searchPath, Cmd: []string{"nnp"}}}, err
	},
	"nautilus": pictures("nautilus"),
	"kitten":   pictures("kitten"),
	"nginx": func(ctx context.Context, b *suiteImages) (image.Image, error) {
		shell, err := b.shellLayer(ctx)
		if err != nil {
			return image.Image{}, err
		}
		nginx, err := debianLayer(ctx, "nginx", b.progress)
		return image.Image{Layers: []image.Layer{shell, nginx, nginxLayer}, Config: image.Config{
			Env: searchPath, Cmd: []string{"nginx", "-g", "daemon off;"}, Ports: map[string]struct{}{"80/tcp": {}},
		}}, err
	},
}

// bashIsShell is for the specs that hand down variables with names that are no shell's, as Kubernetes allows: the shell of
// Debian's busybox, older than the image's own, keeps those from the programs that it starts. They call sh; whoever calls
// /bin/sh gets busybox's, for its words.
var bashIsShell = image.Layer{{Path: "/usr/bin/sh", Link: "/bin/bash-static"}}

var searchPath = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

// nginxLayer makes Debian's nginx serve its welcome page, in the foreground, with its logs where a container's go.
var nginxLayer = image.Layer{
	{Path: "/etc/nginx/nginx.conf", Mode: 0o644, Content: []byte(`user root;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 128; }
http {
	include /etc/nginx/mime.types;
	access_log /dev/stdout;
	server {
		listen 80 default_server;
		root /usr/share/nginx/html;
		index index.html;
	}
}
`)},
	{Path: "/run", Mode: fs.ModeDir | 0o755},
	{Path: "/var/lib/nginx", Mode: fs.ModeDir | 0o755},
	{Path: "/var/log/nginx", Mode: fs.ModeDir | 0o755},
}

// pictures is the recipe of an image that serves a file of data and a picture, by which a test tells one version of a
// program from the next.
func pictures(name string) func(context.Context, *suiteImages) (image.Image, error) {
	return func(ctx context.Context, b *suiteImages) (image.Image, error) {
		layers, err := b.agnhostLayers(ctx)
		if err != nil {
			return image.Image{}, err
		}
		html, err := b.files(ctx, path.Join("test/images", name, "html"), "/")
		return image.Image{Layers: append(slices.Clone(layers), html), Config: image.Config{
			Env: searchPath, Entrypoint: []string{"/agnhost"}, Cmd: []string{"test-webserver"}, Ports: map[string]struct{}{"80/tcp": {}},
		}}, err
	}
}

func (b *suiteImages) write(ctx context.Context, archive Archive) error {
	recipe, _, _ := strings.Cut(path.Base(archive.Name), ":")
	img, err := recipes[recipe](ctx, b)
	if err != nil {
		return err
	}
	img.Name, img.Architecture = archive.Name, runtime.GOARCH
	var out bytes.Buffer
	if err := img.Write(&out); err != nil {
		return err
	}
	return writeFile(archive.Path, out.Bytes(), 0o644)
}

func (b *suiteImages) shellLayer(ctx context.Context) (image.Layer, error) {
	if b.shell != nil {
		return b.shell, nil
	}
	raw, err := os.ReadFile(b.busybox)
	if err != nil {
		return nil, err
	}
	applets, err := exec.CommandContext(ctx, b.busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list what %s can do: %w", b.busybox, err)
	}
	b.shell = shellLayer(raw, strings.Fields(string(applets)))
	return b.shell, nil
}

// printenv is the one tool that specs call in the image and Debian's busybox lacks.
const printenv = `#!/bin/sh
[ $# -eq 0 ] && exec env
eval "[ \"\${$1+set}\" ]" || exit 1
eval "echo \"\$$1\""
`

// agnhostLayers are what the image of the suite's own program has, as far as busybox stands in for the tools that the
// original takes from its distribution.
func (b *suiteImages) agnhostLayers(ctx context.Context) ([]image.Layer, error) {
	if b.agnhost != nil {
		return b.agnhost, nil
	}
	shell, err := b.shellLayer(ctx)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(b.suite.Path(Agnhost))
	if err != nil {
		return nil, err
	}
	curl, err := debianLayer(ctx, "curl", b.progress)
	if err != nil {
		return nil, err
	}
	own, err := b.files(ctx, "test/images/agnhost/porter", "/")
	if err != nil {
		return nil, err
	}
	own = slices.DeleteFunc(own, func(f image.File) bool { return !strings.HasPrefix(path.Base(f.Path), "localhost.") })
	own = append(own,
		image.File{Path: "/agnhost", Mode: 0o755, Content: raw},
		image.File{Path: "/agnhost-2", Link: "agnhost"},
		image.File{Path: "/uploads", Mode: fs.ModeDir | 0o755},
		image.File{Path: "/usr/bin/printenv", Mode: 0o755, Content: []byte(printenv)},
		image.File{Path: "/etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n" +
			"user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n")},
		image.File{Path: "/etc/group", Mode: 0o644, Content: []byte("root:x:0:\nnogroup:x:65534:\n" +
			"user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n")},
	)
	b.agnhost = []image.Layer{shell, curl, own}
	return b.agnhost, nil
}

// files are those of a folder of Kubernetes' module.
func (b *suiteImages) files(ctx context.Context, folder, to string) (image.Layer, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", "k8s.io/kubernetes@"+b.suite.Version())
	cmd.Dir = b.suite.module
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("find the sources of Kubernetes: %w", err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return nil, fmt.Errorf("find the sources of Kubernetes: %w", err)
	}
	found := map[string][]byte{}
	dir := filepath.Join(module.Dir, filepath.FromSlash(folder))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		if found[entry.Name()], err = os.ReadFile(filepath.Join(dir, entry.Name())); err != nil {
			return nil, err
		}
	}
	var layer image.Layer
	for _, name := range slices.Sorted(maps.Keys(found)) {
		layer = append(layer, image.File{Path: path.Join(to, name), Mode: 0o644, Content: found[name]})
	}
	return layer, nil
}
