package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/config"
)

// configDir is where the commands that read the log on the server's own disk find its configuration.
const defaultConfigDir = "/etc/sallyport"

func configFlag(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "config", cmp.Or(os.Getenv("SALLYPORT_CONFIG"), defaultConfigDir), "configuration directory of the server (or SALLYPORT_CONFIG)")
}

// loadServer reads only what the log commands need; a broken policy must not keep an operator from the log.
func loadServer(dir string) (config.Server, error) {
	server, err := config.LoadServer(dir)
	if err != nil {
		if dir == defaultConfigDir {
			return config.Server{}, fmt.Errorf("%s is refused (name another directory with --config DIR):\n%w", dir, err)
		}
		return config.Server{}, fmt.Errorf("%s is refused:\n%w", dir, err)
	}
	return server, nil
}

func outputFlag(c *cobra.Command, output *string) {
	c.Flags().StringVarP(output, "output", "o", "table", "table | json")
}

func checkOutput(output string) error {
	if !slices.Contains([]string{"table", "json"}, output) {
		return usagef("-o %s is not a form; choose table or json", output)
	}
	return nil
}

func newExplain() *cobra.Command {
	var dir, output string
	c := &cobra.Command{
		Use:     "explain DECISION_ID | LOGIN",
		Short:   "Say why an exchange was allowed or refused, from the audit log",
		Example: "sallyport explain --config /etc/sallyport mfrggzdfmztwq2lknnwg23tpoa",
		Long: `Say why an exchange was allowed or refused, from the audit log. The decision id stands in the error text
that the caller saw and in the Sallyport-Decision header of every answer. A login that was made for somebody, such as
sts_tp5f21_6kbldrxwwutre4yc in the log of a database, says by its name which decision it is of.`,
		Args: exactArgs(1, "the decision id, or the name of a login"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			id := strings.TrimSpace(args[0])
			begins := brokers.LeaseOf(id)
			if !isDecision(id) && begins == "" {
				return usagef("%s is no decision id; copy the 26 letters and digits after the word Decision in the error text", visible(id))
			}
			server, err := loadServer(dir)
			if err != nil {
				return err
			}
			if begins != "" {
				if id, err = decisionOf(server.Audit.Dir, begins); err != nil {
					return err
				}
			}
			rec, ok, err := audit.Find(server.Audit.Dir, id)
			if err != nil {
				return fmt.Errorf("reading the audit log: %w", err)
			}
			if !ok {
				return fmt.Errorf("decision %s is not in the audit log at %s\n  An attempt that failed before a signature verified is always counted but only sampled; any other is here, or in the log of another replica", id, server.Audit.Dir)
			}
			w := c.OutOrStdout()
			if output == "json" {
				return writeIndented(w, rec)
			}
			colour := red
			if rec.Outcome == audit.Issued {
				colour = green
			}
			ended, err := ends(server.Audit.Dir, rec)
			if err != nil {
				return fmt.Errorf("reading the audit log: %w", err)
			}
			return table(w, append(explanation(rec), ended...), map[string]string{"outcome": colour})
		},
	}
	configFlag(c, &dir)
	outputFlag(c, &output)
	return c
}

// decisionOf is the decision whose id begins so and that issued something.
func decisionOf(dir, begins string) (id string, err error) {
	err = audit.Scan(dir, func(l audit.Line) error {
		if strings.HasPrefix(l.Decision, begins) && l.Lease != nil {
			id = l.Decision
		}
		return nil
	}, audit.Filter{Types: []audit.Type{audit.TypeExchange}})
	switch {
	case err != nil:
		return "", fmt.Errorf("reading the audit log: %w", err)
	case id == "":
		return "", fmt.Errorf("no decision that begins with %s is in the audit log at %s; it may be in the log of another replica", begins, dir)
	}
	return id, nil
}

// ends says what became of a credential that lived outside.
func ends(dir string, r audit.Record) ([][]string, error) {
	if r.Lease == nil {
		return nil, nil
	}
	var rows [][]string
	err := audit.Scan(dir, func(l audit.Line) error {
		if v := l.Record.Receipt; v != nil && v.Lease == r.Lease.ID {
			rows = append(rows, []string{"outside", receiptText(*v)})
		}
		return nil
	}, audit.Filter{})
	return rows, err
}

func receiptText(r audit.Receipt) string {
	text := r.State
	if !r.At.IsZero() { // what stays has none
		text += " at " + moment(r.At)
	}
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	return text
}

// isDecision reports whether s has the form that newID gives ids.
func isDecision(s string) bool {
	other := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '2' || r > '7') }
	return len(s) == 26 && !strings.ContainsFunc(s, other)
}

