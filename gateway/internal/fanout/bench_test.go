package fanout

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"vivarium.io/vivarium/gateway/internal/selection"
	"vivarium.io/vivarium/gateway/internal/translate"
	"vivarium.io/vivarium/internal/names"
)

// BenchmarkDemux is what an event costs from the wire to the slice that is written to its tenant's clients: 1,000 tenants
// subscribe to pods, one subscription each or ten, and each event is one tenant's.
func BenchmarkDemux(b *testing.B) {
	const tenants = 1000
	for _, subscriptions := range []int{1, 10} {
		b.Run(fmt.Sprintf("subscriptions=%d", subscriptions), func(b *testing.B) {
			s := newStore()
			h, err := New(Config{Get: s.get})
			if err != nil {
				b.Fatal(err)
			}
			defer h.Close()
			lease, err := h.Acquire(b.Context(), Key{Version: "v1", Resource: "pods", Accept: "application/json"}, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer lease.Release()
			f := lease.feed
			id := func(i int) names.TenantID { return names.TenantID(fmt.Sprintf("t%05d", i%tenants)) }
			subs := map[names.TenantID][]*Subscription{}
			for i := range tenants {
				for range subscriptions {
					sub, err := lease.Attach(id(i), 100, true)
					if err != nil {
						b.Fatal(err)
					}
					defer sub.Close()
					subs[id(i)] = append(subs[id(i)], sub)
				}
			}
			pod := func(i int) []byte {
				return fmt.Appendf(nil, `{"type":"MODIFIED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web-%d","namespace":"%s-default","uid":"6f0b3a5e-9d3c-4c55-9d0a-0c0a4b2b1c11","resourceVersion":"%d","labels":{"app":"web"}},"spec":{"containers":[{"name":"c","image":"vivarium.test/web","env":[{"name":"TEXT","value":%q}]}]},"status":{"phase":"Running"}}}`+"\n",
					i, id(i), 101+i, strings.Repeat("text ", 700))
			}
			b.SetBytes(int64(len(pod(0))))
			b.ReportAllocs()
			var scratch []*Event
			kind := translate.Kind{Version: "v1", Resource: "pods", Kind: "Pod", Namespaced: true}
			var stream bytes.Buffer
			frames := translate.NewFrames(&stream)
			b.ResetTimer()
			for i := range b.N {
				b.StopTimer()
				stream.Reset()
				stream.Write(pod(i))
				b.StartTimer()
				frame, err := frames.Next()
				if err != nil && err != io.EOF {
					b.Fatal(err)
				}
				scope, err := translate.ScopeOfFrame(frame)
				if err != nil {
					b.Fatal(err)
				}
				owner, _, _ := names.SplitNamespace(names.ControlNamespace(scope.Namespace))
				if err := f.push(owner, uint64(101+i), selection.KeyOf(scope.Namespace, scope.Name), frame); err != nil { //nolint:gosec // a counter
					b.Fatal(err)
				}
				view := translate.View{Tenant: owner}
				for _, sub := range subs[owner] {
					<-sub.Wake()
					if scratch, _, err = sub.Take(scratch[:0], 64<<10); err != nil || len(scratch) != 1 {
						b.Fatal(len(scratch), err)
					}
					out, err := scratch[0].Tenant(func(frame []byte) ([]byte, error) { return view.FrameToTenant(kind, nil, frame) })
					if err != nil || !bytes.Contains(out[:200], []byte(`"namespace":"default"`)) {
						b.Fatalf("%s %v", out, err)
					}
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkNotSelected is what an event costs that none of a tenant's 30 subscriptions with selectors is told of.
func BenchmarkNotSelected(b *testing.B) {
	const subscriptions = 30
	by, err := selection.Parse("app in (db,cache),!canary", "metadata.namespace!=kube-system", nil)
	if err != nil {
		b.Fatal(err)
	}
	var sets [subscriptions]selection.Set
	frame := fmt.Appendf(nil, `{"type":"MODIFIED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","namespace":"aaaaaa-default","uid":"6f0b3a5e-9d3c-4c55-9d0a-0c0a4b2b1c11","resourceVersion":"101","labels":{"app":"web","tier":"front"}},"spec":{"containers":[{"name":"c","image":"vivarium.test/web","env":[{"name":"TEXT","value":%q}]}]}}}`+"\n",
		strings.Repeat("text ", 700))
	b.ReportAllocs()
	for b.Loop() {
		e := &Event{object: "aaaaaa-default/web", rv: 101, frame: frame}
		for i := range sets {
			object, err := e.Object()
			if err != nil || sets[i].Turn(object.Type, object.Key, by.Matches(object.Key, object.Labels)) != selection.Nothing {
				b.Fatal(object, err)
			}
		}
	}
}
