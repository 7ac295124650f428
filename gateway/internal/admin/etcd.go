package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/storage/storagebackend"

	"vivarium.io/vivarium/api/v1alpha1"
	"vivarium.io/vivarium/gateway/internal/flows"
)

// DefaultEtcdPrefix is where this API keeps its objects in etcd, apart from whatever else lives there.
const DefaultEtcdPrefix = "/vivarium.io"

// Etcd says where objects are stored: at Servers, or in a member that the process runs itself in Dir. Production is an
// etcd cluster; the embedded member is for trying.
type Etcd struct {
	// Servers are client URLs.
	Servers []string
	// CAFile, CertFile and KeyFile are for TLS to the servers; empty for none.
	CAFile, CertFile, KeyFile string
	// Prefix of all keys. Default [DefaultEtcdPrefix].
	Prefix string
	// Dir is the data directory of an embedded member; used when Servers is empty.
	Dir string
}

func (e Etcd) validate() error {
	switch {
	case len(e.Servers) == 0 && e.Dir == "":
		return errors.New("etcd: neither servers nor a directory for an embedded member")
	case len(e.Servers) > 0 && e.Dir != "":
		return errors.New("etcd: servers and an embedded member exclude each other")
	case (e.CertFile == "") != (e.KeyFile == ""):
		return errors.New("etcd: a client certificate needs its key, and a key its certificate")
	default:
		return nil
	}
}

// options are what the API machinery wants to know of etcd.
func (e Etcd) options(scheme apiScheme) *options.EtcdOptions {
	prefix := e.Prefix
	if prefix == "" {
		prefix = DefaultEtcdPrefix
	}
	backend := storagebackend.NewDefaultConfig(prefix, scheme.codecs.LegacyCodec(v1alpha1.GroupVersion, flows.GroupVersion))
	backend.EncodeVersioner = schema.GroupVersions{v1alpha1.GroupVersion, flows.GroupVersion}
	backend.Transport.ServerList = e.Servers
	backend.Transport.TrustedCAFile = e.CAFile
	backend.Transport.CertFile = e.CertFile
	backend.Transport.KeyFile = e.KeyFile
	etcd := options.NewEtcdOptions(backend)
	// Nothing collects garbage by owner here; a foreground deletion would wait for it forever.
	etcd.EnableGarbageCollection = false
	return etcd
}

// How long servers may take to appear while everything is starting, and how often they are tried.
const (
	reachTimeout = 30 * time.Second
	reachPause   = 200 * time.Millisecond
)

// reach waits until one of the servers accepts connections. The machinery would wait as well, but then says nothing more
// than that a deadline has passed.
func (e Etcd) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	for {
		var problems []error
		for _, server := range e.Servers {
			err := knock(ctx, server)
			if err == nil {
				return nil
			}
			problems = append(problems, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no etcd server answers: %w", errors.Join(problems...))
		case <-time.After(reachPause):
		}
	}
}

func knock(ctx context.Context, server string) error {
	u, err := url.Parse(server)
	if err != nil {
		return err
	}
	network, address := "tcp", u.Host
	if u.Scheme == "unix" || u.Scheme == "unixs" {
		network, address = "unix", u.Host+u.Path
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// embeddedStart bounds the wait for an embedded member, which may have a log to replay.
const embeddedStart = time.Minute

// startEmbedded runs an etcd member in dir until stop is called, reachable through a socket that only this user can open.
func startEmbedded(ctx context.Context, dir string) (servers []string, stop func(), err error) {
	// A path to a socket may have about a hundred characters, which a data directory easily exceeds.
	sockets, err := os.MkdirTemp("", "vivarium-etcd-")
	if err != nil {
		return nil, nil, fmt.Errorf("start embedded etcd: %w", err)
	}
	remove := func() { _ = os.RemoveAll(sockets) }
	client := url.URL{Scheme: "unix", Path: filepath.Join(sockets, "client")}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(sockets, "peer")}

	config := embed.NewConfig()
	config.Dir = dir
	config.Name = "vivarium"
	log := &etcdLog{}
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(log))
	config.ListenClientUrls, config.ListenPeerUrls = []url.URL{client}, []url.URL{peer}
	// A lone member never dials what it advertises, but etcd insists on a host and a port.
	nobody := []url.URL{{Scheme: "http", Host: "localhost:2380"}}
	config.AdvertiseClientUrls, config.AdvertisePeerUrls = nobody, nobody
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.QuotaBackendBytes = 2 << 30

	member, err := embed.StartEtcd(config)
	if err != nil {
		remove()
		return nil, nil, fmt.Errorf("start embedded etcd in %s: %w", dir, err)
	}
	stop = func() {
		log.silent.Store(true)
		member.Close()
		remove()
	}
	timeout := time.NewTimer(embeddedStart)
	defer timeout.Stop()
	select {
	case <-member.Server.ReadyNotify():
		return []string{client.String()}, stop, nil
	case err = <-member.Err():
	case <-timeout.C:
		err = fmt.Errorf("not ready after %s", embeddedStart)
	case <-ctx.Done():
		err = ctx.Err()
	}
	stop()
	return nil, nil, fmt.Errorf("start embedded etcd in %s: %w", dir, err)
}
