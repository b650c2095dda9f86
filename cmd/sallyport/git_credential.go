package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newGitCredential() *cobra.Command {
	var a ask
	var hosts []string
	var user string
	c := &cobra.Command{
		Use:   "git-credential get|store|erase",
		Short: "Be git's credential helper: a minutes-lived token for each push and pull",
		Example: `sallyport git-credential --server https://sts.example --audience shop-repository --subject-token-file /var/run/secrets/tokens/sallyport get
  git config --global credential.https://github.com.helper '!sallyport git-credential --server https://sts.example --audience shop-repository --subject-token-file /var/run/secrets/tokens/sallyport'`,
		Long: `Be git's credential helper (gitcredentials(7)). get exchanges the identity token and gives git a user name and the credential
as its password, with its end; for any host but --host, and for anything but https, it gives nothing. store does nothing; erase
drops what --cache keeps, when git was refused with it.`,
		Args: exactArgs(1, "what git asks for: get, store or erase"),
		RunE: func(c *cobra.Command, args []string) error {
			if a.tokenFile == "-" {
				return usagef("git has standard input: name the identity token with --subject-token-file or SALLYPORT_SUBJECT_TOKEN_FILE")
			}
			asked, err := attributes(c.InOrStdin())
			if err != nil {
				return err
			}
			switch {
			case args[0] != "get" && args[0] != "erase" && args[0] != "store":
				return nil // an operation of a later git
			case asked["protocol"] != "https" || !contains(hosts, asked["host"]):
				return nil // another helper's
			case args[0] == "store":
				return nil
			case args[0] == "erase":
				return a.forget(c.InOrStdin())
			}
			out, err := a.obtain(c.Context(), c.InOrStdin())
			if err != nil {
				return err
			}
			if strings.ContainsAny(out.AccessToken, "\r\n\x00") || out.TokenType == "N_A" {
				return fmt.Errorf("the target gave no token that git can send; it is for a target whose credential is one string")
			}
			text := fmt.Sprintf("username=%s\npassword=%s\n", user, out.AccessToken)
			if !out.expires.IsZero() {
				text += fmt.Sprintf("password_expiry_utc=%d\n", out.expires.Truncate(time.Second).Unix())
			}
			_, err = io.WriteString(c.OutOrStdout(), text)
			return err
		},
	}
	a.flags(c)
	c.Flags().StringSliceVar(&hosts, "host", []string{"github.com"}, "host that may have the credential, with its port if it has one; may repeat")
	c.Flags().StringVar(&user, "username", "x-access-token", "user name that goes with it")
	return c
}

// attributes reads what git says: lines of KEY=VALUE up to an empty one.
func attributes(in io.Reader) (map[string]string, error) {
	out := map[string]string{}
	lines := bufio.NewScanner(io.LimitReader(in, 64<<10))
	for lines.Scan() && lines.Text() != "" {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok {
			out[key] = value
		}
	}
	return out, lines.Err()
}

// contains compares names of hosts, which have no case.
func contains(hosts []string, host string) bool {
	for _, h := range hosts {
		if strings.EqualFold(h, host) && host != "" {
			return true
		}
	}
	return false
}

// forget drops what the cache keeps of what a asks for.
func (a *ask) forget(in io.Reader) error {
	subject, actor, err := a.tokens(in)
	if err != nil {
		return err
	}
	kept, err := a.kept(subject, actor)
	if err == nil {
		kept.forget()
	}
	return err
}
