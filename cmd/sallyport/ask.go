package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/zitadel/oidc/v3/pkg/client/tokenexchange"
	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

// ask is one exchange as flags or variables say it: what every command that obtains a credential has in common.
type ask struct {
	server
	audience, resource, form string
	scopes                   []string
	tokenFile, actorFile     string
	cache                    string // directory, "" for none
}

func (a *ask) flags(c *cobra.Command) {
	a.server.flags(c)
	f := c.Flags()
	f.StringVar(&a.audience, "audience", os.Getenv("SALLYPORT_AUDIENCE"), "name of the target (or SALLYPORT_AUDIENCE)")
	f.StringVar(&a.resource, "resource", "", "URI of the target, instead of its name")
	f.StringSliceVar(&a.scopes, "scope", words(os.Getenv("SALLYPORT_SCOPE")), "scope to ask for; may repeat (or SALLYPORT_SCOPE; default: what the rule grants)")
	f.StringVar(&a.tokenFile, "subject-token-file", orStdin(os.Getenv("SALLYPORT_SUBJECT_TOKEN_FILE")), "file with the identity token, - for standard input (or SALLYPORT_SUBJECT_TOKEN_FILE)")
	f.StringVar(&a.actorFile, "actor-token-file", "", "file with the token of who acts for the subject")
	f.StringVar(&a.form, "requested-token-type", "", "URI of the form to ask for, where the target has several")
	f.StringVar(&a.cache, "cache", os.Getenv("SALLYPORT_CACHE"), "directory to keep the credential in until shortly before its end, encrypted with the identity token (or SALLYPORT_CACHE; default: nothing is kept)")
}

func words(s string) []string { return strings.Fields(s) }

func orStdin(file string) string {
	if file == "" {
		return "-"
	}
	return file
}

// credential is an answer, and when what it gives is over.
type credential struct {
	*oidc.TokenExchangeResponse
	expires time.Time // zero when it does not say
}

// obtain answers from the cache, or exchanges.
func (a *ask) obtain(ctx context.Context, in io.Reader) (credential, error) {
	if (a.audience == "") == (a.resource == "") {
		return credential{}, usagef("name the target with --audience NAME or --resource URI, and with one of the two")
	}
	hc, err := a.connect()
	if err != nil {
		return credential{}, err
	}
	subject, actor, err := a.tokens(in)
	if err != nil {
		return credential{}, err
	}
	kept, err := a.kept(subject, actor)
	if err != nil {
		return credential{}, err
	}
	if c, ok := kept.get(time.Now()); ok {
		return c, nil
	}
	meta, err := a.discover(ctx, hc)
	if err != nil {
		return credential{}, err
	}
	x, err := tokenexchange.NewTokenExchanger(ctx, a.url, tokenexchange.WithHTTPClient(hc), tokenexchange.WithStaticTokenEndpoint(a.url, meta.TokenEndpoint))
	if err != nil {
		return credential{}, a.explain(err)
	}
	var actorType oidc.TokenType
	if !actor.IsZero() {
		actorType = oidc.JWTTokenType
	}
	asked := time.Now()
	out, err := tokenexchange.ExchangeToken(ctx, x, subject.Reveal(), oidc.JWTTokenType, actor.Reveal(), actorType,
		nonEmpty(a.resource), nonEmpty(a.audience), a.scopes, oidc.TokenType(a.form))
	if err != nil {
		return credential{}, a.explain(err)
	}
	c := credential{TokenExchangeResponse: out}
	if out.ExpiresIn > 0 {
		c.expires = asked.Add(time.Duration(out.ExpiresIn) * time.Second) // never later than it is
	}
	return c, kept.put(c, asked)
}

// tokens reads the subject's, and the actor's if there is one.
func (a *ask) tokens(in io.Reader) (subject, actor secret.Value, err error) {
	if a.actorFile == "-" && a.tokenFile == "-" {
		return subject, actor, usagef("--subject-token-file and --actor-token-file cannot both be standard input")
	}
	if subject, err = readToken(in, a.tokenFile, "--subject-token-file"); err != nil || a.actorFile == "" {
		return subject, actor, err
	}
	actor, err = readToken(in, a.actorFile, "--actor-token-file")
	return subject, actor, err
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// giveBack revokes what nobody has seen, since it could not be shown: why says that, and then what became of it.
func (a *ask) giveBack(ctx context.Context, c credential, why error) error {
	if a.cache != "" {
		return fmt.Errorf("%w\n  It lives, and is in the cache", why)
	}
	hc, err := a.connect()
	if err == nil {
		var meta *oidc.DiscoveryConfiguration
		if meta, err = a.discover(ctx, hc); err == nil {
			_, err = a.post(ctx, hc, meta.RevocationEndpoint, url.Values{"token": {c.AccessToken}}, secret.Value{})
		}
	}
	if err != nil {
		return fmt.Errorf("%w\n  It lives until its end, and was not revoked: %w", why, err)
	}
	return fmt.Errorf("%w\n  It was revoked, since nobody has seen it", why)
}
