package syncer

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vivarium.io/vivarium/internal/names"
	"vivarium.io/vivarium/internal/podrefs"
)

func configMapRef(name string) []corev1.EnvFromSource {
	return []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}
}

func secretVolume(name string, optional bool) corev1.Volume {
	return corev1.Volume{Name: "v-" + name, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name, Optional: &optional}}}
}

func tokenVolume(name, audience string, seconds int64) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: audience, ExpirationSeconds: &seconds}},
	}}}}
}

type claims struct {
	Audience   []string `json:"aud"`
	Expiry     int64    `json:"exp"`
	Issued     int64    `json:"iat"`
	Kubernetes struct {
		Namespace string `json:"namespace"`
		Pod       struct{ Name, UID string }
	} `json:"kubernetes.io"`
}

func decode(t *testing.T, token []byte) claims {
	t.Helper()
	parts := strings.Split(string(token), ".")
	if len(parts) != 3 {
		t.Fatalf("not a JWT: %d parts", len(parts))
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var c claims
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPodGetsWhatItRefersTo follows one ordinary pod: its token, CA, ConfigMap and Secret arrive in the pool that it is
// bound to and in no other, and changes follow.
func TestPodGetsWhatItRefersTo(t *testing.T) {
	w := use(t)
	w.register(t, "pool-a")
	w.register(t, "pool-b")
	w.run(t, quick)
	id := tenantID()
	ns := id.Prefix() + "web"
	w.tenant(t, id, "web")
	cm, err := w.client.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings", Labels: map[string]string{names.LabelManagedBy: "syncer", "app": "x"}},
		Data:       map[string]string{"color": "red"}, BinaryData: map[string][]byte{"raw": {0, 1, 255}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "db"}, Type: corev1.SecretTypeBasicAuth, Data: map[string][]byte{"username": []byte("u"), "password": []byte("p")},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "unused"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := w.pod(t, ns, "web-0", "pool-a", func(p *corev1.Pod) {
		p.Spec.Containers[0].EnvFrom = configMapRef("settings")
		p.Spec.Volumes = []corev1.Volume{secretVolume("db", false), secretVolume("later", true), tokenVolume("own", "vault", 600)}
	})

	token := w.poolSecret(t, "pool-a", ns, names.TokenSecret(pod.UID))
	var admission string // the volume that the ServiceAccount admission plugin added
	for _, v := range pod.Spec.Volumes {
		if strings.HasPrefix(v.Name, "kube-api-access-") {
			admission = v.Name
		}
	}
	want := map[string]claims{podrefs.TokenKey(admission, "token"): {Audience: []string{"vivarium-gateway"}}, podrefs.TokenKey("own", "token"): {Audience: []string{"vault"}}}
	if len(token.Data) != len(want) {
		t.Errorf("token Secret has keys %v", mapKeys(token.Data))
	}
	for key, w := range want {
		got := decode(t, token.Data[key])
		if diff := cmp.Diff(w.Audience, got.Audience); diff != "" {
			t.Errorf("audience (-want +got):\n%s", diff)
		}
		if got.Kubernetes.Pod.UID != string(pod.UID) || got.Kubernetes.Pod.Name != "web-0" || got.Kubernetes.Namespace != ns {
			t.Errorf("token is bound to %+v", got.Kubernetes)
		}
	}
	if got := decode(t, token.Data[podrefs.TokenKey("own", "token")]); got.Expiry-got.Issued != 600 {
		t.Errorf("lifetime %d s, want 600", got.Expiry-got.Issued)
	}
	if got := decode(t, token.Data[podrefs.TokenKey(admission, "token")]); got.Expiry-got.Issued != 3607 {
		t.Errorf("lifetime of the default token %d s, want the 3607 that the admission plugin asks for", got.Expiry-got.Issued)
	}

	copied := w.poolConfigMap(t, "pool-a", ns, "settings")
	if diff := cmp.Diff(cm.Data, copied.Data); diff != "" {
		t.Errorf("data:\n%s", diff)
	}
	if diff := cmp.Diff(cm.BinaryData, copied.BinaryData); diff != "" {
		t.Errorf("binaryData:\n%s", diff)
	}
	if copied.Labels["app"] != "" || copied.Labels[names.LabelTenant] != string(id) || copied.Labels[names.LabelControl] != string(w.controlUID) || copied.Labels[names.LabelControlUID] != string(cm.UID) {
		t.Errorf("labels %v", copied.Labels)
	}
	db := w.poolSecret(t, "pool-a", ns, "db")
	if db.Type != corev1.SecretTypeOpaque || string(db.Data["password"]) != "p" {
		t.Errorf("Secret of type %s with %v", db.Type, mapKeys(db.Data))
	}
	ca := w.poolConfigMap(t, "pool-a", ns, names.RootCAConfigMap)
	if !strings.Contains(ca.Data["ca.crt"], "BEGIN CERTIFICATE") || ca.Data["ca.crt"] != readFile(t, w.caFile) {
		t.Error("the root CA is not the gateway's")
	}
	if _, err := w.poolClient["pool-a"].CoreV1().Secrets(ns).Get(t.Context(), "unused", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("an unreferenced Secret crossed: %v", err)
	}

	// A change follows, an optional Secret arrives when it appears, a deleted one goes.
	cm.Data["color"] = "blue"
	if _, err := w.client.CoreV1().ConfigMaps(ns).Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new colour", func() error {
		if got := w.poolConfigMap(t, "pool-a", ns, "settings").Data["color"]; got != "blue" {
			return fmt.Errorf("color %s", got)
		}
		return nil
	})
	if _, err := w.client.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "later"}, StringData: map[string]string{"k": "v"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.poolSecret(t, "pool-a", ns, "later")
	if err := w.client.CoreV1().Secrets(ns).Delete(t.Context(), "db", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a deleted Secret goes from the pool", func() error {
		_, err := w.poolClient["pool-a"].CoreV1().Secrets(ns).Get(t.Context(), "db", metav1.GetOptions{})
		return gone(err)
	})

	// Somebody's edit of our object in the pool is undone.
	copied = w.poolConfigMap(t, "pool-a", ns, "settings")
	copied.Data["color"] = "green"
	if _, err := w.poolClient["pool-a"].CoreV1().ConfigMaps(ns).Update(t.Context(), copied, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the edit is undone", func() error {
		if got := w.poolConfigMap(t, "pool-a", ns, "settings").Data["color"]; got != "blue" {
			return fmt.Errorf("color %s", got)
		}
		return nil
	})

	// None of that, changes included, was any business of the other pool's.
	if _, err := w.poolClient["pool-b"].CoreV1().Namespaces().Get(t.Context(), ns, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the other pool got the namespace: %v", err)
	}

	// The pod goes, and after a while what only it needed.
	if err := w.client.CoreV1().Pods(ns).Delete(t.Context(), "web-0", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{names.TokenSecret(pod.UID), "later"} {
		eventually(t, name+" goes after its last pod", func() error {
			_, err := w.poolClient["pool-a"].CoreV1().Secrets(ns).Get(t.Context(), name, metav1.GetOptions{})
			return gone(err)
		})
	}
}

