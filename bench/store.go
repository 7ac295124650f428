package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"vivarium.io/vivarium/internal/localcluster"
)

// store writes objects where kube-apiserver keeps them, which is fifty times as fast as asking it to. They are what it
// would have written itself, and it sees them as it sees what another replica writes.
type store struct {
	etcd    *clientv3.Client
	encoder runtime.Encoder
}

func openStore(w *world) (*store, error) { return openEtcd(w.plane) }

func openEtcd(plane *localcluster.ControlPlane) (*store, error) {
	access, err := plane.Etcd()
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(access.Client.Cert, access.Client.Key)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(access.CAFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	etcd, err := clientv3.New(clientv3.Config{
		Endpoints: []string{access.Endpoint}, DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
		TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	})
	if err != nil {
		return nil, fmt.Errorf("open a cluster's etcd: %w", err)
	}
	serializer := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	return &store{etcd: etcd, encoder: scheme.Codecs.EncoderForVersion(serializer, corev1.SchemeGroupVersion)}, nil
}

func (s *store) close() { _ = s.etcd.Close() }

// perTransaction is what etcd takes at once, with its default limits: 128 operations and a megabyte and a half.
const perTransaction = 100

// write stores count objects.
func (s *store) write(ctx context.Context, count int, object func(n int) (key string, o runtime.Object)) error {
	for first := 0; first < count; first += perTransaction {
		var ops []clientv3.Op
		for n := first; n < min(first+perTransaction, count); n++ {
			key, o := object(n)
			var value bytes.Buffer
			if err := s.encoder.Encode(o, &value); err != nil {
				return fmt.Errorf("encode %s: %w", key, err)
			}
			ops = append(ops, clientv3.OpPut("/registry/"+key, value.String()))
		}
		if _, err := s.etcd.Txn(ctx).Then(ops...).Commit(); err != nil {
			return fmt.Errorf("store objects: %w", err)
		}
	}
	return nil
}

// podSample is a running pod with an owner, two managers of its fields and a status: five kilobytes of JSON.
//
//go:embed pod.json
var podSample []byte

func (s *store) pods(ctx context.Context, namespace string, count int) error {
	return s.write(ctx, count, func(n int) (string, runtime.Object) {
		name := fmt.Sprintf("web-5d8c7b9f4-%05d", n)
		pod := &corev1.Pod{}
		// The sample names its namespace where a pod of a tenant does.
		raw := bytes.ReplaceAll(podSample, []byte("NAMESPACE"), []byte(namespace))
		raw = bytes.ReplaceAll(raw, []byte("NAME"), []byte(name))
		if err := json.Unmarshal(raw, pod); err != nil {
			// The sample is part of the program.
			panic(err)
		}
		pod.UID = uid(n)
		return "pods/" + namespace + "/" + name, pod
	})
}

func uid(n int) types.UID { return types.UID(fmt.Sprintf("2f1c9a54-7c0b-4a5e-9d55-%012x", n)) }

// configMaps stores small ones, round robin in the namespaces.
func (s *store) configMaps(ctx context.Context, namespaces []string, count int) error {
	data := text(700)
	return s.write(ctx, count, func(n int) (string, runtime.Object) {
		namespace, name := namespaces[n%len(namespaces)], fmt.Sprintf("settings-%d", n)
		return "configmaps/" + namespace + "/" + name, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Name: name, Namespace: namespace, UID: uid(n), CreationTimestamp: metav1.NewTime(time.Now()), Labels: map[string]string{"app": "web"},
			},
			Data: map[string]string{"settings": data},
		}
	})
}
