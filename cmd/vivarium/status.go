package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"vivarium.io/vivarium/internal/boot"
	"vivarium.io/vivarium/internal/localcluster"
)

func newStatusCommand() *cobra.Command {
	var runDir, output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what of the local system runs",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			instance, err := localcluster.Open(runDir)
			if err != nil {
				return err
			}
			status := instance.Status()
			return write(cmd.OutOrStdout(), output, status, func(w io.Writer) { printStatus(w, status) })
		},
	}
	runDirFlag(cmd.Flags(), &runDir)
	outputFlag(cmd, &output)
	return cmd
}

func printStatus(w io.Writer, status localcluster.Status) {
	fmt.Fprintf(w, "directory\t%s\nfirst port\t%d\nKubernetes\t%s\n", status.RunDir, status.PortBase, status.Kubernetes)
	fmt.Fprintln(w, "\nPOOL\tNODES\tKIND\tKUBECONFIG")
	for _, pool := range status.Pools {
		kind := "real"
		if pool.Simulated {
			kind = "simulated"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", pool.Name, pool.Nodes, kind, pool.Kubeconfig)
	}
	fmt.Fprintln(w, "\nPROCESS\tSTATE\tPID\tLOG")
	for _, p := range status.Processes {
		state := "running"
		if !p.Running {
			state = "DEAD"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", p.Name, state, p.PID, p.Log)
	}
	if !status.Running {
		fmt.Fprintln(w, "\nnot everything runs; `vivarium up` starts what is missing")
	}
}

func newDoctorCommand() *cobra.Command {
	var runDir, output string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps the local system from working, and say what to do",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			problems, err := localcluster.Doctor(cmd.Context(), runDir)
			if err != nil {
				return err
			}
			err = write(cmd.OutOrStdout(), output, problems, func(w io.Writer) {
				for _, problem := range problems {
					fmt.Fprintf(w, "%s: %s\n", problem.What, problem.Remedy)
				}
				if len(problems) == 0 {
					fmt.Fprintln(w, "no problem found")
				}
			})
			if err == nil && len(problems) > 0 {
				err = errors.New("there are problems")
			}
			return err
		},
	}
	runDirFlag(cmd.Flags(), &runDir)
	outputFlag(cmd, &output)
	return cmd
}

func newVersionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program and of the Kubernetes it runs locally",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			versions := struct {
				Vivarium   string `json:"vivarium"`
				Kubernetes string `json:"kubernetes,omitempty"`
			}{Vivarium: boot.Version()}
			// Outside of a checkout there is no local Kubernetes to speak of.
			if source, err := localcluster.FindSource(); err == nil {
				binaries, err := localcluster.OpenBinaries(source)
				if err != nil {
					return err
				}
				versions.Kubernetes = binaries.Version()
			}
			return write(cmd.OutOrStdout(), output, versions, func(w io.Writer) {
				fmt.Fprintf(w, "vivarium\t%s\n", versions.Vivarium)
				if versions.Kubernetes != "" {
					fmt.Fprintf(w, "kubernetes\t%s\n", versions.Kubernetes)
				}
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "", "Output format: json or yaml; a table for people unless given.")
}

// write prints a value for scripts, or calls table to print it for people.
func write(w io.Writer, format string, value any, table func(io.Writer)) error {
	switch format {
	case "":
		out := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		table(out)
		return out.Flush()
	case "json":
		out := json.NewEncoder(w)
		out.SetIndent("", "  ")
		return out.Encode(value)
	case "yaml":
		raw, err := yaml.Marshal(value)
		if err != nil {
			return err
		}
		_, err = w.Write(raw)
		return err
	default:
		return usageError{fmt.Errorf("--output: %q is neither json nor yaml", format)}
	}
}