// TestRefusals: what must not cross does not, the pod is told, and everything else of it arrives.
func TestRefusals(t *testing.T) {
	w := use(t)
	w.register(t, "pool-a")
	w.run(t, quick)
	id := tenantID()
	ns := id.Prefix() + "web"
	w.tenant(t, id, "web")
	if _, err := w.client.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "old-token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "boot"}, Type: corev1.SecretTypeBootstrapToken,
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	issuer := controlIssuer(t, w)
	pod := w.pod(t, ns, "greedy", "pool-a", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{
			secretVolume("old-token", true), secretVolume("boot", true),
			tokenVolume("control", issuer, 600), tokenVolume("good", "", 600),
		}
	})
	if e := w.event(t, pod, "TokenAudienceRefused"); !strings.Contains(e.Message, issuer) || strings.Contains(e.Message, string(id)) {
		t.Errorf("message %q", e.Message)
	}
	if e := w.event(t, pod, "SecretRefused"); !strings.Contains(e.Message, `"boot"`) || strings.Contains(e.Message, string(id)) {
		t.Errorf("message %q", e.Message)
	}
	token := w.poolSecret(t, "pool-a", ns, names.TokenSecret(pod.UID))
	if _, ok := token.Data[podrefs.TokenKey("control", "token")]; ok {
		t.Error("a token for the control cluster crossed")
	}
	if _, ok := token.Data[podrefs.TokenKey("good", "token")]; !ok {
		t.Errorf("the good token is missing: %v", mapKeys(token.Data))
	}
	for _, name := range []string{"old-token", "boot"} {
		if _, err := w.poolClient["pool-a"].CoreV1().Secrets(ns).Get(t.Context(), name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("Secret %s crossed: %v", name, err)
		}
	}
}

