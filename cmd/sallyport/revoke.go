package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/lease"
)

// operation is a command that revokes or locks.
type operation struct {
	server
	admin
	ask    sts.AdminRevocation
	wait   time.Duration
	ttl    time.Duration
	output string
}

func (o *operation) flags(c *cobra.Command) {
	o.admin.flags(c)
	f := c.Flags()
	f.BoolVar(&o.ask.DryRun, "dry-run", false, "do nothing, and show what would die")
	f.StringVar(&o.ask.Reason, "reason", "", "why, for the record")
	f.StringVar(&o.ask.Ticket, "ticket", "", "incident or ticket that this belongs to, for the record")
	f.DurationVar(&o.wait, "wait", 5*time.Second, "how long to wait for every replica to apply it, and for what lives outside to be seen dead")
	f.StringVarP(&o.output, "output", "o", "table", "table | json")
}

func newRevoke() *cobra.Command {
	var o operation
	var tokenFile, before string
	c := &cobra.Command{
		Use:   "revoke SELECTOR...",
		Short: "Kill credentials, and everything that was exchanged from them",
		Example: `sallyport revoke --server https://sts.example token-file=leaked.jwt
  sallyport revoke --admin unix:/run/sallyport/admin.sock attr.repository_id=99 --dry-run
  sallyport revoke --admin unix:/run/sallyport/admin.sock lease=7oe4c2mhxw3n5r6tqzjkv4bq5y --reason "leaked in a build log"`,
		Long: `Kill what a selector matches and what was exchanged from it, to any depth, in every target: what was decided before
this moment, or before an earlier one (--before): what a thief had until somebody took the runner back. Tokens of the platform that
say who it names, and that were issued before, are refused from now on; target= and rule= name what was given, which such a token can
get anew. A thief who can still get tokens, or has one of those, needs a lock: see sallyport lock.

With --server, token-file=FILE is enough: whoever holds a credential that this service gave may kill it (RFC 7009). Everything
else, also a token of the platform, is for operators, over the admin socket; so is all of it where SALLYPORT_ADMIN is set and
--server is not given.

` + selectorHelp + `

The command ends with 0 when every replica that serves has applied it and all that lives outside was seen dead, or is known to die
by itself; what is not dead within --wait is tried on, and shown. One that was silent for so long that it serves nothing is named.`,
		RunE: func(c *cobra.Command, args []string) error {
			if tokenFile != "" {
				args = append(args, "token-file="+tokenFile)
			}
			file, ok := strings.CutPrefix(strings.Join(args, " "), "token-file=")
			ours := !ok || file == "" || len(args) > 1 || c.Flags().Changed("admin") ||
				os.Getenv("SALLYPORT_ADMIN") != "" && !c.Flags().Changed("server") // whoever has that is an operator
			for _, name := range []string{"dry-run", "reason", "ticket", "wait", "output", "before"} { // of operators; a holder kills, and that is all
				ours = ours || c.Flags().Changed(name)
			}
			var err error
			switch {
			case ours && c.Flags().Changed("server"):
				return usagef("with --server a holder revokes by token-file=FILE, and nothing else is said; selectors, --dry-run and the rest are for operators, over --admin")
			case before != "":
				if o.ask.Before, err = time.Parse(time.RFC3339, before); err != nil {
					return usagef("--before %q is no moment; write it with its zone, such as 2026-11-26T01:30:00Z", before)
				}
				return o.run(c, args)
			case ours || o.url == "":
				return o.run(c, args)
			}
			return o.server.revoke(c.Context(), c.InOrStdin(), c.OutOrStdout(), file)
		},
	}
	o.server.flags(c)
	o.flags(c)
	c.Flags().StringVar(&before, "before", "", "kill only what was decided before this moment, such as 2026-11-26T01:30:00Z (default: now)")
	c.Flags().StringVar(&tokenFile, "token-file", "", "says the same as the selector token-file=FILE")
	return c
}

