package localcluster

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"vivarium.io/vivarium/internal/localcluster/image"
)

// debianLayer is what a package of Debian or Ubuntu brings, with its own parts and the libraries that it needs. Nothing is
// installed on the machine, and no script of a package runs.
func debianLayer(ctx context.Context, name string, progress *Progress) (image.Layer, error) {
	packages, err := debianClosure(ctx, name)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "vivarium-debian-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	download := func() error { return aptGet(ctx, dir, append([]string{"download"}, packages...)...) }
	if download() != nil {
		// Lists of packages may be absent or out of date, but fetching them costs more than trying.
		if err := progress.Step("fetching the lists of packages", func() error { return aptGet(ctx, dir, "update") }); err != nil {
			return nil, err
		}
		if packages, err = debianClosure(ctx, name); err != nil {
			return nil, err
		}
		if err := download(); err != nil {
			return nil, err
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("apt-get download %s brought nothing", strings.Join(packages, " "))
	}
	slices.Sort(files)
	var layer image.Layer
	for _, file := range files {
		unpacked, err := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", file).Output()
		if err != nil {
			return nil, fmt.Errorf("unpack %s: %w", filepath.Base(file), err)
		}
		if layer, err = appendTar(layer, bytes.NewReader(unpacked)); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", filepath.Base(file), err)
		}
	}
	return mergeUsr(layer), nil
}

func aptGet(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, lastLines(out, 8))
	}
	return nil
}

// debianClosure is a package, its own parts, and every library below. What merely belongs to a system, such as the tools
// that its scripts call, stays out.
func debianClosure(ctx context.Context, name string) ([]string, error) {
	cmd := exec.CommandContext(ctx, "apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts",
		"--no-breaks", "--no-replaces", "--no-enhances", name)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("apt-cache depends %s: %w", name, err)
	}
	return closure(name, string(out)), nil
}

// closure reads what apt-cache says: a package at the start of a line, below it what it needs.
func closure(name, text string) []string {
	needs := map[string][]string{}
	var current string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if line != "" && line[0] != ' ' && line[0] != '|' {
			current = line
			continue
		}
		kind, needed, ok := strings.Cut(strings.TrimLeft(line, " |"), ": ")
		if ok && (kind == "Depends" || kind == "PreDepends") {
			needs[current] = append(needs[current], needed)
		}
	}
	taken := map[string]bool{}
	var take func(string)
	take = func(p string) {
		if taken[p] {
			return
		}
		taken[p] = true
		for _, needed := range needs[p] {
			if strings.HasPrefix(needed, "lib") || strings.HasPrefix(needed, "zlib") || strings.HasPrefix(needed, name+"-") {
				take(needed)
			}
		}
	}
	take(name)
	var out []string
	for p := range taken {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// appendTar adds the files of an archive, without what only people read.
func appendTar(layer image.Layer, r io.Reader) (image.Layer, error) {
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return layer, nil
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean("/" + header.Name)
		if strings.HasPrefix(name, "/usr/share/doc/") || strings.HasPrefix(name, "/usr/share/man/") || strings.HasPrefix(name, "/usr/share/locale/") {
			continue
		}
		mode := fs.FileMode(header.Mode).Perm()
		switch header.Typeflag {
		case tar.TypeDir:
			layer = append(layer, image.File{Path: name, Mode: fs.ModeDir | mode})
		case tar.TypeSymlink:
			layer = append(layer, image.File{Path: name, Link: header.Linkname})
		case tar.TypeReg:
			content, err := io.ReadAll(archive)
			if err != nil {
				return nil, err
			}
			layer = append(layer, image.File{Path: name, Mode: mode, Content: content})
		case tar.TypeLink:
			i := slices.IndexFunc(layer, func(f image.File) bool { return f.Path == path.Clean("/"+header.Linkname) })
			if i < 0 {
				return nil, fmt.Errorf("%s is a link to %s, which is not there", name, header.Linkname)
			}
			layer = append(layer, image.File{Path: name, Mode: mode, Content: layer[i].Content})
		}
	}
}

// mergeUsr adds the links by which a system whose libraries lie in /usr finds them at the root.
func mergeUsr(layer image.Layer) image.Layer {
	for _, dir := range []string{"/lib", "/lib64"} {
		has := func(prefix string) bool {
			return slices.ContainsFunc(layer, func(f image.File) bool { return strings.HasPrefix(f.Path, prefix+"/") })
		}
		if !has(dir) && has("/usr"+dir) {
			layer = append(layer, image.File{Path: dir, Link: "usr" + dir})
		}
	}
	return slices.CompactFunc(slices.SortedStableFunc(slices.Values(layer), func(a, b image.File) int { return strings.Compare(a.Path, b.Path) }),
		func(a, b image.File) bool { return a.Path == b.Path })
}
