package jsonwire

import (
	"bytes"
	"io"
	"math/rand"
	"testing"
)

// slowIndex is what an index must say, byte by byte.
func slowIndex(src []byte) []block {
	blocks := make([]block, (len(src)+blockSize-1)/blockSize)
	in, escaped := false, false
	for i, c := range src {
		b, bit := &blocks[i/blockSize], uint64(1)<<(i%blockSize)
		switch {
		case escaped && (in || c == '"' || c == '\\'):
			escaped = false
			continue
		case c == '\\':
			escaped = true
			continue
		}
		// Outside strings a backslash is not JSON; it hides quotes all the same.
		escaped = false
		switch {
		case c == '"':
			in = !in
			b.quotes |= bit
		case in:
		case c == '{' || c == '[':
			b.opens |= bit
		case c == '}' || c == ']':
			b.closes |= bit
		}
	}
	return blocks
}

func checkIndex(t *testing.T, src []byte) {
	t.Helper()
	want := slowIndex(src)
	padded := make([]byte, (1+len(want))*blockSize)
	copy(padded[blockSize:], src)
	src = padded[blockSize:]
	var p patterns
	p.set(0, []byte("zq7x9k-"))
	p.set(1, []byte("vivarium.io"))
	fast, words := make([]block, len(want)), make([]block, len(want))
	classify(src, fast, &p)
	classifyWords(src, words)
	var a, b carry
	a.resolve(fast)
	b.resolve(words)
	for i := range want {
		for _, got := range []block{fast[i], words[i]} {
			if got.quotes != want[i].quotes || got.opens != want[i].opens || got.closes != want[i].closes {
				t.Fatalf("block %d of %q:\n got %x\nwant %x", i, src, got, want[i])
			}
		}
	}
	for m, text := range p.text {
		for i := range src {
			ends := i+1 >= len(text) && bytes.Equal(src[i+1-len(text):i+1], text)
			if hasMarks && ends && fast[i/blockSize].marks[m]&(1<<(i%blockSize)) == 0 {
				t.Fatalf("%q at %d of %q is not marked", text, i, src)
			}
		}
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"a":"b\\\"{","c":[{}]}`))
	f.Fuzz(func(t *testing.T, src []byte) { checkIndex(t, src) })
}

func TestIndex(t *testing.T) {
	random := rand.New(rand.NewSource(7))
	words := []string{`"`, `\`, `\\`, `\"`, "{", "}", "[", "]", "zq7x9k-", "vivarium.io/", "x", "é", `"key":`, "[{", "\x7f\x80\xfb\xfd"}
	for range 3000 {
		var src []byte
		for range random.Intn(60) {
			src = append(src, words[random.Intn(len(words))]...)
		}
		checkIndex(t, src)
	}
}

// slowly reads in pieces of random sizes.
type slowly struct {
	src    []byte
	random *rand.Rand
}

func (s *slowly) Read(b []byte) (int, error) {
	if len(s.src) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), 1+s.random.Intn(90))], s.src)
	s.src = s.src[n:]
	return n, nil
}

// TestSkipFindsEveryEnd skips random nested values that are followed by a sentinel.
func TestSkipFindsEveryEnd(t *testing.T) {
	random := rand.New(rand.NewSource(9))
	var value func(depth int) string
	value = func(depth int) string {
		s := ""
		for range random.Intn(4) {
			if s != "" {
				s += ","
			}
			switch n := random.Intn(6); {
			case n < 3 && depth > 0:
				s += value(depth - 1)
			case n == 3:
				s += `"` + string(bytes.Repeat([]byte(`\\{]`), random.Intn(30))) + `\""`
			default:
				s += `"a zq7x9k-b"`
			}
		}
		return "[" + s + "]"
	}
	for range 500 {
		v := value(7)
		for _, mute := range []bool{false, true} {
			var out bytes.Buffer
			s := NewScanner(&out, &slowly{[]byte(v + ` "end"`), random}, 64)
			s.LookFor([]byte("zq7x9k-"), []byte("vivarium.io"))
			s.Mute(mute)
			if s.SkipWithout(First) {
				t.Fatal("nothing has been read")
			}
			if _, err := s.Peek(); err != nil {
				t.Fatal(err)
			}
			if random.Intn(2) == 0 && s.SkipWithout(First, Second) {
				if bytes.Contains([]byte(v), []byte("zq7x9k-")) {
					t.Fatalf("%s passes", v)
				}
			} else if err := s.Skip(); err != nil {
				t.Fatal(err)
			}
			raw, err := s.Capture()
			if err != nil || string(raw) != `"end"` {
				t.Fatalf("behind %s: %q, %v", v, raw, err)
			}
			if err := s.Cut(); err != nil {
				t.Fatal(err)
			}
			if err := s.Flush(); err != nil || !mute && out.String() != v+" " || mute && out.Len() > 0 {
				t.Fatalf("%q, %v", out.String(), err)
			}
		}
	}
}
