package v1alpha1

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// TenantChoice chooses tenants: those that are named, and those that are selected. Without names and selector it chooses
// nobody.
type TenantChoice struct {
	// names are the names of Tenants, which need not exist yet.
	// +listType=set
	Names []string `json:"names,omitempty"`
	// selector selects Tenants by their labels, those that are labelled later included. An empty selector selects every
	// Tenant; an absent one none.
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// Chooses reports whether a tenant is among the chosen, by its name and its labels.
func (c *TenantChoice) Chooses(name string, have labels.Set) bool {
	if slices.Contains(c.Names, name) {
		return true
	}
	if c.Selector == nil {
		return false
	}
	// The admin API refuses a selector that cannot be read.
	selector, err := metav1.LabelSelectorAsSelector(c.Selector)
	return err == nil && selector.Matches(have)
}
