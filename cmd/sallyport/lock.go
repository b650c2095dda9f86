package main

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/sts"
)

func newLock() *cobra.Command {
	var o operation
	c := &cobra.Command{
		Use:   "lock SELECTOR...",
		Short: "Kill what a selector matches, and refuse it from now on until the lock is lifted",
		Example: `sallyport lock subject=spiffe://prod.example/ci/99/main --reason "runner taken over" --ttl 12h
  sallyport lock target=orders-db --dry-run`,
		Long: `Kill what a selector matches, as sallyport revoke does, and refuse every exchange that it matches until the lock is
lifted or its time is over. The caller is told what it would be told if no rule allowed it.

` + selectorHelp,
		RunE: func(c *cobra.Command, args []string) error {
			if o.ask.Lock, o.ask.TTL = true, int64(o.ttl.Seconds()); c.Flags().Changed("ttl") && o.ask.TTL < 1 {
				return usagef("--ttl is at least 1s; leave it out for a lock that stands until it is lifted")
			}
			return o.run(c, args)
		},
	}
	o.flags(c)
	durationVar(c.Flags(), &o.ttl, "ttl", "how long it stands, such as 90m or 7d (default until sallyport unlock)")
	return c
}

func newUnlock() *cobra.Command {
	var a admin
	var reason, output string
	c := &cobra.Command{
		Use:     "unlock ID",
		Short:   "Lift a lock: what it matches may be exchanged again",
		Example: `sallyport unlock 7oe4c2mhxw3n5r6tqzjkv4bq5y --reason "runner rebuilt"`,
		Long:    `Lift a lock: what it matches may be exchanged again. What it killed stays dead.`,
		Args:    exactArgs(1, "the id of the lock; see sallyport locks"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if !isDecision(args[0]) {
				return usagef("%s is no id of a lock; see sallyport locks", visible(args[0]))
			}
			var done sts.AdminRevoked
			if err := a.call(c.Context(), http.MethodDelete, "/locks/"+args[0]+"?"+url.Values{"reason": {reason}}.Encode(), nil, &done); err != nil {
				return err
			}
			if done.Proposal != "" {
				return printProposed(c, done, output)
			}
			return showRevoked(c, done, output, false)
		},
	}
	a.flags(c)
	outputFlag(c, &output)
	c.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return c
}

func newLocks() *cobra.Command {
	var a admin
	var output string
	c := &cobra.Command{
		Use:     "locks",
		Short:   "List the locks that stand",
		Example: "sallyport locks",
		Args:    exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			var out sts.AdminLocks
			if err := a.call(c.Context(), http.MethodGet, "/locks", nil, &out); err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(c.OutOrStdout(), out, "  ")
			}
			rows := [][]string{{"LOCK", "SELECTOR", "SINCE", "UNTIL", "BY", "WHY"}}
			for _, l := range out.Locks {
				rows = append(rows, []string{l.ID, strings.Join(l.Selector, " "), moment(l.Since), moment(l.Expires), l.By, l.Reason})
			}
			return table(c.OutOrStdout(), rows, nil)
		},
	}
	a.flags(c)
	outputFlag(c, &output)
	return c
}
