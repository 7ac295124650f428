package conformance

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// About is what the page says of the run besides its results.
type About struct {
	// Version is that of Kubernetes.
	Version string
	// Nodes says what the pods ran on.
	Nodes string
}

// Markdown writes the page. The same results give the same page.
func (r *Results) Markdown(w io.Writer, about About, reasons Reasons) error {
	p := &page{}
	p.line("# Conformance of %s", strings.Join(r.groups(), ", "))
	p.line("")
	p.line("What `make conformance` wrote after it ran; not to be edited. The reasons of failures are kept in")
	p.line("`hack/conformance/reasons.yaml`.")
	p.line("")
	p.line("The end-to-end suite of Kubernetes %s, unmodified, run with the kubeconfig of a tenant's admin through the gateway, on", about.Version)
	p.line("%s. Specs that need an image which cannot be made without a registry fail and are listed.", about.Nodes)
	p.line("")
	if len(r.Focus) > 0 {
		p.line("- `FOCUS='%s'`", strings.Join(r.Focus, "|"))
	}
	if len(r.Skip) > 0 {
		p.line("- `SKIP='%s'`", strings.Join(r.Skip, "|"))
	}
	p.line("")
	p.counts(r)
	p.failures(r, reasons)
	p.skipped(r)
	_, err := io.WriteString(w, p.text.String())
	return err
}

type page struct{ text strings.Builder }

func (p *page) line(format string, args ...any) { fmt.Fprintf(&p.text, format+"\n", args...) }

func (p *page) counts(r *Results) {
	p.line("| group | specs | passed | failed | skipped by themselves | not selected |")
	p.line("| --- | --- | ---: | ---: | ---: | ---: |")
	row := func(name, what string, c Count) {
		p.line("| %s | %s | %d | %d | %d | %d |", name, what, c[Passed], c[Failed], c[Skipped], c[Unselected])
	}
	groups := r.groups()
	for _, g := range groups {
		for _, conformance := range []bool{true, false} {
			what := "[Conformance]"
			if !conformance {
				what = "others"
			}
			if c := r.Counts(func(s Spec) bool { return s.Group == g && s.Conformance == conformance }); len(c) > 0 {
				row(g, what, c)
			}
		}
	}
	row("**all**", "", r.Counts(func(s Spec) bool { return s.Group == "" || slices.Contains(groups, s.Group) }))
	p.line("")
}

func (p *page) failures(r *Results, reasons Reasons) {
	failures := r.Failures()
	if len(failures) == 0 {
		p.line("No spec failed.")
		return
	}
	type why struct {
		reason string
		specs  []Spec
	}
	var known []*why
	var unexplained []Spec
	for _, failure := range failures {
		reason, ok := reasons.Explain(failure)
		if !ok {
			unexplained = append(unexplained, failure)
			continue
		}
		var in *why
		for _, k := range known {
			if k.reason == reason {
				in = k
			}
		}
		if in == nil {
			in = &why{reason: reason}
			known = append(known, in)
		}
		in.specs = append(in.specs, failure)
	}
	p.line("## Failures")
	for _, k := range known {
		p.line("")
		p.line("%s", k.reason)
		p.line("")
		for _, s := range k.specs {
			p.line("- `%s`", s.Name)
		}
	}
	if len(unexplained) > 0 {
		p.line("")
		p.line("**Unexplained**")
		p.line("")
		for _, s := range unexplained {
			p.line("- `%s`: %s", s.Name, firstLine(s.Message))
		}
	}
	p.line("")
}

func (p *page) skipped(r *Results) {
	skipped := r.in(Skipped)
	if len(skipped) == 0 {
		return
	}
	p.line("## Skipped by themselves")
	p.line("")
	for _, s := range skipped {
		p.line("- `%s`: %s", s.Name, firstLine(s.Message))
	}
}

// firstLine is what fits behind a name.
func firstLine(message string) string {
	const most = 200
	line, _, _ := strings.Cut(strings.TrimSpace(message), "\n")
	line = strings.ReplaceAll(line, "`", "'")
	if runes := []rune(line); len(runes) > most {
		line = string(runes[:most]) + " ..."
	}
	return line
}
