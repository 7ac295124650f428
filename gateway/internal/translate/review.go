package translate

import (
	"slices"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
)

// attributesToControl translates what an access review asks about.
func (q *request) attributesToControl(attrs *jsonwire.Value, path string) error {
	if attrs.Kind() != jsonwire.Object {
		return nil
	}
	if ns := attrs.Get("namespace"); ns.Text() != "" {
		control, err := q.view.namespaceToControl(ns.Text(), path+".namespace")
		if err != nil {
			return err
		}
		ns.SetText(control)
	}
	if name := attrs.Get("name"); name.Text() != "" {
		name.SetText(q.view.resourceNameToControl(q.view.attributeClass(attrs), name.Text()))
	}
	if err := q.reviewSelectorsToControl(attrs, path); err != nil {
		return err
	}
	if g := attrs.Get("group"); g.Text() != "" {
		g.SetText(q.view.groupToControl(g.Text()))
	}
	return nil
}

// attributeClass is the class of the one name a review asks about. "*" stands for every resource and has no name to
// translate.
func (v View) attributeClass(attrs *jsonwire.Value) nameClass {
	if attrs.Get("resource").Text() == "*" {
		return plainNames
	}
	return v.nameClassOf(attrs.Get("group").Text(), attrs.Get("resource").Text())
}

// attributesToTenant is the inverse. A review is echoed to whoever asked, so what cannot be translated back is hidden.
func (r *response) attributesToTenant(attrs *jsonwire.Value) {
	if g := attrs.Get("group"); g.Text() != "" {
		own, ok := r.view.groupToTenant(g.Text())
		if !ok {
			own = ""
		}
		g.SetText(own)
	}
	if ns := attrs.Get("namespace"); ns.Text() != "" {
		ns.SetText(r.namespaceToTenant(ns.Text()))
	}
	if name := attrs.Get("name"); name.Text() != "" {
		own, ok := r.view.resourceNameToTenant(r.view.attributeClass(attrs), name.Text())
		if !ok {
			own = ""
		}
		name.SetText(own)
	}
	r.reviewSelectorsToTenant(attrs)
}

// userInfoToTenant shows a user as the tenant knows it. Groups that the control cluster adds for itself are left out.
func (r *response) userInfoToTenant(user *jsonwire.Value) bool {
	if name := user.Get("username"); name.Text() != "" {
		own, err := r.view.Tenant.UserToTenant(name.Text())
		if err != nil {
			return false
		}
		name.SetText(own)
	}
	groups := user.Get("groups")
	if groups.Kind() == jsonwire.Array {
		seen := map[string]bool{}
		groups.SetElems(slices.DeleteFunc(groups.Elems(), func(g *jsonwire.Value) bool {
			own, err := r.view.Tenant.UserGroupToTenant(g.Text())
			if everybodys[g.Text()] {
				own, err = g.Text(), nil
			}
			if err != nil || seen[own] {
				return true
			}
			seen[own] = true
			g.SetText(own)
			return false
		}))
	}
	return true
}

// everybodys are groups that the control cluster puts its users in by itself. A tenant's user is in the tenant's group of
// that name as well.
var everybodys = map[string]bool{"system:authenticated": true, "system:serviceaccounts": true}

// tokenStatusToTenant answers a TokenReview. The token of anybody else is simply not valid here.
func (r *response) tokenStatusToTenant(status *jsonwire.Value) {
	if e := status.Get("error"); e.Text() != "" {
		e.SetText(r.view.TextToTenant(e.Text()))
	}
	user := status.Get("user")
	if user.Get("username").Text() == "" && !status.Get("authenticated").IsTrue() {
		return
	}
	if !r.userInfoToTenant(user) {
		*status = *jsonwire.NewObject(jsonwire.Member{Key: "user", Value: jsonwire.NewObject()})
	}
}

// audiencesToControl checks the audiences that a token is asked for or reviewed with.
func (q *request) audiencesToControl(audiences *jsonwire.Value, path string) error {
	for _, a := range audiences.Elems() {
		if err := q.audienceToControl(a, path); err != nil {
			return err
		}
	}
	return nil
}

func (q *request) audienceToControl(a *jsonwire.Value, path string) error {
	if slices.Contains(q.view.ForbiddenAudiences, a.Text()) && a.Text() != "" {
		return forbidden(path, "no token is given for the audience %q; leave it out for one that this cluster accepts", a.Text())
	}
	return nil
}

// defaultAudience makes a token without audiences one for the gateway; the control cluster would make it one for itself.
func (q *request) defaultAudience(root *jsonwire.Value) {
	spec := root.Get("spec")
	if spec.Kind() != jsonwire.Object {
		spec = jsonwire.NewObject()
		root.Set("spec", spec)
	}
	if len(spec.Get("audiences").Elems()) == 0 {
		spec.Set("audiences", jsonwire.NewArray(jsonwire.NewString(q.view.TokenAudience)))
	}
}
