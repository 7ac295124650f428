package conformance

import (
	"fmt"
	"regexp"

	"sigs.k8s.io/yaml"
)

// Reason explains failures.
type Reason struct {
	// Specs is a pattern that the names of the explained specs match.
	Specs string `json:"specs"`
	// Says is a pattern that the failure's message matches, so that a spec that fails for another reason than the known one
	// is not taken for explained. Empty matches everything.
	Says string `json:"says,omitempty"`
	// Reason is for the reader: what a tenant does not have, and why.
	Reason string `json:"reason"`

	specs, says *regexp.Regexp
}

// Reasons explain failures, the first that matches.
type Reasons []Reason

// ParseReasons reads a file of reasons.
func ParseReasons(raw []byte) (Reasons, error) {
	var reasons Reasons
	if err := yaml.UnmarshalStrict(raw, &reasons); err != nil {
		return nil, fmt.Errorf("read the reasons of failures: %w", err)
	}
	for i := range reasons {
		r := &reasons[i]
		if r.Specs == "" || r.Reason == "" {
			return nil, fmt.Errorf("read the reasons of failures: number %d lacks specs or reason", i+1)
		}
		var err error
		if r.specs, err = regexp.Compile(r.Specs); err == nil {
			r.says, err = regexp.Compile(r.Says)
		}
		if err != nil {
			return nil, fmt.Errorf("read the reasons of failures: %w", err)
		}
	}
	return reasons, nil
}

// Explain gives the reason of a failure; false when there is none.
func (r Reasons) Explain(failure Spec) (string, bool) {
	for _, reason := range r {
		if reason.specs.MatchString(failure.Name) && reason.says.MatchString(failure.Message) {
			return reason.Reason, true
		}
	}
	return "", false
}

// Unexplained are the failures that no reason matches.
func (r Reasons) Unexplained(results *Results) []Spec {
	var out []Spec
	for _, failure := range results.Failures() {
		if _, ok := r.Explain(failure); !ok {
			out = append(out, failure)
		}
	}
	return out
}

// Stale are the reasons for specs that ran and of which none failed: they should go.
func (r Reasons) Stale(results *Results) []Reason {
	var out []Reason
	for _, reason := range r {
		ran, failed := false, false
		for _, s := range results.Specs {
			if reason.specs.MatchString(s.Name) {
				ran = ran || s.State == Passed
				failed = failed || s.State == Failed
			}
		}
		if ran && !failed {
			out = append(out, reason)
		}
	}
	return out
}
