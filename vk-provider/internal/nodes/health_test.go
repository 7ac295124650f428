package nodes

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/vk-provider/internal/control"
)

func TestJudge(t *testing.T) {
	lost, refused, swapped, unwelcome := allGood(), allGood(), allGood(), allGood()
	lost.Reachable = bad("NoAnswer")
	refused.Reachable = bad("CredentialsRefused")
	swapped.Identified = bad("OtherCluster")
	unwelcome.Authorized = bad("MissingRights")
	type verdict struct {
		known, ready, open, silent bool
		reason, taint              string
	}
	var (
		unknown = verdict{}
		well    = verdict{known: true, ready: true, open: true, reason: reasonReady}
		closed  = verdict{known: true, ready: true, reason: reasonReady}
		held    = verdict{known: true, ready: true, silent: true, reason: control.ReasonHeld}
		evicted = verdict{known: true, silent: true, reason: reasonUnreachable, taint: corev1.TaintNodeNotReady}
		fenced  = verdict{known: true, silent: true, reason: reasonFenced, taint: corev1.TaintNodeOutOfService}
	)
	const evict, hold, fence = v1alpha1.FailureEvict, v1alpha1.FailureHold, v1alpha1.FailureFence
	cases := map[string]struct {
		in   outlook
		want verdict
	}{
		"NotChecked":                {outlook{others: true, policy: evict}, unknown},
		"NotCheckedButFenced":       {outlook{others: true, policy: evict, fenced: true}, unknown},
		"Good":                      {outlook{status: allGood(), checked: true, others: true, policy: evict}, well},
		"GoodWhileFrozen":           {outlook{status: allGood(), checked: true, frozen: true, policy: evict}, well},
		"GoodThoughFenced":          {outlook{status: allGood(), checked: true, others: true, policy: evict, fenced: true}, well},
		"RightsMissing":             {outlook{status: unwelcome, checked: true, others: true, policy: evict}, closed},
		"LostEvict":                 {outlook{status: lost, checked: true, others: true, policy: evict}, evicted},
		"LostByDefault":             {outlook{status: lost, checked: true, others: true}, evicted},
		"LostHold":                  {outlook{status: lost, checked: true, others: true, policy: hold}, held},
		"LostFence":                 {outlook{status: lost, checked: true, others: true, policy: fence}, held},
		"LostFenceConfirmed":        {outlook{status: lost, checked: true, others: true, policy: fence, fenced: true}, fenced},
		"LostHoldConfirmed":         {outlook{status: lost, checked: true, others: true, policy: hold, fenced: true}, fenced},
		"LostEvictConfirmed":        {outlook{status: lost, checked: true, others: true, policy: evict, fenced: true}, fenced},
		"AllJustFellSilent":         {outlook{status: lost, checked: true, frozen: true, policy: evict}, unknown},
		"AllSilentForLong":          {outlook{status: lost, checked: true, policy: evict}, held},
		"TheOnlyPool":               {outlook{status: lost, checked: true, policy: evict}, held},
		"CredentialsRefusedEvict":   {outlook{status: refused, checked: true, others: true, policy: evict}, held},
		"CredentialsRefusedFenced":  {outlook{status: refused, checked: true, others: true, policy: evict, fenced: true}, fenced},
		"AnotherClusterAnswers":     {outlook{status: swapped, checked: true, others: true, policy: evict}, held},
		"AnotherClusterWhileFrozen": {outlook{status: swapped, checked: true, frozen: true, policy: evict}, held},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			h := judge(tc.in)
			if got := (verdict{h.known, h.ready, h.open, h.silent, h.reason, h.taint}); got != tc.want {
				t.Errorf("judge = %+v, want %+v", got, tc.want)
			}
			if h.taint != "" && h.ready {
				t.Error("evicts from a Node that is ready")
			}
		})
	}
}

