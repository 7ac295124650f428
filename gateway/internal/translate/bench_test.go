package translate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"vivarium.io/vivarium/gateway/internal/translate/jsonwire"
)

var pods = Kind{Version: "v1", Resource: "pods", Kind: "Pod", Namespaced: true}

// podJSON is a pod as a control cluster shows it: owner, managed fields, status.
func podJSON(tenant, namespace, name string, n int) string {
	return fmt.Sprintf(`{"metadata":{"name":"%[3]s","generateName":"web-5d8c7b9f4-","namespace":"%[1]s-%[2]s","uid":"2f1c9a54-7c0b-4a5e-9d55-0a7b%08[4]d","resourceVersion":"%[4]d","generation":1,"creationTimestamp":"2026-11-20T10:00:00Z","labels":{"app":"web","pod-template-hash":"5d8c7b9f4","tier":"front"},"annotations":{"example.com/checksum":"8f14e45fceea167a5a36dedd4bea2543","example.com/note":"rolled out by the pipeline"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-5d8c7b9f4","uid":"b5d7c1de-02fb-4f53-8a1c-ff7b3d3c3f10","controller":true,"blockOwnerDeletion":true}],"managedFields":[{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"2026-11-20T10:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{".":{},"f:example.com/checksum":{},"f:example.com/note":{}},"f:generateName":{},"f:labels":{".":{},"f:app":{},"f:pod-template-hash":{},"f:tier":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"b5d7c1de-02fb-4f53-8a1c-ff7b3d3c3f10\"}":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:env":{".":{},"k:{\"name\":\"MODE\"}":{".":{},"f:name":{},"f:value":{}}},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:ports":{".":{},"k:{\"containerPort\":8080,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:protocol":{}}},"f:resources":{".":{},"f:limits":{".":{},"f:cpu":{},"f:memory":{}}},"f:terminationMessagePath":{},"f:terminationMessagePolicy":{}}},"f:dnsPolicy":{},"f:enableServiceLinks":{},"f:restartPolicy":{},"f:schedulerName":{},"f:securityContext":{},"f:terminationGracePeriodSeconds":{}}}},{"manager":"vk-provider","operation":"Update","apiVersion":"v1","time":"2026-11-20T10:00:02Z","fieldsType":"FieldsV1","fieldsV1":{"f:status":{"f:conditions":{"k:{\"type\":\"ContainersReady\"}":{".":{},"f:lastProbeTime":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Ready\"}":{".":{},"f:lastProbeTime":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}}},"f:containerStatuses":{},"f:hostIP":{},"f:phase":{},"f:podIP":{},"f:podIPs":{".":{},"k:{\"ip\":\"10.9.0.12\"}":{".":{},"f:ip":{}}},"f:startTime":{}}},"subresource":"status"}]},"spec":{"volumes":[{"name":"config","configMap":{"name":"web","defaultMode":420}},{"name":"kube-api-access-x7k2p","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca.crt"}]}},{"downwardAPI":{"items":[{"path":"namespace","fieldRef":{"apiVersion":"v1","fieldPath":"metadata.namespace"}}]}}],"defaultMode":420}}],"containers":[{"name":"web","image":"vivarium.test/echo:v1","ports":[{"containerPort":8080,"protocol":"TCP"}],"env":[{"name":"MODE","value":"production"},{"name":"POD","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}}],"resources":{"limits":{"cpu":"500m","memory":"128Mi"},"requests":{"cpu":"100m","memory":"64Mi"}},"volumeMounts":[{"name":"config","mountPath":"/etc/web"},{"name":"kube-api-access-x7k2p","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}],"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"default","serviceAccount":"default","nodeName":"pool-a-0","securityContext":{},"affinity":{"podAntiAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":100,"podAffinityTerm":{"labelSelector":{"matchLabels":{"app":"web"}},"namespaces":["%[1]s-%[2]s","%[1]s-edge"],"topologyKey":"kubernetes.io/hostname"}}]}},"schedulerName":"default-scheduler","tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300},{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}],"priority":0,"enableServiceLinks":true,"preemptionPolicy":"PreemptLowerPriority"},"status":{"phase":"Running","conditions":[{"type":"Initialized","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-11-20T10:00:00Z"},{"type":"Ready","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-11-20T10:00:02Z"},{"type":"ContainersReady","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-11-20T10:00:02Z"},{"type":"PodScheduled","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-11-20T10:00:00Z"}],"hostIP":"10.0.0.5","podIP":"10.9.0.12","podIPs":[{"ip":"10.9.0.12"}],"startTime":"2026-11-20T10:00:00Z","containerStatuses":[{"name":"web","state":{"running":{"startedAt":"2026-11-20T10:00:01Z"}},"lastState":{},"ready":true,"restartCount":0,"image":"vivarium.test/echo:v1","imageID":"vivarium.test/echo@sha256:7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730","containerID":"containerd://8b1a9953c4611296a827abf8c47804d7d1f6e9b2b5a3c1e0f2d4b6a8c0e2f4a6","started":true}],"qosClass":"Burstable"}}`,
		tenant, namespace, name, n)
}

