package console

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/virtual-kubelet/virtual-kubelet/node/api"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"
)

// exec runs a command in a container. Its error keeps the command's exit code.
func (t *target) exec(ctx context.Context, container string, command []string, streams api.AttachIO) error {
	return t.run(ctx, "exec", &corev1.PodExecOptions{
		Container: container, Command: command, TTY: streams.TTY(),
		Stdin: streams.Stdin() != nil, Stdout: streams.Stdout() != nil, Stderr: streams.Stderr() != nil,
	}, streams)
}

// attach joins the streams of a container's own process.
func (t *target) attach(ctx context.Context, container string, streams api.AttachIO) error {
	return t.run(ctx, "attach", &corev1.PodAttachOptions{
		Container: container, TTY: streams.TTY(),
		Stdin: streams.Stdin() != nil, Stdout: streams.Stdout() != nil, Stderr: streams.Stderr() != nil,
	}, streams)
}

// url gives the address of a subresource of the pool pod.
func (t *target) url(subresource string, options runtime.Object) *url.URL {
	request := t.pool.Client.CoreV1().RESTClient().Post().Resource("pods").Namespace(t.below.Namespace).Name(t.below.Name).SubResource(subresource)
	if options != nil {
		request = request.VersionedParams(options, scheme.ParameterCodec)
	}
	return request.URL()
}

func (t *target) run(ctx context.Context, subresource string, options runtime.Object, streams api.AttachIO) error {
	where := t.url(subresource, options)
	modern, err := remotecommand.NewWebSocketExecutor(t.pool.Config, "GET", where.String())
	if err != nil {
		return fmt.Errorf("reach pool: %w", err)
	}
	old, err := remotecommand.NewSPDYExecutor(t.pool.Config, "POST", where)
	if err != nil {
		return fmt.Errorf("reach pool: %w", err)
	}
	executor, err := remotecommand.NewFallbackExecutor(modern, old, cannotUpgrade)
	if err != nil {
		return fmt.Errorf("reach pool: %w", err)
	}
	// A nil stream must stay nil: an interface around a nil pointer would be asked for.
	o := remotecommand.StreamOptions{Tty: streams.TTY()}
	if in := streams.Stdin(); in != nil {
		o.Stdin = in
	}
	if out := streams.Stdout(); out != nil {
		o.Stdout = out
	}
	if out := streams.Stderr(); out != nil {
		o.Stderr = out
	}
	if streams.TTY() {
		o.TerminalSizeQueue = sizes{ctx.Done(), streams.Resize()}
	}
	err = executor.StreamWithContext(ctx, o)
	var code exec.CodeExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &code):
		return code // bare, as virtual-kubelet looks for it
	default:
		return errors.New(withoutPrefixes(t.say(err.Error())))
	}
}

// withoutPrefixes takes off what the pool's servers have put before an error: the control cluster's put the same before
// it once more.
func withoutPrefixes(text string) string {
	for {
		rest := strings.TrimPrefix(text, "Internal error occurred: ")
		rest = strings.TrimPrefix(rest, "error executing command in container: ")
		if rest == text {
			return text
		}
		text = rest
	}
}

func cannotUpgrade(err error) bool {
	return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
}

// sizes hands terminal sizes on. virtual-kubelet repeats a zero size for ever once the client has no more to send.
type sizes struct {
	done <-chan struct{}
	from <-chan api.TermSize
}

// Next blocks for the next size; nil ends the queue.
func (s sizes) Next() *remotecommand.TerminalSize {
	select {
	case size, ok := <-s.from:
		if !ok || size.Width == 0 && size.Height == 0 {
			return nil
		}
		return &remotecommand.TerminalSize{Width: size.Width, Height: size.Height}
	case <-s.done:
		return nil
	}
}
