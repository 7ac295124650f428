package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/klog/v2"
)

type testOptions struct {
	Name  string
	Hosts []string
}

func (o *testOptions) AddFlags(groups *cliflag.NamedFlagSets) {
	flags := groups.FlagSet("test")
	flags.StringVar(&o.Name, "name", o.Name, "A name.")
	flags.StringSliceVar(&o.Hosts, "hosts", o.Hosts, "Hosts.")
}

func (o *testOptions) Validate() []error {
	var problems []error
	if o.Name == "" {
		problems = append(problems, errors.New("--name: is required"))
	}
	if len(o.Hosts) == 0 {
		problems = append(problems, errors.New("--hosts: is required"))
	}
	return problems
}

func TestCommand(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.yaml")
	write := func(text string) {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cases := map[string]struct {
		config string
		args   []string
		want   testOptions
		errors []string
	}{
		"Flags":           {args: []string{"--name=a", "--hosts=x,z"}, want: testOptions{Name: "a", Hosts: []string{"x", "z"}}},
		"Config":          {config: "name: a\nhosts: [x, z]\n", want: testOptions{Name: "a", Hosts: []string{"x", "z"}}},
		"FlagsWin":        {config: "name: a\nhosts: [x]\n", args: []string{"--name=b"}, want: testOptions{Name: "b", Hosts: []string{"x"}}},
		"AllProblems":     {errors: []string{"--name: is required", "--hosts: is required"}},
		"UnknownKey":      {config: "nme: a\n", errors: []string{`"nme" is not a flag`}},
		"UnknownFlag":     {args: []string{"--nme=a"}, errors: []string{"unknown flag"}},
		"BadLogFormat":    {args: []string{"--name=a", "--hosts=x", "--log-format=xml"}, errors: []string{"--log-format"}},
		"ConfigDuplicate": {config: "name: a\nname: b\n", errors: []string{"--config"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			options := &testOptions{}
			args := tc.args
			if tc.config != "" {
				write(tc.config)
				args = append([]string{"--config=" + config}, args...)
			}
			var got testOptions
			cmd := Command(Component{Name: "test", Options: options, Run: func(context.Context, *Health) error {
				got = *options
				return nil
			}})
			cmd.SetArgs(args)
			cmd.SetErr(io.Discard)
			err := cmd.ExecuteContext(t.Context())
			if len(tc.errors) > 0 {
				var usage usageError
				if !errors.As(err, &usage) {
					t.Fatalf("got %v, want a usage error", err)
				}
				for _, want := range tc.errors {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("error %q lacks %q", err, want)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("options (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHealth(t *testing.T) {
	h := newHealth()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	defer h.serve(listener)()
	get := func(path string) (int, string) {
		t.Helper()
		res, err := http.Get("http://" + addr + path) //nolint:noctx // a test's own listener
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(body)
	}
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "starting") {
		t.Errorf("before SetReady: %d %q", code, body)
	}
	h.SetReady(func() error { return fmt.Errorf("etcd: gone") })
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "etcd: gone") {
		t.Errorf("not ready: %d %q", code, body)
	}
	h.SetReady(func() error { return nil })
	if code, _ := get("/readyz"); code != http.StatusOK {
		t.Errorf("ready: %d", code)
	}
	if code, body := get("/metrics"); code != http.StatusOK || !strings.Contains(body, "go_goroutines") {
		t.Errorf("metrics: %d", code)
	}
	if err := run(t.Context(), Component{}, addr); err == nil || !strings.Contains(err.Error(), "--health-listen") {
		t.Errorf("a port in use: %v", err)
	}
}

// TestEndsOfStreams logs what libraries and we log when connections end.
func TestEndsOfStreams(t *testing.T) {
	reset := fmt.Errorf("error forwarding port 80: %v", &net.OpError{Op: "read", Err: syscall.ECONNRESET})
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for verbosity, want := range []string{
		"ERROR a failure: dial: connection refused\nERROR ours: unexpected EOF\n",
		"DEBUG+3 an end: unexpected EOF\nDEBUG+3 an end: error forwarding port 80: read: connection reset by peer\n" +
			"ERROR a failure: dial: connection refused\nERROR ours: unexpected EOF\n",
	} {
		var out bytes.Buffer
		ctx := (&loggingOptions{format: "text", verbosity: verbosity}).install(t.Context(), &out)
		klog.FromContext(ctx).Error(io.ErrUnexpectedEOF, "an end")
		klog.Background().WithName("x").WithValues("k", "v").Error(reset, "an end")
		klog.FromContext(ctx).Error(refused, "a failure")
		Logger(ctx).Error("ours", "error", io.ErrUnexpectedEOF)
		line := regexp.MustCompile(`.*level=(\S+) msg="?([^"=]+?)"?(?: k=v logger=x)? err(?:or)?="(.*)"`)
		if got := line.ReplaceAllString(out.String(), "$1 $2: $3"); got != want {
			t.Errorf("at verbosity %d:\n%s\nwant\n%s", verbosity, got, want)
		}
	}
}
