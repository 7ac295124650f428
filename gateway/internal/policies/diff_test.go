package policies

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiff(t *testing.T) {
	object := func(s string) map[string]any {
		var m map[string]any
		if err := json.Unmarshal([]byte(s), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	cases := map[string]struct{ from, to, control, want string }{
		"Same":    {`{"a":1}`, `{"a":1}`, `{"a":1}`, `null`},
		"Changed": {`{"a":{"b":1,"c":2}}`, `{"a":{"b":3,"d/e":null}}`, `{"a":{}}`, `[{"op":"remove","path":"/a/c"},{"op":"replace","path":"/a/b","value":3},{"op":"add","path":"/a/d~1e","value":null}]`},
		"List":    {`{"a":[1,2]}`, `{"a":[1]}`, `{"a":[1,2]}`, `[{"op":"replace","path":"/a","value":[1]}]`},
		"NewMap":  {`{}`, `{"m":{"labels":{"a":"b"}}}`, `{}`, `[{"op":"add","path":"/m","value":{"labels":{"a":"b"}}}]`},
		// The tenant sees no labels; the control cluster has one of the platform's, which must stay.
		"HiddenMap": {`{"m":{}}`, `{"m":{"labels":{"a":"b"}}}`, `{"m":{"labels":{"vivarium.io/x":"y"}}}`, `[{"op":"add","path":"/m/labels/a","value":"b"}]`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var out []any
			for _, op := range diff("", object(c.from), object(c.to), object(c.control)) {
				out = append(out, op.withValue())
			}
			raw, err := json.Marshal(out)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, string(raw)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
