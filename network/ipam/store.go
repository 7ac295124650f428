package ipam

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/internal/names"
)

// adminStore keeps blocks in the admin API.
type adminStore struct{ admin client.Client }

// NewStore gives the store in the admin API. The client must read live.
func NewStore(admin client.Client) Store { return adminStore{admin} }

func (s adminStore) List(ctx context.Context, subnet types.UID) ([]v1alpha1.IPBlock, error) {
	var all v1alpha1.IPBlockList
	if err := s.admin.List(ctx, &all, client.MatchingLabels{names.LabelSubnetUID: string(subnet)}); err != nil {
		return nil, err
	}
	var mine []v1alpha1.IPBlock
	for i := range all.Items {
		if all.Items[i].Spec.SubnetUID == subnet {
			mine = append(mine, all.Items[i])
		}
	}
	return mine, nil
}

func (s adminStore) Get(ctx context.Context, name string) (*v1alpha1.IPBlock, error) {
	block := &v1alpha1.IPBlock{}
	return block, s.admin.Get(ctx, client.ObjectKey{Name: name}, block)
}

func (s adminStore) Create(ctx context.Context, block *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	made := &v1alpha1.IPBlock{ObjectMeta: *block.ObjectMeta.DeepCopy(), Spec: block.Spec}
	made.UID, made.ResourceVersion = "", ""
	return made, s.admin.Create(ctx, made)
}

func (s adminStore) Write(ctx context.Context, block *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	written := block.DeepCopy()
	return written, s.admin.Status().Update(ctx, written)
}

// Delete lets go of the finalizer first, which is there so that nobody else's deletion counts.
func (s adminStore) Delete(ctx context.Context, block *v1alpha1.IPBlock) error {
	gone := block.DeepCopy()
	gone.Finalizers = nil
	if err := s.admin.Update(ctx, gone); err != nil {
		return err
	}
	version := gone.ResourceVersion
	err := s.admin.Delete(ctx, gone, client.Preconditions{UID: &gone.UID, ResourceVersion: &version})
	if apierrors.IsNotFound(err) {
		return nil // it was being deleted already
	}
	return err
}
