package translate

import (
	"strings"

	"vivarium.io/vivarium/internal/names"
)

// TextToTenant takes the tenant's prefix out of text in the control cluster's words, such as a Warning header. The prefix
// goes only where a name can start, and never out of the names given: those the tenant itself used, which look prefixed
// but are not.
func (v View) TextToTenant(text string, keep ...string) string {
	return v.eachPrefix(withoutWebhook(text), keep, func(b *strings.Builder) {})
}

// policyBroken is what a tenant is told when nobody can be asked about its admission policies.
const policyBroken = `the admission policies cannot be applied at the moment`

// withoutWebhook leaves of a refusal what the tenant's own policy said. How the gateway is asked, and why it could not be,
// is the platform's business, and the address is a secret.
func withoutWebhook(text string) string {
	if !strings.Contains(text, names.PolicyWebhook) {
		return text
	}
	for _, name := range []string{names.PolicyWebhook, names.PolicyWebhookAll} {
		text = strings.ReplaceAll(text, `admission webhook "`+name+`" denied the request: `, "")
		if before, _, failed := strings.Cut(text, `failed calling webhook "`+name+`": `); failed {
			return before + policyBroken
		}
	}
	return text
}

// textToControl is the inverse: what the tenant wrote comes back as it was.
func (v View) textToControl(text string, keep ...string) string {
	prefix := v.Tenant.Prefix()
	return v.eachPrefix(text, keep, func(b *strings.Builder) { b.WriteString(prefix); b.WriteString(prefix) })
}

// eachPrefix replaces the tenant's prefix wherever a name of the control cluster can start.
func (v View) eachPrefix(text string, keep []string, replace func(*strings.Builder)) string {
	prefix := v.Tenant.Prefix()
	if !strings.Contains(text, prefix) {
		return text
	}
	var b strings.Builder
	b.Grow(len(text) + len(prefix))
	for from := 0; ; {
		i := strings.Index(text[from:], prefix)
		if i < 0 {
			b.WriteString(text[from:])
			return b.String()
		}
		at := from + i
		b.WriteString(text[from:at])
		from = at + len(prefix)
		// Right behind a prefix stands a name of the tenant's, which may itself look prefixed: '-' is no start.
		switch {
		case !nameStart(text, at):
			b.WriteString(prefix)
		case kept(text[at:], keep):
			b.WriteString(prefix)
		default:
			replace(&b)
		}
	}
}

func kept(text string, keep []string) bool {
	for _, k := range keep {
		if k != "" && strings.HasPrefix(text, k) {
			return true
		}
	}
	return false
}

func nameStart(text string, at int) bool {
	if at == 0 {
		return true
	}
	switch c := text[at-1]; {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c >= 0x80:
		return false
	}
	return true
}
