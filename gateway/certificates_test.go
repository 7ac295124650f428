package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	certificates "k8s.io/client-go/kubernetes/typed/certificates/v1"
	"k8s.io/client-go/rest"
)

// TestSigningRequests asks for certificates as users and signers of a tenant do. What signs in the control cluster must
// never see such a request as one for it.
func TestSigningRequests(t *testing.T) {
	w := theWorld(t)
	ctx := t.Context()
	kubeconfig, other := w.tenant(t, "csr00a"), w.tenant(t, "csr00b")
	admin := clientset(t, client(t, kubeconfig)).CertificatesV1().CertificateSigningRequests()
	of := func(user string) certificates.CertificateSigningRequestInterface {
		config := client(t, kubeconfig)
		config.Impersonate.UserName = user
		return clientset(t, config).CertificatesV1().CertificateSigningRequests()
	}
	as := func(user string) *certificatesv1.CertificateSigningRequestList {
		list, err := of(user).List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "web"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	request := func(name, signer string) *certificatesv1.CertificateSigningRequest {
		return &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: certificatesv1.CertificateSigningRequestSpec{
				Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: raw}),
				SignerName: signer, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
			},
		}
	}
	const signer = "example.com/serving"

	for _, refused := range []string{"kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving", "kubernetes.io/legacy-unknown"} {
		if _, err := admin.Create(ctx, request("x", refused), metav1.CreateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "there is no signer") {
			t.Errorf("%s: %v", refused, err)
		}
	}
	t.Run("SecondWall", func(t *testing.T) {
		config := client(t, w.control)
		config.Impersonate.UserName, config.Impersonate.Groups = "csr00a-admin", []string{"csr00a-system:masters", "csr00a-system:authenticated"}
		direct := clientset(t, config).CertificatesV1().CertificateSigningRequests()
		if _, err := direct.Create(ctx, request("csr00a-x", "kubernetes.io/kube-apiserver-client"), metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("made: %v", err)
		}
		// Somebody else's that happens to have such a name.
		operators := clientset(t, client(t, w.control)).CertificatesV1().CertificateSigningRequests()
		made, err := operators.Create(ctx, request("csr00a-theirs", "kubernetes.io/kube-apiserver-client"), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		made.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test"}}
		if _, err := direct.UpdateApproval(ctx, made.Name, made, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("approved: %v", err)
		}
		if list, err := admin.List(ctx, metav1.ListOptions{}); err != nil || len(list.Items) != 1 || list.Items[0].Spec.SignerName != "" || list.Items[0].Spec.Username != "" {
			t.Errorf("listed: %v, %v", list, err)
		}
		if err := operators.Delete(ctx, made.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("Life", func(t *testing.T) {
		// Mia asks, Otto approves, the signer signs, each with no more than the rights that a cluster's documents name.
		w.must(t, kubeconfig, `{"apiVersion":"v1","kind":"List","items":[
{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"asks"},"rules":[{"apiGroups":["certificates.k8s.io"],"resources":["certificatesigningrequests"],"verbs":["create","get","list","watch"]}]},
{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"approves"},"rules":[
 {"apiGroups":["certificates.k8s.io"],"resources":["certificatesigningrequests/approval"],"verbs":["update"]},
 {"apiGroups":["certificates.k8s.io"],"resources":["signers"],"resourceNames":["example.com/*"],"verbs":["approve"]}]},
{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"signs"},"rules":[
 {"apiGroups":["certificates.k8s.io"],"resources":["certificatesigningrequests/status"],"verbs":["update"]},
 {"apiGroups":["certificates.k8s.io"],"resources":["signers"],"resourceNames":["example.com/serving"],"verbs":["sign"]}]}]}`, "apply", "-f", "-")
		for role, user := range map[string]string{"asks": "mia", "approves": "otto", "signs": "sigi"} {
			w.must(t, kubeconfig, "", "create", "clusterrolebinding", role, "--clusterrole="+role, "--user="+user)
		}
		w.may(t, kubeconfig, "create", "certificatesigningrequests", "--as=mia")
		w.may(t, kubeconfig, "update", "certificatesigningrequests", "--subresource=approval", "--as=otto")
		w.may(t, kubeconfig, "update", "certificatesigningrequests", "--subresource=status", "--as=sigi")
		if out := w.must(t, kubeconfig, "", "get", "clusterrole", "approves", "signs", "-o", "jsonpath={.items[*].rules[1].resourceNames}"); out != `["example.com/*"] ["example.com/serving"]` {
			t.Errorf("the rules say %s", out)
		}
		for question, want := range map[string]bool{"approve signers.certificates.k8s.io/example.com/serving": false, "sign signers.certificates.k8s.io/example.com/other": false} {
			if _, err := w.run(kubeconfig, "", append([]string{"auth", "can-i", "--as=mia"}, strings.Fields(question)...)...); (err == nil) != want {
				t.Errorf("can mia %s: %v", question, err)
			}
		}
		made, err := of("mia").Create(ctx, request("web", signer), metav1.CreateOptions{})
		if err != nil || made.Spec.Username != "mia" || made.Spec.SignerName != signer || strings.Join(made.Spec.Groups, ",") != "system:authenticated" {
			t.Fatalf("%+v %v", made, err)
		}
		made.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test"}}
		if _, err := of("mia").UpdateApproval(ctx, made.Name, made, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("mia approves: %v", err)
		}
		if made, err = of("otto").UpdateApproval(ctx, made.Name, made, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		foreign, err := admin.Create(ctx, request("foreign", "example.org/serving"), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		foreign.Status.Conditions = made.Status.Conditions
		if _, err := of("otto").UpdateApproval(ctx, foreign.Name, foreign, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "example.org/serving") {
			t.Errorf("otto approves for another signer: %v", err)
		}
		made.Status.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: newAuthority(t).cert.Raw})
		if _, err := of("sigi").UpdateStatus(ctx, made, metav1.UpdateOptions{}); err != nil {
			t.Error(err)
		}
		list, err := admin.List(ctx, metav1.ListOptions{FieldSelector: "spec.signerName=" + signer})
		if err != nil || len(list.Items) != 1 || list.Items[0].Name != "web" || len(list.Items[0].Status.Certificate) == 0 {
			t.Errorf("selected by signer: %v %v", list, err)
		}
		if list := as("mia"); len(list.Items) != 2 {
			t.Errorf("mia sees %v", list)
		}
		out := w.must(t, kubeconfig, "", "get", "csr", "web")
		for _, want := range []string{"web", signer, "mia", "Approved,Issued"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		if out := w.must(t, other, "", "get", "csr"); !strings.Contains(out, "No resources") {
			t.Errorf("the other tenant sees\n%s", out)
		}
		w.must(t, kubeconfig, "", "certificate", "deny", "foreign")
		if err := admin.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "spec.signerName=" + signer}); err != nil {
			t.Error(err)
		}
		if list := as("mia"); len(list.Items) != 1 || list.Items[0].Name != "foreign" {
			t.Errorf("left are %v", list)
		}
	})
	t.Run("Users", func(t *testing.T) { testUserCertificates(t, w, kubeconfig, "csr00a") })
	t.Run("TenantGoes", func(t *testing.T) {
		w.must(t, w.operator, "", "delete", "tenant", "csr00a", "--wait=false")
		operators := clientset(t, client(t, w.control)).CertificatesV1().CertificateSigningRequests()
		eventually(t, "the requests go with their tenant", func() bool {
			_, err := operators.Get(ctx, "csr00a-foreign", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	})
}

// testUserCertificates goes the way by which a cluster's documents have its users get certificates, and the ways by which
// they get none.
func testUserCertificates(t *testing.T, w *world, kubeconfig, id string) {
	admin := clientset(t, client(t, kubeconfig)).CertificatesV1().CertificateSigningRequests()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	// answered asks for a certificate, has it approved by kubectl and waits for what comes of it.
	answered := func(name string, of x509.CertificateRequest, usages ...certificatesv1.KeyUsage) certificatesv1.CertificateSigningRequestStatus {
		t.Helper()
		raw, err := x509.CreateCertificateRequest(rand.Reader, &of, key)
		if err != nil {
			t.Fatal(err)
		}
		hour := int32(3600)
		if _, err := admin.Create(t.Context(), &certificatesv1.CertificateSigningRequest{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: certificatesv1.CertificateSigningRequestSpec{
				Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: raw}),
				SignerName: certificatesv1.KubeAPIServerClientSignerName, Usages: usages, ExpirationSeconds: &hour,
			},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.must(t, kubeconfig, "", "certificate", "approve", name)
		var r *certificatesv1.CertificateSigningRequest
		eventually(t, name+" is answered", func() bool {
			if r, err = admin.Get(t.Context(), name, metav1.GetOptions{}); err != nil {
				t.Fatal(err)
			}
			return len(r.Status.Certificate) > 0 || len(r.Status.Conditions) > 1
		})
		if strings.Contains(r.String(), id+"-") {
			t.Errorf("the request shows the prefix: %s", r)
		}
		return r.Status
	}
	subject := func(user string, groups ...string) x509.CertificateRequest {
		return x509.CertificateRequest{Subject: pkix.Name{CommonName: user, Organization: groups, OrganizationalUnit: []string{"zzz999"}, SerialNumber: "x"}}
	}
	clientAuth := []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageClientAuth}

	for name, tc := range map[string]struct {
		of     x509.CertificateRequest
		usages []certificatesv1.KeyUsage
		says   string
	}{
		"masters": {subject("ivy", "system:masters"), clientAuth, "system:masters group is not allowed"},
		"account": {subject("system:serviceaccount:default:default"), clientAuth, "not a user"},
		"nobody":  {subject("", "dev"), clientAuth, "common name"},
		"control": {subject("ivy\n"), clientAuth, "common name"},
		"names":   {x509.CertificateRequest{Subject: pkix.Name{CommonName: "ivy"}, DNSNames: []string{"gateway.test"}}, clientAuth, "alternative names"},
		"server":  {subject("ivy"), append(clientAuth[:2:2], certificatesv1.UsageServerAuth), "invalid usage"},
		"useless": {subject("ivy"), clientAuth[:2], "missing required usage"},
	} {
		s := answered("no-"+name, tc.of, tc.usages...)
		if last := s.Conditions[len(s.Conditions)-1]; len(s.Certificate) > 0 || last.Type != certificatesv1.CertificateFailed || !strings.Contains(last.Message, tc.says) {
			t.Errorf("%s: %+v", name, s.Conditions)
		}
	}

	raw, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "ivy"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"forgotten", "denied"} {
		w.must(t, kubeconfig, `{"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest","metadata":{"name":"`+name+`"},"spec":{"signerName":"kubernetes.io/kube-apiserver-client","usages":["client auth"],"request":"`+
			base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: raw}))+`"}}`, "create", "-f", "-")
	}
	w.must(t, kubeconfig, "", "certificate", "deny", "denied")

	issued := answered("ivy", subject("ivy", "dev"), clientAuth...)
	for _, name := range []string{"forgotten", "denied"} {
		if r, err := admin.Get(t.Context(), name, metav1.GetOptions{}); err != nil || len(r.Status.Certificate) > 0 {
			t.Errorf("%s: %+v %v", name, r, err)
		}
	}
	block, _ := pem.Decode(issued.Certificate)
	if block == nil {
		t.Fatalf("no certificate: %+v", issued.Conditions)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if life := cert.NotAfter.Sub(cert.NotBefore); cert.IsCA || life > 70*time.Minute || cert.Subject.CommonName != "ivy" || len(cert.ExtKeyUsage) != 1 {
		t.Errorf("certificate of %s, %s: %+v", cert.Subject, life, cert)
	}
	as := func(of *rest.Config) *kubernetes.Clientset {
		config := rest.AnonymousClientConfig(of)
		config.CertData, config.KeyData = issued.Certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
		return clientset(t, config)
	}
	who := func(c kubernetes.Interface) (*authenticationv1.SelfSubjectReview, error) {
		return c.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	}
	ivy := as(client(t, kubeconfig))
	me, err := who(ivy)
	if err != nil || me.Status.UserInfo.Username != "ivy" || strings.Join(me.Status.UserInfo.Groups, ",") != "dev,system:authenticated" {
		t.Errorf("%+v, %v", me, err)
	}
	if _, err := ivy.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("without a right: %v", err)
	}
	w.must(t, kubeconfig, "", "create", "rolebinding", "developers", "--clusterrole=view", "--group=dev")
	eventually(t, "ivy reads pods", func() bool {
		_, err := ivy.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
		return err == nil
	})
	if _, err := who(as(w.cluster.Config)); !apierrors.IsUnauthorized(err) {
		t.Errorf("at the control cluster: %v", err)
	}
	// What revokes a tenant's certificates revokes its users'.
	now := time.Now().Add(time.Second).UTC().Format(time.RFC3339)
	w.must(t, w.operator, "", "patch", "tenant", id, "--type=merge", "-p", `{"spec":{"credentialsNotBefore":"`+now+`"}}`)
	eventually(t, "ivy's certificate is revoked", func() bool {
		_, err := who(ivy)
		return apierrors.IsUnauthorized(err)
	})
}
