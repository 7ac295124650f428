package gateway

import (
	"crypto/sha256"
	"fmt"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// knownSizes bounds how many sizes are remembered, sizeAge how long.
	knownSizes = 16384
	sizeAge    = 10 * time.Minute
)

// sizes remembers how long lists over all namespaces were. They say what is likely, and decide nothing but what a list
// costs. Safe for concurrent use.
type sizes struct{ seen *lru.Cache[sizeKey, seenSize] }

// sizeKey is something whose size is remembered. Selectors are hashed: their length is the tenant's to choose.
type sizeKey struct {
	about sizeOf
	// tenant may be empty where it is about a kind.
	tenant          types.UID
	group, resource string
	selectors       [sha256.Size]byte
}

type sizeOf int

const (
	// itsItems is how many items a tenant's list has.
	itsItems sizeOf = iota
	// behindIt is how many objects, of whomever, there are behind a tenant's first.
	behindIt
	// itsNamespaces is how many namespaces a tenant has.
	itsNamespaces
)

type seenSize struct {
	count int
	at    time.Time
}

func newSizes() (*sizes, error) {
	seen, err := lru.New[sizeKey, seenSize](knownSizes)
	if err != nil {
		return nil, fmt.Errorf("make the memory of lists: %w", err)
	}
	return &sizes{seen}, nil
}

func (s *sizes) put(key sizeKey, count int) { s.seen.Add(key, seenSize{count, time.Now()}) }

// recent gives what was remembered not long ago.
func (s *sizes) recent(key sizeKey) (int, bool) {
	seen, ok := s.seen.Get(key)
	return seen.count, ok && time.Since(seen.at) < sizeAge
}
