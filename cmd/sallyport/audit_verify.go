package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/config"
)

func newAuditVerify() *cobra.Command {
	var dir, output, witness string
	c := &cobra.Command{
		Use:     "verify",
		Short:   "Prove that the log is complete and unchanged, or show where it is not",
		Example: "sallyport audit verify --config /etc/sallyport",
		Long: `Prove that the audit log is complete and unchanged up to its newest signed head, or show file and line
of every contradiction. A torn tail, as a power cut leaves it, is told from tampering. Needs the
key-encryption key of signing.seal_with, for the public key that signed the heads. Exit code 1 when
anything was edited, removed, inserted, reordered or cut off.`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			server, err := loadServer(dir)
			if err != nil {
				return err
			}
			public, err := auditPublic(c.Context(), dir, server)
			if err != nil {
				return err
			}
			var options audit.VerifyOptions
			if options.Witness, err = parseWitness(witness); err != nil {
				return err
			}
			report, err := audit.Verify(server.Audit.Dir, filepath.Join(server.DataDir, auditHeadFile), public, options)
			if err != nil {
				return fmt.Errorf("reading the audit log: %w", err)
			}
			if output == "json" {
				if err := writeIndented(c.OutOrStdout(), report); err != nil {
					return err
				}
			} else if err := printReport(c.OutOrStdout(), report); err != nil {
				return err
			}
			if !report.OK() {
				return errors.New("the audit log contradicts itself or its signed head")
			}
			return nil
		},
	}
	configFlag(c, &dir)
	outputFlag(c, &output)
	c.Flags().StringVar(&witness, "witness", "", "N:HASH of a record, kept elsewhere: the log must still contain it")
	return c
}

// parseWitness reads N:HASH; "" is no witness.
func parseWitness(s string) (*audit.Witness, error) {
	if s == "" {
		return nil, nil
	}
	n, hash, _ := strings.Cut(s, ":")
	number, err := strconv.ParseUint(n, 10, 64)
	if raw, e := hex.DecodeString(hash); err != nil || e != nil || len(raw) != sha256.Size {
		return nil, usagef("--witness needs N:HASH, a record's number and its hash of 64 hex digits")
	}
	return &audit.Witness{N: number, Hash: hash}, nil
}

func auditPublic(ctx context.Context, dir string, server config.Server) (ed25519.PublicKey, error) {
	private, err := auditKey(ctx, dir, server)
	if err != nil {
		return nil, err
	}
	return private.Public().(ed25519.PublicKey), nil
}

// printReport says what was proven first, then every contradiction, then what a power cut left.
func printReport(w io.Writer, r audit.Report) error {
	verdict, colour := "ok", green
	if !r.OK() {
		verdict, colour = "CONTRADICTED", red
	}
	rows := [][]string{
		{"verdict", verdict},
		{"log", r.Log},
		{"records", fmt.Sprintf("%d in %s, numbers %d to %d", r.Records, count(int(r.Segments), "segment"), r.FirstN, r.LastN)},
		{"time", r.First.UTC().Format(time.RFC3339) + " to " + r.Last.UTC().Format(time.RFC3339)},
		{"proven", fmt.Sprintf("up to record %d, by a signed head; %d newer only chained", r.Signed, r.Unsigned)},
	}
	if r.Recovered > 0 {
		rows = append(rows, []string{"recovered", fmt.Sprintf("%d unclean ends are on record", r.Recovered)})
	}
	if r.Pruned > 0 {
		rows = append(rows, []string{"pruned", fmt.Sprintf("%d records by retention, signed", r.Pruned)})
	}
	for _, f := range r.Findings {
		rows = append(rows, []string{"finding", f.String()})
	}
	if r.More > 0 {
		rows = append(rows, []string{"finding", fmt.Sprintf("and %d more", r.More)})
	}
	for _, t := range r.Tails {
		rows = append(rows, []string{"torn tail", fmt.Sprintf("%s: %d bytes from %d, as an interrupted write leaves them", t.File, t.Bytes, t.Offset)})
	}
	return table(w, rows, map[string]string{"verdict": colour, "finding": red})
}
