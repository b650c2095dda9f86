package main

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/sts"
)

func newLeases() *cobra.Command {
	var a admin
	var output string
	var limit int
	var all bool
	c := &cobra.Command{
		Use:   "leases [SELECTOR...]",
		Short: "List the credentials that live outside, in databases and the like",
		Example: `sallyport leases
  sallyport leases target=orders-db state=dying
  sallyport leases attr.repository_id=99
  sallyport leases subject=spiffe://prod.example/cluster-1/ns/shop/sa/checkout -o json --all`,
		Long: `List the credentials that live outside, in databases and the like, from the ledger of a running server. Tokens
minted here live nowhere and are in the audit log alone.

target=NAME, rule=NAME and state=minting|live|dying are of the credential itself. All other selectors may also be matched by what it
descends from: attr.repository_id=99 lists what was obtained with a token of that repository, and with all that was exchanged from
one.

` + selectorHelp,
		RunE: func(c *cobra.Command, args []string) error {
			if output != "table" && output != "json" {
				return usagef("-o %s is not a form; choose table or json", output)
			}
			query := url.Values{"limit": {fmt.Sprint(limit)}}
			if len(args) > 0 {
				terms, err := selectors(c.InOrStdin(), args)
				if err != nil {
					return err
				}
				for _, term := range terms {
					key, value, _ := strings.Cut(term, "=")
					query.Add(key, value)
				}
			}
			page, out := sts.AdminLeases{}, sts.AdminLeases{Leases: []sts.AdminLease{}}
			for {
				page = sts.AdminLeases{}
				if err := a.call(c.Context(), http.MethodGet, "/leases?"+query.Encode(), nil, &page); err != nil {
					return err
				}
				out.Leases, out.Total, out.Next = append(out.Leases, page.Leases...), page.Total, page.Next
				if !all || page.Next == "" {
					break
				}
				query.Set("after", page.Next)
			}
			if output == "json" {
				return writeJSON(c.OutOrStdout(), out, "  ")
			}
			rows := [][]string{{"LEASE", "TARGET", "SUBJECT", "NAME", "STATE", "EXPIRES", ""}}
			for _, l := range out.Leases {
				rows = append(rows, []string{l.ID, l.Target, l.Workload, l.Name, l.State, l.Expires.UTC().Format(time.RFC3339), cmp.Or(l.Dies, l.Fault, l.Stays, l.Why)})
			}
			if err := table(c.OutOrStdout(), rows, nil); err != nil {
				return err
			}
			if out.Next != "" {
				fmt.Fprintf(c.ErrOrStderr(), "%d of %d; --all shows the rest\n", len(out.Leases), out.Total)
			}
			return nil
		},
	}
	a.flags(c)
	c.Flags().StringVarP(&output, "output", "o", "table", "table | json")
	c.Flags().IntVar(&limit, "limit", 100, "leases in one page, at most 1000")
	c.Flags().BoolVar(&all, "all", false, "all pages")
	return c
}