func explanation(r audit.Record) [][]string {
	rows := [][]string{{"decision", r.Decision}, {"time", r.Time.UTC().Format(time.RFC3339Nano)}}
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []string{name, value})
		}
	}
	outcome := string(r.Outcome)
	if r.Error != "" {
		outcome += " with " + r.Error
	}
	add("outcome", outcome)
	if a := r.Admin; a != nil {
		add("operator", a.By)
		add("asked for", a.Method+" "+a.Call)
		add("selector", strings.Join(a.Selector, " "))
		add("answered", strconv.Itoa(a.Status))
	}
	add("why", r.Reason)
	for _, reason := range r.Reasons {
		add("policy", reason)
	}
	add("theft signal", r.Signal)
	if r.Near != nil {
		add("nearest rule", r.Near.Rule)
		add("  "+r.Near.Claim, fmt.Sprintf("expected %s, found %s", r.Near.Expected, r.Near.Found))
	}
	if s := r.Subject; s != nil {
		add("workload", s.Workload)
		add("issuer", strings.Trim(s.TrustDomain+"/"+s.Issuer, "/"))
		if s.TokenID != s.Fingerprint { // which names one that has no id
			add("token", s.TokenID)
		}
		add("fingerprint", s.Fingerprint)
		add("key", s.KeyID)
		for _, name := range sortedKeys(s.Attributes) {
			add("  "+name, s.Attributes[name])
		}
	}
	if a := r.Actor; a != nil {
		add("actor", a.Workload)
		add("  issuer", strings.Trim(a.TrustDomain+"/"+a.Issuer, "/"))
		add("  token", a.TokenID)
		add("  fingerprint", a.Fingerprint)
	}
	if q := r.Requested; q != nil {
		add("asked for", strings.Join(append(slices.Clone(q.Audience), q.Resource...), " "))
		add("scope asked", q.Scope)
	}
	if g := r.Granted; g != nil {
		would := "" // had it come to that
		if r.Outcome != audit.Issued && r.Outcome != audit.Withdrawn {
			would = "would have: "
		}
		add("target", g.Target)
		add(would+"scope granted", strings.Join(g.Scopes, " "))
		add(would+"lifetime", (time.Duration(g.LifetimeSeconds) * time.Second).String())
		add("rule", g.Rule)
	}
	if l := r.Lease; l != nil {
		add("lease", l.ID)
		add("family", l.Family)
		add("acting", strings.Join(l.Actors, " for "))
		add("exchanged from", strings.Join(l.Ancestors, " "))
		if !l.Expires.IsZero() {
			add("expires", l.Expires.UTC().Format(time.RFC3339))
		}
	}
	if v := r.Revocation; v != nil {
		add("action", v.Action)
		add("selector", strings.Join(v.Selector, " "))
		add("position", v.Position)
		add("by", v.By)
		for _, receipt := range v.Receipts {
			add("outside", receipt.Lease+" at "+receipt.Target+": "+receiptText(receipt))
		}
	}
	add("from", r.Remote)
	add("configuration", r.Config)
	return rows
}

func sortedKeys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func writeIndented(w io.Writer, v any) error {
	return writeJSON(w, v, "  ")
}

func newAudit() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "Read and verify the audit log", Args: noSuchCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(newAuditShow(), newAuditVerify(), newAuditAccept())
	return c
}

