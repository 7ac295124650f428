package image_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vivarium.io/vivarium/internal/localcluster/image"
)

func example() image.Image {
	return image.Image{
		Name: "vivarium.test/example:v1", Architecture: "amd64",
		Layers: []image.Layer{
			{{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777}, {Path: "/bin/sh", Mode: 0o777, Link: "busybox"}, {Path: "/bin/busybox", Mode: 0o755, Content: []byte("#!")}},
			{{Path: "/bin/su", Mode: fs.ModeSetuid | fs.ModeSetgid | 0o755}, {Path: "/etc/motd", Mode: 0o644, Content: []byte("hello")}},
		},
		Config: image.Config{Entrypoint: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}},
	}
}

func write(t *testing.T, i image.Image) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := i.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// untar gives the entries of an archive as "name mode" or "name -> link" in their order, and the contents.
func untar(t *testing.T, raw []byte) (entries []string, contents map[string][]byte) {
	t.Helper()
	contents = map[string][]byte{}
	for in := tar.NewReader(bytes.NewReader(raw)); ; {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return entries, contents
		}
		if err != nil {
			t.Fatal(err)
		}
		if !header.ModTime.IsZero() && header.ModTime.Unix() != 0 || header.Uid != 0 || header.Uname != "" {
			t.Errorf("%s tells who made it or when: %+v", header.Name, header)
		}
		entry := fmt.Sprintf("%s %o", header.Name, header.Mode)
		if header.Linkname != "" {
			entry = header.Name + " -> " + header.Linkname
		}
		entries = append(entries, entry)
		if contents[header.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWrite(t *testing.T) {
	_, files := untar(t, write(t, example()))
	blob := func(digest string) []byte {
		t.Helper()
		name := "blobs/" + strings.Replace(digest, ":", "/", 1)
		content, ok := files[name]
		if !ok {
			t.Fatalf("no %s", name)
		}
		if got := fmt.Sprintf("sha256:%x", sha256.Sum256(content)); got != digest {
			t.Errorf("%s holds what has the digest %s", name, got)
		}
		return content
	}
	type descriptor struct {
		Digest      string
		Annotations map[string]string
	}
	var index struct{ Manifests []descriptor }
	if err := json.Unmarshal(files["index.json"], &index); err != nil || len(index.Manifests) != 1 {
		t.Fatalf("index.json: %v, %+v", err, index)
	}
	if got := index.Manifests[0].Annotations["io.containerd.image.name"]; got != "vivarium.test/example:v1" {
		t.Errorf("the image is called %q", got)
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	if err := json.Unmarshal(blob(index.Manifests[0].Digest), &manifest); err != nil {
		t.Fatal(err)
	}
	var config struct {
		Architecture, OS string
		Config           image.Config
		RootFS           struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(blob(manifest.Config.Digest), &config); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example().Config, config.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	var layers [][]string
	for i, layer := range manifest.Layers {
		entries, _ := untar(t, blob(layer.Digest))
		layers = append(layers, entries)
		if config.RootFS.DiffIDs[i] != layer.Digest {
			t.Errorf("layer %d has another digest in the config", i)
		}
	}
	want := [][]string{
		{"bin/ 755", "bin/busybox 755", "bin/sh -> busybox", "tmp/ 1777"},
		{"bin/ 755", "bin/su 6755", "etc/ 755", "etc/motd 644"},
	}
	if diff := cmp.Diff(want, layers); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
	}
}

func TestWriteIsDeterministic(t *testing.T) {
	shuffled := example()
	slices.Reverse(shuffled.Layers[0])
	if !bytes.Equal(write(t, example()), write(t, shuffled)) {
		t.Error("the order in which files are named changes the image")
	}
}
