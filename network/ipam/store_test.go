package ipam

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"vivarium.io/vivarium/api/v1alpha1"
)

// memory is a store in memory that behaves as an API server does: what is read and written goes through its text form,
// and a write upon an old version is a conflict.
type memory struct {
	mu      sync.Mutex // guards the rest
	blocks  map[string][]byte
	version int
	writes  int
}

func newMemory() *memory { return &memory{blocks: map[string][]byte{}} }

var resource = schema.GroupResource{Group: v1alpha1.GroupVersion.Group, Resource: "ipblocks"}

// errNoAnswer is a call whose answer was lost.
var errNoAnswer = errors.New("connection reset by peer")

func (m *memory) get(name string) (*v1alpha1.IPBlock, error) {
	raw, ok := m.blocks[name]
	if !ok {
		return nil, apierrors.NewNotFound(resource, name)
	}
	block := &v1alpha1.IPBlock{}
	return block, json.Unmarshal(raw, block)
}

func (m *memory) put(block *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	m.version++
	m.writes++
	block = block.DeepCopy()
	block.ResourceVersion = strconv.Itoa(m.version)
	raw, err := json.Marshal(block)
	if err != nil {
		return nil, err
	}
	m.blocks[block.Name] = raw
	return m.get(block.Name)
}

func (m *memory) List(_ context.Context, subnet types.UID) ([]v1alpha1.IPBlock, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []v1alpha1.IPBlock
	for name := range m.blocks {
		if block, err := m.get(name); err == nil && block.Spec.SubnetUID == subnet {
			list = append(list, *block)
		}
	}
	slices.SortFunc(list, func(a, b v1alpha1.IPBlock) int { return int(a.Spec.First) - int(b.Spec.First) })
	return list, nil
}

func (m *memory) Get(_ context.Context, name string) (*v1alpha1.IPBlock, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.get(name)
}

func (m *memory) Create(_ context.Context, block *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, there := m.blocks[block.Name]; there {
		return nil, apierrors.NewAlreadyExists(resource, block.Name)
	}
	made := &v1alpha1.IPBlock{ObjectMeta: block.ObjectMeta, Spec: block.Spec}
	return m.put(made)
}

func (m *memory) Write(_ context.Context, block *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	current, err := m.get(block.Name)
	if err != nil {
		return nil, err
	}
	if current.ResourceVersion != block.ResourceVersion {
		return nil, apierrors.NewConflict(resource, block.Name, errors.New("the object has been modified"))
	}
	return m.put(block)
}

func (m *memory) Delete(_ context.Context, block *v1alpha1.IPBlock) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.get(block.Name); err != nil {
		return err
	}
	delete(m.blocks, block.Name)
	return nil
}

// trouble puts a fault before each call of a store: before is asked whether the call fails undone, after whether its answer
// is lost.
type trouble struct {
	Store
	before, after func(method string) error
}

func (t trouble) List(ctx context.Context, subnet types.UID) ([]v1alpha1.IPBlock, error) {
	return fault(t, "List", func() ([]v1alpha1.IPBlock, error) { return t.Store.List(ctx, subnet) })
}

func (t trouble) Get(ctx context.Context, name string) (*v1alpha1.IPBlock, error) {
	return fault(t, "Get", func() (*v1alpha1.IPBlock, error) { return t.Store.Get(ctx, name) })
}

func (t trouble) Create(ctx context.Context, block *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	return fault(t, "Create", func() (*v1alpha1.IPBlock, error) { return t.Store.Create(ctx, block) })
}

func (t trouble) Write(ctx context.Context, block *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	return fault(t, "Write", func() (*v1alpha1.IPBlock, error) { return t.Store.Write(ctx, block) })
}

func fault[T any](t trouble, method string, call func() (T, error)) (T, error) {
	var none T
	if err := t.before(method); err != nil {
		return none, err
	}
	got, err := call()
	if err != nil {
		return none, err
	}
	if err := t.after(method); err != nil {
		return none, err
	}
	return got, nil
}
