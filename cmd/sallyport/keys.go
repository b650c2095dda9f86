package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/sts/keys"
)

func newKeys() *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Show and rotate the keys that sign",
		Args:  noSuchCommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newKeysList(), newKeysRotate())
	return c
}

func newKeysList() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:     "list DIR",
		Short:   "Draw the timeline of each signing key",
		Example: "sallyport keys list /etc/sallyport",
		Long: `Draw the timeline of each signing key, from the configuration directory and the key file of its data_dir:
published before use (-), signing (#), retired but still published (=), and now (|). Nothing is changed.`,
		Args: exactArgs(1, "the configuration directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			server, err := loadServer(args[0])
			if err != nil {
				return err
			}
			sealer, err := keyEncryptionKey(args[0], server)
			if err != nil {
				return err
			}
			now := time.Now()
			list, err := keys.Inspect(c.Context(), keys.NewFile(server.DataDir), sealer, keyPlan(server.Signing), now)
			if err != nil {
				return err
			}
			if output == "json" {
				return writeIndented(c.OutOrStdout(), list)
			}
			return drawKeys(c.OutOrStdout(), list, now)
		},
	}
	outputFlag(c, &output)
	return c
}

// barWidth is the length of a timeline in characters.
const barWidth = 32

// drawKeys writes a row for each key, all bars on one scale.
func drawKeys(w io.Writer, list []keys.Status, now time.Time) error {
	from, to := now, now
	for _, k := range list {
		if k.Published.Before(from) {
			from = k.Published
		}
		if k.Gone.After(to) {
			to = k.Gone
		}
	}
	column := func(t time.Time) int {
		return int(int64(barWidth-1) * int64(t.Sub(from)/time.Second) / max(1, int64(to.Sub(from)/time.Second)))
	}
	rows := [][]string{{"set", "algorithm", "state", "age", "timeline", "active from", "until", "kid"}}
	for _, k := range list {
		bar := []byte(strings.Repeat(".", barWidth))
		for _, part := range []struct {
			mark     byte
			from, to time.Time
		}{{'-', k.Published, k.Activates}, {'#', k.Activates, k.Retires}, {'=', k.Retires, k.Gone}} {
			for i := column(part.from); part.from.Before(part.to) && i <= column(part.to); i++ {
				bar[i] = part.mark
			}
		}
		bar[column(now)] = '|'
		rows = append(rows, []string{
			k.Set, k.Algorithm, string(k.State), k.Age.Truncate(time.Second).String(), string(bar),
			k.Activates.Format(time.RFC3339), k.Retires.Format(time.RFC3339), k.ID,
		})
	}
	return table(w, rows, nil)
}

func newKeysRotate() *cobra.Command {
	var r keys.Rotation
	var algorithm string
	c := &cobra.Command{
		Use:     "rotate DIR",
		Short:   "Replace the keys that sign, now or as soon as everybody knows the new ones",
		Example: "sallyport keys rotate /etc/sallyport",
		Long: `Publish new keys, which sign after signing.publish_before; the old ones stay published until what they signed
has expired. A running server follows within seconds.

--now lets the new keys sign at once. Whoever has the key set cached (at most 5 minutes) refuses new tokens until
reading it again. --compromised also takes the old keys out at once: what they signed is refused here from now on,
and by others as their caches run out.`,
		Args: exactArgs(1, "the configuration directory"),
		RunE: func(c *cobra.Command, args []string) error {
			r.Algorithm = jose.SignatureAlgorithm(algorithm)
			server, err := loadServer(args[0])
			if err != nil {
				return err
			}
			sealer, err := keyEncryptionKey(args[0], server)
			if err != nil {
				return err
			}
			k, err := openKeys(c.Context(), server, sealer, true)
			if err != nil {
				return err
			}
			if err := k.Rotate(c.Context(), r); err != nil {
				return err
			}
			w := c.OutOrStdout()
			if r.Now || r.Compromised {
				if _, err := fmt.Fprintln(w, "The new keys sign now. Verifiers that cached the key set refuse new tokens until they read it again, at most 5 minutes."); err != nil {
					return err
				}
			}
			return drawKeys(w, k.Timeline(), time.Now())
		},
	}
	c.Flags().StringVar(&r.Set, "set", "", "tokens | assertions (default both)")
	c.Flags().StringVar(&algorithm, "algorithm", "", "one of signing.algorithms (default all)")
	c.Flags().BoolVar(&r.Now, "now", false, "sign with the new keys at once")
	c.Flags().BoolVar(&r.Compromised, "compromised", false, "take the old keys out at once; implies --now")
	return c
}