func podList(tenant string, count int) string {
	items := make([]string, count)
	for i := range items {
		items[i] = podJSON(tenant, "default", fmt.Sprintf("web-5d8c7b9f4-%05d", i), i+1)
	}
	return `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"4711"},"items":[` + strings.Join(items, ",") + "]}\n"
}

func BenchmarkListOfPods(b *testing.B) {
	list := []byte(podList("zq7x9k", 300))
	b.SetBytes(int64(len(list)))
	b.ReportAllocs()
	for b.Loop() {
		if err := view.ObjectToTenant(pods, io.Discard, bytes.NewReader(list)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOnePod(b *testing.B) {
	pod := []byte(`{"kind":"Pod","apiVersion":"v1",` + podJSON("zq7x9k", "default", "web", 1)[1:])
	b.SetBytes(int64(len(pod)))
	b.ReportAllocs()
	for b.Loop() {
		if err := view.ObjectToTenant(pods, io.Discard, bytes.NewReader(pod)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPagesOfPods(b *testing.B) {
	list := []byte(strings.Replace(podList("zq7x9k", 300), "]}\n", ","+podJSON("zzz999", "default", "x", 1)+"]}\n", 1))
	b.SetBytes(int64(len(list)))
	b.ReportAllocs()
	for b.Loop() {
		err := view.ListToTenant(pods, io.Discard, ListOptions{}, func(string) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(list)), nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWatchOfPods(b *testing.B) {
	frame := `{"type":"MODIFIED","object":{"kind":"Pod","apiVersion":"v1",` + podJSON("zq7x9k", "default", "web", 1)[1:] + "}\n"
	frames := []byte(strings.Repeat(frame, 100))
	b.SetBytes(int64(len(frames)))
	b.ReportAllocs()
	for b.Loop() {
		if err := view.WatchToTenant(pods, io.Discard, nil, bytes.NewReader(frames), true); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreatePod(b *testing.B) {
	pod := strings.ReplaceAll(`{"kind":"Pod","apiVersion":"v1",`+podJSON("zq7x9k", "default", "web", 1)[1:], "zq7x9k-", "")
	body := []byte(strings.Replace(pod, `"nodeName":"pool-a-0",`, "", 1))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := view.BodyToControl(pods, "create", "application/json", body, "default", ""); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkValid is encoding/json's validator on the same list: the yardstick that travels between machines.
func BenchmarkValid(b *testing.B) {
	list := []byte(podList("zq7x9k", 300))
	b.SetBytes(int64(len(list)))
	for b.Loop() {
		if !json.Valid(list) {
			b.Fatal("not JSON")
		}
	}
}

// BenchmarkSkip is the scanner without any rule: its ceiling.
func BenchmarkSkip(b *testing.B) {
	list := []byte(podList("zq7x9k", 300))
	b.SetBytes(int64(len(list)))
	s := jsonwire.NewScanner(io.Discard, nil, bufferSize)
	for b.Loop() {
		s.Reuse(io.Discard, bytes.NewReader(list))
		if err := s.Skip(); err != nil {
			b.Fatal(err)
		}
	}
}
