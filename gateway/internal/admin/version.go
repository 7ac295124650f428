package admin

import (
	"fmt"
	"runtime"
	"strings"

	apimachineryversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/component-base/compatibility"

	"vivarium.io/vivarium/internal/boot"
)

// version tells clients the Kubernetes release whose machinery serves this API, in a form that they can compare, and our
// own release behind it. Without it they would be told the placeholder of a library that nobody stamped.
type version struct{ compatibility.EffectiveVersion }

func (v version) Info() *apimachineryversion.Info {
	kubernetes := v.BinaryVersion()
	return &apimachineryversion.Info{
		Major:      fmt.Sprint(kubernetes.Major()),
		Minor:      fmt.Sprint(kubernetes.Minor()),
		GitVersion: fmt.Sprintf("v%d.%d.%d+vivarium.%s", kubernetes.Major(), kubernetes.Minor(), kubernetes.Patch(), metadata(boot.Version())),
		GoVersion:  runtime.Version(),
		Compiler:   runtime.Compiler,
		Platform:   runtime.GOOS + "/" + runtime.GOARCH,
	}
}

// metadata spells a version as the build metadata of a semantic version, which knows no plus.
func metadata(version string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-':
			return r
		default:
			return '-'
		}
	}, version)
}