// run asks the server, waits, and shows.
func (o *operation) run(c *cobra.Command, args []string) error {
	if err := checkOutput(o.output); err != nil {
		return err
	}
	if n := max(len(o.ask.Reason), len(o.ask.Ticket)); n > 256 {
		return usagef("--reason or --ticket has %d bytes, and 256 are kept", n)
	}
	var err error
	if o.ask.Selector, err = selectors(c.InOrStdin(), args); err != nil {
		return err
	}
	o.ask.Count = !o.ask.DryRun && !o.ask.Drill
	o.ask.Wait = int(min(max(o.wait, time.Second), 10*time.Second).Seconds())
	var done sts.AdminRevoked
	if err := o.call(c.Context(), http.MethodPost, "/revocations", o.ask, &done); err != nil {
		return err
	}
	if done.Proposal != "" {
		return printProposed(c, done, o.output)
	}
	if !o.ask.DryRun && !o.ask.Drill && !done.Local && !done.Incomplete {
		if err := o.follow(c.Context(), c.ErrOrStderr(), &done, time.Now().Add(o.wait-time.Duration(o.ask.Wait)*time.Second)); err != nil {
			return err
		}
	}
	return showRevoked(c, done, o.output, o.ask.DryRun || o.ask.Drill)
}

// showRevoked shows what was done, with its warnings, and says what is not yet.
func showRevoked(c *cobra.Command, done sts.AdminRevoked, output string, dry bool) error {
	for _, w := range done.Warnings {
		fmt.Fprintln(c.ErrOrStderr(), "warning: "+visible(w))
	}
	var err error
	if output == "json" {
		err = writeJSON(c.OutOrStdout(), done, "  ")
	} else {
		err = printRevoked(c.OutOrStdout(), done, dry)
	}
	if err != nil || dry && done.Action != "drill" {
		return err
	}
	return unfinished(done)
}

// follow asks how it goes on until all is dead, and says so once a second.
func (o *operation) follow(ctx context.Context, progress io.Writer, done *sts.AdminRevoked, until time.Time) error {
	for unfinished(*done) != nil && time.Now().Before(until) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
		var now sts.AdminRevoked
		query := url.Values{"position": {done.Position}, "selector": done.Selector}
		if err := o.call(ctx, http.MethodGet, "/revocations/"+done.ID+"?"+query.Encode(), nil, &now); err != nil {
			return err
		}
		total := 0
		for _, n := range done.Counts {
			total += n
		}
		left := 0
		for _, n := range now.Counts {
			left += n
		}
		if now.Counts["dead"] = max(0, total-left); now.Counts["dead"] == 0 {
			delete(now.Counts, "dead")
		}
		for i, a := range now.Applied {
			if j := slices.IndexFunc(done.Applied, func(b sts.AdminApplied) bool { return b.Replica == a.Replica }); j >= 0 && done.Applied[j].Applied {
				now.Applied[i] = done.Applied[j]
			}
		}
		done.Counts, done.Receipts, done.Applied = now.Counts, now.Receipts, now.Applied
		fmt.Fprintf(progress, "%d of %d outside are dead, %d pending\n", now.Counts["dead"], total, now.Counts[lease.Pending])
	}
	return nil
}

// unfinished is why the revocation has not come to its end.
func unfinished(done sts.AdminRevoked) error {
	var behind []string
	for _, a := range done.Applied {
		if !a.Applied && a.Serves {
			behind = append(behind, a.Replica)
		}
	}
	switch n := done.Counts[lease.Pending]; {
	case done.Local:
		return errors.New("in force on one replica; see the warning")
	case done.Incomplete:
		return errors.New("in force, and not all that was asked for; see the warning")
	case n > 0 && done.Action != "drill":
		return fmt.Errorf("%s not dead yet; the attempts go on: see sallyport leases state=dying", count(n, "credential"))
	case done.Confined != "" && nothing(done):
		return fmt.Errorf("nothing of trust domain %s matched, and your roles are for that alone: what is named and is of another domain lives on; ask an operator of that", visible(done.Confined))
	case len(behind) > 0:
		return fmt.Errorf("%s not applied it: %s; a replica that does not hear from the others stops issuing after revocation.max_staleness", plural(len(behind), "replica has", "replicas have"), strings.Join(behind, ", "))
	}
	return nil
}

