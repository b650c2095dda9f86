package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/sts"
)

func newApprove() *cobra.Command {
	var a admin
	var output string
	var show bool
	c := &cobra.Command{
		Use:   "approve FILE",
		Short: "Say yes, as a second person, to what a colleague asked for",
		Example: `sallyport approve proposal.txt --show
  sallyport approve proposal.txt
  sallyport approve -`,
		Long: `Say yes, as a second person, to what a colleague asked for: second_person in operators.yaml says what takes two.

FILE holds the proposal that revoke, lock or unlock printed; - reads standard input. It is good for 15 minutes, for anybody who
could do the same alone if it did not take two, and for nobody else: it may be sent over any channel. --show says what it
is, and does nothing.`,
		Args: exactArgs(1, "the file with the proposal, or -"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			var raw []byte
			var err error
			if args[0] == "-" {
				raw, err = io.ReadAll(io.LimitReader(c.InOrStdin(), 64<<10))
			} else {
				raw, err = os.ReadFile(args[0])
			}
			if err != nil {
				return usagef("the proposal: %w", err)
			}
			line, _, _ := strings.Cut(strings.TrimSpace(string(raw)), "\n") // a colleague may have sent all that was printed
			ask := sts.AdminApproval{Proposal: strings.TrimSpace(line), Show: show}
			if show {
				var p sts.AdminProposed
				if err := a.call(c.Context(), http.MethodPost, "/approvals", ask, &p); err != nil {
					return err
				}
				return printProposal(c.OutOrStdout(), p, output)
			}
			var done sts.AdminRevoked
			if err := a.call(c.Context(), http.MethodPost, "/approvals", ask, &done); err != nil {
				return err
			}
			return showRevoked(c, done, output, false)
		},
	}
	a.flags(c)
	outputFlag(c, &output)
	c.Flags().BoolVar(&show, "show", false, "do nothing, and say what it is")
	return c
}

// errSecond is how a command ends that waits for somebody else.
var errSecond = errors.New("nothing is done yet: this takes a second person")

// printProposed says what to do with a proposal.
func printProposed(c *cobra.Command, done sts.AdminRevoked, output string) error {
	for _, w := range done.Warnings {
		fmt.Fprintln(c.ErrOrStderr(), "warning: "+visible(w))
	}
	if output == "json" {
		return errors.Join(writeJSON(c.OutOrStdout(), done, "  "), errSecond)
	}
	_, err := fmt.Fprintln(c.OutOrStdout(), done.Proposal)
	fmt.Fprintf(c.ErrOrStderr(), "\nA colleague who may do the same approves it until %s:\n  sallyport approve -    (and pastes the line above)\n", moment(done.Expires))
	return errors.Join(err, errSecond)
}

func printProposal(w io.Writer, p sts.AdminProposed, output string) error {
	if output == "json" {
		return writeJSON(w, p, "  ")
	}
	what := strings.Join(p.Selector, " ")
	if p.Unlock != "" {
		what = p.Unlock
	}
	rows := [][]string{{"asked by", p.By}, {p.Action, what}}
	switch {
	case p.Lock != nil:
		rows = append(rows, []string{"it locks", strings.Join(p.Lock.Selector, " ")}, []string{"since", moment(p.Lock.Since) + ", by " + p.Lock.By})
		if p.Lock.Reason != "" {
			rows = append(rows, []string{"because", p.Lock.Reason})
		}
	case p.Unlock != "":
		rows = append(rows, []string{"it locks", "nothing that you may see: it is another's, or stands no more"})
	}
	for _, row := range [][]string{{"reason", p.Reason}, {"ticket", p.Ticket}} {
		if row[1] != "" {
			rows = append(rows, row)
		}
	}
	if !p.Before.IsZero() {
		rows = append(rows, []string{"before", moment(p.Before)})
	}
	if p.TTL > 0 {
		rows = append(rows, []string{"for", fmt.Sprintf("%d s", p.TTL)})
	}
	if err := table(w, append(rows, []string{"until", moment(p.Expires)}), nil); err != nil || p.Would == nil {
		return err
	}
	for _, warning := range p.Would.Warnings {
		if _, err := fmt.Fprintln(w, "warning: "+visible(warning)); err != nil {
			return err
		}
	}
	return printRevoked(w, *p.Would, true)
}
