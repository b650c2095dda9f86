package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/sts/config"
)

func newInit() *cobra.Command {
	return &cobra.Command{
		Use:     "init DIR",
		Short:   "Write a commented starter configuration that runs as it is",
		Example: "sallyport init ./sallyport && sallyport serve ./sallyport",
		Args:    exactArgs(1, "the directory to write to"),
		RunE: func(c *cobra.Command, args []string) error {
			files, err := config.Init(args[0])
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			for _, f := range files {
				if _, err := fmt.Fprintln(w, "wrote", f); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(w, "\nnext:  sallyport check %s\n       sallyport serve %s\n", args[0], args[0])
			return err
		},
	}
}

func newCheck() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:     "check DIR",
		Short:   "Validate a configuration directory: file:line for every problem, no side effects",
		Example: "sallyport check /etc/sallyport",
		Args:    exactArgs(1, "the configuration directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			k, err := kinds()
			if err != nil {
				return err
			}
			set, err := config.Load(args[0], k)
			if problems := (config.Problems)(nil); errors.As(err, &problems) {
				if output == "json" {
					if err := writeIndented(c.OutOrStdout(), map[string]any{"ok": false, "problems": problemsForMachines(problems)}); err != nil {
						return err
					}
				} else {
					fmt.Fprintln(c.OutOrStdout(), problems.Error())
				}
				return fmt.Errorf("%s; nothing would start from %s", count(len(problems), "problem"), args[0])
			}
			if err == nil {
				err = checkKeyEncryptionKey(args[0], set.Server)
			}
			if err != nil {
				return err
			}
			warnings := certificateWarnings(set.Server, time.Now())
			for _, w := range warnings {
				fmt.Fprintln(c.ErrOrStderr(), "warning: "+w)
			}
			if output == "json" {
				return writeIndented(c.OutOrStdout(), map[string]any{"ok": true, "config": set.Hash, "issuers": len(set.Issuers), "targets": len(set.Targets), "warnings": append([]string{}, warnings...)})
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s  %s, %s, configuration %s\n",
				paint(c.OutOrStdout(), green, "ok"), count(len(set.Issuers), "issuer"), count(len(set.Targets), "target"), set.Hash)
			return err
		},
	}
	outputFlag(c, &output)
	return c
}

// problem is a config.Problem as -o json shows it.
type problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Path    string `json:"path"`
	Message string `json:"message"`
}

func problemsForMachines(ps config.Problems) []problem {
	out := make([]problem, len(ps))
	for i, p := range ps {
		out[i] = problem(p)
	}
	return out
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func newSchema() *cobra.Command {
	return &cobra.Command{
		Use:     "schema DIR",
		Short:   "Write the JSON Schemas of the configuration files, for editors, and of credentials",
		Example: "sallyport schema ./schema",
		Args:    exactArgs(1, "the directory to write to"),
		RunE: func(c *cobra.Command, args []string) error {
			k, err := kinds()
			if err != nil {
				return err
			}
			schemas, err := config.Schemas(k)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			for _, name := range slices.Sorted(maps.Keys(schemas)) {
				path := filepath.Join(args[0], name+".json")
				if err := os.WriteFile(path, schemas[name], 0o644); err != nil {
					return err
				}
				fmt.Fprintln(c.OutOrStdout(), "wrote", path)
			}
			credentials, err := config.CredentialSchemas(k.Brokers)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Join(args[0], "credential"), 0o755); err != nil {
				return err
			}
			for _, name := range slices.Sorted(maps.Keys(credentials)) {
				path := filepath.Join(args[0], "credential", name+".json")
				if err := os.WriteFile(path, credentials[name], 0o644); err != nil {
					return err
				}
				fmt.Fprintln(c.OutOrStdout(), "wrote", path)
			}
			return nil
		},
	}
}
