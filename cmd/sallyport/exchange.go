package main

import (
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func newExchange() *cobra.Command {
	var a ask
	var output, to string
	c := &cobra.Command{
		Use:   "exchange",
		Short: "Exchange a workload's identity token for a credential",
		Example: `sallyport exchange --server https://sts.example --audience orders --subject-token-file /var/run/secrets/tokens/sallyport
  sallyport exchange --server https://sts.example --audience orders --scope read -o json < token
  sallyport exchange --server https://sts.example --audience orders --subject-token-file received.jwt --actor-token-file own.jwt
  sallyport exchange --server https://sts.example --audience orders-db -o pgpass --to ~/.pgpass-orders < token`,
		Long: `Exchange a workload's identity token for a credential (RFC 8693).

-o says how it is written. token: what access_token says, which is also what revokes it. json: the whole answer. env: for
eval, under the names that the vendors' clients read (PGHOST ..., VAULT_TOKEN, REDIS_URL, SALLYPORT_TOKEN). pgpass: a line for
PGPASSFILE. pgservice: the service sallyport of a file for PGSERVICEFILE. mysql: a file for --defaults-extra-file. kubectl: what
kubectl reads from an exec plugin. aws: what the AWS SDKs and CLI read from credential_process. gcp: what Google's libraries read
from an executable.

--cache keeps the credential on disk until shortly before its end, under a key that is derived from the identity token: another
identity finds nothing there. A credential that is revoked stays there until its end; whoever is refused asks without --cache.

With --actor-token-file the credential is for the subject, and says that the actor acts for it; a rule has to
allow that actor to act.`,
		Args: exactArgs(0, "no argument: tokens come from a file or standard input"),
		RunE: func(c *cobra.Command, _ []string) error {
			if !slices.Contains(formNames(), output) {
				return usagef("-o %s is not a form; choose one of %s", output, strings.Join(formNames(), ", "))
			}
			out, err := a.obtain(c.Context(), c.InOrStdin())
			if err != nil {
				return failed(c.OutOrStdout(), output, err)
			}
			if to != "" {
				err = writeFile(to, func(w io.Writer) error { return printCredential(w, output, out) })
			} else {
				err = printCredential(c.OutOrStdout(), output, out)
			}
			if wrong := (*unfit)(nil); errors.As(err, &wrong) {
				return a.giveBack(c.Context(), out, err)
			}
			return err
		},
	}
	a.flags(c)
	f := c.Flags()
	f.StringVarP(&output, "output", "o", "token", strings.Join(formNames(), " | "))
	f.StringVar(&to, "to", "", "file to write to instead of standard output, for its owner alone, in the place of what is there")
	return c
}
