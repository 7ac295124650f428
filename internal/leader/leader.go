// Package leader makes one replica of a component work while the others wait: a Lease in the platform's namespace of the
// control cluster.
//
// It must never be the only thing that keeps two replicas from doing damage: for a moment there can be two, and every
// writer behind it is safe in that case. Start at [Run].
package leader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
)

// The times that client-go's own components use: a leader that vanishes is replaced after at most 17 seconds, one that
// stops by itself at once.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// Config says what is led.
type Config struct {
	// Control holds the Lease. Required.
	Control kubernetes.Interface
	// Name is the Lease's name, the component's. Required.
	Name string
	// Enabled is false for a component that is known to be alone: lead is then simply called.
	Enabled bool
}

// Run calls lead whenever this replica becomes the leader, with a context that ends when it no longer is, and returns
// when ctx is done or lead returns an error. lead must have stopped everything it does by the time it returns. A leader
// that loses its Lease waits for its turn again.
func Run(ctx context.Context, config Config, lead func(ctx context.Context) error) error {
	if config.Control == nil || config.Name == "" {
		return errors.New("leader: Control and Name are required")
	}
	if !config.Enabled {
		return lead(ctx)
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("tell this replica from others: %w", err)
	}
	identity := host + "_" + string(uuid.NewUUID())
	log := boot.Logger(ctx).With("lease", config.Name, "identity", identity)
	for ctx.Err() == nil {
		log.Info("waiting to lead")
		if err := term(ctx, config, identity, func(ctx context.Context) error {
			log.Info("leading")
			return lead(ctx)
		}); err != nil {
			return err
		}
		log.Info("no longer leading")
	}
	return nil
}

// term waits for one turn and serves it. client-go gives a Lease back before whoever leads has stopped, and starts lead on
// a goroutine that nobody waits for; term does both the other way round.
func term(ctx context.Context, config Config, identity string, lead func(context.Context) error) error {
	// The campaign outlives ctx while lead is still stopping, so that the Lease stays ours until then.
	campaign, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var (
		mu      sync.Mutex // guards what follows
		leading bool
		over    bool
	)
	ended := make(chan error, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: names.SystemNamespace, Name: config.Name},
			Client:     config.Control.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		Name:            config.Name,
		LeaseDuration:   leaseDuration,
		RenewDeadline:   renewDeadline,
		RetryPeriod:     retryPeriod,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(held context.Context) {
				mu.Lock()
				late := over
				leading = !late
				mu.Unlock()
				if late {
					return
				}
				held, cancel := context.WithCancel(held)
				defer cancel()
				defer context.AfterFunc(ctx, cancel)()
				ended <- lead(held)
				stop()
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("campaign for Lease %s: %w", config.Name, err)
	}
	defer context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if !leading {
			stop()
		}
	})()
	elector.Run(campaign)
	mu.Lock()
	over = true
	led := leading
	mu.Unlock()
	if !led {
		return nil
	}
	return <-ended
}
