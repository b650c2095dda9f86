package main

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	awsbroker "github.com/sallyport-sts/sallyport/brokers/aws"
	azurebroker "github.com/sallyport-sts/sallyport/brokers/azure"
	gcpbroker "github.com/sallyport-sts/sallyport/brokers/gcp"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
	"github.com/sallyport-sts/sallyport/sts/config"
)

// clouds are the kinds of target whose other side is told in two forms.
var clouds = []struct {
	kind, short, long, example string
	trust                      func(issuer string, t config.Target) (upstream.Trust, error)
}{
	{
		"aws", "Print what makes an AWS account trust this service for a target",
		"the OIDC provider, the role with its trust policy,\nwhich names the target's subject and no other, and the revoker's role if there is one. What the role may do is yours to\nattach.", "orders-bucket",
		func(issuer string, t config.Target) (upstream.Trust, error) {
			return awsbroker.TrustOf(t.Broker, *t.Settings.(*awsbroker.Settings), issuer, int64(t.Policy.MaxLifetime/time.Second))
		},
	},
	{
		"gcp", "Print what makes a Google Cloud project trust this service for a target",
		"the workload identity pool and its provider, and\nthe binding that lets the target's subject, and no other, have tokens of the service account. What that may do is yours\nto bind.", "orders-storage",
		func(issuer string, t config.Target) (upstream.Trust, error) {
			return gcpbroker.TrustOf(t.Broker, *t.Settings.(*gcpbroker.Settings), issuer)
		},
	},
	{
		"azure", "Print what makes an Entra application trust this service for a target",
		"the federated credential of its application, which\nnames the target's subject and no other. What the application may do is yours to assign.", "pay-vault",
		func(issuer string, t config.Target) (upstream.Trust, error) {
			return azurebroker.TrustOf(t.Broker, *t.Settings.(*azurebroker.Settings), issuer)
		},
	},
}

func newTrustClouds() []*cobra.Command {
	var out []*cobra.Command
	for _, cloud := range clouds {
		var output string
		c := &cobra.Command{
			Use:     cloud.kind + " TARGET [DIR]",
			Short:   cloud.short,
			Example: "sallyport trust " + cloud.kind + " " + cloud.example + " /etc/sallyport",
			Long: cloud.short + ": " + cloud.long + `

It follows from the configuration directory (default: this one); nothing is contacted or changed.

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
				set, t, err := targetOf(cloud.kind, args[0], cmp.Or(strings.Join(args[1:], ""), "."))
				if err != nil {
					return err
				}
				trust, err := cloud.trust(set.Server.Issuer, t)
				if err != nil {
					return fmt.Errorf("trust %s: %w", cloud.kind, err)
				}
				if u, err := url.Parse(set.Server.Issuer); err != nil || u.Scheme != "https" || loopback(u.Hostname()) {
					fmt.Fprintf(c.ErrOrStderr(), "warning: the cloud reads our keys at the issuer, which is %s: it takes https, at a name that it reaches\n", visible(set.Server.Issuer))
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
		out = append(out, c)
	}
	return out
}
