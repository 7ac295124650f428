package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vivarium.io/vivarium/internal/localcluster"
)

// The local system is described by flags whose defaults come from the environment, as `make up` passes it.

// setting reads a variable of the environment, which may be unset or empty.
func setting(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

// runDirFlag says which instance is meant.
func runDirFlag(flags *pflag.FlagSet, dir *string) {
	flags.StringVar(dir, "run-dir", setting("RUN_DIR", localcluster.DefaultRunDir), "Directory of the instance. [$RUN_DIR]")
}

// numberSetting is a flag for a number; a variable that is none is reported when the command runs.
type numberSetting struct {
	variable string
	text     string
}

func (n *numberSetting) value() (int, error) {
	if n.text == "" {
		return 0, nil
	}
	number, err := strconv.Atoi(n.text)
	if err != nil || number < 0 {
		return 0, usageError{fmt.Errorf("%s: %q is not a number", n.variable, n.text)}
	}
	return number, nil
}

// list splits a list as people write it.
func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

// self is this program, for those who have to run it again.
func self() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return path, nil
}

// noArgs and exactly refuse arguments in the words of the command.
func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return usageError{err}
	}
	return nil
}
