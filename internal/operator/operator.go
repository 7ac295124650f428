// Package operator does what an operator asks for on the command line: make and change tenants, register pools. It works
// through the admin API and, for pools' credentials, the control cluster.
//
// It must leave nothing half made: what a failed step began is taken back, and the error says what to do. It must never
// print a credential that was not asked for. Start at [Operator].
package operator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vivarium.io/vivarium/internal/adminclient"
)

// connectTimeout is how long an operator waits for an API server to answer at all.
const connectTimeout = 10 * time.Second

// Operator acts for whoever typed a command. Control may be nil where only tenants are concerned.
type Operator struct {
	Admin       client.WithWatch
	AdminConfig *rest.Config
	Control     kubernetes.Interface
	// Say tells about progress, one line at a time; nil says nothing.
	Say func(format string, args ...any)
}

func (o *Operator) say(format string, args ...any) {
	if o.Say != nil {
		o.Say(format, args...)
	}
}

// OpenAdmin makes an Operator from the kubeconfig of the admin API.
func OpenAdmin(file string) (*Operator, error) {
	config, err := load("admin", file)
	if err != nil {
		return nil, err
	}
	admin, err := adminclient.New(config)
	if err != nil {
		return nil, err
	}
	return &Operator{Admin: admin, AdminConfig: config}, nil
}

// OpenControl adds the control cluster.
func (o *Operator) OpenControl(file string) error {
	config, err := load("control", file)
	if err != nil {
		return err
	}
	o.Control, err = kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("--control-kubeconfig %s: %w", file, err)
	}
	return nil
}

func load(which, file string) (*rest.Config, error) {
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist: start the system with `vivarium up`, name its directory with RUN_DIR, or give --%s-kubeconfig", file, which)
	}
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return nil, fmt.Errorf("--%s-kubeconfig %s: %w", which, file, err)
	}
	config.UserAgent = "vivarium-cli"
	return config, nil
}

// Explain turns an error of a connection into a sentence for whoever typed the address. Other errors are returned as they
// are.
func Explain(what, host string, err error) error {
	if err == nil {
		return nil
	}
	var dns *net.DNSError
	text := err.Error()
	switch {
	case errors.As(err, &dns):
		return fmt.Errorf("%s: the name %q of its API server cannot be resolved", what, dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: nothing listens at %s; does its API server run?", what, host)
	case errors.Is(err, context.DeadlineExceeded) || isTimeout(err):
		return fmt.Errorf("%s: %s does not answer within %s; is it reachable from here?", what, host, connectTimeout)
	case strings.Contains(text, "certificate signed by unknown authority") || strings.Contains(text, "certificate is valid for"):
		return fmt.Errorf("%s: the certificate of %s does not match the kubeconfig: %w", what, host, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s: %s does not accept the credentials", what, host)
	default:
		return err
	}
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}
