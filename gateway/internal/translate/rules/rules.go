package rules

// Place is a spot in a document: the operation on what stands there and the way to the places below that matter.
// Places are shared between places of the same type and must not be changed.
type Place struct {
	// Op applies to the value here; Pass where only something below matters.
	Op Op
	// Shape says what the API has here.
	Shape Shape
	// Text says that prose is all that is looked for here and below. Only set by [ToTenant].
	Text bool

	prepared bool
	below    []*Place // see Below
	asked    uint64   // see Asked
	always   uint64   // see Always
	// Fields are the members of an object below which something matters, by JSON name.
	Fields []Field
	// Elem stands for each element of an array or value of a map, if something matters below them.
	Elem *Place
	// Wire are the fields of the protobuf message, where embedded structs are messages of their own.
	Wire []WireField
	// Value says how what an operation applies to is encoded in protobuf: the string or message here, the element of an
	// Array, the value of a Map.
	Value WireKind
	// Message describes that message, if it is one.
	Message *Message

	keys    uint64       // bits of the keys of Fields
	numbers []*WireField // Wire by number
}

// Field is one member of an object.
type Field struct {
	JSON  string
	Place *Place
}

// WireField is one field of a protobuf message.
type WireField struct {
	Number int32
	// JSON is the field's name, empty for an embedded struct.
	JSON  string
	Place *Place
}

// WireKind is how a value is encoded in protobuf.
type WireKind uint8

// The kinds. Everything that is none of the others is opaque: nothing ever looks into it.
const (
	WireOpaque WireKind = iota
	WireString
	WireBool
	WireMessage
	// WireJSON is a message whose only field holds JSON.
	WireJSON
)

// Message describes a protobuf message completely, for operations that look at all of it.
type Message struct {
	Fields []MessageField
}

// MessageField is one field of a message.
type MessageField struct {
	Number int32
	JSON   string
	Kind   WireKind
	// Shape is Array for a repeated field, Map for a map with string keys, Leaf otherwise.
	Shape   Shape
	Message *Message
}

// OnWire finds the place of a field of a message, nil if nothing matters there.
func (p *Place) OnWire(number int32) *WireField {
	if p.prepared && number < maxPrepared {
		if int(number) < len(p.numbers) {
			return p.numbers[number]
		}
		return nil
	}
	for i := range p.Wire {
		if p.Wire[i].Number == number {
			return &p.Wire[i]
		}
	}
	return nil
}

// Below finds the place that one occurrence of a field of a message stands at: an element's, if the field is a list of which
// only elements matter. It takes a place of a table that is [Place.Ready].
func (p *Place) Below(number uint64) *Place {
	if number < uint64(len(p.below)) {
		return p.below[number]
	}
	return nil
}

// Asked has a bit for each field of a message that [Place.Below] finds something for, and one for the number zero, which no
// field has.
func (p *Place) Asked() uint64 { return p.asked }

// Always has the bits of [Place.Asked] whose fields must be looked at even if neither the tenant's prefix nor the platform's
// domain is in them. Not so for Namespaces, where managed fields must be too.
func (p *Place) Always() uint64 { return p.always }

// Field finds a field by its number.
func (m *Message) Field(number int32) *MessageField {
	for i := range m.Fields {
		if m.Fields[i].Number == number {
			return &m.Fields[i]
		}
	}
	return nil
}

// ListMeta describes metav1.ListMeta.
func ListMeta() *Message { return &messages[listMetaMessage] }

// Status describes metav1.Status.
func Status() *Message { return &messages[statusMessage] }

// Shape is the form of a value in the API.
type Shape uint8

// The shapes.
const (
	Leaf Shape = iota
	Object
	Array
	Map
)

// Child finds the place of a member of an object or map, nil if nothing matters there. A member of a map is any.
func (p *Place) Child(key []byte) *Place {
	if p.Shape == Map {
		return p.Elem
	}
	if p.prepared && p.keys&keyBit(key) == 0 {
		return nil
	}
	for i := range p.Fields {
		if f := &p.Fields[i]; len(f.JSON) == len(key) && f.JSON == string(key) {
			return f.Place
		}
	}
	return nil
}

// Matters reports whether an operation applies at the place or below it.
func (p *Place) Matters() bool {
	return p != nil && (p.Op > Pass || len(p.Fields) > 0 || p.Elem != nil)
}

// Root is the table of one kind.
type Root struct {
	Group, Version, Kind string
	Namespaced           bool
	// Prefixed says that the kind's names are the tenant's and carry its prefix in the control cluster. False for
	// namespaced kinds and for those the operator exports.
	Prefixed bool
	// Custom tells kinds that a CustomResourceDefinition made from those that are built in. Their documents are encoded with
	// sorted keys, and their group may carry the tenant's prefix in the control cluster.
	Custom bool
	*Place
	// ToTenant is the table for answers.
	ToTenant *Place
	// GroupVersion and List are how documents name the kind's group with its version, and lists of it.
	GroupVersion, List string
}

