package translate

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/gateway/internal/translate/rules"
)

var (
	view = View{
		Tenant: "zq7x9k", RootCA: "GATEWAY CA\n", TokenAudience: "vivarium-gateway",
		ForbiddenAudiences: []string{"https://kubernetes.default.svc"},
		Exported:           func(kind, name string) bool { return kind == "StorageClass" && name == "shared-disk" },
		VPC:                true,
		Continue:           func(token string) string { return "opaque-" + reverse(token) },
	}
	other = View{Tenant: "canary", Continue: view.Continue}
)

func reverse(s string) string {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

// kindOf makes the Kind that the front would resolve for a table.
func kindOf(r rules.Root) Kind {
	return Kind{Group: r.Group, Version: r.Version, Kind: r.Kind, Namespaced: r.Namespaced, Resource: strings.ToLower(r.Kind) + "s"}
}

// fixtures reads the API's published objects, in which every field is set, of every release in the module.
func fixtures(t testing.TB, f func(name string, root rules.Root, doc []byte)) {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/api").Output()
	if err != nil {
		t.Fatalf("find module k8s.io/api: %v", err)
	}
	found := 0
	for _, release := range []string{"HEAD", "v1.33.0", "v1.34.0", "v1.35.0"} {
		for _, root := range rules.All() {
			group := root.Group
			if group == "" {
				group = "core"
			}
			path := filepath.Join(strings.TrimSpace(string(dir)), "testdata", release, group+"."+root.Version+"."+root.Kind+".json")
			doc, err := os.ReadFile(path)
			if os.IsNotExist(err) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			found++
			f(release+"/"+group+"."+root.Version+"."+root.Kind, root, doc)
		}
	}
	if found < 100 {
		t.Fatalf("only %d fixtures found", found)
	}
}

// acceptable makes a fixture, whose strings are made up, an object that a tenant may send.
func acceptable(t testing.TB, root rules.Root, doc []byte) []byte {
	t.Helper()
	v, err := jsonwire.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	settle(root.Place, v)
	return v.Append(nil)
}

func settle(p *rules.Place, v *jsonwire.Value) {
	if p == nil {
		return
	}
	namespace := func(v *jsonwire.Value) {
		if v.Text() != "" {
			v.SetText("ns1")
		}
	}
	switch p.Op {
	case rules.Namespace, rules.OwnNamespace:
		eachText(v, func(s *jsonwire.Value) { s.SetText("ns1") })
	case rules.OwnName:
		v.SetText("own1")
	case rules.ObjectReference, rules.InvolvedObject, rules.ResourceAttributes:
		namespace(v.Get("namespace"))
		if f := v.Get("fieldSelector"); f != nil {
			f.Set("rawSelector", jsonwire.NewString("metadata.name=x"))
			f.Delete("requirements")
		}
	case rules.OwnerReferences, rules.ManagedFields, rules.PolicyRules:
	case rules.Subjects:
		for _, s := range v.Elems() {
			s.Get("kind").SetText("User")
		}
	case rules.RoleRef:
		v.Get("kind").SetText("ClusterRole")
	case rules.SigningRequest:
		v.Get("signerName").SetText("example.com/signer")
	case rules.NodeName:
		v.SetText("")
	case rules.SchedulerName:
		v.SetText("default-scheduler")
	case rules.SecretType:
		v.SetText("Opaque")
	case rules.BoundKind:
		v.SetText("Pod")
	case rules.ExternalIPs:
		v.SetElems(nil)
	case rules.RevisionData:
		*v = *jsonwire.NewObject()
	case rules.Pass:
		for _, m := range v.Members() {
			settle(p.Child([]byte(m.Key)), m.Value)
		}
		for _, e := range v.Elems() {
			settle(p.Elem, e)
		}
	}
}

// TestRoundTripOfPublishedObjects holds the law: the way back undoes the way there, byte for byte, for every kind and
// release; and what is stored carries the prefix where it must.
func TestRoundTripOfPublishedObjects(t *testing.T) {
	fixtures(t, func(name string, root rules.Root, doc []byte) {
		if root.Op == rules.VirtualNode {
			return
		}
		t.Run(name, func(t *testing.T) {
			k := kindOf(root)
			tenant := acceptable(t, root, doc)
			namespace := ""
			if root.Namespaced {
				namespace = "ns1"
			}
			control, _, err := view.BodyToControl(k, "update", "application/json", tenant, namespace, "")
			if err != nil {
				t.Fatalf("to control: %v", err)
			}
			if !root.Namespaced && !root.Prefixed {
				return
			}
			if !bytes.Contains(control, []byte("zq7x9k-")) {
				t.Errorf("the control object carries no prefix: %s", control)
			}
			if root.Kind == "TokenReview" || root.Kind == "TokenRequest" {
				return
			}
			var back bytes.Buffer
			if err := view.ObjectToTenant(k, &back, bytes.NewReader(control)); err != nil {
				t.Fatalf("to tenant: %v\n%s", err, control)
			}
			if got := back.String(); got != string(tenant) {
				t.Errorf("%s", firstDifference(got, string(tenant)))
			}
			if err := other.ObjectToTenant(k, io.Discard, bytes.NewReader(control)); err == nil {
				t.Error("another tenant can read it")
			}
		})
	})
}

func firstDifference(got, want string) string {
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	from := max(0, i-200)
	return "differs at\n got …" + got[from:min(len(got), i+200)] + "\nwant …" + want[from:min(len(want), i+200)]
}

// chunks reads n bytes at a time.
type chunks struct {
	data []byte
	n    int
}

func (c *chunks) Read(b []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), c.n)], c.data)
	c.data = c.data[n:]
	return n, nil
}

// TestStreamAndTreeAgree compares the two readings of every rule, with the stream cut everywhere.
func TestStreamAndTreeAgree(t *testing.T) {
	fixtures(t, func(name string, root rules.Root, doc []byte) {
		if !strings.HasPrefix(name, "HEAD") || root.Op == rules.VirtualNode || !root.Namespaced && !root.Prefixed {
			return
		}
		t.Run(name, func(t *testing.T) {
			k := kindOf(root)
			namespace := ""
			if root.Namespaced {
				namespace = "ns1"
			}
			control, _, err := view.BodyToControl(k, "update", "", acceptable(t, root, doc), namespace, "")
			if err != nil {
				t.Fatal(err)
			}
			tree, err := jsonwire.Parse(control)
			if err != nil {
				t.Fatal(err)
			}
			r, err := view.newResponse(k, io.Discard, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.treeToTenant(root.Place, tree); err != nil {
				t.Fatal(err)
			}
			want := string(tree.Append(nil))
			item := string(control)
			list := `{"kind":"` + root.Kind + `List","apiVersion":"` + r.groupVersion() + `","metadata":{"resourceVersion":"7"},"items":[` + item + `,` + item + `]}`
			wantList := strings.Replace(strings.Replace(list, item, want, 1), item, want, 1)
			for _, size := range []int{1, 2, 3, 7, 64, 4096} {
				var out bytes.Buffer
				if err := view.ObjectToTenant(k, &out, &chunks{control, size}); err != nil || out.String() != want {
					t.Fatalf("chunks of %d: %v\n%s", size, err, firstDifference(out.String(), want))
				}
				out.Reset()
				if err := view.ObjectToTenant(k, &out, &chunks{[]byte(list), size}); err != nil || out.String() != wantList {
					t.Fatalf("list in chunks of %d: %v\n%s", size, err, firstDifference(out.String(), wantList))
				}
			}
		})
	})
}
