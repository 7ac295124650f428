package jsonwire

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseRefuses(t *testing.T) {
	for name, doc := range map[string]string{
		"Empty": "", "Space": " ", "Trailing": `{} {}`, "TrailingComma": `[1,]`, "Comment": `{}//x`, "BOM": "\ufeff{}",
		"DuplicateKey": `{"a":1,"a":2}`, "DuplicateEscapedKey": `{"a":1,"\u0061":2}`, "NestedDuplicate": `{"x":[{"a":1,"a":1}]}`,
		"InvalidUTF8": "\"\xff\"", "InvalidUTF8Key": "{\"\xff\":1}", "LoneSurrogate": `"\ud800"`, "LoneLowSurrogate": `"\udc00"`,
		"SurrogateThenText": `"\ud800x"`, "HalfPair": `"\ud800\u0041"`, "Control": "\"a\nb\"", "Tab": "\"\t\"", "NaN": "NaN",
		"LeadingZero": "01", "PlusSign": "+1", "BareDot": "1.", "BareExponent": "1e", "Minus": "-", "Single": "'a'",
		"BadEscape": `"\x"`, "ShortHex": `"\u12"`, "BadHex": `"\u12g4"`, "SignedHex": `"\u+123"`, "Open": `{"a":`, "OpenString": `"abc`,
		"MissingColon": `{"a" 1}`, "Deep": strings.Repeat("[", 100_000), "NumberKey": `{1:2}`, "TrueX": "truex",
	} {
		t.Run(name, func(t *testing.T) {
			if v, err := Parse([]byte(doc)); err == nil {
				t.Errorf("Parse(%.40q) = %s, want an error", doc, v.Append(nil))
			}
		})
	}
}

func TestParseBoundsItsMemory(t *testing.T) {
	if _, err := Parse([]byte("[" + strings.Repeat("0,", MaxValues) + "0]")); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v, want ErrTooLarge", err)
	}
	var b strings.Builder
	b.WriteString(`{"k0":0`)
	for i := range 50_000 {
		b.WriteString(`,"k` + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + jsonNumber(i) + `":0`)
	}
	b.WriteString("}")
	if _, err := Parse([]byte(b.String())); err != nil {
		t.Errorf("an object of many keys: %v", err)
	}
}

func jsonNumber(n int) string { b, _ := json.Marshal(n); return string(b) }

func TestParseKeepsOrderAndSpelling(t *testing.T) {
	const doc = `{"z":1.50e+3,"a":[null,true,false,"\u00e9\/","x"],"":{"b":{}}}`
	v, err := Parse([]byte(" " + doc + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(v.Append(nil)); got != doc {
		t.Errorf("got  %s\nwant %s", got, doc)
	}
	v.Get("a").Elems()[3].SetText("changed<>\n\u2028")
	v.Delete("z")
	if got, want := string(v.Append(nil)), `{"a":[null,true,false,"changed\u003c\u003e\n\u2028","x"],"":{"b":{}}}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// FuzzParse holds the parser to encoding/json: what it takes, encoding/json takes and reads alike, and so it reads its own
// output.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{`{"a":[1,2.5e3,"\u00e9\ud83d\ude00"],"b":null}`, `"\\\"\/"`, `[]`, `{"":""}`, `-0.0`, "\"\x7f\"", `"\u0000"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Parse(data)
		if err != nil {
			return
		}
		var want, got any
		if err := json.Unmarshal(data, &want); err != nil {
			var unrepresentable *json.UnmarshalTypeError
			if errors.As(err, &unrepresentable) {
				return
			}
			t.Fatalf("taken, but encoding/json says %v", err)
		}
		out := v.Append(nil)
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("output %q: %v", out, err)
		}
		a, _ := json.Marshal(want)
		b, _ := json.Marshal(got)
		if string(a) != string(b) {
			t.Fatalf("read as %s, written as %s", a, b)
		}
		if !utf8.Valid(out) {
			t.Fatalf("output %q is not UTF-8", out)
		}
		if v.Kind() == String {
			if s, err := Unquote(AppendQuoted(nil, v.Text())); err != nil || s != v.Text() {
				t.Fatalf("Unquote = %q, %v", s, err)
			}
		}
	})
}
