package provider

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"vivarium.io/vivarium/vk-provider/internal/podspec"
)

func pod(change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "abc123-default", UID: "u"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	p.Spec.NodeName = "somewhere"
	for _, f := range change {
		f(p)
	}
	return p
}

func accepted(p *corev1.Pod)  { p.Status.StartTime = &metav1.Time{} }
func succeeded(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }
func unplaced(p *corev1.Pod)  { p.Spec.NodeName = "" }
func held(p *corev1.Pod)      { p.Finalizers = []string{"vivarium.test/held"} }
func leaving(grace int64) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{}, ptr.To(grace)
	}
}

func TestDecide(t *testing.T) {
	cases := map[string]struct {
		state state
		want  action
	}{
		"Nothing":                        {state{}, forget},
		"New":                            {state{control: pod()}, create},
		"Running":                        {state{control: pod(accepted), pool: pod()}, converge},
		"FirstStatus":                    {state{control: pod(), pool: pod()}, converge},
		"EvictedBelow":                   {state{control: pod(accepted), pool: pod(leaving(30))}, report},
		"GoneBelow":                      {state{control: pod(accepted)}, lose},
		"GoneBelowBeforeTheFirstStatus":  {state{control: pod(), poolGone: true}, lose},
		"DoneAndKeptForItsLogs":          {state{control: pod(accepted, succeeded), pool: pod(succeeded)}, report},
		"DoneAndGoneBelow":               {state{control: pod(accepted, succeeded)}, rest},
		"RefusedAndNeverMade":            {state{control: pod(succeeded)}, rest},
		"EndedAboveOnly":                 {state{control: pod(accepted, succeeded), pool: pod()}, stop},
		"EndedAboveAndLeavingBelow":      {state{control: pod(accepted, succeeded), pool: pod(leaving(1))}, report},
		"Deleted":                        {state{control: pod(accepted, leaving(30)), pool: pod()}, stop},
		"DeletedAndLeaving":              {state{control: pod(accepted, leaving(30)), pool: pod(leaving(30))}, report},
		"DeletedAgainWithLessGrace":      {state{control: pod(accepted, leaving(2)), pool: pod(leaving(30))}, stop},
		"DeletedAndGone":                 {state{control: pod(accepted, leaving(30))}, finish},
		"DeletedBeforeItWasMade":         {state{control: pod(leaving(30))}, finish},
		"LetGoButHeldByAFinalizer":       {state{control: pod(accepted, leaving(0), held)}, rest},
		"HeldByAFinalizerButNotYetLetGo": {state{control: pod(accepted, leaving(30), held)}, finish},
		"ForcedAway":                     {state{controlGone: true, pool: pod()}, stop},
		"ForcedAwayAndLeaving":           {state{controlGone: true, pool: pod(leaving(1))}, rest},
		"NobodySawItGo":                  {state{pool: pod()}, suspect},
		"AnotherPools":                   {state{control: pod(), bound: elsewhere}, forget},
		"AnotherPoolsAndLeaving":         {state{control: pod(accepted, leaving(30)), bound: elsewhere}, forget},
		"AnotherPoolsButHere":            {state{control: pod(accepted), bound: elsewhere, pool: pod()}, stop},
		"NodeGone":                       {state{control: pod(accepted), bound: nowhere, pool: pod()}, converge},
		"NodeAndPodGone":                 {state{control: pod(accepted, leaving(30)), bound: nowhere}, forget},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := decide(tc.state); got != tc.want {
				t.Errorf("decide = %s, want %s", got, tc.want)
			}
		})
	}
}