// nothing reports whether nothing that lives was found.
func nothing(done sts.AdminRevoked) bool {
	return done.Tokens != nil && done.Tokens.Living == 0 && len(done.Receipts) == 0
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
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

// states are those of receipts, and of leases in a dry run, in the order in which they are shown.
var states = []string{"dead", "dies", "may_exist", "stays", lease.Pending, "live", "minting", "dying"}

func printRevoked(w io.Writer, done sts.AdminRevoked, dry bool) error {
	var rows [][]string
	switch {
	case done.Action == "drill":
		rows = append(rows, []string{"drill", done.ID + ": nothing died; this is what would have"})
	case dry:
		rows = append(rows, []string{"dry run", "nothing was done; this is what would die"})
	default:
		rows = append(rows, []string{cmp.Or(done.Action, "revoke"), done.ID}, []string{"position", cmp.Or(done.Position, "none yet")})
	}
	rows = append(rows, []string{"selector", strings.Join(done.Selector, " ")})
	if !done.Before.IsZero() {
		rows = append(rows, []string{"before", moment(done.Before)})
	}
	switch {
	case done.Action == "unlock" && done.Local:
		rows = append(rows, []string{"from now on", "the lock refuses nothing on this replica, and elsewhere as soon as the others know"})
	case done.Action == "unlock":
		rows = append(rows, []string{"from now on", "the lock refuses nothing; what it killed stays dead"})
	case done.Local:
		rows = append(rows, []string{"minted here", "dead on this replica, and elsewhere as soon as the others know"}, []string{"outside", "dies as soon as this replica reaches the store"})
	case !dry && nothing(done):
		rows = append(rows, []string{"minted here", "nothing that lives matches; whatever does is refused from now on"})
	case !dry:
		rows = append(rows, []string{"minted here", "dead: all that matches, and everything exchanged from it"})
	}
	if done.Action == "lock" && !dry {
		until := "until sallyport unlock " + done.ID
		if !done.Expires.IsZero() {
			until = "until " + moment(done.Expires) + ", or sallyport unlock " + done.ID
		}
		rows = append(rows, []string{"refused", until})
	}
	if t := done.Tokens; t != nil {
		what := "  of them"
		if dry {
			what = "minted here"
		}
		of := " of this replica's log"
		if dry && t.Living > 0 {
			of += ", if not dead already"
		}
		rows = append(rows, []string{what, plural(t.Living, "token", "tokens") + of})
		for _, of := range []struct {
			name string
			by   map[string]int
		}{{"workload", t.Workloads}, {"target", t.Targets}, {"rule", t.Rules}} {
			for _, name := range slices.Sorted(maps.Keys(of.by)) {
				rows = append(rows, []string{"  " + of.name, name + ": " + strconv.Itoa(of.by[name])})
			}
		}
		if t.Others {
			rows = append(rows, []string{"", "what other replicas minted, and what came of that here, dies too and is not counted"})
		}
	}
	outside := 0
	for _, state := range states {
		if n := done.Counts[state]; n > 0 {
			outside += n
			rows = append(rows, []string{"outside", strconv.Itoa(n) + " " + state})
		}
	}
	if outside == 0 && done.Action != "unlock" && !done.Local && !done.Incomplete {
		rows = append(rows, []string{"outside", "none"})
	}
	if err := table(w, rows, nil); err != nil {
		return err
	}
	if len(done.Applied) > 0 {
		rows = [][]string{{"REPLICA", "APPLIED", "AFTER"}}
		for _, a := range done.Applied {
			after, applied := strconv.FormatFloat(a.Millis, 'f', 1, 64)+" ms", "yes"
			if !a.Applied {
				after, applied = "silent for "+strconv.FormatFloat(a.Silent, 'f', 1, 64)+" s", "no"
				if !a.Serves {
					after += ", and serves nothing until it has"
				}
			}
			rows = append(rows, []string{a.Replica, applied, after})
		}
		if err := table(w, rows, map[string]string{"no": red, "yes": green}); err != nil {
			return err
		}
	}
	rows = nil
	for _, r := range done.Receipts {
		if r.State != "dead" {
			why := cmp.Or(r.Reason, r.Workload)
			if dry && r.Reason != "" { // why it would go on
				why = r.Workload + "  " + r.Reason
			}
			rows = append(rows, []string{r.Lease, r.Target, r.State, moment(r.At), why})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	why := "WHY"
	if dry {
		why = "SUBJECT"
	}
	return table(w, append([][]string{{"LEASE", "TARGET", "STATE", "AT", why}}, rows...), nil)
}

// moment renders a time for people, "-" for none.
func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
