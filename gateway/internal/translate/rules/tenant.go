package rules

// What streams towards a tenant goes by a table of its own: operations that only judge requests are not in it, so that
// nothing below them is walked, and places at which only text is looked for say so.

// asked are the operations that say what a tenant may ask for. What the control cluster answers passes.
func (o Op) asked() bool {
	switch o {
	case NodeName, SchedulerName, TokenAudience, TokenAudiences, BoundKind, SecretType, ExternalIPs, ConversionStrategy:
		return true
	}
	return false
}

// marked are the operations that leave alone what holds neither the tenant's prefix nor the platform's domain. Of
// ManagedFields that is not true in a Namespace.
func (o Op) marked() bool {
	switch o {
	case Keys, PodKeys, PodAnnotations, OwnedLabels, ManagedFields, Text, GenerateName:
		return true
	}
	return false
}

// ToTenant makes the table by which answers are translated. It must be called once per table, not per answer.
func ToTenant(p *Place) *Place { return answers{}.place(p) }

// Ready reports whether a place is of a table that this package made.
func (p *Place) Ready() bool { return p != nil && p.prepared }

// answers keeps places that are shared shared.
type answers map[*Place]*Place

// place gives nil where nothing matters towards a tenant.
func (a answers) place(p *Place) *Place {
	if p == nil || p.Op.asked() {
		return nil
	}
	if made, ok := a[p]; ok {
		return made
	}
	out := &Place{Op: p.Op, Shape: p.Shape, Value: p.Value, Message: p.Message, Text: p.Op == Text || p.Op == Pass}
	a[p] = out
	if p.Op > Pass {
		out.Elem, out.Fields, out.Wire = p.Elem, p.Fields, p.Wire
		out.prepare()
		return out
	}
	if out.Elem = a.place(p.Elem); out.Elem != nil {
		out.Text = out.Text && out.Elem.Text
	}
	for _, f := range p.Fields {
		if below := a.place(f.Place); below != nil {
			out.Fields = append(out.Fields, Field{f.JSON, below})
			out.Text = out.Text && below.Text
		}
	}
	for _, f := range p.Wire {
		if below := a.place(f.Place); below != nil {
			out.Wire = append(out.Wire, WireField{f.Number, f.JSON, below})
			out.Text = out.Text && below.Text
		}
	}
	if !out.Matters() && len(out.Wire) == 0 {
		// For roots, which always have a table, the caller keeps an empty one.
		a[p] = nil
		return nil
	}
	out.prepare()
	return out
}

// keyBit hashes a JSON key to one of 64 bits.
func keyBit[K string | []byte](key K) uint64 {
	if len(key) == 0 {
		return 1
	}
	return 1 << ((uint(len(key))*7 + uint(key[0]) + uint(key[len(key)-1])*3) & 63)
}

// prepare makes the ways to fields short.
func (p *Place) prepare() {
	p.keys, p.numbers, p.below, p.asked, p.always = 0, nil, nil, 1, 1
	for _, f := range p.Fields {
		p.keys |= keyBit(f.JSON)
	}
	for i := range p.Wire {
		n := int(p.Wire[i].Number)
		if n >= maxPrepared {
			panic("a field number that no table is made for")
		}
		for len(p.numbers) <= n {
			p.numbers = append(p.numbers, nil)
		}
		p.numbers[n] = &p.Wire[i]
		for len(p.below) <= n {
			p.below = append(p.below, nil)
		}
		p.asked |= 1 << n
		if p.below[n] = p.Wire[i].Place; p.below[n].Op == Pass && p.below[n].Shape == Array {
			p.below[n] = p.below[n].Elem
		}
		if !p.below[n].Op.marked() {
			p.always |= 1 << n
		}
	}
	p.prepared = true
}

// maxPrepared is above every field number of the API that matters.
const maxPrepared = 64
