package podspec

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"vivarium.io/vivarium/internal/names"
)

// TextToTenant puts a text of the pool about one pod (an event, a reason why a container waits) into its tenant's words.
// Only names that are known to belong to this very pod are replaced, and only where they stand as a whole name; whatever
// else the text says is left alone, since it may be the tenant's own.
func TextToTenant(text string, control, pool *corev1.Pod, at Placement) string {
	return phrasebook(control, pool, at)(text)
}

func verbatim(text string) string { return text }

func phrasebook(control, pool *corev1.Pod, at Placement) func(string) string {
	pairs := [][2]string{
		{pool.Namespace, string(at.Namespace)},
		{string(pool.UID), string(control.UID)},
		{pool.Spec.NodeName, at.Node.Name},
		{names.TokenSecret(control.UID), "the pod's ServiceAccount token"},
		{names.RootCAConfigMap, names.ConfigMapToControl(names.RootCAConfigMap)},
	}
	return func(text string) string {
		for _, pair := range pairs {
			text = replaceName(text, pair[0], pair[1])
		}
		return text
	}
}

// replaceName replaces name where it is not part of a longer name.
func replaceName(text, name, with string) string {
	if name == "" || name == with {
		return text
	}
	var out strings.Builder
	done := 0
	for {
		i := strings.Index(text[done:], name)
		if i < 0 {
			out.WriteString(text[done:])
			return out.String()
		}
		start, end := done+i, done+i+len(name)
		out.WriteString(text[done:start])
		if startsName(text, start) && endsName(text, end) {
			out.WriteString(with)
		} else {
			out.WriteString(name)
		}
		done = end
	}
}

func startsName(text string, at int) bool { return at == 0 || !nameByte(text[at-1]) }

// endsName also takes a full stop at the end of a sentence for an end.
func endsName(text string, at int) bool {
	if at < len(text) && text[at] == '.' {
		at++
	}
	return at == len(text) || !nameByte(text[at])
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.'
}
