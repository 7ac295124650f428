package pools

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"
)

// failing has a cluster answer every read of its identity with the error that is set, if any.
func failing(w *world, t *testing.T, name string, err *atomic.Pointer[error]) {
	t.Helper()
	w.cluster(t, name, "cluster-a").PrependReactor("get", "namespaces", func(k8stesting.Action) (bool, runtime.Object, error) {
		if e := err.Load(); e != nil {
			return true, nil, *e
		}
		return false, nil, nil
	})
}

// TestWhoseTroubleItIs: a pool is lost only when it is the pool that does not answer; everything else is ours, and must not
// end pods that may be running well.
func TestWhoseTroubleItIs(t *testing.T) {
	refused := error(apierrors.NewUnauthorized("who are you"))
	certificate := error(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}})
	silent := errors.New("connection refused")
	w := newWorld(t)
	var first, second atomic.Pointer[error]
	failing(w, t, "one", &first)
	failing(w, t, "two", &second)
	w.secret(t, "pool-a", "one")
	w.pool(t, "pool-a", "cluster-a", time.Hour)
	is := func(reason string, lost bool) {
		t.Helper()
		status := w.waitStatus(t, "pool-a", func(s Status) bool { return s.Reachable.Reason == reason })
		if status.Lost() != lost {
			t.Errorf("%s: lost %t", reason, status.Lost())
		}
	}
	is(reasonChecked, false)
	first.Store(&silent)
	is(reasonNoAnswer, true)
	first.Store(&refused)
	is(reasonRefused, false)
	first.Store(&silent)
	is(reasonNoAnswer, true)
	first.Store(&certificate)
	is(reasonRefused, false)
	// New credentials that do not work say nothing about the pool, whatever they end in.
	second.Store(&silent)
	w.secret(t, "pool-a", "two")
	is(reasonNewCredentials, false)
	second.Store(&refused)
	is(reasonRefused, false)
	second.Store(nil)
	is(reasonChecked, false)
	// From then on they are as good as any.
	second.Store(&silent)
	is(reasonNoAnswer, true)
}