// TestForeignObjects: what is in the pool already and is not ours is never touched, whatever labels it has.
func TestForeignObjects(t *testing.T) {
	w := use(t)
	w.register(t, "pool-a")
	w.run(t, quick)
	id := tenantID()
	ns := id.Prefix() + "web"
	w.tenant(t, id, "web", "other")
	pool := w.poolClient["pool-a"]
	for _, name := range []string{"taken", "forged"} {
		if _, err := w.client.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"a": "tenant"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	// The namespace is ours by way of a first pod; then the pool's operator puts things there.
	w.pod(t, ns, "first", "pool-a", nil)
	w.poolConfigMap(t, "pool-a", ns, names.RootCAConfigMap)
	foreign := map[string]*corev1.ConfigMap{}
	for name, labels := range map[string]map[string]string{
		"taken":  nil,
		"forged": {names.LabelManagedBy: "syncer", names.LabelControl: "another", names.LabelTenant: string(id)},
	} {
		made, err := pool.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Data: map[string]string{"a": "operator"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		foreign[name] = made
	}
	for name := range foreign {
		pod := w.pod(t, ns, "wants-"+name, "pool-a", func(p *corev1.Pod) { p.Spec.Containers[0].EnvFrom = configMapRef(name) })
		if e := w.event(t, pod, "PoolNameConflict"); !strings.Contains(e.Message, name) || strings.Contains(e.Message, string(id)) || strings.Contains(e.Message, "pool-a") {
			t.Errorf("message %q", e.Message)
		}
	}
	// A namespace of that name that is not ours.
	if _, err := pool.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: id.Prefix() + "other"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := w.pod(t, id.Prefix()+"other", "stranded", "pool-a", nil)
	w.event(t, pod, "PoolNameConflict")

	for name, before := range foreign {
		after, err := pool.CoreV1().ConfigMaps(ns).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil || after.ResourceVersion != before.ResourceVersion {
			t.Errorf("ConfigMap %s was touched: %v", name, err)
		}
	}
	// Nothing but what the pool itself publishes there.
	list, err := pool.CoreV1().ConfigMaps(id.Prefix()+"other").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		if list.Items[i].Name != "kube-root-ca.crt" {
			t.Errorf("wrote ConfigMap %s into a foreign namespace", list.Items[i].Name)
		}
	}
}

// TestImmutableAndType: what cannot change in place is replaced.
func TestImmutableAndType(t *testing.T) {
	w := use(t)
	w.register(t, "pool-a")
	w.run(t, quick)
	id := tenantID()
	ns := id.Prefix() + "web"
	w.tenant(t, id, "web")
	yes := true
	make := func(value string, typ corev1.SecretType) {
		t.Helper()
		data := map[string][]byte{"k": []byte(value)}
		if typ == corev1.SecretTypeDockerConfigJson {
			data = map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"` + value + `":{}}}`)}
		}
		if _, err := w.client.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Immutable: &yes, Data: data, Type: typ}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	make("one", corev1.SecretTypeOpaque)
	w.pod(t, ns, "p", "pool-a", func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{secretVolume("s", false)} })
	if got := w.poolSecret(t, "pool-a", ns, "s"); got.Immutable == nil || !*got.Immutable {
		t.Error("immutable did not cross")
	}
	if err := w.client.CoreV1().Secrets(ns).Delete(t.Context(), "s", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	make("two", corev1.SecretTypeDockerConfigJson)
	eventually(t, "the replacement", func() error {
		got, err := w.poolClient["pool-a"].CoreV1().Secrets(ns).Get(t.Context(), "s", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got.Type != corev1.SecretTypeDockerConfigJson || !strings.Contains(string(got.Data[corev1.DockerConfigJsonKey]), "two") {
			return fmt.Errorf("type %s, %s", got.Type, got.Data)
		}
		return nil
	})
}

// TestRestart: a syncer that was killed goes on where it stopped: nothing is written anew, and what went out of use while
// nobody looked is removed.
func TestRestart(t *testing.T) {
	w := use(t)
	w.register(t, "pool-a")
	kill := w.run(t, quick)
	id := tenantID()
	ns := id.Prefix() + "web"
	w.tenant(t, id, "web")
	for _, name := range []string{"stays", "source-goes", "unused"} {
		if _, err := w.client.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"a": "1"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	pod := w.pod(t, ns, "p", "pool-a", func(p *corev1.Pod) {
		p.Spec.Containers[0].EnvFrom = append(configMapRef("stays"), configMapRef("source-goes")...)
	})
	other := w.pod(t, ns, "other", "pool-a", func(p *corev1.Pod) { p.Spec.Containers[0].EnvFrom = configMapRef("unused") })
	before := map[string]string{}
	for _, name := range []string{"stays", "source-goes", "unused", names.RootCAConfigMap} {
		before[name] = w.poolConfigMap(t, "pool-a", ns, name).ResourceVersion
	}
	token := w.poolSecret(t, "pool-a", ns, names.TokenSecret(pod.UID))
	w.poolSecret(t, "pool-a", ns, names.TokenSecret(other.UID))
	kill()

	if err := w.client.CoreV1().ConfigMaps(ns).Delete(t.Context(), "source-goes", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := w.client.CoreV1().Pods(ns).Delete(t.Context(), "other", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	w.run(t, quick)
	for _, name := range []string{"source-goes", "unused"} {
		eventually(t, name+" is removed after the restart", func() error {
			_, err := w.poolClient["pool-a"].CoreV1().ConfigMaps(ns).Get(t.Context(), name, metav1.GetOptions{})
			return gone(err)
		})
	}
	eventually(t, "the dead pod's token is removed after the restart", func() error {
		_, err := w.poolClient["pool-a"].CoreV1().Secrets(ns).Get(t.Context(), names.TokenSecret(other.UID), metav1.GetOptions{})
		return gone(err)
	})
	for _, name := range []string{"stays", names.RootCAConfigMap} {
		if got := w.poolConfigMap(t, "pool-a", ns, name).ResourceVersion; got != before[name] {
			t.Errorf("ConfigMap %s was written again", name)
		}
	}
	if got := w.poolSecret(t, "pool-a", ns, names.TokenSecret(pod.UID)); got.ResourceVersion != token.ResourceVersion {
		t.Error("a good token was replaced")
	}
}

// TestTwoAtOnce: two replicas that both believe they lead do no damage.
func TestTwoAtOnce(t *testing.T) {
	w := use(t)
	w.register(t, "pool-a")
	w.run(t, quick)
	w.run(t, quick)
	id := tenantID()
	ns := id.Prefix() + "web"
	w.tenant(t, id, "web")
	cm, err := w.client.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Data: map[string]string{"n": "0"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod := w.pod(t, ns, "p", "pool-a", func(p *corev1.Pod) { p.Spec.Containers[0].EnvFrom = configMapRef("c") })
	for n := range 20 {
		cm.Data["n"] = fmt.Sprint(n + 1)
		if cm, err = w.client.CoreV1().ConfigMaps(ns).Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the last value", func() error {
		if got := w.poolConfigMap(t, "pool-a", ns, "c").Data["n"]; got != "20" {
			return fmt.Errorf("n = %s", got)
		}
		return nil
	})
	if token := w.poolSecret(t, "pool-a", ns, names.TokenSecret(pod.UID)); len(token.Data) != 1 {
		t.Errorf("token keys %v", mapKeys(token.Data))
	}
}

func controlIssuer(t *testing.T, w *world) string {
	t.Helper()
	raw, err := w.client.Discovery().RESTClient().Get().AbsPath("/.well-known/openid-configuration").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Issuer string }
	if err := json.Unmarshal(raw, &doc); err != nil || doc.Issuer == "" {
		t.Fatal(errors.Join(err, errors.New("no issuer")))
	}
	return doc.Issuer
}

// measureDelivery tells how long it takes from a pod's binding until its token is in the pool; it asserts nothing.
func TestMeasureDelivery(t *testing.T) {
	w := use(t)
	w.register(t, "pool-a")
	w.run(t)
	id := tenantID()
	ns := id.Prefix() + "web"
	w.tenant(t, id, "web")
	w.pod(t, ns, "warm", "pool-a", nil)
	w.poolConfigMap(t, "pool-a", ns, names.RootCAConfigMap)
	var all []time.Duration
	for i := range 20 {
		watcher, err := w.poolClient["pool-a"].CoreV1().Secrets(ns).Watch(context.Background(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("p%d", i)
		pod := w.pod(t, ns, name, "pool-a", nil)
		bound := time.Now()
		for e := range watcher.ResultChan() {
			if s, ok := e.Object.(*corev1.Secret); ok && s.Name == names.TokenSecret(pod.UID) {
				break
			}
		}
		all = append(all, time.Since(bound))
		watcher.Stop()
	}
	t.Logf("binding returned -> token in the pool: %v", all)
}

func mapKeys[V any](m map[string]V) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	return keys
}

// TestTokenRefresh: a token whose time has come is replaced by a good one, also one that somebody scribbled over.
func TestTokenRefresh(t *testing.T) {
	w := use(t)
	w.register(t, "pool-a")
	kill := w.run(t, quick)
	id := tenantID()
	ns := id.Prefix() + "web"
	w.tenant(t, id, "web")
	pod := w.pod(t, ns, "p", "pool-a", func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{tokenVolume("own", "", 600)} })
	key := podrefs.TokenKey("own", "token")
	first := w.poolSecret(t, "pool-a", ns, names.TokenSecret(pod.UID))
	refresh := time.Time{}
	for annotation, value := range first.Annotations {
		if strings.HasSuffix(annotation, "/refresh-after") {
			var err error
			if refresh, err = time.Parse(time.RFC3339, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	if issued := time.Unix(decode(t, first.Data[key]).Issued, 0); refresh.Before(issued.Add(400*time.Second)) || refresh.After(issued.Add(490*time.Second)) {
		t.Errorf("issued %s, to be replaced after %s: want about four fifths of 600 s", issued, refresh)
	}
	for what, change := range map[string]func(*corev1.Secret){
		"due":      func(s *corev1.Secret) { s.Annotations[names.Domain+"/refresh-after"] = "2020-01-01T00:00:00Z" },
		"scribble": func(s *corev1.Secret) { s.Data[key] = []byte("nonsense") },
	} {
		before := w.poolSecret(t, "pool-a", ns, first.Name)
		old := string(before.Data[key])
		change(before)
		if _, err := w.poolClient["pool-a"].CoreV1().Secrets(ns).Update(t.Context(), before, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, what+": another token", func() error {
			got := w.poolSecret(t, "pool-a", ns, first.Name)
			if text := string(got.Data[key]); text == old || text == "nonsense" {
				return errors.New("still the old one")
			}
			if c := decode(t, got.Data[key]); c.Kubernetes.Pod.UID != string(pod.UID) {
				return fmt.Errorf("bound to %+v", c.Kubernetes.Pod)
			}
			return nil
		})
	}

	// Its time comes while no syncer runs: the next one replaces it before anything else happens to the pod.
	kill()
	before := w.poolSecret(t, "pool-a", ns, first.Name)
	old := string(before.Data[key])
	before.Annotations[names.Domain+"/refresh-after"] = time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
	if _, err := w.poolClient["pool-a"].CoreV1().Secrets(ns).Update(t.Context(), before, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.run(t, quick)
	eventually(t, "another token after the outage", func() error {
		if string(w.poolSecret(t, "pool-a", ns, first.Name).Data[key]) == old {
			return errors.New("still the old one")
		}
		return nil
	})
}
