package translate

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
	"vivarium.io/vivarium/internal/names"
)

// MaxBody is the largest request body, as the API server has it.
const MaxBody = 3 << 20

// The content types of requests.
const (
	typeJSON           = "application/json"
	typeYAML           = "application/yaml"
	typeJSONPatch      = "application/json-patch+json"
	typeMergePatch     = "application/merge-patch+json"
	typeStrategicPatch = "application/strategic-merge-patch+json"
	typeApplyPatch     = "application/apply-patch+yaml"
)

// request is the translation of one body.
type request struct {
	view View
	kind Kind
	root rules.Root
	verb string
	// namespace and name are the tenant's, of the URL.
	namespace, name string
	// spoken is the name of a namespaced object that looks prefixed: in its own text it stays as it is, as on the way back.
	spoken string
	// splitRules says that a rule of the ClusterRole became several.
	splitRules bool
	// before and after are what a JSON patch needs around the operation at hand.
	before, after []*jsonwire.Value
	// current is the object that is patched as it is in the control cluster, once it has been asked for.
	current *jsonwire.Value
	asked   bool
	// patch says that the body is a part of an object, apply that it is a server-side apply.
	patch, apply bool
	// enforced is the Pod Security level that the last operation of a JSON patch asks the control cluster to enforce.
	enforced *jsonwire.Value
}

// BodyToControl translates the body of a request. verb is the request's: create, update, patch, delete,
// deletecollection. namespace and name are those of the tenant's URL; name is empty for a create of the resource itself.
// It returns the body to send and its content type. The error is an *Error.
func (v View) BodyToControl(k Kind, verb, contentType string, body []byte, namespace, name string) ([]byte, string, error) {
	if _, err := names.ParseTenantID(string(v.Tenant)); err != nil {
		return nil, "", malformed("no tenant")
	}
	root, ok := v.bodyRoot(k)
	if !ok {
		return nil, "", &Error{Code: http.StatusNotFound, Reason: "NotFound", Message: "the server could not find the requested resource"}
	}
	if len(body) > MaxBody {
		return nil, "", tooLarge("the body has %d bytes, at most %d are taken", len(body), MaxBody)
	}
	q := &request{view: v, kind: k, root: root, verb: verb, namespace: namespace, name: name}
	q.speak(name)
	media, err := mediaType(contentType)
	if err != nil {
		return nil, "", err
	}
	out, media, err := q.body(media, body)
	if err == nil {
		return out, media, nil
	}
	var refusal *Error
	if errors.As(err, &refusal) {
		return nil, "", refusal
	}
	if errors.Is(err, jsonwire.ErrTooLarge) {
		return nil, "", tooLarge("%s", err)
	}
	var syntax *jsonwire.SyntaxError
	if errors.As(err, &syntax) && syntax.Repeated && (verb == "create" || verb == "update") && (media == typeJSON || media == "") {
		if told := q.strictly(body); told != nil {
			return nil, "", told
		}
	}
	return nil, "", malformed("the body cannot be read: %s", err)
}

// speak notes the name of the object.
func (q *request) speak(name string) {
	if q.root.Namespaced && strings.Contains(name, q.view.Tenant.Prefix()) {
		q.spoken = name
	}
}

// IsApply reports whether a patch of a content type applies: whether it makes what is not there.
func IsApply(contentType string) bool {
	media, err := mediaType(contentType)
	return err == nil && media == typeApplyPatch
}

// mediaType reads a content type, which can be spelled in many ways.
func mediaType(contentType string) (string, error) {
	if contentType == "" {
		return "", nil
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return "", unsupportedMedia("the content type %q is malformed", contentType)
	}
	for key, value := range params {
		if key != "charset" || !strings.EqualFold(value, "utf-8") {
			return "", unsupportedMedia("the content type %q has a parameter that is not understood", contentType)
		}
	}
	return media, nil
}

