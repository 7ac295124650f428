package offers

import (
	"errors"
	"testing"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
	"vivarium.io/vivarium/internal/names"
)

func parse(t *testing.T, text string) *jsonwire.Value {
	t.Helper()
	v, err := jsonwire.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func row(t *testing.T, object string) *jsonwire.Value {
	return parse(t, `{"cells":["a","1d"],"object":`+object+`}`)
}

// TestPresent checks what is left of objects on their way in.
func TestPresent(t *testing.T) {
	cases := map[string]struct {
		kind, object, want string
	}{
		"StorageClass": {"StorageClass",
			`{"kind":"StorageClass","apiVersion":"storage.k8s.io/v1","metadata":{"name":"gold","uid":"u","resourceVersion":"7","labels":{"vivarium.io/exported":"true","tier":"1"},"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}","vivarium.io/exported-to":"a=b","storageclass.kubernetes.io/is-default-class":"true"},"managedFields":[{}],"ownerReferences":[{}]},"provisioner":"csi.test","parameters":{"csi.storage.k8s.io/provisioner-secret-name":"s","csi.storage.k8s.io/fstype":"ext4","adminSecretName":"x","pool":"fast"},"allowedTopologies":[{}],"reclaimPolicy":"Delete"}`,
			`{"kind":"StorageClass","apiVersion":"storage.k8s.io/v1","metadata":{"name":"gold","uid":"u","resourceVersion":"7","labels":{"tier":"1"},"annotations":{"storageclass.kubernetes.io/is-default-class":"true"}},"provisioner":"csi.test","parameters":{"csi.storage.k8s.io/fstype":"ext4","pool":"fast"},"reclaimPolicy":"Delete"}`},
		"Volume": {"PersistentVolume",
			`{"kind":"PersistentVolume","apiVersion":"v1","metadata":{"name":"pvc-1","resourceVersion":"7","annotations":{"volume.kubernetes.io/provisioner-deletion-secret-namespace":"storage"}},"spec":{"capacity":{"storage":"1Gi"},"csi":{"driver":"csi.test","volumeHandle":"h","volumeAttributes":{"a":"b"},"nodeStageSecretRef":{"name":"s","namespace":"storage"},"fsType":"ext4"},"claimRef":{"kind":"PersistentVolumeClaim","namespace":"abc123-web","name":"data","uid":"u"},"nodeAffinity":{"required":{}},"storageClassName":"gold"},"status":{"phase":"Bound"}}`,
			`{"kind":"PersistentVolume","apiVersion":"v1","metadata":{"name":"pvc-1","resourceVersion":"7","annotations":{}},"spec":{"capacity":{"storage":"1Gi"},"csi":{"driver":"csi.test","fsType":"ext4"},"claimRef":{"kind":"PersistentVolumeClaim","namespace":"abc123-web","name":"data","uid":"u"},"storageClassName":"gold"},"status":{"phase":"Bound"}}`},
		"HostPath": {"PersistentVolume",
			`{"kind":"PersistentVolume","apiVersion":"v1","metadata":{"name":"v","resourceVersion":"7"},"spec":{"hostPath":{"path":"/srv"},"nfs":{"server":"10.0.0.1"},"rbd":{"secretRef":{"namespace":"n"}}}}`,
			`{"kind":"PersistentVolume","apiVersion":"v1","metadata":{"name":"v","resourceVersion":"7"},"spec":{}}`},
		"IngressClass": {"IngressClass",
			`{"kind":"IngressClass","apiVersion":"networking.k8s.io/v1","metadata":{"name":"i","resourceVersion":"7"},"spec":{"controller":"c","parameters":{"namespace":"infra"}}}`,
			`{"kind":"IngressClass","apiVersion":"networking.k8s.io/v1","metadata":{"name":"i","resourceVersion":"7"},"spec":{"controller":"c"}}`},
		"DeviceClass": {"DeviceClass",
			`{"kind":"DeviceClass","apiVersion":"resource.k8s.io/v1","metadata":{"name":"d","resourceVersion":"7"},"spec":{"selectors":[{}],"config":[{"opaque":{}}]}}`,
			`{"kind":"DeviceClass","apiVersion":"resource.k8s.io/v1","metadata":{"name":"d","resourceVersion":"7"},"spec":{"selectors":[{}]}}`},
		"NewField": {"PriorityClass",
			`{"kind":"PriorityClass","apiVersion":"scheduling.k8s.io/v1","metadata":{"name":"p","resourceVersion":"7"},"value":5,"secretOfTheFuture":"x"}`,
			`{"kind":"PriorityClass","apiVersion":"scheduling.k8s.io/v1","metadata":{"name":"p","resourceVersion":"7"},"value":5}`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			o, err := present(tc.kind, row(t, tc.object))
			if err != nil {
				t.Fatal(err)
			}
			if string(o.JSON) != tc.want || o.Version != 7 || string(o.Cells[1]) != `"1d"` {
				t.Errorf("present:\n%s\n%s, want\n%s", o.JSON, o.Cells, tc.want)
			}
		})
	}
	if _, err := present("StorageClass", row(t, `{"kind":"PriorityClass","metadata":{"name":"p","resourceVersion":"7"}}`)); err == nil {
		t.Error("an object of another kind is taken")
	}
}

