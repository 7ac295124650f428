// Package offers knows the cluster-scoped objects of the operator that tenants may see: the classes that it exports, and
// the volumes that are bound to tenants' claims.
//
// There are few of them and every tenant asks, so one list and one watch per kind are shared by all: each comes as a
// table with the whole objects in it, which gives every form that a client may ask for. What a tenant must not know of an
// object is cut away on its way in. Who may see an object is decided by the object alone ([Object.Visible]); whether a user
// may look at all is for the caller to ask. The package must never change anything in the control cluster.
//
// Start at [Set.Store] and [Store.Watch].
package offers
