package main

import (
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/zitadel/oidc/v3/pkg/client/tokenexchange"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

func newExchange() *cobra.Command {
	var s server
	var audience, resource, tokenFile, actorFile, output, to, form string
	var scopes []string
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
PGPASSFILE. mysql: a file for --defaults-extra-file. kubectl: what kubectl reads from an exec plugin.

With --actor-token-file the credential is for the subject, and says that the actor acts for it; a rule has to
allow that actor to act.`,
		Args: exactArgs(0, "no argument: tokens come from a file or standard input"),
		RunE: func(c *cobra.Command, _ []string) error {
			if (audience == "") == (resource == "") {
				return usagef("name the target with --audience NAME or --resource URI, not with both")
			}
			if !slices.Contains(formNames(), output) {
				return usagef("-o %s is not a form; choose one of %s", output, strings.Join(formNames(), ", "))
			}
			hc, err := s.connect()
			if err != nil {
				return err
			}
			token, err := readToken(c.InOrStdin(), tokenFile, "--subject-token-file")
			if err != nil {
				return err
			}
			var actor string
			var actorType oidc.TokenType
			if actorFile != "" {
				if actorFile == "-" && tokenFile == "-" {
					return usagef("--subject-token-file and --actor-token-file cannot both be standard input")
				}
				v, err := readToken(c.InOrStdin(), actorFile, "--actor-token-file")
				if err != nil {
					return err
				}
				actor, actorType = v.Reveal(), oidc.JWTTokenType
			}
			meta, err := s.discover(c.Context(), hc)
			if err != nil {
				return err
			}
			x, err := tokenexchange.NewTokenExchanger(c.Context(), s.url, tokenexchange.WithHTTPClient(hc),
				tokenexchange.WithStaticTokenEndpoint(s.url, meta.TokenEndpoint))
			if err != nil {
				return s.explain(err)
			}
			out, err := tokenexchange.ExchangeToken(c.Context(), x, token.Reveal(), oidc.JWTTokenType, actor, actorType,
				nonEmpty(resource), nonEmpty(audience), scopes, oidc.TokenType(form))
			if err != nil {
				return s.explain(err)
			}
			if to != "" {
				return writeFile(to, func(w io.Writer) error { return printCredential(w, output, out) })
			}
			return printCredential(c.OutOrStdout(), output, out)
		},
	}
	s.flags(c)
	f := c.Flags()
	f.StringVar(&audience, "audience", "", "name of the target")
	f.StringVar(&resource, "resource", "", "URI of the target, instead of its name")
	f.StringSliceVar(&scopes, "scope", nil, "scope to ask for; may repeat (default: what the rule grants)")
	f.StringVar(&tokenFile, "subject-token-file", "-", "file with the identity token, - for standard input")
	f.StringVar(&actorFile, "actor-token-file", "", "file with the token of who acts for the subject")
	f.StringVar(&form, "requested-token-type", "", "URI of the form to ask for, where the target has several")
	f.StringVarP(&output, "output", "o", "token", strings.Join(formNames(), " | "))
	f.StringVar(&to, "to", "", "file to write to instead of standard output, for its owner alone, in the place of what is there")
	return c
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