// TestDecideKeepsItsPromises walks every combination of what can be known and holds what must never be.
func TestDecideKeepsItsPromises(t *testing.T) {
	controls := map[string]*corev1.Pod{"none": nil}
	belows := map[string]*corev1.Pod{"none": nil}
	for _, isAccepted := range []bool{false, true} {
		for _, isOver := range []bool{false, true} {
			for _, isLeaving := range []bool{false, true} {
				for _, isHeld := range []bool{false, true} {
					p := pod()
					for _, f := range []struct {
						on  bool
						set func(*corev1.Pod)
					}{{isAccepted, accepted}, {isOver, succeeded}, {isLeaving, leaving(30)}, {isHeld, held}} {
						if f.on {
							f.set(p)
						}
					}
					name := fmt.Sprintf("accepted=%t over=%t leaving=%t held=%t", isAccepted, isOver, isLeaving, isHeld)
					controls[name], belows[name] = p, p.DeepCopy()
				}
			}
		}
	}
	for controlName, control := range controls {
		for belowName, below := range belows {
			for _, s := range combinations() {
				s.control, s.pool = control, below
				controlGone, poolGone := s.controlGone, s.poolGone
				got := decide(s)
				wrong := func(promise string) {
					t.Errorf("control %s, below %s, gone %t/%t, bound %d: %s breaks %q", controlName, belowName, controlGone, poolGone, s.bound, got, promise)
				}
				alive := control != nil && control.DeletionTimestamp == nil
				if got == create && (!alive || below != nil || poolGone || ended(control) || podspec.Accepted(control)) {
					wrong("made once, and only for a pod that lives")
				}
				if (got == finish || got == lose) && (control == nil || below != nil) {
					wrong("ended above only after below")
				}
				if got == finish && alive {
					wrong("nobody is let go who was not deleted")
				}
				if got == stop && below == nil {
					wrong("only what is there is deleted")
				}
				if (got == create || got == finish || got == lose) && s.bound != here {
					wrong("only the pool that a pod is bound to decides about its life")
				}
				if got == stop && alive && !ended(control) && s.bound != elsewhere {
					wrong("a living pod's containers go on")
				}
				if got == stop && control == nil && !controlGone {
					wrong("an absence that nobody saw deletes nothing")
				}
				if got == forget && below != nil {
					wrong("what is there is not forgotten")
				}
			}
		}
	}
}

func combinations() []state {
	var out []state
	for _, controlGone := range []bool{false, true} {
		for _, poolGone := range []bool{false, true} {
			for _, bound := range []binding{here, elsewhere, nowhere} {
				out = append(out, state{controlGone: controlGone, poolGone: poolGone, bound: bound})
			}
		}
	}
	return out
}

func TestStopGrace(t *testing.T) {
	cases := map[string]struct {
		state state
		want  int64
	}{
		"Graceful":     {state{control: pod(leaving(30)), pool: pod()}, 30},
		"Forced":       {state{control: pod(leaving(0)), pool: pod()}, 1},
		"ForcedAway":   {state{pool: pod()}, 1},
		"EndedAbove":   {state{control: pod(succeeded), pool: pod()}, 1},
		"NeverStarted": {state{control: pod(leaving(30)), pool: pod(unplaced)}, 0},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := stopGrace(tc.state); got != tc.want {
				t.Errorf("grace %d, want %d", got, tc.want)
			}
		})
	}
}

func TestClassify(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	terminating := apierrors.NewForbidden(pods, "web", errors.New("namespace abc123-default is being terminated"))
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	cases := map[string]struct {
		err  error
		want obstacle
	}{
		"AlreadyExists":    {apierrors.NewAlreadyExists(pods, "web"), taken},
		"NoNamespace":      {apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "abc123-default"), noNamespace},
		"Terminating":      {terminating, notYet},
		"NoServiceAccount": {apierrors.NewForbidden(pods, "web", errors.New(`error looking up service account abc123-default/default: serviceaccount "default" not found`)), notYet},
		"NoRight":          {apierrors.NewForbidden(pods, "", errors.New(`User "vivarium" cannot create resource "pods" in API group "" in the namespace "abc123-default"`)), unauthorized},
		"NoCredential":     {apierrors.NewUnauthorized("Unauthorized"), unauthorized},
		"Quota":            {apierrors.NewForbidden(pods, "web", errors.New("exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1")), rejected},
		"PodSecurity":      {apierrors.NewForbidden(pods, "web", errors.New(`violates PodSecurity "baseline:latest": privileged`)), rejected},
		"Invalid":          {apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "web", nil), rejected},
		"Busy":             {apierrors.NewTooManyRequests("busy", 1), trouble},
		"Timeout":          {apierrors.NewTimeoutError("slow", 1), trouble},
		"Broken":           {apierrors.NewInternalError(errors.New("webhook")), trouble},
		"NoConnection":     {errors.New("connection refused"), trouble},
		"Wrapped":          {fmt.Errorf("create: %w", apierrors.NewAlreadyExists(pods, "web")), taken},
		"Unknown":          {apierrors.NewGenericServerResponse(http.StatusTeapot, "create", pods, "web", "", 0, false), trouble},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := classify(tc.err); got != tc.want {
				t.Errorf("classify = %d, want %d", got, tc.want)
			}
		})
	}
}
