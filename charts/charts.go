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

// ControlManifests gives what the control cluster needs before the platform starts: its namespace and the components'
// rights, as one YAML stream.
func ControlManifests() ([]byte, error) {
	files, err := fs.Glob(FS, "vivarium/files/rbac/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list the components' rights: %w", err)
	}
	var out bytes.Buffer
	for _, file := range append([]string{"vivarium/files/namespace.yaml"}, files...) {
		raw, err := FS.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read manifest %s: %w", path.Base(file), err)
		}
		fmt.Fprintf(&out, "---\n%s\n", raw)
	}
	return out.Bytes(), nil
}