func (q *request) body(media string, body []byte) ([]byte, string, error) {
	switch q.verb {
	case "create", "update", "delete", "deletecollection":
		switch media {
		case typeJSON, "":
		case typeYAML:
			converted, err := yamlToJSON(body)
			if err != nil {
				return nil, "", err
			}
			body = converted
		case typeProto:
			if q.root.Custom && (q.verb == "create" || q.verb == "update") {
				return nil, "", unsupportedMedia("a body of type %q is not understood here: use %s or %s", media, typeJSON, typeYAML)
			}
			out, err := q.protoBody(body)
			return out, typeProto, err
		default:
			return nil, "", unsupportedMedia("a body of type %q is not understood here: use %s, %s or %s", media, typeJSON, typeYAML, typeProto)
		}
		if q.verb == "delete" || q.verb == "deletecollection" {
			out, err := q.deleteOptions(body)
			return out, typeJSON, err
		}
		out, err := q.object(body)
		return out, typeJSON, err
	case "patch":
		out, err := q.patchBody(media, body)
		return out, media, err
	}
	return nil, "", malformed("a body does not go with the verb %q", q.verb)
}

func (q *request) object(body []byte) ([]byte, error) {
	root, err := jsonwire.Parse(body)
	if err != nil {
		return nil, err
	}
	if err := q.whole(root); err != nil {
		return nil, err
	}
	return root.Append(nil), nil
}

// whole translates a complete object.
func (q *request) whole(root *jsonwire.Value) error {
	if root.Kind() != jsonwire.Object {
		return malformed("the body must be an object, not %s", root.Kind())
	}
	if err := q.checkType(root); err != nil {
		return err
	}
	if q.name == "" {
		q.speak(root.At("metadata", "name").Text())
	}
	if err := q.value(q.root.Place, root, ""); err != nil {
		return err
	}
	return q.finish(root)
}

// checkType refuses a body that is not what the URL says. The API server would, too, but only after it has been
// translated by the wrong rules.
func (q *request) checkType(root *jsonwire.Value) error {
	gv := q.root.Version
	switch {
	case q.root.Custom:
		gv = q.kind.Group + "/" + gv
	case q.root.Group != "":
		gv = q.root.Group + "/" + gv
	}
	for key, want := range map[string]string{"kind": q.root.Kind, "apiVersion": gv} {
		switch got := root.Get(key); {
		case got == nil && !q.apply:
		case got.Kind() != jsonwire.String || got.Text() != want:
			return malformed("the body has %s %q, the URL asks for %q", key, got.Text(), want)
		}
	}
	return nil
}

// finish adds what the platform adds to objects of the kind.
func (q *request) finish(root *jsonwire.Value) error {
	switch q.root.Kind {
	case "TokenRequest", "TokenReview":
		if q.root.Group == "authentication.k8s.io" {
			q.defaultAudience(root)
		}
	}
	if len(q.injectedLabels()) == 0 || !q.labelled() {
		return nil
	}
	meta := root.Get("metadata")
	if meta.Kind() != jsonwire.Object {
		return invalid("metadata", "must be an object")
	}
	labels := meta.Get("labels")
	if labels.Kind() != jsonwire.Object {
		labels = jsonwire.NewObject()
		meta.Set("labels", labels)
	}
	q.inject(labels)
	return nil
}

// labelled reports whether a whole body must carry the platform's labels: that of an object, and those of subresources from
// which the control cluster takes the labels as well.
func (q *request) labelled() bool {
	switch q.kind.Subresource {
	case "":
		return true
	case "status":
		return q.root.Kind == "CustomResourceDefinition" || q.root.Kind == "Namespace"
	case "finalize":
		return true
	}
	return false
}