func TestTaints(t *testing.T) {
	now := metav1.Unix(100, 0)
	admission := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	notReady := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute, TimeAdded: &now}
	ours := corev1.Taint{Key: corev1.TaintNodeOutOfService, Value: fencedValue, Effect: corev1.TaintEffectNoExecute, TimeAdded: &now}
	theirs := corev1.Taint{Key: corev1.TaintNodeOutOfService, Value: "nodeshutdown", Effect: corev1.TaintEffectNoExecute}
	other := corev1.Taint{Key: "example.com/gpu", Effect: corev1.TaintEffectNoSchedule}
	well := health{known: true, ready: true, open: true}
	held := health{known: true, ready: true, silent: true}
	lost := health{known: true, silent: true, taint: corev1.TaintNodeNotReady}
	fenced := health{known: true, silent: true, taint: corev1.TaintNodeOutOfService}
	cases := map[string]struct {
		ready bool
		h     health
		was   []corev1.Taint
		want  []corev1.Taint
	}{
		"NewAndNotReadyYet":     {false, well, []corev1.Taint{admission}, []corev1.Taint{admission}},
		"NewAndReady":           {true, well, []corev1.Taint{admission, other}, []corev1.Taint{other}},
		"NothingIsKnown":        {true, health{}, []corev1.Taint{admission, notReady, ours}, []corev1.Taint{admission, notReady, ours}},
		"Lost":                  {true, lost, []corev1.Taint{other}, []corev1.Taint{other, notReady}},
		"LostAndMarkedAlready":  {false, lost, []corev1.Taint{notReady}, []corev1.Taint{notReady}},
		"LostThenHeld":          {false, held, []corev1.Taint{notReady, other}, []corev1.Taint{other}},
		"Fenced":                {false, fenced, []corev1.Taint{notReady}, []corev1.Taint{notReady, ours}},
		"FencedByAnotherHand":   {false, fenced, []corev1.Taint{theirs}, []corev1.Taint{theirs}},
		"Back":                  {false, well, []corev1.Taint{notReady, ours}, nil},
		"BackButShutDownByHand": {false, well, []corev1.Taint{theirs}, []corev1.Taint{theirs}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			node := &corev1.Node{Spec: corev1.NodeSpec{Taints: tc.was}}
			if tc.ready {
				node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
			}
			if diff := cmp.Diff(tc.want, taints(node, tc.h, now)); diff != "" {
				t.Errorf("taints (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTheWordAboutAnOutageEndsWithIt: what the operator said of one outage must not end pods in the next.
func TestTheWordAboutAnOutageEndsWithIt(t *testing.T) {
	resource := resourcePool()
	resource.Annotations = map[string]string{v1alpha1.AnnotationFenced: "yes"}
	w := newWorld(t, resource, poolNode("a"))
	well := allGood()
	w.registry.neighbour = &well
	w.until("the word is taken back while the pool answers", func(nodes map[string]*corev1.Node) error {
		if w.reread(); len(w.registry.resource.Annotations) > 0 || len(nodes) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	w.registry.status.Reachable = bad("NoAnswer")
	w.registry.resource.Spec.Failure.Policy = v1alpha1.FailureFence
	w.registry.resource.Annotations = map[string]string{v1alpha1.AnnotationFenced: "yes"}
	if err := w.admin.Update(t.Context(), w.registry.resource); err != nil {
		t.Fatal(err)
	}
	marked := func(nodes map[string]*corev1.Node) bool {
		for _, taint := range nodes["pool-a-0"].Spec.Taints {
			if taint.Key == corev1.TaintNodeOutOfService {
				return true
			}
		}
		return false
	}
	w.until("out of service", func(nodes map[string]*corev1.Node) error {
		if !marked(nodes) || readyOf(nodes["pool-a-0"]).Reason != reasonFenced {
			return errors.New("not yet")
		}
		return nil
	})
	w.registry.status.Reachable = good
	w.until("in service, and the word is taken back", func(nodes map[string]*corev1.Node) error {
		if w.reread(); marked(nodes) || len(w.registry.resource.Annotations) > 0 {
			return errors.New("not yet")
		}
		return nil
	})
}

// TestDemands: what a pool takes is on its Nodes, once, and others' taints stay.
func TestDemands(t *testing.T) {
	other := corev1.Taint{Key: "example.com/gpu", Effect: corev1.TaintEffectNoSchedule}
	chosen := corev1.Taint{Key: "vivarium.io/tenants", Value: "pool-a", Effect: corev1.TaintEffectNoSchedule}
	level := corev1.Taint{Key: "vivarium.io/pod-security", Value: "restricted", Effect: corev1.TaintEffectPreferNoSchedule}
	for name, tc := range map[string]struct{ was, demand, want []corev1.Taint }{
		"Nothing": {[]corev1.Taint{other}, nil, []corev1.Taint{other}},
		"First":   {[]corev1.Taint{other}, []corev1.Taint{chosen, level}, []corev1.Taint{other, chosen, level}},
		"There":   {[]corev1.Taint{chosen, other}, []corev1.Taint{chosen}, []corev1.Taint{chosen, other}},
		"Changed": {[]corev1.Taint{chosen, other}, []corev1.Taint{level}, []corev1.Taint{other, level}},
		"Over":    {[]corev1.Taint{chosen, other, level}, nil, []corev1.Taint{other}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, demands(tc.was, tc.demand)); diff != "" {
				t.Errorf("taints (-want +got):\n%s", diff)
			}
		})
	}
}
