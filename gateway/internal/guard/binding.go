package guard

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
)

// inertPolicy starts the name of every admission policy that a tenant's binding may name: no policy of the control cluster
// is called so. Any other name could put a policy into force for everybody.
const inertPolicy = "of-tenant."

// Field numbers of a binding of an admission policy.
const (
	fieldSpec       = 2
	fieldPolicyName = 1
)

// checkBinding looks at every way in which a body could set the policy that a binding names.
func (w *want) checkBinding() error {
	if w.body.Body == nil {
		return refuse("no body")
	}
	raw, err := io.ReadAll(io.LimitReader(w.body.Body, maxBody+1))
	_ = w.body.Body.Close()
	if err != nil || len(raw) > maxBody {
		return refuse("the body cannot be read")
	}
	w.body.Body = io.NopCloser(bytes.NewReader(raw))
	switch contentType := w.body.Header.Get("Content-Type"); contentType {
	case "application/vnd.kubernetes.protobuf":
		return w.protoBinding(raw)
	case "application/json", "application/merge-patch+json", "application/strategic-merge-patch+json",
		"application/apply-patch+yaml", "application/json-patch+json":
		var document any
		if json.Unmarshal(raw, &document) != nil {
			return refuse("the body of a binding is no JSON")
		}
		if contentType == "application/json-patch+json" {
			return w.patchedBinding(document)
		}
		return w.namesPolicy(document)
	default:
		return refuse("a body of type %q", contentType)
	}
}

func (w *want) checkPolicyName(value any) error {
	name, ok := value.(string)
	if ok && (name == "" || w.id.Owns(strings.TrimPrefix(name, inertPolicy)) && strings.HasPrefix(name, inertPolicy)) {
		return nil
	}
	return refuse("a binding to policy %v for tenant %s", value, w.id)
}

// namesPolicy looks at each member that may be the name, wherever it stands. Some readers do not tell PolicyName from
// policyName.
func (w *want) namesPolicy(document any) error {
	switch v := document.(type) {
	case map[string]any:
		for key, value := range v {
			if strings.EqualFold(key, "policyName") && value != nil {
				if err := w.checkPolicyName(value); err != nil {
					return err
				}
			}
			if err := w.namesPolicy(value); err != nil {
				return err
			}
		}
	case []any:
		for _, element := range v {
			if err := w.namesPolicy(element); err != nil {
				return err
			}
		}
	}
	return nil
}

// patchedBinding looks at the operations of a JSON patch: those that set the name, and those that could bring it from
// elsewhere.
func (w *want) patchedBinding(document any) error {
	operations, ok := document.([]any)
	if !ok {
		return refuse("the patch of a binding is no list")
	}
	for _, one := range operations {
		operation, ok := one.(map[string]any)
		if !ok {
			return refuse("an operation on a binding is no object")
		}
		path, _ := operation["path"].(string)
		what, _ := operation["op"].(string)
		into := path == "" || strings.EqualFold(path, "/spec") || strings.HasPrefix(strings.ToLower(path), "/spec/policyname")
		switch {
		case into && (what == "move" || what == "copy"):
			return refuse("%s of a binding's policy", what)
		case into && strings.Count(path, "/") == 2 && what != "remove":
			if err := w.checkPolicyName(operation["value"]); err != nil {
				return err
			}
		}
		if err := w.namesPolicy(operation["value"]); err != nil {
			return err
		}
	}
	return nil
}

func (w *want) protoBinding(raw []byte) error {
	envelope, ok := bytes.CutPrefix(raw, []byte("k8s\x00"))
	if !ok {
		return refuse("the body is no protobuf of an object")
	}
	object, err := messages(envelope, fieldRaw)
	if err != nil {
		return err
	}
	binding, err := messages(object[fieldRaw], fieldSpec)
	if err != nil {
		return err
	}
	spec, err := messages(binding[fieldSpec], fieldPolicyName)
	if err != nil {
		return err
	}
	return w.checkPolicyName(string(spec[fieldPolicyName]))
}
