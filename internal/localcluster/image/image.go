// Package image writes container images without a registry or a builder: archives in the OCI image layout, which
// `ctr images import` and other tools read. The same input gives the same bytes, so an archive can be cached and compared.
// It must never pull, unpack or run anything. Start at [Image.Write].
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Image is an image for one platform.
type Image struct {
	// Name is the full name with a tag, as in vivarium.test/echo:v1.
	Name string
	// Architecture is Go's name of the processor.
	Architecture string
	// Layers are stacked from the first to the last.
	Layers []Layer
	// Config says how a container runs.
	Config Config
}

// Config says how a container of an image runs unless the pod says otherwise.
type Config struct {
	User       string              `json:"User,omitempty"`
	Env        []string            `json:"Env,omitempty"`
	Entrypoint []string            `json:"Entrypoint,omitempty"`
	Cmd        []string            `json:"Cmd,omitempty"`
	WorkingDir string              `json:"WorkingDir,omitempty"`
	Ports      map[string]struct{} `json:"ExposedPorts,omitempty"`
}

// Layer is a set of files. Directories above a file need not be named.
type Layer []File

// File is a file, a directory (its mode says so) or, with Link set, a symbolic link.
type File struct {
	Path    string
	Mode    fs.FileMode
	Link    string
	Content []byte
}

// The media types of the OCI image specification.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// archive collects the blobs of a layout in the order in which they are written.
type archive struct {
	names []string
	blobs map[string][]byte
}

func (a *archive) add(mediaType string, content []byte) descriptor {
	sum := fmt.Sprintf("%x", sha256.Sum256(content))
	name := "blobs/sha256/" + sum
	if _, ok := a.blobs[name]; !ok {
		a.names = append(a.names, name)
		a.blobs[name] = content
	}
	return descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: len(content)}
}

func (a *archive) addJSON(mediaType string, value any) (descriptor, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return descriptor{}, err
	}
	return a.add(mediaType, raw), nil
}

// Write writes the image as a tar archive in the OCI image layout.
func (i Image) Write(w io.Writer) error {
	if err := i.write(w); err != nil {
		return fmt.Errorf("write image %s: %w", i.Name, err)
	}
	return nil
}

func (i Image) write(w io.Writer) error {
	a := &archive{blobs: map[string][]byte{}}
	type rootfs struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	config := struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Config       Config `json:"config"`
		RootFS       rootfs `json:"rootfs"`
	}{Architecture: i.Architecture, OS: "linux", Config: i.Config, RootFS: rootfs{Type: "layers"}}
	manifest := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}{SchemaVersion: 2, MediaType: typeManifest}
	for _, layer := range i.Layers {
		raw, err := layer.tar()
		if err != nil {
			return err
		}
		// Not compressed: it would cost more time than the disk is worth.
		blob := a.add(typeLayer, raw)
		manifest.Layers = append(manifest.Layers, blob)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, blob.Digest)
	}
	var err error
	if manifest.Config, err = a.addJSON(typeConfig, config); err != nil {
		return err
	}
	top, err := a.addJSON(typeManifest, manifest)
	if err != nil {
		return err
	}
	_, tag, _ := strings.Cut(path.Base(i.Name), ":")
	top.Annotations = map[string]string{"io.containerd.image.name": i.Name, "org.opencontainers.image.ref.name": tag}
	index, err := json.Marshal(struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{top}})
	if err != nil {
		return err
	}
	files := Layer{
		{Path: "oci-layout", Mode: 0o644, Content: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{Path: "index.json", Mode: 0o644, Content: index},
	}
	for _, name := range a.names {
		files = append(files, File{Path: name, Mode: 0o644, Content: a.blobs[name]})
	}
	return files.write(w)
}

func (l Layer) tar() ([]byte, error) {
	sorted := slices.SortedFunc(slices.Values(l), func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	var out bytes.Buffer
	err := Layer(sorted).write(&out)
	return out.Bytes(), err
}

// write writes the files in the given order, each after the directories above it, with nothing in it that depends on when
// or by whom it was made.
func (l Layer) write(w io.Writer) error {
	out := tar.NewWriter(w)
	written := map[string]bool{".": true, "/": true}
	var directory func(name string, mode fs.FileMode) error
	directory = func(name string, mode fs.FileMode) error {
		if written[name] {
			return nil
		}
		if err := directory(path.Dir(name), 0o755); err != nil {
			return err
		}
		written[name] = true
		return out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: unixMode(mode), Format: tar.FormatPAX})
	}
	for _, f := range l {
		name := strings.TrimPrefix(path.Clean(f.Path), "/")
		if f.Mode.IsDir() {
			if err := directory(name, f.Mode); err != nil {
				return err
			}
			continue
		}
		if err := directory(path.Dir(name), 0o755); err != nil {
			return err
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: unixMode(f.Mode), Size: int64(len(f.Content)), Format: tar.FormatPAX}
		if f.Link != "" {
			header.Typeflag, header.Linkname, header.Mode, header.Size = tar.TypeSymlink, f.Link, 0o777, 0
		}
		if err := out.WriteHeader(header); err != nil {
			return err
		}
		if f.Link == "" {
			if _, err := out.Write(f.Content); err != nil {
				return err
			}
		}
	}
	return out.Close()
}

func unixMode(mode fs.FileMode) int64 {
	unix := int64(mode.Perm())
	for bit, value := range map[fs.FileMode]int64{fs.ModeSticky: 0o1000, fs.ModeSetgid: 0o2000, fs.ModeSetuid: 0o4000} {
		if mode&bit != 0 {
			unix |= value
		}
	}
	return unix
}
