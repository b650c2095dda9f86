package main

import "github.com/spf13/cobra"

func newDrill() *cobra.Command {
	var o operation
	c := &cobra.Command{
		Use:     "drill SELECTOR...",
		Short:   "Rehearse a revocation: see what would die, and how fast every replica would know",
		Example: `sallyport drill attr.repository_id=99 --reason "drill of the month"`,
		Long: `Rehearse a revocation. Nothing dies: the command shows what the selector would kill now, and revokes something that nothing
is of, in earnest, through the journal and to every replica, and shows when each had applied it. It is on record as a drill.

` + selectorHelp,
		RunE: func(c *cobra.Command, args []string) error {
			o.ask.Drill = true
			return o.run(c, args)
		},
	}
	o.flags(c)
	_ = c.Flags().MarkHidden("dry-run")
	return c
}
