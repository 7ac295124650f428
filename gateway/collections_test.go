package gateway

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"vivarium.io/vivarium/gateway/internal/paging"
)

// TestDeleteEverywhere shows what the control cluster is asked when a tenant deletes all its objects of a cluster-scoped
// kind: whether it may, what there is from its first object to the last, and each of them by name and UID.
func TestDeleteEverywhere(t *testing.T) {
	const roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
	item := func(name string) string {
		return fmt.Sprintf(`{"metadata":{"name":%q,"uid":"uid-%s"}}`, name, name[7:])
	}
	for name, tc := range map[string]struct {
		query, body string
		// of gives the code of each deletion; 200 if it is not there.
		of   map[string]int
		code int
		want []string
	}{
		"All": {"", "", nil, 200, []string{
			`DELETE ROLES/abc123-a {"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"uid-a"}}`,
			`DELETE ROLES/abc123-b {"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"uid-b"}}`,
		}},
		"Options": {"?labelSelector=a%3Db&propagationPolicy=Foreground&dryRun=All", `{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"preconditions":{"uid":"x"}}`, nil, 200, []string{
			`DELETE ROLES/abc123-a?dryRun=All&propagationPolicy=Foreground {"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"preconditions":{"uid":"x"}}`,
			`DELETE ROLES/abc123-b?dryRun=All&propagationPolicy=Foreground {"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"preconditions":{"uid":"x"}}`,
		}},
		"Races": {"", "", map[string]int{"abc123-a": 404, "abc123-b": 409}, 200, []string{
			`DELETE ROLES/abc123-a {"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"uid-a"}}`,
			`DELETE ROLES/abc123-b {"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"uid-b"}}`,
		}},
		"Refused": {"", "", map[string]int{"abc123-a": 403}, 403, []string{
			`DELETE ROLES/abc123-a {"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"uid-a"}}`,
		}},
		"OthersConflict": {"", `{"preconditions":{"uid":"x"}}`, map[string]int{"abc123-a": 409}, 409, []string{
			`DELETE ROLES/abc123-a {"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":"x"}}`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.answerWith(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				last := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
				switch {
				case last == "subjectaccessreviews":
					w.WriteHeader(http.StatusCreated)
					_, _ = io.WriteString(w, `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":true}}`)
				case r.Method == http.MethodGet:
					_, _ = io.WriteString(w, `{"kind":"ClusterRoleList","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"resourceVersion":"7","continue":"x"},"items":[`+
						item("abc123-a")+","+item("abc123-b")+","+item("zzz999-a")+`]}`)
				default:
					code := tc.of[last]
					if code == 0 {
						code = 200
					}
					w.WriteHeader(code)
					_, _ = fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"message":"about %s"}`, code, last)
				}
			})
			header := http.Header{}
			if tc.body != "" {
				header.Set("Content-Type", "application/json")
			}
			res, body := h.do("DELETE", roles+tc.query, tc.body, header)
			if res.StatusCode != tc.code {
				t.Errorf("%d %s", res.StatusCode, body)
			}
			const list = `{"kind":"ClusterRoleList","apiVersion":"rbac.authorization.k8s.io/v1","items":[{"metadata":{"name":"a","uid":"uid-a"}},{"metadata":{"name":"b","uid":"uid-b"}}],"metadata":{"resourceVersion":"7"}}`
			if tc.code == 200 && strings.TrimSpace(body) != list {
				t.Errorf("answered %s", body)
			}
			asked, own := h.taken()
			if len(own) != 1 || !strings.Contains(own[0].Body, `"verb":"deletecollection"`) {
				t.Errorf("asked as itself: %v", own)
			}
			// Objects are read as a part of the answer alone, when the last has been deleted, as of when they were found.
			if first := asked[0]; first.Method != http.MethodGet || !strings.Contains(first.Header.Get("Accept"), "as=PartialObjectMetadataList") {
				t.Errorf("found by %s, accepting %q", first, first.Header.Get("Accept"))
			}
			if last := asked[len(asked)-1]; tc.code == 200 && (last.Method != http.MethodGet || last.Header.Get("Accept") != "application/json" ||
				!strings.Contains(last.URI, "continue="+paging.Start(tenantA, 7))) {
				t.Errorf("shown by %s, accepting %q", last, last.Header.Get("Accept"))
			}
			var got []string
			for _, r := range asked {
				if r.Method != http.MethodGet {
					got = append(got, strings.ReplaceAll(r.String(), roles, "ROLES")+" "+r.Body)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if tc.query != "" && !strings.Contains(asked[0].URI, "labelSelector=a%3Db") {
				t.Errorf("listed %s", asked[0])
			}
		})
	}
}

// TestDeleteAllRoles does it for real, next to a tenant with roles of the same names.
func TestDeleteAllRoles(t *testing.T) {
	w := theWorld(t)
	ctx := t.Context()
	a, b := w.tenant(t, "dca00a"), w.tenant(t, "dca00b")
	for _, kubeconfig := range []string{a, b} {
		roles := clientset(t, client(t, kubeconfig)).RbacV1().ClusterRoles()
		for _, name := range []string{"one", "two", "three"} {
			role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"go": fmt.Sprint(name != "three")}}}
			if _, err := roles.Create(ctx, role, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := func(kubeconfig string) []string {
		roles, err := clientset(t, client(t, kubeconfig)).RbacV1().ClusterRoles().List(ctx, metav1.ListOptions{LabelSelector: "go"})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, role := range roles.Items {
			names = append(names, role.Name)
		}
		slices.Sort(names)
		return names
	}
	one := clientset(t, client(t, a)).RbacV1().ClusterRoles()
	if err := one.DeleteCollection(ctx, metav1.DeleteOptions{DryRun: []string{"All"}}, metav1.ListOptions{LabelSelector: "go=true"}); err != nil || len(left(a)) != 3 {
		t.Errorf("dry run: %v, left %v", err, left(a))
	}
	// The answer is what there was.
	var shown rbacv1.ClusterRoleList
	if err := clientset(t, client(t, a)).RbacV1().RESTClient().Delete().Resource("clusterroles").Param("labelSelector", "go=true").Do(ctx).Into(&shown); err != nil || len(shown.Items) != 2 {
		t.Fatalf("%v, shown are %v", err, shown.Items)
	}
	if got := left(a); !slices.Equal(got, []string{"three"}) {
		t.Errorf("left are %v", got)
	}
	if got := left(b); len(got) != 3 {
		t.Errorf("the other tenant has %v", got)
	}
	// Who may not delete all may not, even one by one.
	w.must(t, a, "", "create", "clusterrole", "deleter", "--verb=get,list,delete", "--resource=clusterroles")
	w.must(t, a, "", "create", "clusterrolebinding", "deleter", "--clusterrole=deleter", "--user=mia")
	w.may(t, a, "delete", "clusterroles", "--as=mia")
	config := client(t, a)
	config.Impersonate.UserName = "mia"
	err := clientset(t, config).RbacV1().ClusterRoles().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "go"})
	if !apierrors.IsForbidden(err) || len(left(a)) != 1 {
		t.Errorf("without the right: %v, left %v", err, left(a))
	}
	// Definitions' objects of cluster scope are deleted the same way.
	w.must(t, a, definition("stars", "Star", "dca.example.com", "Cluster", "size"), "apply", "-f", "-")
	w.must(t, a, "", "wait", "--for=condition=Established", "crd/stars.dca.example.com", "--timeout=180s")
	for _, name := range []string{"sun", "vega"} {
		w.must(t, a, fmt.Sprintf(`{"apiVersion":"dca.example.com/v1","kind":"Star","metadata":{"name":%q}}`, name), "create", "-f", "-")
	}
	objects, err := dynamic.NewForConfig(client(t, a))
	if err != nil {
		t.Fatal(err)
	}
	stars := objects.Resource(schema.GroupVersionResource{Group: "dca.example.com", Version: "v1", Resource: "stars"})
	if err := stars.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if list, err := stars.List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
		t.Errorf("left are %v, %v", list, err)
	}
}
