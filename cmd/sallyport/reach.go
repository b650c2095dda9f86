package main

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/sts"
)

func newReach() *cobra.Command {
	var a admin
	var output string
	c := &cobra.Command{
		Use:   "reach SELECTOR...",
		Short: "Say what a token, a workload, a repository, an issuer or a key could obtain now",
		Example: `sallyport reach token-file=stolen.jwt
  sallyport reach attr.repository_id=99 issuer=prod.example/ci
  sallyport reach target=orders-db`,
		Long: `Say what could be obtained now, through this service, by the policy in force: each rule that nothing known keeps from
matching, directly and by exchanging tokens onward. What is not known stands under NEEDS. What the platform's own credential
opens elsewhere is not known here. A token that is expired, dead or locked reaches nothing: ask for its workload, by subject=. What
a lock refuses for certain is marked so; one that names what is not known here may refuse more: see sallyport locks.

Selectors, which add up: token-file=FILE alone (verified, neither kept nor recorded), or subject=, issuer=, key=, trust_domain=,
attr.NAME=, target=, rule=.`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			var ask sts.AdminAsked
			var err error
			if file, ok := strings.CutPrefix(strings.Join(args, " "), "token-file="); ok && len(args) == 1 {
				token, err := evidence(c.InOrStdin(), file)
				if err != nil {
					return err
				}
				ask.Token = token.Reveal()
			} else if ask.Selector, err = selectors(c.InOrStdin(), args); err != nil {
				return err
			}
			var out sts.AdminReach
			if err := a.call(c.Context(), http.MethodPost, "/reach", ask, &out); err != nil {
				return err
			}
			for _, w := range out.Warnings {
				fmt.Fprintln(c.ErrOrStderr(), "warning: "+visible(w))
			}
			if output == "json" {
				return writeJSON(c.OutOrStdout(), out, "  ")
			}
			head := [][]string{{"through Sallyport", fmt.Sprintf("%s at most", plural(len(out.Reach), "grant", "grants"))}, {"native reach", out.Native}}
			if out.Workload != "" {
				head = append([][]string{{"workload", out.Workload}}, head...)
			}
			if err := table(c.OutOrStdout(), head, nil); err != nil {
				return err
			}
			rows := [][]string{{"TARGET", "SCOPES", "FOR", "RULE", "BY", "NEEDS"}}
			for _, r := range out.Reach {
				by, needs := "identity token", r.Needs
				if len(r.From) > 0 {
					by = "token for " + strings.Join(r.From, " or ")
				}
				if r.Locked != "" {
					needs = append([]string{"LOCKED by " + r.Locked}, needs...)
				}
				for _, deny := range r.Unless {
					needs = append(needs, "not "+deny)
				}
				rows = append(rows, []string{r.Target, strings.Join(r.Scopes, " "), (time.Duration(r.Lifetime) * time.Second).String(), r.Rule + " (" + r.Source + ")", by, strings.Join(needs, "; ")})
			}
			if len(rows) == 1 {
				return nil
			}
			return table(c.OutOrStdout(), rows, nil)
		},
	}
	a.flags(c)
	outputFlag(c, &output)
	return c
}
