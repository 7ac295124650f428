package translate

import (
	"strings"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
)

// annotationsOfScaling start the annotations in which autoscaling/v1 keeps what only newer versions have fields for, as
// JSON. The references in it name groups.
const annotationsOfScaling = "autoscaling.alpha.kubernetes.io/"

// scalingAnnotation translates the groups in such an annotation, by f. What is no JSON is nothing to the API server either.
func scalingAnnotation(kind, key string, text *jsonwire.Value, f func(string) string) {
	if kind != "HorizontalPodAutoscaler" || !strings.HasPrefix(key, annotationsOfScaling) {
		return
	}
	doc, err := jsonwire.Parse([]byte(text.Text()))
	if err != nil {
		return
	}
	changed := false
	var walk func(v *jsonwire.Value)
	walk = func(v *jsonwire.Value) {
		for _, m := range v.Members() {
			if gv := m.Value.Text(); m.Key == "apiVersion" && gv != "" {
				if own := f(gv); own != gv {
					m.Value.SetText(own)
					changed = true
				}
			}
			walk(m.Value)
		}
		for _, e := range v.Elems() {
			walk(e)
		}
	}
	if walk(doc); changed {
		text.SetText(string(doc.Append(nil)))
	}
}
