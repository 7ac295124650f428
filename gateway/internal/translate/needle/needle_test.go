package needle

import (
	"bytes"
	"math/rand"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func check(t *testing.T, text []byte) {
	t.Helper()
	var p Pair
	p.Set([]byte("zq7x9k-"), []byte("vivarium.io"))
	if got, want := p.In(text), bytes.Contains(text, []byte("zq7x9k-")) || bytes.Contains(text, []byte("vivarium.io")); got != want {
		t.Fatalf("In(%q) = %t", text, got)
	}
}

func TestIn(t *testing.T) {
	random := rand.New(rand.NewSource(3))
	words := []string{"zq7x9k-", "zq", "-", "vivarium.io", "vi", "o", "0123456789", "zqzqzqz", "xxxxxxxxxxxxxxxxxxxxxxx"}
	for range 20000 {
		var text []byte
		for range random.Intn(20) {
			if n := random.Intn(40); n < len(words) {
				text = append(text, words[n]...)
			} else {
				text = append(text, "some other text"[:random.Intn(15)]...)
			}
		}
		check(t, text)
	}
	for n := range 200 {
		for _, word := range words[:4] {
			text := bytes.Repeat([]byte("."), n)
			check(t, append(text, word...))
			check(t, append(append([]byte("abc"), word...), text...))
		}
	}
}

// TestNeighbours looks at texts that are cut out of others: what stands around them is none of theirs, and where the array
// ends nothing is read.
func TestNeighbours(t *testing.T) {
	page := os.Getpagesize()
	pages, err := syscall.Mmap(-1, 0, 2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(pages) })
	if err := syscall.Mprotect(pages[page:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	last := pages[:page:page]
	words := strings.Repeat("zq7x9k-vivarium.io", page)
	for n := range 300 {
		for free := range 100 {
			text := last[page-n-free : page-free]
			copy(last, words)
			copy(text, strings.Repeat("x", n))
			check(t, text)
			if n > 20 {
				copy(text[n-7:], "zq7x9k-")
				check(t, text)
			}
		}
	}
}

// TestRarest looks for strings of all kinds of bytes.
func TestRarest(t *testing.T) {
	random := rand.New(rand.NewSource(5))
	for range 20000 {
		word := func(letters string) []byte {
			out := make([]byte, 2+random.Intn(31))
			for i := range out {
				out[i] = letters[random.Intn(len(letters))]
			}
			return out
		}
		letters := []string{"ab", "zq", "e-", "09\x00\xff", common}[random.Intn(5)]
		first, second, text := word(letters), word(letters), bytes.Repeat(word(letters), random.Intn(20))
		if random.Intn(2) == 0 {
			at := random.Intn(len(text) + 1)
			text = slices.Concat(text[:at], second, text[at:])
		}
		var p Pair
		p.Set(first, second)
		if got, want := p.In(text), bytes.Contains(text, first) || bytes.Contains(text, second); got != want {
			t.Fatalf("In(%q) of %q and %q = %t", text, first, second, got)
		}
	}
}

func FuzzIn(f *testing.F) {
	f.Add([]byte("a zq7x9k-default vivarium.io/x"))
	f.Fuzz(check)
}

func BenchmarkIn(b *testing.B) {
	var p Pair
	p.Set([]byte("e17x9k-"), []byte("vivarium.io"))
	text := bytes.Repeat([]byte("f:containers k:{name:web} 8f14e45fceea167a5a36dedd4bea2543 "), 20)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if p.In(text) {
			b.Fatal("found")
		}
	}
}
