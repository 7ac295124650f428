package pools

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/names"
)

const (
	// callTimeout bounds one question to an API server.
	callTimeout = 10 * time.Second
	// auditEvery is how often an open pool is asked for our rights again; while some are missing it is asked at each
	// probe, so that an operator sees the effect of a fix.
	auditEvery = 5 * time.Minute
)

// Reasons of findings.
const (
	reasonChecked        = "Checked"
	reasonNoSecret       = "SecretNotFound"
	reasonBadKubeconfig  = "KubeconfigRefused"
	reasonNoAnswer       = "NoAnswer"
	reasonNotChecked     = "NotChecked"
	reasonOtherCluster   = "OtherCluster"
	reasonControlCluster = "IsControlCluster"
	reasonDuplicate      = "RegisteredTwice"
	reasonMissingRights  = "MissingRights"
	reasonUnidentifiable = "Unidentifiable"
	// reasonRefused: the pool, or whoever answers at its address, does not accept the credentials, or we do not accept it.
	reasonRefused = "CredentialsRefused"
	// reasonNewCredentials: the pool answered with the credentials before these.
	reasonNewCredentials = "NewCredentialsFail"
	// reasonRestored: what the pool says of itself is older than what it said before.
	reasonRestored = "WentBack"
)

// keeper looks after one ResourcePool: it opens it, probes it and closes it. One goroutine, so nothing about one pool
// happens twice at once. Its state follows the ResourcePool and the Secret of now, not of then: a pool behaves alike
// before and after a restart.
type keeper struct {
	registry *Registry
	name     string
	wake     chan struct{}

	// Written by run alone, under registry.mu.
	open       *opened
	status     Status
	checked    bool
	lastAnswer time.Time

	// Used by run alone.
	lastAudit time.Time
	// proven are the credentials that the pool last answered with.
	proven [sha256.Size]byte
	// newest is the pool's newest resourceVersion that was seen before it was last closed.
	newest string
	// restored is set when the pool was found to be restored, until its ResourcePool says so.
	restored Finding
}

// opened is a Pool that was handed out.
type opened struct {
	pool        *Pool
	ctx         context.Context //nolint:containedctx // the lifetime that subscribers who come later are given
	cancel      context.CancelFunc
	credentials [sha256.Size]byte
}

