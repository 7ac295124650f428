// Package bounce keeps the book of one pool's pods that have no place there: how long each has waited, how often the
// replacements of one owner have come back, and what the pool must not promise for a while. It decides and remembers; the
// provider removes pods and the nodes controller corrects what virtual Nodes offer.
//
// What it knows is in memory, and what counts of it can be told again after a restart, from what pods show ([Book.Recall],
// [Book.Waited]). It must never let
// pods go faster than [perSecond], nor the same owner's for ever: a pod that fits nowhere must end up waiting. Start at
// [Book.Judge].
package bounce

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// perSecond and burst bound how fast one pool gives pods back.
	perSecond, burst = 10, 20
	// maxRounds is how often the replacements of one owner may come back before they stay and wait.
	maxRounds = 5
	// forgetAfter is how long an owner is remembered.
	forgetAfter = time.Hour
	// FirstHold and lastHold bound how long a pool does not promise what it could not keep.
	FirstHold, lastHold = 30 * time.Second, 5 * time.Minute
)

// Books has one [Book] for each pool. The zero value is not usable; see [NewBooks].
type Books struct {
	now func() time.Time

	mu      sync.Mutex // guards the rest
	books   map[string]*Book
	changed func(pool string)
}

// NewBooks makes Books that read the given clock.
func NewBooks(now func() time.Time) *Books { return &Books{now: now, books: map[string]*Book{}} }

// OnChange has changed called with the name of a pool that has to promise less. Call it before there are pods.
func (b *Books) OnChange(changed func(pool string)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed = changed
}

// Of gives a pool's book.
func (b *Books) Of(pool string) *Book {
	b.mu.Lock()
	defer b.mu.Unlock()
	book := b.books[pool]
	if book == nil {
		book = &Book{
			now: b.now, tokens: rate.NewLimiter(perSecond, burst),
			waiting: map[types.UID]time.Time{}, left: map[types.UID]time.Time{}, owners: map[types.UID]*owner{}, limits: map[limitKey]*limit{},
			changed: func() {
				b.mu.Lock()
				tell := b.changed
				b.mu.Unlock()
				if tell != nil {
					tell(pool)
				}
			},
		}
		b.books[pool] = book
	}
	return book
}

// Book is one pool's. Safe for concurrent use.
type Book struct {
	now     func() time.Time
	changed func()

	mu     sync.Mutex // guards the rest
	tokens *rate.Limiter
	// waiting is since when a pod has been seen without a place, and left when it was given back.
	waiting, left map[types.UID]time.Time
	owners        map[types.UID]*owner
	limits        map[limitKey]*limit
	// version counts changes of limits, and applied is the last that virtual Nodes show.
	version, applied int
}

// owner is a controller whose pods were given back.
type owner struct {
	// rounds is how many times its pods were given back, those that waited together counted once; began is when the
	// latest time began.
	rounds int
	began  time.Time
}

// Verdict is what is to be done about a pod without a place.
type Verdict struct {
	// Go says that the pod is to be given back now.
	Go bool
	// Wait is when to ask again; zero, without Go, when only a change can help.
	Wait time.Duration
}

// Judge says what to do about a pod that has no place now. by is the UID of the controller that would replace it, empty
// when there is none: such a pod is never given back. after is how long a pod may wait at first.
func (b *Book) Judge(pod, by types.UID, after time.Duration) Verdict {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	since, known := b.waiting[pod]
	if !known {
		since = now
		b.waiting[pod] = since
	}
	if by == "" {
		return Verdict{}
	}
	rounds, again := b.round(by, since, now)
	if again && rounds >= maxRounds {
		return Verdict{}
	}
	if !again && rounds > 0 {
		rounds-- // it waited with those of the latest round
	}
	if left := after<<rounds - now.Sub(since); left > 0 {
		return Verdict{Wait: left}
	}
	if !b.tokens.AllowN(now, 1) {
		return Verdict{Wait: time.Second / perSecond}
	}
	return Verdict{Go: true}
}

// round gives how many rounds an owner has had, and whether a pod that has waited since then would begin another one.
func (b *Book) round(by types.UID, since, now time.Time) (rounds int, again bool) {
	o := b.owners[by]
	if o == nil || now.Sub(o.began) > forgetAfter {
		delete(b.owners, by)
		return 0, true
	}
	return o.rounds, since.After(o.began)
}

// Left notes that a pod was given back. Until its end is known everywhere ([Book.Settled]) it holds nothing: its Node would
// offer, for that moment, what the pod seems to hold, and the replacement would come back to it.
func (b *Book) Left(pod, by types.UID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	since, known := b.waiting[pod]
	if !known {
		since = now
	}
	b.leave(pod, by, since, now)
}

// Recall tells of a pod that was given back before: since when it had waited, and when that was. Pods have to be told of in
// the order in which they left.
func (b *Book) Recall(pod, by types.UID, since, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leave(pod, by, since, at)
}

// Waited tells since when a pod has no place, unless that is known.
func (b *Book) Waited(pod types.UID, since time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.waiting[pod]; !known {
		b.waiting[pod] = since
	}
}

// leave is called under mu.
func (b *Book) leave(pod, by types.UID, since, now time.Time) {
	delete(b.waiting, pod)
	b.left[pod] = now
	if _, again := b.round(by, since, now); again {
		if b.owners[by] == nil {
			b.owners[by] = &owner{}
		}
		b.owners[by].rounds++
		b.owners[by].began = now
	}
	for uid, o := range b.owners {
		if now.Sub(o.began) > forgetAfter {
			delete(b.owners, uid)
		}
	}
	for uid, at := range b.left {
		if now.Sub(at) > forgetAfter {
			delete(b.left, uid)
		}
	}
}

// Settled notes that a pod has a place, or needs none any more.
func (b *Book) Settled(pod types.UID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.waiting, pod)
	delete(b.left, pod)
}

// Waits reports whether a pod is known to have no place, or has been given back because of that.
func (b *Book) Waits(pod types.UID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, waits := b.waiting[pod]
	_, left := b.left[pod]
	return waits || left
}

// Owner gives the UID of the controller that would replace a pod.
func Owner(pod *corev1.Pod) types.UID {
	for _, ref := range pod.OwnerReferences {
		if ref.Controller != nil && *ref.Controller {
			return ref.UID
		}
	}
	return ""
}
