package translate

import (
	"strings"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
)

// countPrefix starts the quota resources that count objects: "count/widgets.example.com".
const countPrefix = "count/"

func (v View) quotaKeyToControl(key string) string {
	if kind, class, rest, ok := cutClass(key); ok {
		return v.classToControl(kind, class) + rest
	}
	resource, group, ok := cutCount(key)
	if !ok {
		return key
	}
	return countPrefix + resource + "." + v.groupToControl(group)
}

// quotaKeyToTenant is the inverse of quotaKeyToControl; false means that the key counts nothing of the tenant's.
func (v View) quotaKeyToTenant(key string) (string, bool) {
	if kind, class, rest, ok := cutClass(key); ok {
		own, err := v.Tenant.NameToTenant(class)
		if v.exported(kind, class) {
			own, err = class, nil
		}
		return own + rest, err == nil
	}
	resource, group, ok := cutCount(key)
	if !ok {
		return key, true
	}
	group, ok = v.groupToTenant(group)
	return countPrefix + resource + "." + group, ok
}

func cutCount(key string) (resource, group string, ok bool) {
	rest, ok := strings.CutPrefix(key, countPrefix)
	if !ok {
		return "", "", false
	}
	resource, group, ok = strings.Cut(rest, ".")
	return resource, group, ok && group != ""
}

func (v View) quotaToControl(quota *jsonwire.Value) {
	members := quota.Members()
	for i := range members {
		members[i].Key = v.quotaKeyToControl(members[i].Key)
	}
}

func (v View) quotaToTenant(quota *jsonwire.Value) {
	quota.Filter(func(m *jsonwire.Member) bool {
		key, ok := v.quotaKeyToTenant(m.Key)
		m.Key = key
		return ok
	})
}
