package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/lease"
)

func newRevoke() *cobra.Command {
	var s server
	var a admin
	var tokenFile, reason, output string
	var wait time.Duration
	c := &cobra.Command{
		Use:   "revoke token-file=FILE | lease=ID",
		Short: "Kill a credential, and everything that was exchanged from it",
		Example: `sallyport revoke --server https://sts.example token-file=leaked.jwt
  sallyport revoke --admin unix:/run/sallyport/admin.sock lease=7oe4c2mhxw3n5r6tqzjkv4bq5y --reason "leaked in a build log"`,
		Long: `Kill a credential and everything that was exchanged from it; its ancestors live on.

token-file=FILE: whoever holds a credential may kill it (RFC 7009); the file has what exchange printed with -o token,
whatever kind it is. token-file=- reads standard input; --token-file FILE says the same.

lease=ID: an operator kills by the decision id of the exchange, over the admin socket. What lives outside, in databases
and the like, is seen dead before the command ends with 0; what is not dead within --wait is tried on, and shown.`,
		RunE: func(c *cobra.Command, args []string) error {
			if tokenFile != "" {
				args = append(args, "token-file="+tokenFile)
			}
			if err := exactArgs(1, "the selector token-file=FILE or lease=ID")(c, args); err != nil {
				return err
			}
			if id, ok := strings.CutPrefix(args[0], "lease="); ok && decisionID.MatchString(id) && len(id) == 26 {
				return a.revoke(c.Context(), c.OutOrStdout(), output, sts.AdminRevocation{Lease: id, Reason: reason, Wait: int(wait.Seconds())})
			}
			file, ok := strings.CutPrefix(args[0], "token-file=")
			if !ok || file == "" {
				return usagef("this version revokes by token-file=FILE and lease=ID, and by nothing else; a token itself is never an argument") // which is not repeated: it may be one
			}
			return s.revoke(c.Context(), c.InOrStdin(), c.OutOrStdout(), file)
		},
	}
	s.flags(c)
	a.flags(c)
	f := c.Flags()
	f.StringVar(&tokenFile, "token-file", "", "file with the credential to kill, - for standard input")
	f.StringVar(&reason, "reason", "", "why, for the record; with lease=ID")
	f.DurationVar(&wait, "wait", 5*time.Second, "how long to wait for what lives outside to be seen dead, at most 12s; with lease=ID")
	f.StringVarP(&output, "output", "o", "table", "table | json; with lease=ID")
	return c
}

// revoke kills what its holder presents.
func (s *server) revoke(ctx context.Context, in io.Reader, out io.Writer, file string) error {
	hc, err := s.connect()
	if err != nil {
		return err
	}
	token, err := readToken(in, file, "token-file")
	if err != nil {
		return err
	}
	meta, err := s.discover(ctx, hc)
	if err != nil {
		return err
	}
	if _, err := s.post(ctx, hc, meta.RevocationEndpoint, url.Values{"token": {token.Reveal()}}, secret.Value{}); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, "dead: the token, if it was alive, and everything exchanged from it")
	return err
}

// revoke kills by the id of a lease.
func (a *admin) revoke(ctx context.Context, w io.Writer, form string, ask sts.AdminRevocation) error {
	if form != "table" && form != "json" {
		return usagef("-o %s is not a form; choose table or json", form)
	}
	var done sts.AdminRevoked
	if err := a.call(ctx, http.MethodPost, "/revocations", ask, &done); err != nil {
		return err
	}
	if form == "json" {
		if err := writeJSON(w, done, "  "); err != nil {
			return err
		}
	} else if err := printRevoked(w, done); err != nil {
		return err
	}
	if n := done.Counts[lease.Pending]; n > 0 {
		return fmt.Errorf("%d credentials are not dead yet; the attempts go on: see sallyport leases state=dying", n)
	}
	return nil
}

func printRevoked(w io.Writer, done sts.AdminRevoked) error {
	rows := [][]string{{"revocation", done.ID}, {"position", done.Position}, {"tokens minted here", "dead: the lease, and everything exchanged from it"}}
	for _, state := range []string{"dead", "dies", "may_exist", lease.Pending} {
		if n := done.Counts[state]; n > 0 {
			rows = append(rows, []string{"outside", strconv.Itoa(n) + " " + state})
		}
	}
	if err := table(w, rows, nil); err != nil {
		return err
	}
	rows = nil
	for _, r := range done.Receipts {
		if r.State != "dead" {
			rows = append(rows, []string{r.Lease, r.Target, r.State, moment(r.At), r.Reason})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	return table(w, append([][]string{{"LEASE", "TARGET", "STATE", "AT", "WHY"}}, rows...), nil)
}

// moment renders a time for people, "-" for none.
func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
