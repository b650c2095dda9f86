package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/sts/audit"
)

func newAuditAccept() *cobra.Command {
	var dir, by string
	c := &cobra.Command{
		Use:     "accept",
		Short:   "Put on record that a contradiction was looked at, and go on",
		Example: "sallyport audit accept --config /etc/sallyport --by 'ops, ticket 4711'",
		Long: `Put on record that what contradicts the log's signed head was looked at: verify then marks it as accepted,
and /readyz no longer warns of it. Nothing is repaired and nothing is hidden. The server must be stopped.`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			if by == "" {
				return usagef("--by says who looked, and where that is written down")
			}
			server, err := loadServer(dir)
			if err != nil {
				return err
			}
			signer, err := auditKey(c.Context(), dir, server)
			if err != nil {
				return err
			}
			log, err := audit.Open(auditConfig(server, signer))
			if err != nil {
				return fmt.Errorf("audit log: %w", err)
			}
			err = log.Accept(c.Context(), by)
			if e := log.Close(); err == nil {
				err = e
			}
			if err == nil {
				_, err = fmt.Fprintln(c.OutOrStdout(), "on record")
			}
			return err
		},
	}
	configFlag(c, &dir)
	c.Flags().StringVar(&by, "by", "", "who looked at it, and the ticket")
	return c
}
