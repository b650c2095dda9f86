package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/zitadel/oidc/v3/pkg/client/tokenexchange"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

func newExchange() *cobra.Command {
	var s server
	var audience, resource, tokenFile, actorFile, output string
	var scopes []string
	c := &cobra.Command{
		Use:   "exchange",
		Short: "Exchange a workload's identity token for a credential",
		Example: `sallyport exchange --server https://sts.example --audience orders --subject-token-file /var/run/secrets/tokens/sallyport
  sallyport exchange --server https://sts.example --audience orders --scope read -o json < token
  sallyport exchange --server https://sts.example --audience orders --subject-token-file received.jwt --actor-token-file own.jwt`,
		Long: `Exchange a workload's identity token for a credential (RFC 8693).

With --actor-token-file the credential is for the subject, and says that the actor acts for it; a rule has to
allow that actor to act.`,
		Args: exactArgs(0, "no argument: tokens come from a file or standard input"),
		RunE: func(c *cobra.Command, _ []string) error {
			if (audience == "") == (resource == "") {
				return usagef("name the target with --audience NAME or --resource URI, not with both")
			}
			if !slices.Contains([]string{"token", "json", "env"}, output) {
				return usagef("-o %s is not a form; choose token, json or env", output)
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
				nonEmpty(resource), nonEmpty(audience), scopes, "")
			if err != nil {
				return s.explain(err)
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
	f.StringVarP(&output, "output", "o", "token", "token | json | env")
	return c
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func printCredential(w io.Writer, form string, out *oidc.TokenExchangeResponse) error {
	switch form {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(out)
	case "env":
		// A JWT's alphabet needs no quoting; the quotes are for whatever a later broker returns.
		_, err := fmt.Fprintf(w, "export SALLYPORT_TOKEN='%s'\n", strings.ReplaceAll(out.AccessToken, "'", `'\''`))
		return err
	default:
		// A newline is for eyes only: in a file it would become part of what curl sends as the token.
		end := ""
		if f, ok := w.(*os.File); ok && isTerminal(f) {
			end = "\n"
		}
		_, err := fmt.Fprint(w, out.AccessToken, end)
		return err
	}
}
