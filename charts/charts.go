// Package charts holds the manifests of the charts, for the command line, which applies the same files where there is no
// Helm. It must never hold anything that is not also a chart's. Start at [FS].
package charts

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"path"
)

// FS holds every chart in a directory of its name.
//
//go:embed all:vivarium all:vivarium-pool
var FS embed.FS

// ControlManifests gives what the control cluster needs before the platform starts: its namespace, the components' rights
// and the admission policies, as one YAML stream in which what others need comes first.
func ControlManifests() ([]byte, error) {
	var out bytes.Buffer
	for _, pattern := range []string{"vivarium/files/namespace.yaml", "vivarium/files/rbac/*.yaml", "vivarium/files/policy/*.yaml"} {
		files, err := fs.Glob(FS, pattern)
		if err != nil {
			return nil, fmt.Errorf("list manifests %s: %w", pattern, err)
		}
		for _, file := range files {
			raw, err := FS.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("read manifest %s: %w", path.Base(file), err)
			}
			fmt.Fprintf(&out, "---\n%s\n", raw)
		}
	}
	return out.Bytes(), nil
}
