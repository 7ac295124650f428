package translate

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
)

// StatusToTenant translates the body of a response with an error code. A body that is no Status, or one that speaks about
// the gateway's own rights, becomes one that says nothing but the code. It never fails.
func (v View) StatusToTenant(k Kind, code int, body []byte) []byte {
	root, _ := v.bodyRoot(k)
	r := &response{view: v, kind: k, root: root, prefix: []byte(v.Tenant.Prefix())}
	if bytes.HasPrefix(body, protoMagic) {
		if out, ok := r.protoStatus(body); ok {
			return out
		}
		return plainProtoStatus(code)
	}
	doc, err := jsonwire.Parse(body)
	if err != nil || doc.Get("kind").Text() != "Status" || doc.Get("apiVersion").Text() != "v1" {
		return plainStatus(code)
	}
	if !r.statusToTenant(doc) {
		return plainStatus(code)
	}
	return append(doc.Append(nil), '\n')
}

func statusOf(code int) metav1.Status {
	return metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code),
		Message: "the server answered: " + strings.ToLower(http.StatusText(code)), Reason: plainReasons[code],
	}
}

func plainStatus(code int) []byte {
	body, err := json.Marshal(statusOf(code))
	if err != nil {
		return nil
	}
	return append(body, '\n')
}

func plainProtoStatus(code int) []byte {
	s := statusOf(code)
	raw, err := s.Marshal()
	if err != nil {
		return nil
	}
	out, err := appendEnvelope(nil, "v1", "Status", len(raw), func(dst []byte) ([]byte, error) { return append(dst, raw...), nil })
	if err != nil {
		return nil
	}
	return out
}

// plainReasons are the reasons that clients act on.
var plainReasons = map[int]metav1.StatusReason{
	http.StatusBadRequest: metav1.StatusReasonBadRequest, http.StatusUnauthorized: metav1.StatusReasonUnauthorized,
	http.StatusForbidden: metav1.StatusReasonForbidden, http.StatusNotFound: metav1.StatusReasonNotFound,
	http.StatusConflict: metav1.StatusReasonConflict, http.StatusGone: metav1.StatusReasonGone,
	http.StatusTooManyRequests: metav1.StatusReasonTooManyRequests, http.StatusInternalServerError: metav1.StatusReasonInternalError,
	http.StatusServiceUnavailable: metav1.StatusReasonServiceUnavailable, http.StatusGatewayTimeout: metav1.StatusReasonTimeout,
}

// statusToTenant translates a Status; false means that it is not for the tenant at all.
func (r *response) statusToTenant(doc *jsonwire.Value) bool {
	if meta := doc.Get("metadata"); meta.Get("continue").Text() != "" {
		if r.view.Continue == nil {
			meta.Delete("continue")
		} else {
			meta.Get("continue").SetText(r.view.Continue(meta.Get("continue").Text()))
		}
	}
	details := doc.Get("details")
	kind, group, name := details.Get("kind").Text(), details.Get("group").Text(), details.Get("name")
	if impersonated[kind] && r.kind.Resource != kind {
		// The control cluster refused the gateway and not the tenant.
		return false
	}
	var keep []string
	ownGroup, _ := r.view.groupToTenant(group)
	class := r.view.nameClassOf(ownGroup, kind)
	if class == plainNames {
		class = r.view.kindClass(ownGroup+"/", kind)
	}
	if class == crdNames && name.Text() != "" {
		if own, err := r.view.Tenant.DefinitionToTenant(name.Text()); err == nil {
			name.SetText(own)
		} else if !isDefinition(r.kind) {
			return false
		}
	} else if class == prefixedNames || kind == "namespaces" {
		if own, err := r.view.Tenant.NameToTenant(name.Text()); err == nil {
			name.SetText(own)
		} else if name.Text() != "" && (r.root.Custom || !r.view.exported(r.root.Kind, name.Text())) {
			return false
		}
	} else if name.Text() != "" {
		keep = append(keep, name.Text())
	}
	if g := details.Get("group"); g.Text() != "" {
		own, _ := r.view.groupToTenant(g.Text())
		g.SetText(own)
	}
	for _, cause := range details.Get("causes").Elems() {
		for _, text := range []*jsonwire.Value{cause.Get("message"), cause.Get("field")} {
			if text.Text() != "" {
				text.SetText(r.view.TextToTenant(text.Text(), keep...))
			}
		}
	}
	if message := doc.Get("message"); message.Text() == patchFailed && r.root.Kind == "ClusterRole" {
		// One of the tests may not be the tenant's.
		message.SetText(splitRulesMessage)
	} else if message.Text() != "" {
		message.SetText(r.view.TextToTenant(message.Text(), keep...))
	}
	return true
}

// impersonated are what the control cluster names when it refuses an impersonation.
var impersonated = map[string]bool{"users": true, "groups": true, "uids": true, "userextras": true}
