// Package boot starts a program: flags and their config file, signals, one logger for every library, the health and
// metrics listener, and the exit code. It must never know what the program does.
//
// Start at [Main].
package boot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	"sigs.k8s.io/yaml"
)

// Options is what a component shows of itself at start. Implementations own their defaults and never dial.
type Options interface {
	// AddFlags registers the flags, grouped under the names that --help prints them by.
	AddFlags(groups *cliflag.NamedFlagSets)
	// Validate reports every problem at once, each naming its flag.
	Validate() []error
}

// Component is one program.
type Component struct {
	// Name is the program's name and its logger's.
	Name string
	// Short says in a sentence what it is for.
	Short string
	// Options are filled from flags and the config file before Run is called.
	Options Options
	// Run blocks until ctx is done and returns nil on a clean stop. It reports readiness through health.
	Run func(ctx context.Context, health *Health) error
}

// Main runs the component until a signal or an error ends it, then exits: 0 on a clean stop, 1 on an error, 2 on wrong
// usage.
func Main(c Component) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := Command(c).ExecuteContext(ctx)
	stop()
	var usage usageError
	switch {
	case err == nil:
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "%s: %v\n", c.Name, err)
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "%s: %v\n", c.Name, err)
		os.Exit(1)
	}
}

type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Command is the component as a command; Main executes it. It is exported for tests.
func Command(c Component) *cobra.Command {
	var (
		groups     cliflag.NamedFlagSets
		logging    = loggingOptions{format: "text"}
		health     = "127.0.0.1:0"
		configFile string
	)
	cmd := &cobra.Command{
		Use:           c.Name,
		Short:         c.Short,
		Long:          c.Short,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       Version(),
	}
	c.Options.AddFlags(&groups)
	general := groups.FlagSet("general")
	general.StringVar(&configFile, "config", "", "YAML file with a key for each flag, without the dashes; flags given on the command line win.")
	general.StringVar(&health, "health-listen", health, "Address that serves /livez, /readyz and /metrics.")
	logging.addFlags(general)
	for _, name := range groups.Order {
		cmd.Flags().AddFlagSet(groups.FlagSets[name])
	}
	cliflag.SetUsageAndHelpFunc(cmd, groups, 0)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })

	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if configFile != "" {
			if err := applyConfig(cmd.Flags(), configFile); err != nil {
				return usageError{err}
			}
		}
		problems := append(c.Options.Validate(), logging.validate()...)
		if len(problems) > 0 {
			return usageError{errors.Join(problems...)}
		}
		ctx := logging.install(cmd.Context(), os.Stderr)
		return run(ctx, c, health)
	}
	return cmd
}

func run(ctx context.Context, c Component, healthAddr string) error {
	health := newHealth()
	listener, err := net.Listen("tcp", healthAddr)
	if err != nil {
		return fmt.Errorf("--health-listen: %w", err)
	}
	defer health.serve(listener)()
	return c.Run(ctx, health)
}

// applyConfig sets every flag that the file names and the command line does not.
func applyConfig(flags *pflag.FlagSet, file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	values := map[string]any{}
	if err := yaml.UnmarshalStrict(raw, &values); err != nil {
		return fmt.Errorf("--config %s: %w", file, err)
	}
	var problems []error
	for name, value := range values {
		flag := flags.Lookup(name)
		switch {
		case flag == nil || name == "config":
			problems = append(problems, fmt.Errorf("--config %s: %q is not a flag", file, name))
		case flag.Changed:
		default:
			if err := flags.Set(name, flagText(value)); err != nil {
				problems = append(problems, fmt.Errorf("--config %s: %s: %w", file, name, err))
			}
		}
	}
	return errors.Join(problems...)
}

// flagText spells a YAML value as the command line would.
func flagText(value any) string {
	list, ok := value.([]any)
	if !ok {
		return fmt.Sprint(value)
	}
	items := make([]string, len(list))
	for i := range list {
		items[i] = fmt.Sprint(list[i])
	}
	return strings.Join(items, ",")
}
