package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/brokers/jwt"
	kubernetesbroker "github.com/sallyport-sts/sallyport/brokers/kubernetes"
	"github.com/sallyport-sts/sallyport/sts/config"
)

// clusterTrust is what the flags say.
type clusterTrust struct {
	output string
	caFile string
	user   string
}

func newTrustKubernetes() *cobra.Command {
	var f clusterTrust
	c := &cobra.Command{
		Use:     "kubernetes TARGET [DIR]",
		Short:   "Print what makes a cluster trust this service for a target",
		Example: "sallyport trust kubernetes orders-cluster /etc/sallyport -o rbac | kubectl apply -f -",
		Long: `Print what makes a cluster trust this service for a target: the AuthenticationConfiguration of its API server, and the
role of this service, no wider than the target needs. It follows from the configuration directory (default: this one);
nothing is contacted or changed.

A target of the broker kubernetes logs in there to request tokens. A target of the broker jwt is for the API server
itself, which then takes our tokens for users that are named after workloads; their roles are yours to bind.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usagef("%s needs a target and at most a directory; for example: %s", c.CommandPath(), c.Example)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return trustKubernetes(c.OutOrStdout(), args[0], cmp.Or(strings.Join(args[1:], ""), "."), f)
		},
	}
	c.Flags().StringVarP(&f.output, "output", "o", "all", "what to print: authentication, rbac or all")
	c.Flags().StringVar(&f.caFile, "ca-file", "", "PEM of who signs this service's certificate, when it is no public authority")
	c.Flags().StringVar(&f.user, "user", "", "user that the API server takes our token for (kubectl auth whoami); default: what the token says")
	return c
}

// trustKubernetes prints the documents of a target.
func trustKubernetes(w io.Writer, target, dir string, f clusterTrust) error {
	if !slices.Contains([]string{"authentication", "rbac", "all"}, f.output) {
		return usagef("there is no output %q; choose authentication, rbac or all", f.output)
	}
	var ca []byte
	if f.caFile != "" {
		var err error
		if ca, err = os.ReadFile(f.caFile); err != nil {
			return fmt.Errorf("reading the certificate authority: %w", err)
		}
	}
	k, err := kinds()
	if err != nil {
		return err
	}
	set, err := config.Load(dir, k)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(set.Targets, func(t config.Target) bool { return t.Policy.Name == target })
	if i < 0 {
		return fmt.Errorf("%s has no target %s", visible(dir), visible(target))
	}
	trust, err := clusterTrustOf(set.Server.Issuer, set.Targets[i], string(ca), f.user)
	if err != nil {
		return err
	}
	var documents []string
	for _, d := range []struct{ name, text string }{{"authentication", trust.Authentication}, {"rbac", trust.RBAC}} {
		if d.text != "" && (f.output == "all" || f.output == d.name) {
			documents = append(documents, d.text)
		}
	}
	if len(documents) == 0 {
		return fmt.Errorf("target %s needs no %s; it is all in -o all", target, f.output)
	}
	_, err = io.WriteString(w, strings.Join(documents, "---\n"))
	return err
}

func clusterTrustOf(issuer string, t config.Target, ca, user string) (kubernetesbroker.Trust, error) {
	switch s := t.Settings.(type) {
	case *kubernetesbroker.Settings:
		scopes := map[string]kubernetesbroker.Scope{}
		for name, scope := range t.Scopes {
			scopes[name] = *scope.(*kubernetesbroker.Scope)
		}
		return kubernetesbroker.TrustBroker(issuer, t.Broker, *s, scopes, ca, user)
	case *jwt.Settings:
		return kubernetesbroker.TrustUsers(issuer, t.Policy.Name, jwt.Audience(t.Broker, *s), ca), nil
	default:
		return kubernetesbroker.Trust{}, fmt.Errorf("target %s is of the broker %s; a cluster is told of targets of the brokers kubernetes and jwt", t.Policy.Name, t.Kind.Name())
	}
}
