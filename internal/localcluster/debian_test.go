package localcluster

import (
	"archive/tar"
	"bytes"
	"slices"
	"strings"
	"testing"

	"vivarium.io/vivarium/internal/localcluster/image"
)

func TestClosure(t *testing.T) {
	const text = `nginx
  Depends: libc6
  Depends: libssl3
  Depends: nginx-common
 |Depends: lsb-base
    sysvinit-utils
  PreDepends: zlib1g
libc6
  Depends: libgcc-s1
lsb-base
  Depends: libnotneeded
libgcc-s1
  Depends: libc6
`
	if got, want := closure("nginx", text), []string{"libc6", "libgcc-s1", "libssl3", "nginx", "nginx-common", "zlib1g"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPackagesBecomeALayer(t *testing.T) {
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	for _, f := range []tar.Header{
		{Name: "./usr/lib64/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./usr/lib64/ld.so", Typeflag: tar.TypeReg, Mode: 0o755, Size: 2},
		{Name: "./usr/lib64/ld.so.2", Typeflag: tar.TypeSymlink, Linkname: "ld.so"},
		{Name: "./usr/bin/hard", Typeflag: tar.TypeLink, Linkname: "./usr/lib64/ld.so", Mode: 0o755},
		{Name: "./usr/share/doc/x/copyright", Typeflag: tar.TypeReg, Mode: 0o644},
	} {
		if err := w.WriteHeader(&f); err != nil {
			t.Fatal(err)
		}
		if f.Size > 0 {
			if _, err := w.Write([]byte("so")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := appendTar(nil, &raw)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range mergeUsr(layer) {
		got = append(got, f.Path+" "+f.Link+string(f.Content))
	}
	want := []string{"/lib64 usr/lib64", "/usr/bin/hard so", "/usr/lib64 ", "/usr/lib64/ld.so so", "/usr/lib64/ld.so.2 ld.so"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if merged := mergeUsr(image.Layer{{Path: "/lib/x"}, {Path: "/usr/lib/y"}}); len(merged) != 2 {
		t.Errorf("a library folder was replaced by a link: %v", merged)
	}
}
