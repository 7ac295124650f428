package policies

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/warning"

	"vivarium.io/vivarium/gateway/internal/translate"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
)

// Tenant is what the Reviewer must know of a tenant.
type Tenant struct {
	// View translates; Kind gives what the view must know of a kind, by the tenant's names, and false for one that nobody
	// decided about.
	View translate.View
	Kind func(group, version, resource, subresource string) (translate.Kind, bool)
	// Allows reports whether the tenant may write by a verb at all: some kinds, and parts of others, are the platform's to write.
	Allows func(group, resource, subresource, verb string) bool
	// Versions gives the versions of a custom resource with the kind they have; nil for others.
	Versions func(group, resource string) (versions []string, kind string)
}

// Reviewer answers the control cluster's questions. Safe for concurrent use.
type Reviewer struct {
	Worlds *Worlds
	// Find gives a tenant whose policies are to be applied; false for one that is not there or on its way out, which has
	// none. An error means that nobody can tell.
	Find func(id names.TenantID) (Tenant, bool, error)
}

const (
	// maxReview bounds a question: an object of what an API server stores at most, twice.
	maxReview = 16 << 20
	// Mutating and Validating end the paths of the two webhooks.
	Mutating   = "mutate"
	Validating = "validate"
)

// Serve answers one question; which is how the path ends. Who may ask is for the caller to check.
func (v *Reviewer) Serve(w http.ResponseWriter, r *http.Request, which string) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReview))
	review := &admissionv1.AdmissionReview{}
	if err != nil || json.Unmarshal(raw, review) != nil || review.Request == nil || review.APIVersion != "admission.k8s.io/v1" {
		http.Error(w, "an AdmissionReview of admission.k8s.io/v1 is expected", http.StatusBadRequest)
		return
	}
	response, err := v.Answer(r.Context(), review.Request, which)
	if err != nil {
		// The control cluster takes it for a failure and refuses the write.
		boot.Logger(r.Context()).Error("An admission question could not be answered", "error", err,
			"resource", review.Request.Resource.Resource, "controlNamespace", review.Request.Namespace)
		http.Error(w, "the question could not be answered", http.StatusInternalServerError)
		return
	}
	response.UID = review.Request.UID
	out, err := json.Marshal(&admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: response})
	if err != nil {
		http.Error(w, "the answer could not be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(out)
}

var allowed = &admissionv1.AdmissionResponse{Allowed: true}

// Answer answers a question in the control cluster's words, also one that nobody else asks.
func (v *Reviewer) Answer(ctx context.Context, request *admissionv1.AdmissionRequest, which string) (*admissionv1.AdmissionResponse, error) {
	id, ok := owner(request)
	if !ok {
		return allowed.DeepCopy(), nil
	}
	tenant, ok, err := v.Find(id)
	if err != nil {
		return nil, err
	}
	if !ok {
		return allowed.DeepCopy(), nil
	}
	who, writer := tenant.View.WriterToTenant(request.UserInfo)
	if !judged(request, writer, which) {
		return allowed.DeepCopy(), nil
	}
	q, err := tenant.question(id, request, who)
	if err != nil {
		return nil, fmt.Errorf("put a question into the words of tenant %s: %w", id, err)
	}
	if which == Mutating && q.known && !tenant.Allows(q.kind.Group, q.kind.Resource, q.kind.Subresource, q.verb()) {
		// The tenant's policies may judge it and not change it, no more than the tenant.
		return allowed.DeepCopy(), nil
	}
	world, err := v.Worlds.of(side{id, which})
	if err != nil {
		return nil, err
	}
	select {
	case world.slots <- struct{}{}:
		defer func() { <-world.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	said := &remarks{}
	ctx = warning.WithWarningRecorder(ctx, said)
	response := allowed.DeepCopy()
	if which == Mutating {
		err = mutate(ctx, world, q)
	} else {
		err = world.validating.Validate(ctx, q, q)
	}
	response.Warnings, response.AuditAnnotations = said.controlWarnings(tenant.View), q.audited()
	if err != nil {
		response.Allowed = false
		response.Result = q.refusal(err)
		return response, nil
	}
	if which == Mutating {
		return response, q.patched(response)
	}
	return response, nil
}

// judged reports whether a tenant's policies have a say. What the platform writes is not the tenant's to refuse or to change: its
// weight, the status of its pods, the emptying of a pool. Policies of the control cluster that hold tenants to what is theirs
// look at tenants' requests alone, so that a change would pass them all. For the same reason nobody changes what a part of
// the control cluster says in a status, and nobody refuses it the room that it takes for somebody else.
func judged(request *admissionv1.AdmissionRequest, writer translate.Writer, which string) bool {
	switch writer {
	case translate.User:
		return true
	case translate.StockPart:
		preempts := request.UserInfo.Username == "system:kube-scheduler" && request.Operation == admissionv1.Delete
		return !preempts && (which == Validating || request.SubResource != "status")
	default:
		return false
	}
}

// mutate applies the mutating policies, and those that want it once more when others have changed the object.
func mutate(ctx context.Context, world *world, q *question) error {
	if q.object == nil || !world.mutating.Handles(q.GetOperation()) {
		return nil
	}
	if err := world.mutating.Admit(ctx, q, q); err != nil {
		return err
	}
	if again := q.GetReinvocationContext(); again.ShouldReinvoke() {
		again.SetIsReinvoke()
		return world.mutating.Admit(ctx, q, q)
	}
	return nil
}

// owner finds the tenant of what is written.
func owner(r *admissionv1.AdmissionRequest) (names.TenantID, bool) {
	name := r.Namespace
	if name == "" {
		name = r.Name
	}
	if name == "" {
		var object metav1.PartialObjectMetadata
		if json.Unmarshal(r.Object.Raw, &object) == nil {
			if name = object.Name; name == "" {
				name = object.GenerateName
			}
		}
	}
	if r.Namespace == "" && r.Resource.Group == "apiextensions.k8s.io" {
		if _, group, ok := names.SplitDefinition(name); ok {
			name = group
		}
	}
	id, _, ok := names.SplitNamespace(names.ControlNamespace(name))
	return id, ok
}

// question is a write in the tenant's words, as an admission plugin sees it.
type question struct {
	admission.Attributes
	interfaces
	tenant  Tenant
	kind    translate.Kind
	known   bool
	request *admissionv1.AdmissionRequest
	// object is what is written, which mutating policies change; before is a copy of it.
	object *unstructured.Unstructured
	before map[string]any

	// mu guards what follows.
	mu          sync.Mutex
	annotations map[string]string
}

func (t Tenant) question(id names.TenantID, r *admissionv1.AdmissionRequest, who authenticationv1.UserInfo) (*question, error) {
	gvk, gvr := schema.GroupVersionKind(r.Kind), schema.GroupVersionResource(r.Resource)
	gvk.Group, gvr.Group = t.group(gvk.Group), t.group(gvr.Group)
	q := &question{tenant: t, request: r}
	q.kind, q.known = t.Kind(gvr.Group, gvr.Version, gvr.Resource, r.SubResource)
	q.interfaces.versions = t.Versions
	namespace, name := "", r.Name
	if r.Namespace != "" {
		own, err := id.NamespaceToTenant(names.ControlNamespace(r.Namespace))
		if err != nil {
			return nil, err
		}
		namespace = string(own)
	}
	if name != "" {
		var ok bool
		if name, ok = t.View.NameOf(gvr.Group, gvr.Resource, name); !ok {
			return nil, names.ErrForeign
		}
	}
	var err error
	if q.object, err = q.objectOf(r.Object.Raw, gvk); err != nil {
		return nil, err
	}
	old, err := q.objectOf(r.OldObject.Raw, gvk)
	if err != nil {
		return nil, err
	}
	options, err := decode(r.Options.Raw)
	if err != nil {
		return nil, err
	}
	if q.object != nil {
		q.before = runtime.DeepCopyJSON(q.object.Object)
	}
	q.Attributes = admission.NewAttributesRecord(
		orNil(q.object), orNil(old), gvk, namespace, name, gvr, r.SubResource, admission.Operation(r.Operation), orNil(options),
		r.DryRun != nil && *r.DryRun, &user.DefaultInfo{Name: who.Username, UID: who.UID, Groups: who.Groups},
	)
	return q, nil
}

// verb is what the write is called in a request.
func (q *question) verb() string { return strings.ToLower(string(q.GetOperation())) }

// orNil keeps a nil pointer from becoming an interface that is not nil.
func orNil(u *unstructured.Unstructured) runtime.Object {
	if u == nil {
		return nil
	}
	return u
}

// group gives the tenant's word for a group. One that is not the tenant's to see, of a kind it cannot have, stays nameless.
func (t Tenant) group(control string) string {
	own, _ := t.View.GroupToTenant(control)
	return own
}

func (q *question) objectOf(raw []byte, gvk schema.GroupVersionKind) (*unstructured.Unstructured, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	kind := q.kind
	if !q.known {
		kind = translate.Kind{}
	}
	own, err := q.tenant.View.AdmittedToTenant(kind, raw)
	if err != nil {
		return nil, err
	}
	object, err := decode(own)
	if err != nil {
		return nil, err
	}
	object.SetGroupVersionKind(gvk)
	return object, nil
}

func decode(raw []byte) (*unstructured.Unstructured, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	object := &unstructured.Unstructured{}
	if _, _, err := unstructured.UnstructuredJSONScheme.Decode(raw, nil, object); err != nil {
		return nil, err
	}
	return object, nil
}

// AddAnnotation keeps what policies say for the audit log.
func (q *question) AddAnnotation(key, value string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.annotations == nil {
		q.annotations = map[string]string{}
	}
	// The control cluster puts the webhook's name and a slash before each.
	q.annotations[strings.ReplaceAll(key, "/", "_")] = value
	return nil
}

func (q *question) audited() map[string]string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return maps.Clone(q.annotations)
}

// refusal says in the control cluster's words why the write is refused: they become the tenant's again on their way to
// whoever wrote.
func (q *question) refusal(err error) *metav1.Status {
	var told apierrors.APIStatus
	status := metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError, Message: err.Error()}
	if errors.As(err, &told) {
		status = told.Status()
	}
	status.Message = q.tenant.View.TextToControl(status.Message)
	if d := status.Details; d != nil {
		if d.Name == q.GetName() {
			d.Name = q.request.Name
		}
		if d.Group == q.GetResource().Group {
			d.Group = q.request.Resource.Group
		}
		for i := range d.Causes {
			d.Causes[i].Message = q.tenant.View.TextToControl(d.Causes[i].Message)
		}
	}
	return &status
}

// patched puts what mutating policies changed into the response.
func (q *question) patched(response *admissionv1.AdmissionResponse) error {
	if q.object == nil {
		return nil
	}
	var control map[string]any
	if err := json.Unmarshal(q.request.Object.Raw, &control); err != nil {
		return fmt.Errorf("read the object: %w", err)
	}
	operations := diff("", q.before, q.object.Object, control)
	if len(operations) == 0 {
		return nil
	}
	if !q.known {
		return errors.New("a policy changes an object of a kind that is not understood")
	}
	values := make([]any, len(operations))
	for i, op := range operations {
		values[i] = op.withValue()
	}
	raw, err := json.Marshal(values)
	if err != nil {
		return fmt.Errorf("write the patch: %w", err)
	}
	patch, err := q.tenant.View.MutationToControl(q.kind, q.verb(), raw, q.GetNamespace(), q.GetName())
	if err != nil {
		// The tenant's policy does what the tenant may not, and is told so as if it had written that itself.
		var refused interface{ Status() *metav1.Status }
		if errors.As(err, &refused) {
			response.Allowed, response.Result = false, refused.Status()
			response.Result.Message = q.tenant.View.TextToControl("a MutatingAdmissionPolicy changes what it may not: " + response.Result.Message)
			return nil
		}
		return err
	}
	kind := admissionv1.PatchTypeJSONPatch
	response.Patch, response.PatchType = patch, &kind
	return nil
}

// remarks are the warnings that policies give.
type remarks struct {
	mu       sync.Mutex
	warnings []string
}

// AddWarning implements warning.Recorder.
func (s *remarks) AddWarning(_, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warnings = append(s.warnings, text)
}

func (s *remarks) controlWarnings(view translate.View) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]string, len(s.warnings))
	for i, text := range s.warnings {
		out[i] = view.TextToControl(text)
	}
	return out
}
