package translate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestListsOfParts joins lists that say nothing of each other, as those of several namespaces, and ends in the middle of one
// where there may be no more items. Parts are read a second time where a list in protobuf is long.
func TestListsOfParts(t *testing.T) {
	// The second part has two pages.
	parts := map[string]string{"0/": "a b", "1/": "c d e", "1/more": "f", "2/": "", "3/": "g h"}
	all := strings.Fields("a b c d e f g h")
	opts := ListOptions{First: "0/", Next: func(read, token string) (string, bool) {
		i, _ := strconv.Atoi(read[:1])
		switch {
		case token != "":
			return read[:2] + token, true
		case i == 3:
			return "", false
		}
		return fmt.Sprintf("%d/", i+1), true
	}}
	for _, form := range []string{"json", "protobuf", "long protobuf"} {
		page := func(token string) (io.ReadCloser, error) {
			names, ok := parts[token]
			if !ok {
				return nil, fmt.Errorf("no part %q", token)
			}
			list := corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "7"}, Items: []corev1.Pod{}}
			if token == "1/" {
				list.Continue = "more"
			}
			for _, name := range strings.Fields(names) {
				one := pod("zq7x9k", name)
				if form == "long protobuf" {
					one.Annotations = map[string]string{"long": strings.Repeat("x", 3<<19)}
				}
				list.Items = append(list.Items, one)
			}
			raw := toProto(t, &list, schema.GroupVersionKind{Version: "v1", Kind: "PodList"})
			if form == "json" {
				list.TypeMeta = metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}
				raw, _ = json.Marshal(list)
			}
			return io.NopCloser(bytes.NewReader(raw)), nil
		}
		for most := range len(all) + 2 {
			t.Run(fmt.Sprintf("%s/%d", form, most), func(t *testing.T) {
				opts := opts
				opts.OnePage, opts.Most = most > 0, most
				cut := ""
				opts.Cut = func(read string, items int) (string, error) {
					cut = fmt.Sprintf("%s+%d", read, items)
					return "next", nil
				}
				var out bytes.Buffer
				if err := view.ListToTenant(pods, &out, opts, page); err != nil {
					t.Fatal(err)
				}
				list := &corev1.PodList{}
				if form == "json" {
					if err := json.Unmarshal(out.Bytes(), list); err != nil {
						t.Fatal(err)
					}
				} else {
					list = decode(t, out.Bytes()).(*corev1.PodList)
				}
				var got []string
				for i := range list.Items {
					got = append(got, list.Items[i].Name)
				}
				want, token := all, ""
				if most > 0 && most < len(all) {
					want, token = all[:most], "opaque-txen"
				}
				if !slices.Equal(got, want) || list.Continue != token {
					t.Errorf("%v, continue %q", got, list.Continue)
				}
				wantCut := []string{"", "0/+1", "1/+0", "1/+1", "1/+2", "1/more+0", "3/+0", "3/+1", "", ""}[most]
				if cut != wantCut {
					t.Errorf("cut at %q, want %q", cut, wantCut)
				}
			})
		}
	}
}
