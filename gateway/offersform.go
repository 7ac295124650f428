package gateway

import (
	"fmt"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"vivarium.io/vivarium/gateway/internal/kinds"
	"vivarium.io/vivarium/gateway/internal/offers"
	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
)

// begin writes the head of a list, up to its first item.
func (o *offer) begin(state *offers.State) {
	kind, version, items := o.kind.Kind+"List", o.groupVersion(), "items"
	switch o.form {
	case asTable:
		kind, version, items = "Table", "meta.k8s.io/v1", "rows"
	case asMetadata:
		kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
	case asObject:
	}
	fmt.Fprintf(&o.out, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"%d"}`, kind, version, state.Version)
	if o.form == asTable {
		o.out.WriteString(`,"columnDefinitions":`)
		o.out.Write(columns(state))
	}
	fmt.Fprintf(&o.out, `,%q:[`, items)
}

func columns(state *offers.State) []byte {
	if state.Columns == nil {
		return []byte(`[{"name":"Name","type":"string","format":"name","description":"","priority":0}]`)
	}
	return state.Columns
}

// tree gives what the tenant sees of an object.
func (o *offer) tree(object *offers.Object, version uint64) (*jsonwire.Value, error) {
	tree, err := jsonwire.Parse(object.JSON)
	if err != nil {
		return nil, fmt.Errorf("read %s %q: %w", o.kind.Kind, object.Name, err)
	}
	if o.kind.Confined == kinds.Claimed && !o.view.VolumeToTenant(tree) {
		return nil, fmt.Errorf("volume %q is not of tenant %s", object.Name, o.view.Tenant)
	}
	tree.Get("metadata").Set("resourceVersion", jsonwire.NewString(strconv.FormatUint(version, 10)))
	return tree, nil
}

func metadataOf(tree *jsonwire.Value) *jsonwire.Value {
	return jsonwire.NewObject(
		jsonwire.Member{Key: "kind", Value: jsonwire.NewString("PartialObjectMetadata")},
		jsonwire.Member{Key: "apiVersion", Value: jsonwire.NewString("meta.k8s.io/v1")},
		jsonwire.Member{Key: "metadata", Value: tree.Get("metadata")})
}

// item writes one item of a list.
func (o *offer) item(object *offers.Object, version uint64, state *offers.State) error {
	tree, err := o.tree(object, version)
	if err != nil {
		return err
	}
	switch o.form {
	case asTable:
		o.row(object, tree, state)
	case asMetadata:
		o.out.Write(metadataOf(tree).Append(nil))
	case asObject:
		// The list says what its items are.
		tree.Delete("kind")
		tree.Delete("apiVersion")
		o.out.Write(tree.Append(nil))
	}
	return nil
}

// one writes one object by itself.
func (o *offer) one(object *offers.Object, version uint64, state *offers.State) error {
	tree, err := o.tree(object, version)
	if err != nil {
		return err
	}
	switch o.form {
	case asTable:
		fmt.Fprintf(&o.out, `{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"%d"},"columnDefinitions":`, version)
		// The frames of a watch name the columns once.
		if o.columnsSent {
			o.out.WriteString("null")
		} else {
			o.out.Write(columns(state))
		}
		o.columnsSent = true
		o.out.WriteString(`,"rows":[`)
		o.row(object, tree, state)
		o.out.WriteString("]}")
	case asMetadata:
		o.out.Write(metadataOf(tree).Append(nil))
	case asObject:
		o.out.Write(tree.Append(nil))
	}
	return nil
}

func (o *offer) row(object *offers.Object, tree *jsonwire.Value, state *offers.State) {
	o.out.WriteString(`{"cells":[`)
	if state.Columns == nil {
		o.out.Write(jsonwire.AppendQuoted(nil, object.Name))
	}
	for i, cell := range object.Cells {
		if i >= len(state.Names) {
			break
		}
		if i > 0 {
			o.out.WriteByte(',')
		}
		if text, ok := o.cell(state.Names[i], object, tree); ok {
			cell = jsonwire.AppendQuoted(nil, text)
		}
		o.out.Write(cell)
	}
	o.out.WriteString(`],"object":`)
	switch {
	case o.bare:
		o.out.WriteString("null")
	case o.whole:
		o.out.Write(tree.Append(nil))
	default:
		o.out.Write(metadataOf(tree).Append(nil))
	}
	o.out.WriteByte('}')
}

// cell gives the text of a cell that is not the control cluster's.
func (o *offer) cell(column string, object *offers.Object, tree *jsonwire.Value) (string, bool) {
	spec, claim := tree.Get("spec"), tree.At("spec", "claimRef")
	switch column {
	case "Age":
		// The control cluster's was true when the object changed.
		if object.Created.IsZero() {
			return "<unknown>", true
		}
		return duration.HumanDuration(time.Since(object.Created)), true
	case "Parameters":
		return "<none>", true
	case "Claim":
		return claim.Get("namespace").Text() + "/" + claim.Get("name").Text(), true
	case "StorageClass":
		return spec.Get("storageClassName").Text(), true
	case "VolumeAttributesClass":
		if class := spec.Get("volumeAttributesClassName").Text(); class != "" {
			return class, true
		}
	case "Reason":
		return tree.At("status", "reason").Text(), true
	}
	return "", false
}