func (q *request) deleteOptions(body []byte) ([]byte, error) {
	if len(body) == 0 {
		return nil, nil
	}
	root, err := jsonwire.Parse(body)
	if err != nil {
		return nil, err
	}
	if root.Kind() != jsonwire.Object {
		return nil, malformed("the body must be DeleteOptions, not %s", root.Kind())
	}
	for _, m := range root.Members() {
		switch m.Key {
		case "apiVersion":
			m.Value.SetText(q.view.groupVersionToControl(m.Value.Text()))
		case "kind":
			if m.Value.Text() != "DeleteOptions" {
				return nil, malformed("the body must be DeleteOptions, not %q", m.Value.Text())
			}
		case "gracePeriodSeconds", "preconditions", "orphanDependents", "propagationPolicy", "dryRun":
		default:
			// Among them ignoreStoreReadErrorWithClusterBreakingPotential, which is the operator's.
			return nil, invalid(m.Key, "not understood in DeleteOptions")
		}
	}
	return root.Append(nil), nil
}

// value translates whatever stands at a place.
func (q *request) value(p *rules.Place, v *jsonwire.Value, path string) error {
	if p == nil || v.Kind() == jsonwire.Null {
		return nil
	}
	if p.Op > rules.Pass {
		return q.toControl(p.Op, v, path)
	}
	members := v.Members()
	for i := range members {
		m := &members[i]
		if directive(m.Key) {
			if err := q.directive(m, path); err != nil {
				return err
			}
			continue
		}
		if child := p.Child([]byte(m.Key)); child != nil {
			if err := q.value(child, m.Value, join(path, m.Key)); err != nil {
				return err
			}
		}
	}
	for i, e := range v.Elems() {
		if err := q.value(p.Elem, e, fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return err
		}
	}
	return nil
}

