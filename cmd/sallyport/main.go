// Command sallyport is the security token service, its client and its operator's tools in one binary.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	_ "time/tzdata" // conditions name time zones, and an image may have none

	"github.com/spf13/cobra"
)

// Exit codes, the same for every command.
const (
	exitDone        = 0
	exitFailed      = 1 // refused or failed
	exitUsage       = 2 // wrong usage
	exitUnreachable = 3 // the server could not be reached
)

// exitError carries an exit code with its message.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func unreachable(err error) error { return &exitError{exitUnreachable, err} }

func main() { os.Exit(run(asHelper(os.Args))) }

func run(args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		return exitDone
	}
	fmt.Fprintln(os.Stderr, "sallyport:", err)
	if coded := (*exitError)(nil); errors.As(err, &coded) {
		return coded.code
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "sallyport",
		Short: "A security token service: a workload's identity token in, a minutes-lived credential out",
		Long: `Sallyport verifies the identity token that a platform gave a workload, decides by policy, and mints
a credential that lives minutes (RFC 8693). Door one asks who you are; door two asks what you may have.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 server unreachable.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSuchCommand,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.Version = versionName() // --version says what the command version says
	root.SetVersionTemplate(versionLine())
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{.Example}}", "  {{.Example}}", 1)) // as its other lines are
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w; see: %s --help", err, c.CommandPath())
	})
	root.AddCommand(
		newServe(), newDemo(), newInit(), newCheck(), newPolicy(), newSchema(),
		newExchange(), newGitCredential(), newDockerCredential(), newIntrospect(), newRevoke(), newLock(), newUnlock(), newLocks(), newDrill(), newApprove(),
		newExplain(), newReach(), newLeases(), newKeys(), newTrust(), newAudit(), newStatus(), newVersion(),
	)
	return root
}

// noSuchCommand is cobra.NoArgs for commands that only have subcommands, with our exit code.
func noSuchCommand(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unknown command %q; see: %s --help", args[0], c.CommandPath())
	}
	return nil
}

// exactArgs is cobra.ExactArgs with our exit code and a hint.
func exactArgs(n int, hint string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("%s needs %s; for example: %s", c.CommandPath(), hint, c.Example)
		}
		return nil
	}
}
