package translate

import (
	"bytes"
	"fmt"
	"strings"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

// columnRule says what the cells of a column hold.
type columnRule uint8

const (
	plainCell columnRule = iota
	nameCell             // the object's own, prefixed name
	roleCell             // "ClusterRole/name"
	usersCell            // "alice, bob"
	groupsCell
	accountsCell // "namespace/name, ..."
	aboutCell    // "namespace/name": kind and name of what an Event is about
	textCell
	storageCell // the name of a class
	attributesCell
	ingressCell
	hiddenCell
	definitionCell // the name of a CustomResourceDefinition
	policyCell     // the policy that a binding binds
)

// columnRules are the columns of the API server's own tables that say more than the object's fields may.
var columnRules = map[string]map[string]columnRule{
	"namespaces":                {"Name": nameCell},
	"clusterroles":              {"Name": nameCell},
	"clusterrolebindings":       {"Name": nameCell, "Role": roleCell, "Users": usersCell, "Groups": groupsCell, "ServiceAccounts": accountsCell},
	"rolebindings":              {"Role": roleCell, "Users": usersCell, "Groups": groupsCell, "ServiceAccounts": accountsCell},
	"events":                    {"Object": aboutCell, "Message": textCell},
	"storageclasses":            {"Name": nameCell},
	"volumeattributesclasses":   {"Name": nameCell},
	"priorityclasses":           {"Name": nameCell},
	"runtimeclasses":            {"Name": nameCell},
	"ingressclasses":            {"Name": nameCell},
	"ingresses":                 {"Class": ingressCell},
	"persistentvolumeclaims":    {"StorageClass": storageCell, "VolumeAttributesClass": attributesCell},
	"nodes":                     {"Internal-IP": hiddenCell, "External-IP": hiddenCell},
	"resourcequotas":            {"Request": textCell, "Limit": textCell},
	"customresourcedefinitions": {"Name": definitionCell},

	"flowschemas":                 {"Name": nameCell},
	"prioritylevelconfigurations": {"Name": nameCell},

	"certificatesigningrequests": {"Name": nameCell, "SignerName": nameCell, "Requestor": usersCell},

	"validatingadmissionpolicies":       {"Name": nameCell, "ParamKind": textCell},
	"validatingadmissionpolicybindings": {"Name": nameCell, "PolicyName": policyCell, "ParamRef": textCell},
	"mutatingadmissionpolicies":         {"Name": nameCell, "ParamKind": textCell},
	"mutatingadmissionpolicybindings":   {"Name": nameCell, "PolicyName": policyCell, "ParamRef": textCell},
}

// tableMember handles the members of a Table.
func tableMember(r *response, key string) error {
	switch key {
	case "metadata":
		return r.listMetadata()
	case "columnDefinitions":
		return r.tableColumns()
	case "rows":
		return r.array(r.row)
	}
	return r.Skip()
}

// tableColumns remembers the columns. The frames of a watch name them once, in the first; if that was somebody else's, they
// are named again in the first that passes.
func (r *response) tableColumns() error {
	raw, err := r.Capture()
	if err != nil {
		return err
	}
	columns, err := parseTrusted(raw)
	if err != nil {
		return err
	}
	switch {
	case r.table != nil:
		if r.define {
			return r.Emit(r.table.raw)
		}
		return r.Emit([]byte("null"))
	case columns.Kind() == jsonwire.Array:
		r.setColumns(columns)
		r.unsent = columns
	case r.unsent != nil:
		columns = r.unsent
	}
	return r.Emit(columns.Append(nil))
}

// setColumns remembers what the cells of each column hold.
func (r *response) setColumns(columns *jsonwire.Value) {
	if columns.Kind() != jsonwire.Array {
		return
	}
	known := columnRules[r.kind.Resource]
	if r.kind.Custom {
		known = r.kind.columnRules()
	}
	r.columns = make([]columnRule, 0, len(columns.Elems()))
	for _, c := range columns.Elems() {
		r.columns = append(r.columns, known[c.Get("name").Text()])
	}
}

// row translates one row: its cells, and the object, which alone says whose it is. Rows are small, so they are read as a
// tree: cells come before the object, and an Event's may need to know what it is about.
func (r *response) row() error {
	r.beginItem()
	if r.columns == nil {
		return foreign("a table that does not say first what its columns are")
	}
	if plain(r.columns) && r.root.Op != rules.VirtualNode {
		err := r.object(func(key []byte) error {
			if string(key) == "object" {
				return r.rowObject()
			}
			return r.Skip()
		})
		if err != nil {
			return err
		}
		return r.endItem()
	}
	return r.tree(r.rowTree)
}

func plain(columns []columnRule) bool {
	for _, c := range columns {
		if c != plainCell {
			return false
		}
	}
	return true
}

// rowObject walks a row's object: the whole object, its metadata, or null.
func (r *response) rowObject() error {
	var kind, version string
	custom := false
	return r.object(func(rawKey []byte) error {
		key := string(rawKey)
		if custom = custom || r.root.Custom && kind == "" && key != "kind"; custom {
			// Only documents of the API server's own types say first what they are.
			return r.late(r.root.Kind, r.groupVersion(), (*response).ofRoot)(r, key)
		}
		switch key {
		case "kind", "apiVersion":
			raw, err := r.Capture()
			if err != nil {
				return err
			}
			text, err := jsonwire.Unquote(raw)
			if err != nil {
				return err
			}
			if key == "kind" {
				kind = text
			} else {
				version = text
			}
			return r.Emit(raw)
		case "metadata":
			return r.metadata()
		}
		if kind != r.root.Kind || version != r.groupVersion() {
			return foreign("a row with an object of %s %s", version, kind)
		}
		return r.child(r.root.ToTenant, key)
	})
}

func (r *response) rowTree(row *jsonwire.Value) error {
	object := row.Get("object")
	if err := r.rowObjectTree(object); err != nil {
		return err
	}
	if err := r.endItem(); err != nil {
		return err
	}
	for i, cell := range row.Get("cells").Elems() {
		if i >= len(r.columns) {
			return foreign("a row with more cells than columns")
		}
		if cell.Kind() == jsonwire.String {
			cell.SetText(r.cell(r.columns[i], cell.Text()))
		}
	}
	return nil
}

func (r *response) rowObjectTree(object *jsonwire.Value) error {
	whole := object.Get("kind").Text() == r.root.Kind && object.Get("apiVersion").Text() == r.groupVersion()
	switch {
	case object.Kind() != jsonwire.Object:
		return nil
	case whole:
		return r.treeToTenant(r.root.Place, object)
	case object.Get("kind").Text() != "PartialObjectMetadata":
		return foreign("a row with an object of kind %q", object.Get("kind").Text())
	case r.root.Op == rules.VirtualNode:
		return r.nodeMetadataToTenant(object.Get("metadata"))
	}
	return r.treeToTenant(r.root.Child([]byte("metadata")), object.Get("metadata"))
}

// cell translates one cell.
func (r *response) cell(rule columnRule, text string) string {
	switch rule {
	case nameCell:
		own, err := r.view.Tenant.NameToTenant(text)
		switch {
		case !r.root.Custom && r.view.exported(r.root.Kind, strings.TrimSuffix(text, " (default)")):
			return text
		case err != nil:
			return ""
		}
		return own
	case definitionCell:
		own, _ := r.view.Tenant.DefinitionToTenant(text)
		return own
	case policyCell:
		own, _ := r.view.Tenant.PolicyToTenant(text)
		return own
	case storageCell:
		return r.view.classToTenant("StorageClass", text)
	case attributesCell:
		return r.view.classToTenant("VolumeAttributesClass", text)
	case ingressCell:
		return r.view.classToTenant("IngressClass", text)
	case roleCell:
		kind, name, _ := strings.Cut(text, "/")
		if kind != "ClusterRole" {
			return text
		}
		own, _ := r.view.Tenant.NameToTenant(name)
		return kind + "/" + own
	case usersCell:
		return eachName(text, r.view.Tenant.UserToTenant)
	case groupsCell:
		return eachName(text, r.view.Tenant.UserGroupToTenant)
	case accountsCell:
		return eachName(text, r.view.Tenant.NameToTenant)
	case aboutCell:
		kind, name, _ := strings.Cut(text, "/")
		if kind != "namespace" && kind != "clusterrole" && kind != "clusterrolebinding" {
			return text
		}
		own, _ := r.view.Tenant.NameToTenant(name)
		return kind + "/" + own
	case textCell:
		return r.view.TextToTenant(text)
	case hiddenCell:
		return "<none>"
	}
	return text
}

// eachName translates a list of names as the API server prints it; foreign ones are left out.
func eachName(text string, f func(string) (string, error)) string {
	if text == "" {
		return ""
	}
	var own []string
	for name := range strings.SplitSeq(text, ", ") {
		if n, err := f(name); err == nil {
			own = append(own, n)
		}
	}
	return strings.Join(own, ", ")
}

// parseTrusted makes a tree of what the control cluster's encoder wrote.
func parseTrusted(raw []byte) (*jsonwire.Value, error) {
	v, err := jsonwire.Parse(bytes.Clone(raw))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", jsonwire.ErrMalformed, err)
	}
	return v, nil
}
