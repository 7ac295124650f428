package boot

import "runtime/debug"

// version is stamped by the build with -ldflags "-X".
var version string

// Version tells what was built: the stamped version, else what the Go toolchain recorded, else "dev".
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}
