package guard

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestProtobufBodies(t *testing.T) {
	encode := func(meta metav1.ObjectMeta, more ...byte) string {
		t.Helper()
		raw, err := (&rbacv1.ClusterRole{ObjectMeta: meta}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		out, err := (&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRole"}, Raw: append(raw, more...)}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return "k8s\x00" + string(out)
	}
	// A second metadata that names another object.
	meta, err := (&metav1.ObjectMeta{Name: "zzz999-x"}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again := protowire.AppendBytes(protowire.AppendTag(nil, fieldMetadata, protowire.BytesType), meta)
	own := encode(metav1.ObjectMeta{Name: "abc123-x"})
	cases := map[string]struct {
		body string
		want bool
	}{
		"Own":              {own, true},
		"Generated":        {encode(metav1.ObjectMeta{GenerateName: "abc123-x"}), true},
		"Foreign":          {encode(metav1.ObjectMeta{Name: "zzz999-x"}), false},
		"ForeignGenerated": {encode(metav1.ObjectMeta{Name: "abc123-x", GenerateName: "zzz999-"}), false},
		"Nameless":         {encode(metav1.ObjectMeta{}), false},
		"InNamespace":      {encode(metav1.ObjectMeta{Name: "abc123-x", Namespace: "abc123-web"}), false},
		"MetadataTwice":    {encode(metav1.ObjectMeta{Name: "abc123-x"}, again...), false},
		"Truncated":        {own[:len(own)-6], false},
		"NoMagic":          {own[4:], false},
		"Empty":            {"k8s\x00", false},
		"JSON":             {`{"metadata":{"name":"abc123-x"}}`, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			h := good()
			h.Set("Content-Type", "application/vnd.kubernetes.protobuf")
			err := send(t, "abc123", "POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", tc.body, h)
			if (err == nil) != tc.want {
				t.Errorf("%v, let through should be %v", err, tc.want)
			}
		})
	}
}