func (k *keeper) run(ctx context.Context) {
	defer k.close()
	for {
		resource, ok := k.registry.Resource(k.name)
		if !ok && k.forget() {
			return
		}
		wait := k.registry.config.RetryEvery
		if ok {
			k.visit(ctx, resource)
			if k.open != nil {
				wait = k.registry.config.ProbeEvery
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-k.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// forget ends the keeper of a ResourcePool that is gone, unless it came back meanwhile.
func (k *keeper) forget() bool {
	k.close()
	r := k.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.Resource(k.name); ok {
		return false
	}
	delete(r.keepers, k.name)
	return true
}

// visit brings the pool's state up to date once.
func (k *keeper) visit(ctx context.Context, resource *v1alpha1.ResourcePool) {
	kubeconfig, found := k.kubeconfig(resource)
	if k.open != nil && (k.open.pool.UID != resource.UID || k.open.pool.ClusterUID != resource.Spec.ClusterUID || k.open.credentials != fingerprint(kubeconfig)) {
		boot.Logger(ctx).Info("pool closed: its registration or credentials changed", "pool", k.name)
		k.close()
	}
	switch {
	case !found:
		k.report(Status{
			Reachable: Finding{metav1.ConditionFalse, reasonNoSecret, fmt.Sprintf("Secret %s/%s with key %q does not exist in the control cluster",
				names.SystemNamespace, resource.Spec.Credentials.KubeconfigSecret, KubeconfigKey)},
			Identified: notChecked(), Authorized: notChecked(),
		})
	case k.open != nil:
		k.changed(resource)
		k.probe(ctx)
	default:
		k.tryOpen(ctx, resource, kubeconfig)
	}
}

func notChecked() Finding {
	return Finding{metav1.ConditionUnknown, reasonNotChecked, "the pool was not asked"}
}

func (k *keeper) kubeconfig(resource *v1alpha1.ResourcePool) ([]byte, bool) {
	object, ok, err := k.registry.secrets.GetStore().GetByKey(names.SystemNamespace + "/" + resource.Spec.Credentials.KubeconfigSecret)
	if err != nil || !ok {
		return nil, false
	}
	secret, ok := object.(*corev1.Secret)
	if !ok {
		return nil, false
	}
	kubeconfig, ok := secret.Data[KubeconfigKey]
	return kubeconfig, ok
}

func (k *keeper) tryOpen(ctx context.Context, resource *v1alpha1.ResourcePool, kubeconfig []byte) {
	config, client, err := k.registry.config.Connect(kubeconfig)
	if err != nil {
		k.report(Status{
			Reachable:  Finding{metav1.ConditionFalse, reasonBadKubeconfig, oneLine(err)},
			Identified: notChecked(), Authorized: notChecked(),
		})
		return
	}
	attempt, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	report, err := preflight(attempt, client, config.Host, resource.Spec.Network.Driver)
	if err != nil {
		k.report(Status{
			Reachable:  k.noAnswer(err, fingerprint(kubeconfig)),
			Identified: notChecked(), Authorized: notChecked(),
		})
		return
	}
	k.proven = fingerprint(kubeconfig)
	status := Status{
		Reachable:  Finding{metav1.ConditionTrue, reasonChecked, "the pool's API server answers"},
		Identified: k.identity(resource, report),
		Authorized: authorization(report),
		Version:    report.Version,
	}
	k.answered()
	k.lastAudit = time.Now()
	if status.Identified.Good() {
		now, err := revision(attempt, client)
		if err != nil {
			k.report(Status{
				Reachable:  k.noAnswer(err, fingerprint(kubeconfig)),
				Identified: notChecked(), Authorized: notChecked(),
			})
			return
		}
		k.compare(ctx, resource, now)
		if k.checked && k.status.Restored != k.standing(resource) {
			k.report(k.status) // whoever is given the pool asks at once
		}
		pool := NewPool(resource, k.registry.ControlUID(), config, client)
		poolCtx, poolCancel := context.WithCancel(ctx)
		pool.Saw(now)
		k.hand(&opened{pool: pool, ctx: poolCtx, cancel: poolCancel, credentials: fingerprint(kubeconfig)})
		boot.Logger(ctx).Info("pool opened", "pool", k.name, "server", config.Host, "version", report.Version)
	}
	k.report(status)
}

func (k *keeper) identity(resource *v1alpha1.ResourcePool, report Report) Finding {
	switch {
	case report.ClusterUID == "":
		return Finding{metav1.ConditionFalse, reasonUnidentifiable, strings.Join(report.Problems, "; ")}
	case report.ClusterUID == k.registry.ControlUID():
		return Finding{metav1.ConditionFalse, reasonControlCluster, "the credentials lead to the control cluster itself, which cannot be a pool"}
	case report.ClusterUID != resource.Spec.ClusterUID:
		return Finding{metav1.ConditionFalse, reasonOtherCluster, fmt.Sprintf(
			"the credentials lead to cluster %s, not to %s that was registered; nothing is written there", report.ClusterUID, resource.Spec.ClusterUID)}
	}
	if other, taken := k.registry.elder(resource); taken {
		return Finding{metav1.ConditionFalse, reasonDuplicate, fmt.Sprintf("ResourcePool %q already is this cluster", other)}
	}
	return Finding{metav1.ConditionTrue, reasonChecked, "the cluster is the one that was registered"}
}

func authorization(report Report) Finding {
	if len(report.Missing) > 0 || len(report.Problems) > 0 {
		problems := report.Problems
		if len(report.Missing) > 0 {
			problems = append([]string{"the credentials may not: " + strings.Join(report.Missing, "; ") + "; apply the manifests of `vivarium pool register --print-role`"}, problems...)
		}
		return Finding{metav1.ConditionFalse, reasonMissingRights, strings.Join(problems, "; ")}
	}
	return Finding{metav1.ConditionTrue, reasonChecked, strings.Join(append([]string{"the credentials suffice"}, report.Without...), "; ")}
}

// probe asks an open pool who it is. Another identity behind the same credentials closes it at once; silence counts only
// after a while.
func (k *keeper) probe(ctx context.Context) {
	attempt, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	status := k.status
	uid, err := clusterUID(attempt, k.open.pool.Client)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil && apierrors.IsForbidden(err):
		k.answered()
	case err != nil:
		if silence := time.Since(k.lastAnswer); silence > k.registry.config.UnreachableAfter {
			status.Reachable = k.noAnswer(err, k.open.credentials)
			k.report(status)
		}
		return
	case uid != k.open.pool.ClusterUID:
		k.close()
		status.Identified = Finding{metav1.ConditionFalse, reasonOtherCluster, fmt.Sprintf(
			"cluster %s answers where the registered one was; nothing is written there", uid)}
		k.report(status)
		return
	default:
		k.answered()
	}
	mark := k.open.pool.Mark()
	if now, err := revision(attempt, k.open.pool.Client); err == nil && !k.open.pool.Continues(mark, now) {
		k.foundRestored(ctx, strconv.FormatUint(mark, 10), now)
		k.report(status)
		k.close()
		return
	}
	status.Reachable = Finding{metav1.ConditionTrue, reasonChecked, "the pool's API server answers"}
	if !status.Authorized.Good() || time.Since(k.lastAudit) > auditEvery {
		if report, err := preflight(attempt, k.open.pool.Client, k.open.pool.Config.Host, k.open.pool.Spec().Network.Driver); err == nil {
			k.lastAudit = time.Now()
			status.Authorized, status.Version = authorization(report), report.Version
		}
	}
	k.report(status)
}

// compare looks whether a pool that is opened goes on from where it was, or from where its ResourcePool says it was.
func (k *keeper) compare(ctx context.Context, resource *v1alpha1.ResourcePool, now string) {
	was := max(number(k.newest), number(resource.Status.Revision))
	if v := number(now); v != 0 && v < was && !k.standing(resource).Good() {
		k.foundRestored(ctx, strconv.FormatUint(was, 10), now)
	}
}

// foundRestored notes that the pool has been restored from a backup.
func (k *keeper) foundRestored(ctx context.Context, was, now string) {
	k.newest = ""
	k.restored = Finding{metav1.ConditionTrue, reasonRestored, fmt.Sprintf(
		"the pool was at revision %s and is at %s, as when it was restored from a backup; its pods that are missing there are kept, not ready, for their containers may still run. When they do not: vivarium pool restored %s --nothing-else-runs-there", was, now, k.name)}
	boot.Logger(ctx).Error("pool was restored from a backup", "pool", k.name, "was", was, "is", now)
}

// standing says whether the pool has been restored and its operator has not looked at that yet. From the moment that it says
// so the ResourcePool is what remembers, for whoever comes after this process.
func (k *keeper) standing(resource *v1alpha1.ResourcePool) Finding {
	c := meta.FindStatusCondition(resource.Status.Conditions, v1alpha1.PoolRestored)
	if c == nil || c.Status != metav1.ConditionTrue {
		return k.restored
	}
	written := Finding{c.Status, c.Reason, c.Message}
	if _, accepted := resource.Annotations[v1alpha1.AnnotationRestored]; accepted {
		if k.restored == written {
			k.restored = Finding{}
		}
		return k.restored // of a restore that came after
	}
	k.restored = Finding{}
	return written
}

// noAnswer tells why a pool could not be asked, with credentials of the given fingerprint. Whether that is its trouble or ours
// decides about its pods.
func (k *keeper) noAnswer(err error, credentials [sha256.Size]byte) Finding {
	reason := reasonNoAnswer
	var certificate *tls.CertificateVerificationError
	switch {
	case apierrors.IsUnauthorized(err), errors.As(err, &certificate):
		reason = reasonRefused
	case k.proven != [sha256.Size]byte{} && k.proven != credentials:
		reason = reasonNewCredentials
	}
	return Finding{metav1.ConditionFalse, reason, oneLine(err)}
}

// answered notes that the pool's API server has answered, whatever it said.
func (k *keeper) answered() {
	k.registry.mu.Lock()
	defer k.registry.mu.Unlock()
	k.lastAnswer = time.Now()
}

// hand gives the pool to every subscriber.
func (k *keeper) hand(o *opened) {
	r := k.registry
	// Subscribe must not find the pool open before its new handler is in the list, nor tell it twice.
	r.telling.Lock()
	defer r.telling.Unlock()
	r.mu.Lock()
	k.open = o
	r.mu.Unlock()
	for _, h := range r.handlers {
		if h.Added != nil {
			h.Added(o.ctx, o.pool)
		}
	}
}

// close takes the pool away from every subscriber; it does nothing when none is open.
func (k *keeper) close() {
	r := k.registry
	r.telling.Lock()
	defer r.telling.Unlock()
	r.mu.Lock()
	o := k.open
	k.open = nil
	r.mu.Unlock()
	if o == nil {
		return
	}
	if k.restored == (Finding{}) {
		k.newest = o.pool.Revision()
	}
	o.cancel()
	for _, h := range r.handlers {
		if h.Removed != nil {
			h.Removed(o.pool)
		}
	}
}

func (k *keeper) changed(resource *v1alpha1.ResourcePool) {
	pool := k.open.pool
	if before := pool.resource.Swap(resource); before.ResourceVersion == resource.ResourceVersion {
		return
	}
	k.registry.tell(func(h *Handler) {
		if h.Changed != nil {
			h.Changed(pool)
		}
	})
}

// report publishes what is known now.
func (k *keeper) report(status Status) {
	r := k.registry
	if resource, ok := r.Resource(k.name); ok {
		status.Restored = k.standing(resource)
	}
	r.mu.Lock()
	news := !k.checked || k.status != status
	k.status, k.checked = status, true
	r.mu.Unlock()
	if !news {
		return
	}
	r.tell(func(h *Handler) {
		if h.Checked != nil {
			h.Checked(k.name)
		}
	})
}

// oneLine flattens an error for a condition.
func oneLine(err error) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\n", "; ")), " ")
}
