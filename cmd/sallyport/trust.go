package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/brokers/vault"
	"github.com/sallyport-sts/sallyport/sts/config"
)

func newTrust() *cobra.Command {
	c := &cobra.Command{
		Use:   "trust",
		Short: "Print what to tell others, so that they trust this service for a target and no further",
		Args:  noSuchCommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(append(newTrustClouds(), newTrustKubernetes(), newTrustVault(), newTrustWithdraw())...)
	return c
}

func newTrustVault() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:     "vault TARGET [DIR]",
		Short:   "Print the commands that make Vault trust this service for a target",
		Example: "sallyport trust vault orders-db /etc/sallyport",
		Long: `Print the commands that make Vault or OpenBao trust this service for a target: the auth mount, the roles with what they
are bound to, and the policies, also that of the revoker. They follow from the configuration directory (default: this
one); nothing is contacted or changed. Read them, then run them with the token of an administrator.

-o curl prints them for a machine that has curl and not the vault command.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usagef("%s needs a target and at most a directory; for example: %s", c.CommandPath(), c.Example)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if output != "vault" && output != "curl" {
				return usagef("there is no output %q; choose vault or curl", output)
			}
			set, t, err := targetOf("vault", args[0], cmp.Or(strings.Join(args[1:], ""), "."))
			if err != nil {
				return err
			}
			domains := t.Policy.GrantableTo
			if domains == nil {
				domains = set.TrustDomains
			}
			commands, err := vault.Trust(t.Broker, t.Settings, t.Scopes, set.Server.Issuer, domains)
			if err != nil {
				return err
			}
			return writeVault(c.OutOrStdout(), output, t.Settings.(*vault.Settings), commands)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "vault", "for which program: vault or curl")
	return c
}

// targetOf loads the configuration and finds a target of a kind in it.
func targetOf(kind, name, dir string) (*config.Set, config.Target, error) {
	k, err := kinds()
	if err != nil {
		return nil, config.Target{}, err
	}
	set, err := config.Load(dir, k)
	if err != nil {
		return nil, config.Target{}, err
	}
	var others []string
	for _, t := range set.Targets {
		switch {
		case t.Policy.Name == name && t.Kind.Name() == kind:
			return set, t, nil
		case t.Policy.Name == name:
			return nil, config.Target{}, fmt.Errorf("target %s is of the broker %s, not %s", name, t.Kind.Name(), kind)
		case t.Kind.Name() == kind:
			others = append(others, t.Policy.Name)
		}
	}
	slices.Sort(others)
	return nil, config.Target{}, fmt.Errorf("%s has no target %s; of the broker %s there are: %s", visible(dir), visible(name), kind, cmp.Or(strings.Join(others, ", "), "none"))
}

func writeVault(w io.Writer, output string, s *vault.Settings, commands []vault.Command) error {
	var b strings.Builder
	fmt.Fprintf(&b, "export VAULT_ADDR=%s\n", s.Address)
	if s.Namespace != "" {
		fmt.Fprintf(&b, "export VAULT_NAMESPACE=%s\n", s.Namespace)
	}
	if output == "curl" {
		b.WriteString(vault.CurlHeaders)
	}
	for _, c := range commands {
		b.WriteByte('\n')
		if output == "curl" {
			b.WriteString(c.Curl())
		} else {
			b.WriteString(c.CLI())
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
