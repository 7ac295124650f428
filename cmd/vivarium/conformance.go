package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"vivarium.io/vivarium/charts"
	"vivarium.io/vivarium/internal/conformance"
	"vivarium.io/vivarium/internal/localcluster"
)

func newConformanceCommand() *cobra.Command {
	c := &conformanceCommand{}
	cmd := &cobra.Command{
		Use:   "conformance",
		Short: "Run Kubernetes' own end-to-end suite through a tenant of the local system",
		Long: `Run Kubernetes' own end-to-end suite through a tenant of the local system, which is started where it does not run. With
NETWORK=vxlan the tenant, where it is made, is given a VPC.
The suite is built once, which takes minutes. Log, JUnit file and a page with the counts and every failure go to the
directory of artifacts.`,
		Args: noArgs,
		RunE: c.run,
	}
	flags := cmd.Flags()
	c.up.add(flags)
	flags.StringVar(&c.tenant, "tenant", setting("TENANT", "suite1"), "Tenant to run as; made where there is none. [$TENANT]")
	flags.StringVar(&c.focus, "focus", setting("FOCUS", conformance.Focus), "Pattern of the names of specs to run. [$FOCUS]")
	flags.StringVar(&c.skip, "skip", setting("SKIP", conformance.Skip), "Pattern of the names of specs not to run. [$SKIP]")
	c.pools = numberSetting{variable: "POOLS"}
	flags.StringVar(&c.pools.text, "pools", setting("POOLS", fmt.Sprint(localcluster.DefaultPools)), "Pool clusters to start at least. [$POOLS]")
	c.parallel = numberSetting{variable: "PARALLEL"}
	flags.StringVar(&c.parallel.text, "parallel", setting("PARALLEL", "1"), "Specs that run at once. [$PARALLEL]")
	flags.StringVar(&c.artifacts, "artifacts", setting("ARTIFACTS", "_artifacts"), "Directory for what a run leaves. [$ARTIFACTS]")
	flags.StringVar(&c.page, "page", "", "File to write the page to as well.")
	flags.StringVar(&c.from, "from", "", "JUnit file of an earlier run to make the page from, instead of running.")
	flags.BoolVar(&c.list, "list", false, "Only tell which specs would run.")
	return cmd
}

type conformanceCommand struct {
	up                    upFlags
	tenant, focus, skip   string
	artifacts, page, from string
	pools, parallel       numberSetting
	list                  bool
}

func (c *conformanceCommand) run(cmd *cobra.Command, _ []string) error {
	source, err := localcluster.FindSource()
	if err != nil {
		return err
	}
	suite, err := localcluster.OpenSuite(source)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(filepath.Join(source, "hack", "conformance", "reasons.yaml"))
	if err != nil {
		return fmt.Errorf("read the reasons of failures: %w", err)
	}
	reasons, err := conformance.ParseReasons(raw)
	if err != nil {
		return err
	}
	progress := localcluster.NewProgress(cmd.OutOrStdout())
	dir := filepath.Join(c.artifacts, "conformance")
	var results *conformance.Results
	if c.from != "" {
		results, err = readResults(c.from)
	} else {
		results, err = c.runSuite(cmd, source, dir, suite, progress)
	}
	if err != nil || c.list {
		return err
	}
	pages := []string{filepath.Join(dir, "conformance.md")}
	if c.page != "" {
		pages = append(pages, c.page)
	}
	about := conformance.About{Version: suite.Version(), Nodes: "local clusters (`make up`)"}
	if c.up.network == "vxlan" {
		about.Nodes = "local clusters (`NETWORK=vxlan make up`), as a tenant in a VPC"
	}
	for _, page := range pages {
		if err := writePage(page, results, about, reasons); err != nil {
			return err
		}
	}
	return c.judge(results, reasons, pages, progress)
}

