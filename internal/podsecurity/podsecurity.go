// Package podsecurity decides which Pod Security level a tenant's namespace enforces in the control cluster.
//
// A tenant labels its namespaces as on any cluster. What it asks to enforce is kept under a key of the platform's and
// shown back as it was written; the label that the control cluster acts on is always the platform's, and never weaker
// than [Baseline]. What a tenant wants audited or warned about weakens nothing and needs no second key.
//
// The package must never give a level below [Baseline], whatever it is asked. Start at [Enforced].
package podsecurity

import (
	"regexp"
	"strings"

	"vivarium.io/vivarium/internal/names"
)

// The levels, as Kubernetes names them.
const (
	Privileged = "privileged"
	Baseline   = "baseline"
	Restricted = "restricted"
)

// Latest is the version of the levels that the platform enforces.
const Latest = "latest"

// The labels that the control cluster acts on.
const (
	domain         = "pod-security.kubernetes.io/"
	Enforce        = domain + "enforce"
	EnforceVersion = domain + "enforce-version"
)

// What a tenant has written into these labels is kept under these.
const (
	platformDomain       = "pod-security." + names.Domain + "/"
	TenantEnforce        = platformDomain + "enforce"
	TenantEnforceVersion = platformDomain + "enforce-version"
)

// ToControl gives the key under which the control cluster keeps a label of a tenant's namespace.
func ToControl(key string) string {
	switch key {
	case Enforce, EnforceVersion:
		return platformDomain + strings.TrimPrefix(key, domain)
	}
	return key
}

// ToTenant is the inverse of [ToControl]; false hides a label that is the platform's.
func ToTenant(key string) (string, bool) {
	switch key {
	case TenantEnforce, TenantEnforceVersion:
		return domain + strings.TrimPrefix(key, platformDomain), true
	case Enforce, EnforceVersion:
		return "", false
	}
	return key, true
}

// Enforced is the level that the control cluster enforces where a tenant asks for wanted: that one where it is stricter
// than the platform's, else the platform's.
func Enforced(wanted string) string {
	if wanted == Restricted {
		return Restricted
	}
	return Baseline
}

var versions = regexp.MustCompile(`^(latest|v1\.(0|[1-9][0-9]*))$`)

// Check says what is wrong with a value that a tenant writes into a label, as the control cluster would if the label were
// one that it acts on; it is empty when nothing is.
func Check(key, value string) string {
	switch {
	case key == Enforce && value != Privileged && value != Baseline && value != Restricted:
		return "must be one of privileged, baseline, restricted"
	case key == EnforceVersion && !versions.MatchString(value):
		return `must be "latest" or "v1.x"`
	}
	return ""
}
