package translate

import (
	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

func (r *response) beginItem() { r.owned, r.name, r.rawName = false, "", nil }

// itsName is the name of the current item, as far as rules ask.
func (r *response) itsName() string {
	if r.rawName != nil {
		r.name, r.rawName = string(r.rawName), nil
	}
	return r.name
}

// endItem checks that the item has shown itself to be the tenant's. Reviews, which are stored nowhere, have nothing to
// show.
func (r *response) endItem() error {
	if !r.owned && !r.bookmark && (r.root.Namespaced || r.root.Prefixed || r.root.Op == rules.VirtualNode) {
		return errForeignItem
	}
	return nil
}

// item walks one element of a list or the object of a frame or row.
func (r *response) item(place *rules.Place) error {
	r.beginItem()
	if place != nil {
		if err := r.value(place); err != nil {
			return err
		}
		return r.endItem()
	}
	err := r.object(func(key []byte) error {
		if string(key) == "metadata" {
			return r.metadata()
		}
		return r.Skip()
	})
	if err != nil {
		return err
	}
	return r.endItem()
}

// metadata walks the metadata of a PartialObjectMetadata.
func (r *response) metadata() error {
	if r.root.Op == rules.VirtualNode {
		return r.tree(r.nodeMetadataToTenant)
	}
	place := r.root.ToTenant.Child([]byte("metadata"))
	if place == nil {
		return foreign("metadata of %s without rules", r.root.Kind)
	}
	return r.value(place)
}

// child walks a member of an object at a place.
func (r *response) child(place *rules.Place, key string) error {
	if p := place.Child([]byte(key)); p != nil {
		return r.value(p)
	}
	return r.Skip()
}

// object walks an object, handing each key to f, which must consume the value. null passes.
func (r *response) object(f func(key []byte) error) error {
	c, err := r.Peek()
	if err != nil {
		return err
	}
	if c != '{' {
		return r.Skip()
	}
	r.Enter()
	for first := true; ; first = false {
		key, ok, err := r.NextKey(first)
		if err != nil || !ok {
			return err
		}
		if err := f(key); err != nil {
			return err
		}
	}
}

// array walks an array, calling f before each element, which it must consume. null passes.
func (r *response) array(f func() error) error {
	c, err := r.Peek()
	if err != nil {
		return err
	}
	if c != '[' {
		return r.Skip()
	}
	r.Enter()
	for first := true; ; first = false {
		ok, err := r.Next(first)
		if err != nil || !ok {
			return err
		}
		if err := f(); err != nil {
			return err
		}
	}
}

// value walks whatever stands at a place.
func (r *response) value(p *rules.Place) error {
	if p.Op > rules.Pass {
		return r.operate(p.Op)
	}
	if p.Text && r.SkipWithout(ofTenant, ofPlatform) {
		return nil
	}
	c, err := r.Peek()
	if err != nil {
		return err
	}
	switch {
	case c == '{':
		r.Enter()
		for first := true; ; first = false {
			key, ok, err := r.NextKey(first)
			if err != nil || !ok {
				return err
			}
			if child := p.Child(key); child != nil {
				err = r.value(child)
			} else {
				err = r.Skip()
			}
			if err != nil {
				return err
			}
		}
	case c == '[' && p.Elem != nil:
		r.Enter()
		for first := true; ; first = false {
			ok, err := r.Next(first)
			if err != nil || !ok {
				return err
			}
			if err := r.value(p.Elem); err != nil {
				return err
			}
		}
	}
	return r.Skip()
}

// tree takes the next value out as a tree, lets f change it and writes it.
func (r *response) tree(f func(*jsonwire.Value) error) error {
	raw, err := r.Capture()
	if err != nil {
		return err
	}
	v, err := parseTrusted(raw)
	if err != nil {
		return err
	}
	if err := f(v); err != nil {
		return err
	}
	return r.Emit(v.Append(nil))
}
