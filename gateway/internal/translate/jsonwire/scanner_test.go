package jsonwire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// chunks reads n bytes at a time.
type chunks struct {
	data []byte
	n    int
}

func (c *chunks) Read(b []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), c.n)], c.data)
	c.data = c.data[n:]
	return n, nil
}

const document = ` { "plain":1, "esc\"aped" : "a\\\"b" ,"cut":"0123456789abcdef\\","deep":{"cut":["x",{"cut":null}]},"arr":[[],[{}],"s",true,-1.5e3] } `

// cutter empties every value under the key "cut" and passes the rest.
func cutter(s *Scanner) error {
	c, err := s.Peek()
	if err != nil {
		return err
	}
	if c != '{' && c != '[' {
		return s.Skip()
	}
	s.Enter()
	for first := true; ; first = false {
		ok, err := s.Next(first)
		if err != nil || !ok {
			return err
		}
		if c == '[' {
			if err := cutter(s); err != nil {
				return err
			}
			continue
		}
		key, err := s.Key()
		if err != nil {
			return err
		}
		if string(key) != "cut" {
			if err := cutter(s); err != nil {
				return err
			}
			continue
		}
		raw, err := s.Capture()
		if err != nil {
			return err
		}
		if _, err := Parse(raw); err != nil {
			return err
		}
		if err := s.Emit([]byte(`""`)); err != nil {
			return err
		}
	}
}

func TestScannerAtEveryChunkSize(t *testing.T) {
	want := strings.NewReplacer(`"0123456789abcdef\\"`, `""`, `["x",{"cut":null}]`, `""`).Replace(document)
	for _, size := range []int{1, 2, 3, 5, 7, 8, 9, 13, 64, 4096} {
		for _, buffer := range []int{1, 2, 8, 64, 4096} {
			var out bytes.Buffer
			s := NewScanner(&out, &chunks{[]byte(document), size}, buffer)
			err := cutter(s)
			if err == nil {
				var end bool
				if end, err = s.End(); !end {
					t.Errorf("chunks of %d: not at the end", size)
				}
			}
			err = errors.Join(err, s.Cut(), s.Flush())
			if err != nil || out.String() != want {
				t.Fatalf("chunks of %d, buffer of %d: %v\ngot  %s\nwant %s", size, buffer, err, out.String(), want)
			}
		}
	}
}

func TestScannerNeverTakesACutStreamForAWholeOne(t *testing.T) {
	whole := strings.TrimSpace(document)
	for n := range len(whole) {
		s := NewScanner(io.Discard, strings.NewReader(whole[:n]), 16)
		if err := cutter(s); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v, want io.ErrUnexpectedEOF", n, err)
		}
	}
}

func TestScannerPassesReadErrors(t *testing.T) {
	broken := errors.New("broken")
	s := NewScanner(io.Discard, io.MultiReader(strings.NewReader(`{"a":[1,`), iotestErr{broken}), 16)
	if err := cutter(s); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}

type iotestErr struct{ err error }

func (e iotestErr) Read([]byte) (int, error) { return 0, e.err }

func TestHoldAndRollback(t *testing.T) {
	var out bytes.Buffer
	s := NewScanner(&out, strings.NewReader(`[{"keep":1},{"take":{"x":[1,2]},"y":[3]},{"keep":2}]`), 4)
	c, err := s.Peek()
	if err != nil || c != '[' {
		t.Fatal(c, err)
	}
	s.Mute(true)
	s.Enter()
	kept := 0
	for first := true; ; first = false {
		ok, err := s.Next(first)
		if err != nil {
			t.Fatal(err)
		}
		s.Mute(true)
		if first {
			if err := s.Emit([]byte("[")); err != nil {
				t.Fatal(err)
			}
		}
		if !ok {
			break
		}
		point, err := s.Hold()
		if err != nil {
			t.Fatal(err)
		}
		depth := s.Depth()
		if kept > 0 {
			if err := s.Emit([]byte(",")); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Peek(); err != nil {
			t.Fatal(err)
		}
		s.Mute(false)
		s.Enter()
		if _, err := s.Next(true); err != nil {
			t.Fatal(err)
		}
		key, err := s.Key()
		if err != nil {
			t.Fatal(err)
		}
		take := string(key) == "take"
		if err := errors.Join(s.Skip(), s.Unwind(depth)); err != nil {
			t.Fatal(err)
		}
		s.Mute(true)
		if take {
			s.Rollback(point)
		} else {
			kept++
		}
		s.Release()
		if err := s.Cut(); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Emit([]byte("]")), s.Flush()); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), `[{"keep":1},{"keep":2}]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
