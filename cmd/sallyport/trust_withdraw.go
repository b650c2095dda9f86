package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	awsbroker "github.com/sallyport-sts/sallyport/brokers/aws"
	azurebroker "github.com/sallyport-sts/sallyport/brokers/azure"
	gcpbroker "github.com/sallyport-sts/sallyport/brokers/gcp"
	githubbroker "github.com/sallyport-sts/sallyport/brokers/github"
	"github.com/sallyport-sts/sallyport/brokers/jwt"
	kubernetesbroker "github.com/sallyport-sts/sallyport/brokers/kubernetes"
	"github.com/sallyport-sts/sallyport/brokers/vault"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/config"
)

func newTrustWithdraw() *cobra.Command {
	c := &cobra.Command{
		Use:     "withdraw [DIR]",
		Short:   "Print the commands that end everybody's trust in this service, for the day its signing key is stolen",
		Example: "sallyport trust withdraw /etc/sallyport",
		Long: `Print, target by target, the commands that end what others accept because this service's signing keys vouch for it. They
follow from the configuration directory (default: this one); nothing is contacted or changed. First run

  sallyport keys rotate --compromised DIR

which is enough where a key set is read again by itself. These commands are for whoever keeps it longer, and for what a
thief of the key has obtained already. Trust comes back with sallyport trust aws|azure|gcp|kubernetes|vault TARGET.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%s needs at most a directory; for example: %s", c.CommandPath(), c.Example)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			dir := cmp.Or(strings.Join(args, ""), ".")
			k, err := kinds()
			if err != nil {
				return err
			}
			set, err := config.Load(dir, k)
			if err != nil {
				return err
			}
			_, err = io.WriteString(c.OutOrStdout(), withdrawal(set, dir))
			return err
		},
	}
	return c
}

// withdrawal is a section for each target whose other side believes our keys; what several have in common is said once.
func withdrawal(set *config.Set, dir string) string {
	issuer := set.Server.Issuer
	var order []string
	targets := map[string][]string{} // by what is to be done
	for _, t := range set.Targets {
		text := ""
		switch s := t.Settings.(type) {
		case *vault.Settings:
			text = vault.Withdraw(*s)
		case *kubernetesbroker.Settings:
			text = kubernetesbroker.Withdraw(*s, issuer, t.Policy.Name, dir)
		case *awsbroker.Settings:
			text = awsbroker.Withdraw(*s, issuer)
		case *azurebroker.Settings:
			text = azurebroker.Withdraw(*s, t.Policy.Name)
		case *gcpbroker.Settings:
			text = gcpbroker.Withdraw(*s)
		case *githubbroker.Settings: // believes its App's key, not ours
			text = fmt.Sprintf("# A thief of this host may have the App's key %s: make a new one in the App's settings and delete the old one;\n# or suspend the installation: gh api -X PUT /app/installations/%d/suspended\n", s.App, s.Installation)
		case *jwt.Settings:
			if t.Policy.Name == sts.IntrospectionTarget {
				continue
			}
			text = fmt.Sprintf("# Verifiers of %s read %s/jwks again within five minutes, if they heed its Cache-Control.\n# Restart those that may not, or let them introspect.\n", jwt.Audience(t.Broker, *s), issuer)
		}
		if text == "" {
			continue // logs in by itself: a database, a Redis
		}
		if targets[text] == nil {
			order = append(order, text)
		}
		targets[text] = append(targets[text], t.Policy.Name)
	}
	var b strings.Builder
	for _, text := range order {
		fmt.Fprintf(&b, "# --- %s\n%s\n", strings.Join(targets[text], ", "), text)
	}
	if len(order) == 0 {
		b.WriteString("# No target's other side believes the keys of this service.\n")
	}
	b.WriteString(`# --- what was exchanged from tokens of the stolen key, forged ones too: logins, leases, tokens
# KID: the alarm names it, sallyport keys rotate printed it, and sallyport audit show --type keys has it. This kills all that it signed:
# resource servers need a new token to introspect with as well.
sallyport revoke signing_key=KID --reason 'signing key stolen'
`)
	return b.String()
}