// Named fills in what documents call the kind.
func (r Root) Named() Root {
	r.GroupVersion, r.List = r.Version, r.Kind+"List"
	if r.Group != "" {
		r.GroupVersion = r.Group + "/" + r.Version
	}
	return r
}

// For finds the table of a kind. Kinds without one must be refused.
func For(group, version, kind string) (Root, bool) {
	r, ok := table[rootKey{group, version, kind}]
	return r, ok
}

// All gives every table, in no particular order.
func All() []Root {
	out := make([]Root, 0, len(table))
	for _, r := range table {
		out = append(out, r)
	}
	return out
}

// ClusterScoped reports whether a built-in kind is cluster-scoped and, if so, whether its names are prefixed. Kinds of
// other groups are not built in; the group "" with an unknown kind is not either.
func ClusterScoped(group, kind string) (clusterScoped, prefixed bool) {
	prefixed, clusterScoped = clusterKinds[groupKind{group, kind}]
	return clusterScoped, prefixed
}

// PrefixedResource reports whether names of a cluster-scoped resource carry the tenant's prefix in the control cluster;
// known is false for namespaced and unknown resources.
func PrefixedResource(group, resource string) (prefixed, known bool) {
	prefixed, known = clusterResources[groupKind{group, resource}]
	return prefixed, known
}

// BuiltInGroup reports whether an API group is Kubernetes' own, so that its name passes unchanged.
func BuiltInGroup(group string) bool { return builtInGroups[group] }

type rootKey struct{ group, version, kind string }

type groupKind struct{ group, kind string }

// typeDef and fieldDef are the form of the generated table: one definition per Go type and place, fields only where
// something matters.
type typeDef struct {
	op     Op
	shape  Shape
	elem   int // index of the definition of elements, -1 if nothing matters there
	fields []fieldDef
	value  WireKind
	// message is the index of the message that an operation looks at, -1 if it is none.
	message int
}

// messageDef and messageFieldDef are the generated form of Message.
type messageDef []messageFieldDef

type messageFieldDef struct {
	number  int32
	json    string
	kind    WireKind
	shape   Shape
	message int
}

type fieldDef struct {
	json   string
	number int32
	def    int
	// inline says that the field is an embedded struct: its members are the enclosing object's in JSON, a message of its
	// own in protobuf.
	inline bool
}

type rootDef struct {
	group, version, kind string
	namespaced, prefixed bool
	def                  int
}

var (
	messages = buildMessages(messageDefs)
	table    = build(defs, roots)
)

func buildMessages(defs []messageDef) []Message {
	out := make([]Message, len(defs))
	for i, fields := range defs {
		for _, f := range fields {
			mf := MessageField{Number: f.number, JSON: f.json, Kind: f.kind, Shape: f.shape}
			if f.message >= 0 {
				mf.Message = &out[f.message]
			}
			out[i].Fields = append(out[i].Fields, mf)
		}
	}
	return out
}

func build(defs []typeDef, roots []rootDef) map[rootKey]Root {
	places := make([]Place, len(defs))
	for i := range defs {
		places[i].Op, places[i].Shape, places[i].Value = defs[i].op, defs[i].shape, defs[i].value
		if defs[i].message >= 0 {
			places[i].Message = &messages[defs[i].message]
		}
		if defs[i].elem >= 0 {
			places[i].Elem = &places[defs[i].elem]
		}
	}
	for i := range defs {
		places[i].Fields = flatten(defs, places, defs[i].fields)
		for _, f := range defs[i].fields {
			if f.number > 0 {
				places[i].Wire = append(places[i].Wire, WireField{f.number, f.json, &places[f.def]})
			}
		}
	}
	for i := range places {
		places[i].prepare()
	}
	out, answers := make(map[rootKey]Root, len(roots)), answers{}
	for _, r := range roots {
		answer := answers.place(&places[r.def])
		if answer == nil {
			answer = &Place{Shape: Object}
		}
		out[rootKey{r.group, r.version, r.kind}] = Root{
			Group: r.group, Version: r.version, Kind: r.kind, Namespaced: r.namespaced, Prefixed: r.prefixed, Place: &places[r.def], ToTenant: answer,
		}.Named()
	}
	return out
}

func flatten(defs []typeDef, places []Place, fields []fieldDef) []Field {
	var out []Field
	for _, f := range fields {
		if f.inline {
			out = append(out, flatten(defs, places, defs[f.def].fields)...)
			continue
		}
		out = append(out, Field{f.json, &places[f.def]})
	}
	return out
}
