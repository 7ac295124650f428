package protowire

import (
	"bytes"
	"strings"
	"testing"
)

func TestNextRefuses(t *testing.T) {
	for name, b := range map[string]string{
		"NoNumber": "\x02\x00", "StartGroup": "\x0b", "EndGroup": "\x0c", "Type6": "\x0e", "OpenTag": "\x80", "OpenVarint": "\x08\x80",
		"LongVarint": "\x08" + strings.Repeat("\x80", 10) + "\x01", "ShortBytes": "\x0a\x05ab", "HugeLength": "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"Short64": "\x09\x01\x02", "Short32": "\x0d\x01", "HugeNumber": "\xff\xff\xff\xff\xff\xff\x01\x00",
	} {
		t.Run(name, func(t *testing.T) {
			if f, _, err := Next([]byte(b)); err == nil {
				t.Errorf("read %+v", f)
			}
		})
	}
}

func TestCloseMovesContent(t *testing.T) {
	for _, length := range []int{0, 1, 127, 128, 16383, 16384, 70000} {
		for _, hint := range []int{0, 1, 127, 128, 20000, 70000} {
			content := bytes.Repeat([]byte("x"), length)
			dst, mark := Open([]byte("before"), 3, hint)
			dst = append(Close(append(dst, content...), mark), "after"...)
			want := append(AppendBytes([]byte("before"), 3, content), "after"...)
			if !bytes.Equal(dst, want) {
				t.Fatalf("content of %d with a hint of %d: wrong bytes", length, hint)
			}
			f, rest, err := Next(dst[len("before"):])
			if err != nil || f.Number != 3 || !bytes.Equal(f.Value, content) || string(rest) != "after" {
				t.Fatalf("content of %d with a hint of %d: reads as %d bytes, %v", length, hint, len(f.Value), err)
			}
		}
	}
}

func TestFields(t *testing.T) {
	b := AppendVarint(AppendString(nil, 1, "a"), 2, 300)
	b = append(AppendTag(b, 3, Fixed32), 1, 2, 3, 4)
	b = append(AppendTag(b, 4, Fixed64), 1, 2, 3, 4, 5, 6, 7, 8)
	var raw []byte
	var numbers []int32
	for rest := b; len(rest) > 0; {
		f, after, err := Next(rest)
		if err != nil {
			t.Fatal(err)
		}
		rest = after
		raw, numbers = append(raw, f.Raw...), append(numbers, f.Number)
		if f.Number == 2 && f.Uint != 300 {
			t.Errorf("varint %d", f.Uint)
		}
	}
	if !bytes.Equal(raw, b) || len(numbers) != 4 {
		t.Errorf("fields %v", numbers)
	}
}