// directive checks an instruction of a strategic merge patch. None of the lists it could order or thin out holds a
// translated value, so it passes, save where it would take away what the platform has put there.
func (q *request) directive(m *jsonwire.Member, path string) error {
	if len(q.injectedLabels()) > 0 && (path == "" || path == "metadata") {
		return invalid(join(path, m.Key), "would remove labels that the platform needs: set or delete single labels instead")
	}
	return nil
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// toControl applies an operation to a value.
func (q *request) toControl(op rules.Op, v *jsonwire.Value, path string) error {
	switch op {
	case rules.Keys, rules.PodKeys, rules.PodAnnotations, rules.NamespaceLabels, rules.ClusterRoleLabels, rules.ClassAnnotations, rules.OwnedLabels:
		return q.keysToControl(op, v, path)
	case rules.OwnerReferences:
		return q.ownerReferencesToControl(v, path)
	case rules.ManagedFields:
		q.managedFieldsToControl(v)
	case rules.ObjectReference:
		return q.referenceToControl(v, path)
	case rules.InvolvedObject:
		return q.involvedObjectToControl(v, path)
	case rules.NamespaceSelector:
		return q.selectorToControl(v, path)
	case rules.PolicyRules:
		return q.policyRulesToControl(v, path)
	case rules.RoleRef:
		return q.roleRefToControl(v, path)
	case rules.Subjects:
		return q.subjectsToControl(v, path)
	case rules.AggregationRule:
		return q.aggregationToControl(v, path)
	case rules.ResourceAttributes:
		return q.attributesToControl(v, path)
	case rules.TokenAudiences:
		return q.audiencesToControl(v, path)
	case rules.QuotaKeys:
		q.view.quotaToControl(v)
	case rules.ScopeSelector:
		q.view.scopeToControl(v)
	case rules.RevisionData:
		if template, ok := rules.For("", "v1", "PodTemplate"); ok {
			return q.value(template.Child([]byte("template")), v.At("spec", "template"), path)
		}
	case rules.SigningRequest:
		return q.signingRequestToControl(v, path)
	case rules.VirtualNode:
		return forbidden(path, "nodes are the operator's; they can only be read")
	case rules.UserInfo, rules.TokenReviewStatus, rules.RootCA:
		// Answers, or contents nobody but the tenant reads.
	case rules.ExternalIPs:
		if v.Kind() == jsonwire.String || len(v.Elems()) > 0 {
			return forbidden(path, "external IPs could take over addresses of others")
		}
	default:
		return q.texts(op, v, path)
	}
	return nil
}

// texts applies an operation to a string, or to each in a list or map.
func (q *request) texts(op rules.Op, v *jsonwire.Value, path string) error {
	var first error
	eachText(v, func(s *jsonwire.Value) {
		if first != nil || s.Text() == "" {
			return
		}
		control, err := q.text(op, s.Text(), path)
		if err != nil {
			first = err
			return
		}
		s.SetText(control)
	})
	return first
}

// text applies an operation to one string.
func (q *request) text(op rules.Op, s, path string) (string, error) {
	switch op {
	case rules.Namespace:
		return q.view.namespaceToControl(s, path)
	case rules.OwnNamespace:
		if s != q.namespace {
			return "", malformed("the namespace of the object (%s) does not match the namespace on the request (%s)", s, q.namespace)
		}
		return q.view.namespaceToControl(s, path)
	case rules.OwnName:
		if q.name != "" && s != q.name {
			return "", malformed("the name of the object (%s) does not match the name on the URL (%s)", s, q.name)
		}
		if q.root.Custom {
			return q.view.Tenant.NameToControl(s), nil
		}
		return q.nameToControl(q.root.Kind, s, path)
	case rules.DefinitionName:
		if q.name != "" && s != q.name {
			return "", malformed("the name of the object (%s) does not match the name on the URL (%s)", s, q.name)
		}
		return q.definitionToControl(s, path)
	case rules.ConversionStrategy:
		return s, conversionToControl(s, path)
	case rules.ObjectName:
		if q.name != "" && s != q.name {
			return "", malformed("the name of the object (%s) does not match the name on the URL (%s)", s, q.name)
		}
	case rules.GenerateName:
		return q.view.Tenant.NameToControl(s), nil
	case rules.Group:
		if isDefinition(q.kind) {
			return q.definitionGroupToControl(s, path)
		}
		return q.view.groupToControl(s), nil
	case rules.GroupVersion:
		return q.view.groupVersionToControl(s), nil
	case rules.PolicyName:
		return q.view.Tenant.PolicyToControl(s), nil
	case rules.User:
		return q.view.Tenant.UserToControl(s), nil
	case rules.UserGroup:
		return q.view.Tenant.UserGroupToControl(s), nil
	case rules.Text:
		return q.view.textToControl(s, q.spoken), nil
	case rules.NodeName:
		// A pod that is bound says so in every update; only who makes one could choose.
		if q.root.Kind != "Pod" || q.verb == "create" || q.apply {
			return "", forbidden(path, "pods are placed by the scheduler: use nodeSelector, affinity or tolerations")
		}
	case rules.SchedulerName:
		if s != "default-scheduler" {
			return "", forbidden(path, "there is no scheduler %q here: leave it out", s)
		}
	case rules.StorageClass, rules.VolumeAttributesClass, rules.PriorityClass, rules.RuntimeClass, rules.IngressClass:
		if op == rules.PriorityClass && strings.HasPrefix(s, "system-") {
			return "", forbidden(path, "the priority class %q is for the operator's own pods", s)
		}
		return q.view.classToControl(classKinds[op], s), nil
	case rules.TokenAudience:
		return s, q.audienceToControl(jsonwire.NewString(s), path)
	case rules.BoundKind:
		if s == "Node" {
			// The control cluster would tell whether it has a node of that name, and its UID.
			return "", forbidden(path, "nodes are the platform's: a token can be bound to a Pod or a Secret")
		}
	case rules.SecretType:
		if s == "kubernetes.io/service-account-token" {
			return "", forbidden(path, "long-lived token Secrets are not offered: use a projected token or kubectl create token")
		}
	}
	return s, nil
}
