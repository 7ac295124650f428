package carrier

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/pools"
	"vivarium.io/vivarium/syncer/internal/engine"
	"vivarium.io/vivarium/syncer/internal/kind"
)

// complaint is an error in the words of whoever owns the pod. The error itself names the pool and control's namespaces,
// so none of its text may reach a tenant.
type complaint struct{ reason, message string }

// complaintAbout classifies an error; false for what will pass and is nobody's business.
func complaintAbout(key kind.Key, err error) (complaint, bool) {
	what, name := string(key.Kind), key.Name
	switch key.Kind {
	case kind.ConfigMap:
		name = names.ConfigMapToControl(name)
	case kind.Token:
		what, name = "Secret for the ServiceAccount token", ""
	}
	if name != "" {
		what = fmt.Sprintf("%s %q", what, name)
	}
	var refused *kind.RefusedError
	switch {
	case errors.As(err, &refused):
		return complaint{refused.Reason, refused.Message}, true
	case errors.Is(err, engine.ErrConflict):
		return complaint{"PoolNameConflict", what + " cannot be delivered to where the pod runs: another object of that name is there already and is left alone"}, true
	case errors.Is(err, pools.ErrNotOurs):
		return complaint{"PoolNameConflict", what + " cannot be delivered to where the pod runs: another namespace of that name is there already and is left alone"}, true
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || errors.Is(err, pools.ErrTerminating):
		return complaint{}, false
	case apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsRequestEntityTooLargeError(err):
		return complaint{"DeliveryRefused", what + " is refused where the pod runs"}, true
	default:
		return complaint{}, false
	}
}

// complain logs an error and tells the pods that wait because of it. An unchanged complaint is not repeated for a while.
func (c *Carrier) complain(ctx context.Context, key kind.Key, err error) {
	log := boot.Logger(ctx).With("pool", c.config.Pool.Name, "resource", string(key.Kind), "controlNamespace", string(key.Namespace), "name", key.Name)
	said, ok := complaintAbout(key, err)
	if !ok {
		log.Log(ctx, verbose, "tried again later", "error", err)
		return
	}
	silent := false
	now := c.now()
	c.memories.with(key, func(m *memory) {
		silent = m.told == said.reason+said.message && now.Sub(m.toldAt) < tellEvery
		if !silent {
			m.told, m.toldAt = said.reason+said.message, now
		}
	})
	if silent {
		return
	}
	log.Info("not delivered", "reason", said.reason, "error", err)
	for i, pod := range c.config.Demand.Pods(c.config.Pool.Name, key) {
		if i == tellPods {
			break
		}
		c.config.Metrics.refused.WithLabelValues(said.reason).Inc()
		c.config.Events.Event(&corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
		}, corev1.EventTypeWarning, said.reason, said.message)
	}
}

func (c *Carrier) count(key kind.Key, operation string, err error) {
	result := "ok"
	var refused *kind.RefusedError
	switch {
	case errors.As(err, &refused):
		result = "refused"
	case errors.Is(err, engine.ErrConflict) || errors.Is(err, pools.ErrNotOurs):
		result = "conflict"
	case err != nil:
		result = "error"
	}
	c.config.Metrics.writes.WithLabelValues(c.config.Pool.Name, string(key.Kind), operation, result).Inc()
}

// verbose is the level of what a developer follows.
const verbose = -1
