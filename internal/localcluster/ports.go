package localcluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
)

// Ports are those of one control plane.
type Ports struct{ EtcdClient, EtcdPeer, APIServer, ControllerManager, Scheduler int }

// portsFrom counts a control plane's ports up from the first one.
func portsFrom(first int) Ports {
	return Ports{EtcdClient: first, EtcdPeer: first + 1, APIServer: first + 2, ControllerManager: first + 3, Scheduler: first + 4}
}

// firstFree and lastFree are the ports that are picked from. They lie below those that the system gives to outgoing
// connections: of those one may be gone when a killed server wants it back, and a client that keeps dialling where nobody
// listens may reach itself.
const firstFree, lastFree = 10000, 15999

// picked has the ports that [FreePorts] has picked.
var picked sync.Map

// FreePorts picks ports that nobody listens on now, and that this program has not picked before: whoever got one may have been
// killed and want it back. Another program may take one before it is used; who wants to be sure tries again with others.
func FreePorts() (Ports, error) {
	var ports [5]int
	for i := range ports {
		// All stay open until the last is picked, so that none is picked twice.
		listener, err := listenFree()
		if err != nil {
			return Ports{}, fmt.Errorf("find a free port: %w", err)
		}
		defer listener.Close()
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return Ports{EtcdClient: ports[0], EtcdPeer: ports[1], APIServer: ports[2], ControllerManager: ports[3], Scheduler: ports[4]}, nil
}

func listenFree() (listener net.Listener, err error) {
	for range 1000 {
		port := firstFree + rand.IntN(lastFree-firstFree+1) //nolint:gosec // only to be another one than others pick
		if _, picked := picked.LoadOrStore(port, true); picked {
			continue
		}
		if listener, err = net.Listen("tcp", fmt.Sprintf("%s:%d", localhost, port)); err == nil {
			return listener, nil
		}
	}
	picked.Clear() // most were picked, long ago
	if err == nil {
		return listenFree()
	}
	return nil, err
}

// all lists the ports.
func (p Ports) all() []int {
	return []int{p.EtcdClient, p.EtcdPeer, p.APIServer, p.ControllerManager, p.Scheduler}
}

// checkFree is an error that names the first port that somebody else listens on.
func checkFree(ports []int) error {
	for _, port := range ports {
		// On all addresses: whoever has one of them is in the way.
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err == nil {
			_ = listener.Close()
			continue
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("try port %d: %w", port, err)
		}
		holder := portHolder(port)
		if holder == "" {
			holder = "another process"
		}
		return fmt.Errorf("port %d is in use by %s; stop it, or choose other ports with PORT_BASE", port, holder)
	}
	return nil
}
