package translate

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// TestResponses runs the golden files: the first line names the call and its kind, "control" is what the control cluster
// answers (pages: control-1, control-2, ...), "tenant" what the tenant sees, or "error".
func TestResponses(t *testing.T) {
	files, err := filepath.Glob("testdata/responses/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var kind Kind
			var call string
			if _, err := fmt.Sscanf(string(archive.Comment), "%s %s %s %s %s %t", &call, &kind.Group, &kind.Version, &kind.Resource, &kind.Kind, &kind.Namespaced); err != nil {
				t.Fatalf("first line: %v", err)
			}
			if kind.Group == "core" {
				kind.Group = ""
			}
			var pages []string
			want := ""
			var golden *txtar.File
			for i, f := range archive.Files {
				if strings.HasPrefix(f.Name, "control") {
					pages = append(pages, compactLines(string(f.Data)))
				} else {
					golden = &archive.Files[i]
					want = compactLines(string(f.Data))
				}
			}
			got, err := run(call, kind, pages)
			name := "tenant"
			if err != nil {
				name, got = "error", err.Error()+"\n"
			}
			if *update {
				if golden == nil {
					archive.Files = append(archive.Files, txtar.File{})
					golden = &archive.Files[len(archive.Files)-1]
				}
				golden.Name, golden.Data = name, []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if golden == nil || golden.Name != name || got != want {
				t.Errorf("%s: %s", name, firstDifference(got, want))
			}
			if name == "tenant" && !strings.Contains(string(archive.Comment), "own prefix stays") && strings.Contains(got, "zq7x9k-") || strings.Contains(got, "canary") || strings.Contains(got, "vivarium.io/") {
				t.Errorf("the tenant sees another world: %s", got)
			}
			for _, size := range []int{1, 3, 64} {
				if again, _ := runChunked(call, kind, pages, size); name == "tenant" && again != got {
					t.Errorf("in chunks of %d: %s", size, firstDifference(again, got))
				}
			}
		})
	}
}

// compactLines joins lines that golden files break for their readers: those that start with a space.
func compactLines(s string) string {
	var b strings.Builder
	for i, line := range strings.Split(strings.TrimSuffix(s, "\n"), "\n") {
		if i > 0 && !strings.HasPrefix(line, " ") {
			b.WriteByte('\n')
		}
		b.WriteString(strings.TrimLeft(line, " "))
	}
	b.WriteByte('\n')
	return b.String()
}

func run(call string, k Kind, pages []string) (string, error) {
	return runChunked(call, k, pages, 1<<20)
}

func runChunked(call string, k Kind, pages []string, size int) (string, error) {
	var out bytes.Buffer
	src := func(i int) io.Reader { return &chunks{[]byte(pages[i]), size} }
	var err error
	switch call {
	case "object":
		err = view.ObjectToTenant(k, &out, src(0))
	case "watch":
		err = view.WatchToTenant(k, &out, nil, src(0), false)
	case "filtered-watch":
		err = view.WatchToTenant(k, &out, nil, src(0), true)
	case "list", "one-page":
		n := 0
		err = view.ListToTenant(k, &out, ListOptions{First: "first", OnePage: call == "one-page"}, func(token string) (io.ReadCloser, error) {
			if n >= len(pages) {
				return nil, errors.New("no more pages")
			}
			if n == 0 && token != "first" || n > 0 && token != fmt.Sprintf("token-%d", n) {
				return nil, fmt.Errorf("page %d asked for with %q", n, token)
			}
			n++
			return io.NopCloser(src(n - 1)), nil
		})
	case "status":
		out.Write(view.StatusToTenant(k, 404, []byte(pages[0])))
	default:
		err = fmt.Errorf("unknown call %q", call)
	}
	return out.String(), err
}

func TestCutStreamsAreErrors(t *testing.T) {
	pod := `{"kind":"Pod","apiVersion":"v1",` + podJSON("zq7x9k", "default", "web", 1)[1:]
	frame := `{"type":"ADDED","object":` + pod + "}\n"
	for n := 1; n < len(pod); n += 7 {
		if err := view.ObjectToTenant(pods, io.Discard, strings.NewReader(pod[:n])); err == nil {
			t.Fatalf("an object cut at %d passes", n)
		}
		var out bytes.Buffer
		if err := view.WatchToTenant(pods, &out, nil, strings.NewReader(frame+frame[:n]), true); err == nil {
			t.Fatalf("a frame cut at %d passes", n)
		}
		if strings.Count(out.String(), "\n") != strings.Count(out.String(), `"type":"ADDED"`) {
			t.Fatalf("part of a frame was written: %s", out.String())
		}
	}
	list := podList("zq7x9k", 3)
	for n := 1; n < len(list)-2; n += 101 {
		err := view.ListToTenant(pods, io.Discard, ListOptions{}, func(string) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(list[:n])), nil
		})
		if err == nil {
			t.Fatalf("a list cut at %d passes", n)
		}
	}
}

func TestNothingIsWrittenBeforeTheFirstPage(t *testing.T) {
	var out bytes.Buffer
	gone := errors.New("410")
	err := view.ListToTenant(pods, &out, ListOptions{}, func(string) (io.ReadCloser, error) { return nil, gone })
	if !errors.Is(err, gone) || out.Len() > 0 {
		t.Errorf("error %v, %d bytes written", err, out.Len())
	}
	foreign := strings.Replace(podList("zq7x9k", 2), "zq7x9k-default", "canary-default", 1)
	if err := view.ObjectToTenant(pods, &out, strings.NewReader(foreign)); err == nil || out.Len() > 0 {
		t.Errorf("a foreign item: error %v, %d bytes written", err, out.Len())
	}
	var f *ForeignError
	if err := view.ObjectToTenant(pods, &out, strings.NewReader(foreign)); !errors.As(err, &f) {
		t.Errorf("error %T %v, want *ForeignError", err, err)
	}
}

// TestMemoryOfListsIsBounded reads a list far larger than what may be held.
func TestMemoryOfListsIsBounded(t *testing.T) {
	item := podJSON("zq7x9k", "default", "web", 1) + ","
	w := &watermark{}
	src := io.MultiReader(strings.NewReader(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[`),
		&repeat{text: item, left: 2_000}, strings.NewReader(item[:len(item)-1]+"]}"))
	if err := view.ObjectToTenant(pods, w, src); err != nil {
		t.Fatal(err)
	}
	if w.largest > 256<<10 {
		t.Errorf("one write of %d bytes", w.largest)
	}
}

type repeat struct {
	text string
	left int
	at   int
}

func (r *repeat) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.text[r.at:])
	if r.at += n; r.at == len(r.text) {
		r.at, r.left = 0, r.left-1
	}
	return n, nil
}

type watermark struct{ largest int }

func (w *watermark) Write(b []byte) (int, error) {
	w.largest = max(w.largest, len(b))
	return len(b), nil
}

func TestFlushFollowsBursts(t *testing.T) {
	frame := `{"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"zq7x9k-default"}}}` + "\n"
	pr, pw := io.Pipe()
	flushed := make(chan int)
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() {
		done <- view.WatchToTenant(configMaps, &out, func() { flushed <- strings.Count(out.String(), "\n") }, pr, true)
	}()
	for _, n := range []int{1, 3} {
		go func() { _, _ = io.WriteString(pw, strings.Repeat(frame, n)) }()
		if got := <-flushed; got < n && got != 4 {
			t.Errorf("a burst of %d: flushed with %d frames in all", n, got)
		}
	}
	pw.Close()
	for {
		select {
		case <-flushed:
			continue
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		}
	}
}
