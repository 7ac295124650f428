package conformance

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// State is how a spec ended.
type State string

// The states of specs.
const (
	Passed State = "passed"
	Failed State = "failed"
	// Skipped is a spec that ran and found by itself that it does not apply.
	Skipped State = "skipped"
	// Unselected is a spec that was not run.
	Unselected State = "unselected"
)

// Spec is one spec of the suite, or a step of the suite itself that failed.
type Spec struct {
	// Name is the suite's, without its list of labels.
	Name string
	// Group is the special interest group that the name says, as in sig-auth; empty for the suite's own steps.
	Group string
	// Conformance says that the spec is one of those that every conformant cluster passes.
	Conformance bool
	State       State
	// Message is why a spec failed or skipped.
	Message string
}

// Results is one run of the suite.
type Results struct {
	// Focus and Skip are the patterns that selected the specs.
	Focus, Skip []string
	Specs       []Spec
}

// The format is JUnit's, as Ginkgo writes it.
type junitSuites struct {
	Suites []struct {
		Properties []struct {
			Name  string `xml:"name,attr"`
			Value string `xml:"value,attr"`
		} `xml:"properties>property"`
		Cases []junitCase `xml:"testcase"`
	} `xml:"testsuite"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Status  string        `xml:"status,attr"`
	Skipped *junitMessage `xml:"skipped"`
	Failure *junitMessage `xml:"failure"`
	Error   *junitMessage `xml:"error"`
}

// junitMessage says why. The suite leaves the attribute of a failure empty and writes what happened as text.
type junitMessage struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

func (m *junitMessage) String() string {
	return cmp.Or(m.Message, strings.TrimPrefix(strings.TrimSpace(m.Text), "[FAILED] "))
}

// Parse reads the JUnit file of a run.
func Parse(r io.Reader) (*Results, error) {
	var suites junitSuites
	if err := xml.NewDecoder(r).Decode(&suites); err != nil {
		return nil, fmt.Errorf("read the suite's results: %w", err)
	}
	results := &Results{}
	for _, suite := range suites.Suites {
		for _, p := range suite.Properties {
			switch {
			case p.Value == "":
			case p.Name == "FocusStrings":
				results.Focus = append(results.Focus, p.Value)
			case p.Name == "SkipStrings":
				results.Skip = append(results.Skip, p.Value)
			}
		}
		for _, c := range suite.Cases {
			if spec, ok := c.spec(); ok {
				results.Specs = append(results.Specs, spec)
			}
		}
	}
	if len(results.Specs) == 0 {
		return nil, fmt.Errorf("read the suite's results: there is no spec in them")
	}
	slices.SortStableFunc(results.Specs, func(a, b Spec) int {
		return cmp.Or(strings.Compare(a.Group, b.Group), strings.Compare(a.Name, b.Name))
	})
	return results, nil
}

var (
	labels = regexp.MustCompile(` \[[^\[\]]*\]$`)
	group  = regexp.MustCompile(`\[(sig-[a-z-]+)\]`)
)

// spec gives what is to be told of a case. The suite's own steps are only told of when they fail.
func (c junitCase) spec() (Spec, bool) {
	name, isSpec := strings.CutPrefix(c.Name, "[It] ")
	spec := Spec{Name: name, State: Passed}
	switch {
	case c.Failure != nil || c.Error != nil:
		spec.State, spec.Message = Failed, cmp.Or(c.Failure, c.Error).String()
	case c.Skipped != nil:
		// Ginkgo says no more of what was not selected.
		why, ran := strings.CutPrefix(c.Skipped.Message, "skipped - ")
		spec.State, spec.Message = Unselected, ""
		if ran {
			spec.State, spec.Message = Skipped, why
		}
	case c.Status != "" && c.Status != "passed":
		spec.State, spec.Message = Failed, c.Status
	}
	if !isSpec {
		return spec, spec.State == Failed
	}
	// The labels at the end say the same once more, separated by commas.
	if last := labels.FindString(name); strings.Contains(last, ",") || strings.HasPrefix(last, " [sig-") {
		spec.Name = strings.TrimSuffix(name, last)
	}
	if match := group.FindStringSubmatch(name); match != nil {
		spec.Group = match[1]
	}
	spec.Conformance = strings.Contains(name, "[Conformance]")
	return spec, true
}

// Failures are the specs that failed.
func (r *Results) Failures() []Spec { return r.in(Failed) }

func (r *Results) in(state State) []Spec {
	var out []Spec
	for _, s := range r.Specs {
		if s.State == state {
			out = append(out, s)
		}
	}
	return out
}

// Count is how many specs of a run ended how.
type Count map[State]int

// Counts counts specs that keep says yes to.
func (r *Results) Counts(keep func(Spec) bool) Count {
	count := Count{}
	for _, s := range r.Specs {
		if keep(s) {
			count[s.State]++
		}
	}
	return count
}

// groups are the groups of which something ran.
func (r *Results) groups() []string {
	var out []string
	for _, s := range r.Specs {
		if s.State != Unselected && s.Group != "" && !slices.Contains(out, s.Group) {
			out = append(out, s.Group)
		}
	}
	return out
}