func TestVisible(t *testing.T) {
	gold, plain := Viewer{"abc123", "plan=gold,team=", 1000}, Viewer{"zzz999", "", 0}
	class := func(name, metadata string) string {
		return `{"kind":"StorageClass","metadata":{"name":"` + name + `","resourceVersion":"7",` + metadata + `}}`
	}
	volume := func(name, namespace string) string {
		return `{"kind":"PersistentVolume","metadata":{"name":"` + name + `","resourceVersion":"7"},"spec":{"claimRef":{"namespace":"` + namespace + `"}}}`
	}
	left := func(namespace, bound, phase string) string {
		return `{"kind":"PersistentVolume","metadata":{"name":"pvc-1","resourceVersion":"2000"},"spec":{"claimRef":{"namespace":"` + namespace +
			`","resourceVersion":"` + bound + `"}},"status":{"phase":"` + phase + `"}}`
	}
	const exported = `"labels":{"vivarium.io/exported":"true"}`
	cases := map[string]struct {
		kind, object string
		gold, plain  bool
	}{
		"NotExported":     {"StorageClass", class("c", `"labels":{}`), false, false},
		"ExportedFalse":   {"StorageClass", class("c", `"labels":{"vivarium.io/exported":"false"}`), false, false},
		"Exported":        {"StorageClass", class("c", exported), true, true},
		"Selected":        {"StorageClass", class("c", exported+`,"annotations":{"vivarium.io/exported-to":"plan=gold"}`), true, false},
		"SelectedNot":     {"StorageClass", class("c", exported+`,"annotations":{"vivarium.io/exported-to":"plan!=gold"}`), false, true},
		"SelectorEmpty":   {"StorageClass", class("c", exported+`,"annotations":{"vivarium.io/exported-to":""}`), true, true},
		"SelectorAlone":   {"StorageClass", class("c", `"annotations":{"vivarium.io/exported-to":"plan=gold"}`), false, false},
		"SelectorInvalid": {"StorageClass", class("c", exported+`,"annotations":{"vivarium.io/exported-to":"plan in gold"}`), false, false},
		"LooksOwn":        {"StorageClass", class("abc123-c", exported), false, true},
		"LooksForeign":    {"StorageClass", class("custom-c", exported), true, true},
		"Bound":           {"PersistentVolume", volume("pvc-1", "abc123-web"), true, false},
		"Unbound":         {"PersistentVolume", volume("pvc-1", ""), false, false},
		"OfThePlatform":   {"PersistentVolume", volume("pvc-1", "kube-system"), false, false},
		"SpellsTenant":    {"PersistentVolume", volume("zzz999-v", "abc123-web"), false, false},
		"SpellsOwner":     {"PersistentVolume", volume("abc123-v", "abc123-web"), true, false},
		"BoundLongAgo":    {"PersistentVolume", left("abc123-web", "999", "Bound"), true, false},
		"LeftBefore":      {"PersistentVolume", left("abc123-web", "999", "Released"), false, false},
		"FailedBefore":    {"PersistentVolume", left("abc123-web", "999", "Failed"), false, false},
		"LeftNobodyKnows": {"PersistentVolume", left("abc123-web", "", "Released"), false, false},
		"LeftSince":       {"PersistentVolume", left("abc123-web", "1000", "Released"), true, false},
		"LeftNoBeginning": {"PersistentVolume", left("zzz999-web", "999", "Released"), false, true},
		"VolumeLabelled":  {"PersistentVolume", `{"kind":"PersistentVolume","metadata":{"name":"v","resourceVersion":"7",` + exported + `},"spec":{}}`, false, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			o, err := present(tc.kind, row(t, tc.object))
			if (err != nil) != (name == "SelectorInvalid") {
				t.Fatal(err)
			}
			if o.Visible(gold) != tc.gold || o.Visible(plain) != tc.plain {
				t.Errorf("visible to gold %v, to plain %v; want %v, %v", o.Visible(gold), o.Visible(plain), tc.gold, tc.plain)
			}
		})
	}
	if (*Object)(nil).Visible(gold) {
		t.Error("nothing is visible")
	}
}

