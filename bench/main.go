package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"vivarium.io/vivarium/internal/localcluster"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == proxyCommand {
		exit(runProxy(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == vpcNodeCommand {
		exit(runVPCNode(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func exit(err error) {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// command is one run: it measures and writes a report, or renders one that was written before.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	c := config{}
	scaleName := flags.String("scale", "default", "How large: "+strings.Join(scaleNames(), ", ")+". Flags below win over it.")
	flags.StringVar(&c.gateway, "gateway", "bin/gateway", "The built gateway.")
	flags.StringVar(&c.provider, "vk-provider", "bin/vk-provider", "The built vk-provider.")
	flags.StringVar(&c.programs, "programs", "bin", "The directory of the other built programs, which the parts about VPCs need.")
	flags.IntVar(&c.portBase, "port-base", 18000, "The first port of the whole system that part "+vpcPart+"-containers starts.")
	flags.StringVar(&c.beside, "beside", "", "Another built gateway, which gets a lane of its own: two builds compared in one run.")
	flags.StringVar(&c.gatewayVersion, "version", "unknown", "What to call the version of both in the report.")
	flags.StringVar(&c.only, "only", "", "Regular expression: measure only the parts whose name matches; the vk-provider's is "+podsPart+", those of VPCs begin with "+vpcPart+".")
	flags.BoolVar(&c.keep, "keep", false, "Keep the processes' files and say where they are.")
	file := flags.String("json", "", "Write the report to this file.")
	render := flags.String("render", "", "Do not measure: read the report in this file.")
	with := flags.String("with", "", "Take what was not measured from the report in this file.")
	markdown := flags.String("markdown", "", "Write the report as a page of the documentation to this file.")
	c.scale.flags(flags)
	// The scale sets what the flags start from, so it has to be known before they are read.
	chosen := scaleOf(args)
	base, ok := scales[chosen]
	if !ok {
		return fmt.Errorf("-scale %s: is not one of %s", chosen, strings.Join(scaleNames(), ", "))
	}
	c.scale = base
	if err := flags.Parse(args); err != nil {
		return err
	}
	c.scale.Name = *scaleName
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is not a flag", flags.Arg(0))
	}
	var report *Report
	var err error
	if *render != "" {
		report, err = readReport(*render)
	} else {
		c.progress = localcluster.NewProgress(stderr)
		report, err = run(ctx, c)
	}
	if err != nil {
		return err
	}
	if *with != "" {
		other, err := readReport(*with)
		if err != nil {
			return err
		}
		report = report.with(other)
	}
	if *file != "" {
		if err := writeReport(*file, report); err != nil {
			return err
		}
	}
	if *markdown != "" {
		return os.WriteFile(*markdown, []byte(report.markdown()), 0o644)
	}
	_, err = io.WriteString(stdout, report.text())
	return err
}

// scaleOf finds the scale among the arguments, before they are parsed.
func scaleOf(args []string) string {
	for i, arg := range args {
		name, value, has := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case name != "scale" || arg == name:
		case has:
			return value
		case i+1 < len(args):
			return args[i+1]
		}
	}
	return "default"
}

func readReport(file string) (*Report, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	report := &Report{}
	if err := json.Unmarshal(raw, report); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return report, nil
}

func writeReport(file string, report *Report) error {
	raw, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append(raw, '\n'), 0o644)
}
