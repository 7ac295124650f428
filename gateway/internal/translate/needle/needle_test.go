package needle

import (
	"bytes"
	"math/rand"
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
