package main

import (
	"cmp"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	awsbroker "github.com/sallyport-sts/sallyport/brokers/aws"
)

func newTrustAWS() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:     "aws TARGET [DIR]",
		Short:   "Print what makes an AWS account trust this service for a target",
		Example: "sallyport trust aws orders-bucket /etc/sallyport",
		Long: `Print what makes an AWS account trust this service for a target: the OIDC provider, and the role with its trust policy,
which names the target's subject and no other. It follows from the configuration directory (default: this one); nothing
is contacted or changed. What the role may do is yours to attach.

-o terraform prints it as Terraform.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usagef("%s needs a target and at most a directory; for example: %s", c.CommandPath(), c.Example)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if output != "cli" && output != "terraform" {
				return usagef("there is no output %q; choose cli or terraform", output)
			}
			set, t, err := targetOf("aws", args[0], cmp.Or(strings.Join(args[1:], ""), "."))
			if err != nil {
				return err
			}
			trust, err := awsbroker.TrustOf(t.Broker, *t.Settings.(*awsbroker.Settings), set.Server.Issuer, int64(t.Policy.MaxLifetime/time.Second))
			if err != nil {
				return err
			}
			text := trust.CLI
			if output == "terraform" {
				text = trust.Terraform
			}
			_, err = io.WriteString(c.OutOrStdout(), text)
			return err
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "cli", "for which program: cli or terraform")
	return c
}
