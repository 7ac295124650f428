package localcluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const module = "vivarium.io/vivarium"

// SourceEnv names the environment variable that says where the checkout is when the program runs outside of it.
const SourceEnv = "VIVARIUM_SOURCE"

// ErrNoSource says that there is no checkout to build from.
var ErrNoSource = errors.New("no checkout of " + module + " found")

// FindSource gives the root of the checkout: $VIVARIUM_SOURCE, else the one around the working directory, else the one
// around this program.
func FindSource() (string, error) {
	if dir := os.Getenv(SourceEnv); dir != "" {
		if !isSource(dir) {
			return "", fmt.Errorf("%s=%s: %w there", SourceEnv, dir, ErrNoSource)
		}
		return filepath.Abs(dir)
	}
	var starts []string
	if dir, err := os.Getwd(); err == nil {
		starts = append(starts, dir)
	}
	if exe, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(exe))
	}
	for _, dir := range starts {
		for ; ; dir = filepath.Dir(dir) {
			if isSource(dir) {
				return dir, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", fmt.Errorf("%w around %s; run it in a checkout or set %s to one", ErrNoSource, strings.Join(starts, " or "), SourceEnv)
}

func isSource(dir string) bool {
	raw, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(raw)) {
		if strings.TrimSpace(line) == "module "+module {
			return true
		}
	}
	return false
}
