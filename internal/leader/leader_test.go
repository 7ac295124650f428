package leader

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"vivarium.io/vivarium/internal/names"
)

// TestHandOver: two replicas, one leads; when it stops, its Lease is free only after its work has ended, and the other
// takes over at once.
func TestHandOver(t *testing.T) {
	client := fake.NewClientset()
	var leading atomic.Int32
	begun := make(chan string, 2)
	replica := func(ctx context.Context, name string) error {
		return Run(ctx, Config{Control: client, Name: "syncer", Enabled: true}, func(ctx context.Context) error {
			if leading.Add(1) > 1 {
				t.Error("two lead at once")
			}
			begun <- name
			<-ctx.Done()
			lease, err := client.CoordinationV1().Leases(names.SystemNamespace).Get(context.WithoutCancel(ctx), "syncer", metav1.GetOptions{})
			if err != nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
				t.Errorf("the Lease was given back before the work ended: %v", err)
			}
			leading.Add(-1)
			return nil
		})
	}
	var group sync.WaitGroup
	cancels := map[string]context.CancelFunc{}
	for _, name := range []string{"a", "b"} {
		ctx, cancel := context.WithCancel(t.Context())
		cancels[name] = cancel
		group.Go(func() {
			if err := replica(ctx, name); err != nil {
				t.Errorf("replica %s: %v", name, err)
			}
		})
	}
	first := <-begun
	cancels[first]()
	second := <-begun
	if first == second {
		t.Errorf("%s led twice", first)
	}
	cancels[second]()
	group.Wait()
}

func TestErrorsEndIt(t *testing.T) {
	boom := errors.New("boom")
	for _, enabled := range []bool{true, false} {
		err := Run(t.Context(), Config{Control: fake.NewClientset(), Name: "x", Enabled: enabled}, func(context.Context) error { return boom })
		if !errors.Is(err, boom) {
			t.Errorf("enabled %t: got %v", enabled, err)
		}
	}
	if err := Run(t.Context(), Config{}, nil); err == nil {
		t.Error("an empty Config was accepted")
	}
}

func TestStopWhileWaiting(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Run(ctx, Config{Control: fake.NewClientset(), Name: "x", Enabled: true}, func(context.Context) error {
		t.Error("led after the end")
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
