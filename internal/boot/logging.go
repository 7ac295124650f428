package boot

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

type loggingOptions struct {
	format    string
	verbosity int
}

func (o *loggingOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.format, "log-format", o.format, "Format of log lines: text or json.")
	flags.IntVarP(&o.verbosity, "v", "v", o.verbosity, "Log verbosity: 0 is what an operator acts on, 1 and up what a developer follows.")
}

func (o *loggingOptions) validate() []error {
	var problems []error
	if o.format != "text" && o.format != "json" {
		problems = append(problems, fmt.Errorf("--log-format: %q is neither text nor json", o.format))
	}
	if o.verbosity < 0 {
		problems = append(problems, fmt.Errorf("--v: %d is negative", o.verbosity))
	}
	return problems
}

// install makes one slog handler and feeds every logging library in the process from it: slog, logr (through the
// returned context), klog and controller-runtime.
func (o *loggingOptions) install(ctx context.Context, w io.Writer) context.Context {
	// logr's verbosity n is slog's level -n.
	options := &slog.HandlerOptions{Level: slog.Level(-o.verbosity)}
	var handler slog.Handler = slog.NewTextHandler(w, options)
	if o.format == "json" {
		handler = slog.NewJSONHandler(w, options)
	}
	logger := logr.FromSlogHandler(quiet{handler})
	slog.SetDefault(slog.New(handler))
	klog.SetLoggerWithOptions(logger, klog.ContextualLogger(true))
	ctrllog.SetLogger(logger)
	return logr.NewContext(logr.NewContextWithSlogLogger(ctx, slog.New(handler)), logger)
}

// Logger gives the logger of ctx; slog's default where there is none.
func Logger(ctx context.Context) *slog.Logger {
	if logger := logr.FromContextAsSlogLogger(ctx); logger != nil {
		// We mean what we call an error.
		if ours, ok := logger.Handler().(quiet); ok {
			return slog.New(ours.Handler)
		}
		return logger
	}
	return slog.Default()
}
