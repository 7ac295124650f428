package gen

import (
	"os"
	"strings"
	"testing"

	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

func decisions(t *testing.T) Decisions {
	t.Helper()
	text, err := os.ReadFile("../../fields.txt")
	if err != nil {
		t.Fatal(err)
	}
	d, err := ParseDecisions(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestEveryFieldIsDecided fails on a string field of a served kind that nobody decided about, on a decision about a field
// that is gone, and on a table that was not generated again.
func TestEveryFieldIsDecided(t *testing.T) {
	res, err := Generate(decisions(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Undecided) > 0 {
		t.Errorf("nobody decided about %s", strings.Join(res.Undecided, ", "))
	}
	if len(res.Unused) > 0 {
		t.Errorf("decided, but not there: %s", strings.Join(res.Unused, ", "))
	}
	committed, err := os.ReadFile("../../zz_generated.rules.go")
	if err != nil {
		t.Fatal(err)
	}
	if string(committed) != string(res.Source) {
		t.Error("zz_generated.rules.go is stale: go generate")
	}
}

// TestMissingDecisionIsNoticed proves that the test above can fail.
func TestMissingDecisionIsNoticed(t *testing.T) {
	d := decisions(t)
	for _, field := range []string{"core/v1.PodSpec.priorityClassName", "core/v1.Container.image", "meta/v1.ObjectMeta.labels", "core/v1.PodAffinityTerm.namespaces"} {
		op := d[field]
		delete(d, field)
		res, err := Generate(d)
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Undecided) == 0 {
			t.Errorf("nobody missed a decision about %s", field)
		}
		d[field] = op
	}
	d["core/v1.PodSpec.noSuchField"] = rules.Pass
	if res, err := Generate(d); err != nil || len(res.Unused) != 1 {
		t.Errorf("a decision about nothing: %v, %v", res.Unused, err)
	}
}

// TestServedKinds spells out what is left without a table, so that a new kind of the API needs a decision.
func TestServedKinds(t *testing.T) {
	var kinds []string
	for _, k := range Served() {
		kinds = append(kinds, k.Group+"/"+k.Version+"."+k.Kind)
		if _, ok := rules.For(k.Group, k.Version, k.Kind); !ok {
			t.Errorf("%s has no table", k)
		}
	}
	if len(kinds) != 57 {
		t.Errorf("%d kinds are served:\n%s", len(kinds), strings.Join(kinds, "\n"))
	}
	for kind := range Left() {
		for _, k := range Served() {
			if k.Kind == kind {
				t.Errorf("%s is left out and served", kind)
			}
		}
	}
}