func TestStore(t *testing.T) {
	s := newStore(Volumes)
	object := func(name string, version uint64) *Object {
		return &Object{Name: name, Version: version, claimed: names.ControlNamespace("abc123-web")}
	}
	if s.Err() == nil {
		t.Error("a store knows something before it was told")
	}
	s.replace(10, nil, []*Object{object("a", 3), object("b", 9)})
	if err := s.Err(); err != nil {
		t.Error(err)
	}
	if _, _, _, err := s.Watch(9); !errors.Is(err, ErrExpired) {
		t.Errorf("changes before the list: %v", err)
	}
	changes, version, more, err := s.Watch(10)
	if len(changes) != 0 || version != 10 || err != nil {
		t.Errorf("after the list: %v %d %v", changes, version, err)
	}
	s.put(12, object("a", 12), false)
	<-more
	s.put(13, object("b", 13), true)
	s.put(15, nil, false)
	changes, version, _, _ = s.Watch(10)
	if len(changes) != 2 || version != 15 || changes[0].Old.Version != 3 || changes[0].New.Version != 12 || changes[1].Old.Version != 9 || changes[1].New != nil {
		t.Errorf("changes %+v to %d", changes, version)
	}
	if changes, version, _, err = s.Watch(20); len(changes) != 0 || version != 20 || err != nil {
		t.Errorf("in the future: %v %d %v", changes, version, err)
	}
	// A list after a gap: what happened in between becomes changes.
	s.replace(30, nil, []*Object{object("c", 25)})
	changes, version, _, _ = s.Watch(15)
	if len(changes) != 2 || version != 30 || changes[0].New.Name != "c" || changes[1].Old.Name != "a" || changes[1].Version != 30 {
		t.Errorf("after a gap: %+v to %d", changes, version)
	}
	for i := range uint64(maxChanges + 10) {
		s.put(100+i, object("d", 100+i), false)
	}
	if _, _, _, err := s.Watch(30); !errors.Is(err, ErrExpired) {
		t.Errorf("after too many changes: %v", err)
	}
	if changes, _, _, err = s.Watch(100 + 100); err != nil || len(changes) != maxChanges+10-101 {
		t.Errorf("%d changes, %v", len(changes), err)
	}
	s.fail(errRefused{403}, true)
	if s.Err() == nil {
		t.Error("a store that may not be read says that it knows everything")
	}
}
