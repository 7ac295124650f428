// Command generate writes the rule table. Run it in package rules by go generate.
package main

import (
	"fmt"
	"os"
	"strings"

	"vivarium.io/vivarium/gateway/internal/translate/rules/internal/gen"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "generate rules:", err)
		os.Exit(1)
	}
}

func run() error {
	text, err := os.ReadFile("fields.txt")
	if err != nil {
		return err
	}
	decisions, err := gen.ParseDecisions(string(text))
	if err != nil {
		return fmt.Errorf("fields.txt: %w", err)
	}
	res, err := gen.Generate(decisions)
	if err != nil {
		return err
	}
	if len(res.Undecided) > 0 {
		return fmt.Errorf("nobody decided about these fields; add them to fields.txt:\n%s", strings.Join(res.Undecided, "\n"))
	}
	if len(res.Unused) > 0 {
		return fmt.Errorf("fields.txt decides about fields that do not exist:\n%s", strings.Join(res.Unused, "\n"))
	}
	return os.WriteFile("zz_generated.rules.go", res.Source, 0o644)
}