func newAuditShow() *cobra.Command {
	var dir, output, outcome, subject, target, kind string
	var since time.Duration
	var limit int
	c := &cobra.Command{
		Use:   "show",
		Short: "List what happened, oldest first",
		Example: `sallyport audit show --config /etc/sallyport --since 1h --outcome refused
  sallyport audit show --type revocation --since 1d
  sallyport audit show --target orders-db --subject spiffe://prod.example/cluster-1/ns/shop`,
		Long: `List what happened, oldest first, from this replica's log. Whether the log is whole is for sallyport audit verify to say.`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if !slices.Contains([]audit.Outcome{"", audit.Issued, audit.Refused, audit.Failed, audit.Withdrawn}, audit.Outcome(outcome)) {
				return usagef("--outcome %s is none; choose issued, refused, failed or withdrawn", outcome)
			}
			if kinds := []string{"", string(audit.TypeExchange), string(audit.TypeIntrospection), string(audit.TypeRevocation), string(audit.TypeReceipt), string(audit.TypeAdmin), string(audit.TypeKeys), string(audit.TypeConfig)}; !slices.Contains(kinds, kind) {
				return usagef("--type %s is none; choose %s", kind, strings.Join(kinds[1:], ", "))
			}
			server, err := loadServer(dir)
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			rows := [][]string{{"TIME", "TYPE", "OUTCOME", "DECISION", "TARGET", "WORKLOAD", "WHY"}}
			keep := func(r audit.Record) bool {
				return (r.Decision != "" || r.Receipt != nil || r.Keys != nil || r.Reload != nil) &&
					(since == 0 || time.Since(r.Time) <= since) &&
					(outcome == "" || string(r.Outcome) == outcome) &&
					(kind == "" || string(r.Type) == kind) &&
					(target == "" || aims(r, target)) &&
					(subject == "" || r.Subject != nil && strings.HasPrefix(r.Subject.Workload, subject))
			}
			err = audit.Scan(server.Audit.Dir, func(l audit.Line) error {
				if !keep(l.Record) {
					return nil
				}
				if output == "json" {
					return writeJSON(w, l.Record, "")
				}
				rows = append(rows, showRow(l.Record))
				if limit > 0 && len(rows) > limit+1 {
					rows = slices.Delete(rows, 1, 2)
				}
				return nil
			}, audit.Filter{})
			if err != nil {
				return fmt.Errorf("reading the audit log: %w", err)
			}
			if output == "json" {
				return nil
			}
			return table(w, rows, nil)
		},
	}
	configFlag(c, &dir)
	outputFlag(c, &output)
	durationVar(c.Flags(), &since, "since", "only what happened in this long, such as 1h or 7d (default: everything)")
	c.Flags().StringVar(&outcome, "outcome", "", "issued | refused | failed | withdrawn")
	c.Flags().StringVar(&kind, "type", "", "exchange | introspection | revocation | receipt | admin | keys | config")
	c.Flags().StringVar(&target, "target", "", "name or URI of a target, as it was asked for or granted, or as a selector names it")
	c.Flags().StringVar(&subject, "subject", "", "workload id, or the beginning of one")
	c.Flags().IntVar(&limit, "limit", 100, "most rows of a table, the newest; 0 for all")
	return c
}

// aims reports whether a record is about a target: one that was asked for or granted, of a receipt, or that a selector names.
func aims(r audit.Record, target string) bool {
	switch {
	case r.Granted != nil:
		return r.Granted.Target == target
	case r.Requested != nil:
		return slices.Contains(r.Requested.Audience, target) || slices.Contains(r.Requested.Resource, target)
	case r.Receipt != nil:
		return r.Receipt.Target == target
	case r.Revocation != nil:
		return slices.Contains(r.Revocation.Selector, "target="+target)
	case r.Admin != nil:
		return slices.Contains(r.Admin.Selector, "target="+target)
	}
	return false
}

func showRow(r audit.Record) []string {
	outcome, target, workload, why := string(r.Outcome), "", "", r.Reason
	if r.Granted != nil {
		target = r.Granted.Target
		if why == "" {
			why = "rule " + r.Granted.Rule
		}
	} else if r.Requested != nil {
		target = strings.Join(append(slices.Clone(r.Requested.Audience), r.Requested.Resource...), " ")
	}
	if policySays := len(r.Reasons) > 0; policySays && (strings.HasPrefix(why, sts.ErrTargetDenied.Error()) || strings.HasPrefix(why, sts.ErrScopeDenied.Error())) {
		why = r.Reasons[0] // which says more
	}
	if r.Subject != nil {
		workload = r.Subject.Workload
	}
	if r.Admin != nil {
		outcome, target = strconv.Itoa(r.Admin.Status), strings.TrimSpace(r.Admin.Method+" "+r.Admin.Call+" "+strings.Join(r.Admin.Selector, " "))
		why = strings.TrimSuffix("by "+r.Admin.By+": "+r.Reason, ": ")
	}
	if r.Revocation != nil {
		outcome, target, why = r.Revocation.Action, strings.Join(r.Revocation.Selector, " "), strings.TrimSuffix("by "+r.Revocation.By+": "+r.Reason, ": ")
	}
	decision := r.Decision
	if k := r.Keys; k != nil {
		outcome, target = "rotated", strings.Join(k.Published, " ")
		if k.Compromised {
			outcome, target = "compromised", "out: "+strings.Join(k.Removed, " ")+"; new: "+strings.Join(k.Published, " ")
		}
		why = strings.TrimSuffix("by "+k.By+": "+r.Reason, ": ")
	}
	if c := r.Reload; c != nil {
		outcome, target, why = "reloaded", "", "configuration "+r.Config[:min(8, len(r.Config))]+" after "+c.Before[:min(8, len(c.Before))]
		if len(c.Waits) > 0 {
			why += "; takes a restart: " + strings.Join(c.Waits, ", ")
		}
	}
	if r.Receipt != nil {
		outcome, decision, target, why = r.Receipt.State, r.Receipt.Lease, r.Receipt.Target, r.Receipt.Reason
	}
	return []string{r.Time.UTC().Format("2006-01-02T15:04:05.000Z"), string(r.Type), outcome, decision, target, workload, why}
}
