package selection

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"vivarium.io/vivarium/gateway/internal/translate"
)

func TestParse(t *testing.T) {
	type object struct{ key, labels, fields string }
	told := []translate.Field{{Name: "spec.nodeName"}, {Name: "status.phase"}}
	for name, c := range map[string]struct {
		labels, fields string
		left           bool // to the control cluster
		match, not     []object
	}{
		"Equals":    {labels: "a=b", match: []object{{"x/y", "a=b", ""}, {"x/y", "a=b,c=d", ""}}, not: []object{{"x/y", "", ""}, {"x/y", "a=c", ""}}},
		"Not":       {labels: "a!=b,!c", match: []object{{"x/y", "", ""}, {"x/y", "a=c", ""}}, not: []object{{"x/y", "a=b", ""}, {"x/y", "c=", ""}}},
		"In":        {labels: "a in (b,c),d", match: []object{{"x/y", "a=c,d=", ""}}, not: []object{{"x/y", "a=c", ""}}},
		"Greater":   {labels: "a>3", match: []object{{"x/y", "a=4", ""}}, not: []object{{"x/y", "a=3", ""}, {"x/y", "a=x", ""}}},
		"NotThere":  {fields: "metadata.namespace!=x", match: []object{{"z/y", "", ""}, {"/x", "", ""}}, not: []object{{"x/y", "", ""}}},
		"NotThat":   {labels: "a", fields: "metadata.name!=y,metadata.namespace!=q", match: []object{{"x/x", "a=", ""}}, not: []object{{"x/y", "a=", ""}, {"q/x", "a=", ""}, {"x/x", "", ""}}},
		"Name":      {fields: "metadata.name=x", left: true},
		"Namespace": {labels: "a", fields: "metadata.namespace=x", left: true},
		"Field":     {fields: "spec.nodeName!=x", match: []object{{"x/y", "", "z,"}, {"x/y", "", ","}}, not: []object{{"x/y", "", "x,"}}},
		"Unknown":   {fields: "status.phase=Running,spec.what!=x", left: true},
		"FieldToo": {
			labels: "a=b", fields: "metadata.name!=x,status.phase=Running,spec.nodeName!=", match: []object{{"x/y", "a=b", "n,Running"}},
			not: []object{{"x/y", "", "n,Running"}, {"x/x", "a=b", "n,Running"}, {"x/y", "a=b", "n,"}, {"x/y", "a=b", ",Running"}},
		},
		"Everything": {match: []object{{"x/y", "", ""}}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Parse(c.labels, c.fields, told)
			if err != nil || (s == nil) != c.left {
				t.Fatal(s, err)
			}
			for want, objects := range map[bool][]object{true: c.match, false: c.not} {
				for _, o := range objects {
					set, err := labels.ConvertSelectorToLabelsMap(o.labels)
					if err != nil {
						t.Fatal(err)
					}
					if got := s.Matches(Key(o.key), set) && s.MatchesFields(strings.Split(o.fields, ",")); got != want {
						t.Errorf("%v: %t", o, got)
					}
				}
			}
		})
	}
	for _, bad := range [][2]string{{"a in", ""}, {"", "a"}} {
		if s, err := Parse(bad[0], bad[1], nil); err == nil {
			t.Errorf("%q: %+v", bad, s)
		}
	}
}

func TestTurn(t *testing.T) {
	s := &Set{}
	s.Add("x/old")
	for i, c := range []struct {
		kind, key string
		matches   bool
		want      Turn
		told      string
	}{
		{"ADDED", "x/a", false, Nothing, ""},
		{"MODIFIED", "x/a", false, Nothing, ""},
		{"MODIFIED", "x/a", true, Added, "ADDED"},
		{"MODIFIED", "x/a", true, Modified, "MODIFIED"},
		{"MODIFIED", "x/a", false, Former, "DELETED"},
		{"MODIFIED", "x/a", false, Nothing, ""},
		{"DELETED", "x/a", false, Nothing, ""},
		{"ADDED", "x/a", true, Added, "ADDED"},
		{"DELETED", "x/a", true, Deleted, "DELETED"},
		{"ADDED", "x/a", false, Nothing, ""},
		{"MODIFIED", "x/old", true, Modified, "MODIFIED"},
		{"DELETED", "x/old", true, Deleted, "DELETED"},
	} {
		if got := s.Turn(c.kind, Key(c.key), c.matches); got != c.want || got.Type() != c.told {
			t.Errorf("event %d: %v %s", i, got, got.Type())
		}
	}
	if s.Len() != 0 || s.Over() {
		t.Errorf("%+v", s)
	}
}

func TestKey(t *testing.T) {
	for _, c := range [][2]string{{"a-b", "c"}, {"", "a:b"}, {"", ""}} {
		ns, name := KeyOf([]byte(c[0]), []byte(c[1])).Split()
		if diff := cmp.Diff(c, [2]string{ns, name}); diff != "" {
			t.Error(diff)
		}
	}
}

func TestBudget(t *testing.T) {
	b := &Budget{Each: 1000, Tenant: 1800, All: 4000}
	one, two, stranger := b.New("aaaaaa"), b.New("aaaaaa"), b.New("bbbbbb")
	add := func(s *Set, n int) {
		for i := range n {
			s.Add(Key(fmt.Sprintf("namespace/%d", i)))
		}
	}
	add(one, 15)
	add(one, 15)
	if one.Over() || one.Len() != 15 {
		t.Errorf("%+v", one)
	}
	add(one, 18)
	if !one.Over() || one.Len() != 18 {
		t.Errorf("one set is within its bound: %+v", one)
	}
	add(two, 10)
	if two.Over() {
		t.Errorf("%+v", two)
	}
	add(two, 16)
	if !two.Over() {
		t.Errorf("a tenant is within its bound: %+v", two)
	}
	add(stranger, 10)
	if stranger.Over() {
		t.Errorf("another tenant's bound: %+v", stranger)
	}
	for _, s := range []*Set{one, two} {
		s.Clear()
	}
	for i := range 10 {
		stranger.Remove(Key(fmt.Sprintf("namespace/%d", i)))
	}
	stranger.Remove("namespace/0")
	if b.all != 0 || len(b.of) != 0 || stranger.Len() != 0 {
		t.Errorf("something is left: %+v", b)
	}
	// The bound of all.
	b = &Budget{Each: 1000, Tenant: 1000, All: 1500}
	first, second := b.New("aaaaaa"), b.New("bbbbbb")
	add(first, 16)
	add(second, 16)
	if first.Over() || !second.Over() {
		t.Errorf("%+v %+v", first, second)
	}
}