// runSuite builds what is missing, starts what does not run, brings the images to the nodes and runs the suite.
func (c *conformanceCommand) runSuite(cmd *cobra.Command, source, dir string, suite *localcluster.Binaries, progress *localcluster.Progress) (*conformance.Results, error) {
	ctx := cmd.Context()
	config := conformance.Config{Suite: suite, Focus: c.focus, Skip: c.skip, DryRun: c.list, Progress: progress}
	var err error
	if config.Parallel, err = c.parallel.value(); err != nil {
		return nil, err
	}
	if config.Dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if config.Kubernetes, err = localcluster.OpenBinaries(source); err != nil {
		return nil, err
	}
	for _, binaries := range []*localcluster.Binaries{config.Kubernetes, suite} {
		if err := binaries.Build(ctx, progress); err != nil {
			return nil, err
		}
	}
	if c.list {
		config.Progress = nil
		return c.listSpecs(cmd, config)
	}
	up, err := c.up.config(cmd)
	if err != nil {
		return nil, err
	}
	if up.Pools, err = c.pools.value(); err != nil {
		return nil, err
	}
	up.Components, up.Tenants = true, []string{c.tenant}
	if up.Network == "vxlan" {
		up.TenantFlags = []string{"--vpc-cidr=10.0.0.0/16"}
	}
	if up.Manifests, err = charts.ControlManifests(); err != nil {
		return nil, err
	}
	if err := localcluster.Up(ctx, up); err != nil {
		return nil, err
	}
	instance, err := localcluster.Open(up.RunDir)
	if err != nil {
		return nil, err
	}
	if config.Kubeconfig, err = filepath.Abs(instance.TenantKubeconfig(c.tenant)); err != nil {
		return nil, err
	}
	if err := loadSuiteImages(cmd, source, suite, instance, progress); err != nil {
		return nil, err
	}
	var results *conformance.Results
	err = progress.Step("the suite; its log is "+filepath.Join(dir, conformance.LogFile), func() error {
		results, err = conformance.Run(ctx, config)
		return err
	})
	return results, err
}

func (c *conformanceCommand) listSpecs(cmd *cobra.Command, config conformance.Config) (*conformance.Results, error) {
	results, err := conformance.Run(cmd.Context(), config)
	if err != nil {
		return nil, err
	}
	for _, spec := range results.Specs {
		if spec.State == conformance.Passed {
			fmt.Fprintln(cmd.OutOrStdout(), spec.Name)
		}
	}
	return results, nil
}

func loadSuiteImages(cmd *cobra.Command, source string, suite *localcluster.Binaries, instance *localcluster.Instance, progress *localcluster.Progress) error {
	archives, err := localcluster.BuildSuiteImages(cmd.Context(), source, suite, progress)
	if err != nil {
		return err
	}
	var paths []string
	for _, archive := range archives {
		paths = append(paths, archive.Path)
	}
	err = progress.Step("images", func() error { return instance.Load(cmd.Context(), paths, nil) })
	if errors.Is(err, localcluster.ErrSimulated) {
		progress.Say("the nodes are SIMULATED: no container of the suite runs, and specs that look into one fail")
		return nil
	}
	return err
}

func readResults(path string) (*conformance.Results, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return conformance.Parse(f)
}

func writePage(path string, results *conformance.Results, about conformance.About, reasons conformance.Reasons) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return errors.Join(results.Markdown(f, about, reasons), f.Close())
}

// judge tells how the run went. Failures that have a known reason are no error.
func (c *conformanceCommand) judge(results *conformance.Results, reasons conformance.Reasons, pages []string, progress *localcluster.Progress) error {
	count := results.Counts(func(conformance.Spec) bool { return true })
	progress.Say("%d passed, %d failed, %d skipped by themselves; see %s",
		count[conformance.Passed], count[conformance.Failed], count[conformance.Skipped], strings.Join(pages, ", "))
	for _, reason := range reasons.Stale(results) {
		progress.Say("hack/conformance/reasons.yaml: %q fails no more", reason.Specs)
	}
	unexplained := reasons.Unexplained(results)
	if len(unexplained) == 0 {
		return nil
	}
	for _, spec := range unexplained {
		progress.Say("FAILED %s", spec.Name)
	}
	return fmt.Errorf("%d specs failed for no known reason", len(unexplained))
}
