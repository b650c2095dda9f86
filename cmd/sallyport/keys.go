package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/brokers/vault"
	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/sts/keys"
	"github.com/sallyport-sts/sallyport/sts/store/redis"
)

func newKeys() *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Show and rotate the keys that sign",
		Args:  noSuchCommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newKeysList(), newKeysRotate(), newKeysRestore())
	return c
}

func newKeysList() *cobra.Command {
	var output string
	var d deployed
	c := &cobra.Command{
		Use:     "list DIR",
		Short:   "Draw the timeline of each signing key",
		Example: "sallyport keys list /etc/sallyport",
		Long: `Draw the timeline of each signing key, from the configuration directory and what it names as their store:
published before use (-), signing (#), retired but still published (=), and now (|). Nothing is changed.`,
		Args: exactArgs(1, "the configuration directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if err := d.open(c.Context(), args[0]); err != nil {
				return err
			}
			defer d.close()
			now := time.Now()
			list, err := keys.Inspect(c.Context(), d.store(), d.sealer, keyPlan(d.server.Signing), now)
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
	d.flags(c)
	return c
}

// deployed is the keys of a deployment as commands beside the server find them.
type deployed struct {
	dataDir string
	server  config.Server
	sealer  keys.Sealer
	kms     *vault.Transit // nil for none
	redis   *redis.DB      // nil for one replica
}

func (d *deployed) flags(c *cobra.Command) {
	c.Flags().StringVar(&d.dataDir, "data-dir", "", "directory of the replica's state, as given to sallyport serve")
}

// open reads the configuration, and asks nobody but the Vault that unseals the keys, if one does.
func (d *deployed) open(ctx context.Context, dir string) (err error) {
	if d.server, err = loadServer(dir); err != nil {
		return err
	}
	if err = ownData(&d.server, d.dataDir); err != nil {
		return err
	}
	if d.sealer, err = keyEncryptionKey(ctx, dir, d.server); err != nil {
		return err
	}
	if d.kms, err = openTransit(d.server.Signing.Vault); err != nil {
		return err
	}
	d.redis, err = openRedis(dir, d.server)
	return err
}

func (d *deployed) store() keys.Store {
	if d.redis == nil {
		return keys.NewFile(d.server.DataDir)
	}
	return d.redis.Keys()
}

func (d *deployed) close() {
	if d.kms != nil {
		_ = d.kms.Close()
	}
	if d.redis != nil {
		_ = d.redis.Close()
	}
}

func newKeysRestore() *cobra.Command {
	var d deployed
	c := &cobra.Command{
		Use:     "restore DIR",
		Short:   "Put a replica's copy of the keys into a shared store that lost them",
		Example: "sallyport keys restore /etc/sallyport",
		Long: `Put the sealed copy of the keys that is in data_dir into the store that replicas share, when that store has none or
older ones. A replica that runs does so by itself; this is for when none runs, and to move a deployment from one
replica to several. Take the replica that ran last: what is older than it has seen is refused.`,
		Args: exactArgs(1, "the configuration directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := d.open(c.Context(), args[0]); err != nil {
				return err
			}
			defer d.close()
			if d.redis == nil {
				return usagef("%s names no store that replicas share; restore keys.sealed in data_dir from a backup", visible(args[0]))
			}
			if err := keys.Restore(c.Context(), d.server.DataDir, d.store(), d.sealer); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "The store has the keys of this replica again. Start the replicas.")
			return err
		},
	}
	d.flags(c)
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
	var d deployed
	c := &cobra.Command{
		Use:     "rotate DIR",
		Short:   "Replace the keys that sign, now or as soon as everybody knows the new ones",
		Example: "sallyport keys rotate /etc/sallyport",
		Long: `Publish new keys, which sign after signing.publish_before; the old ones stay published until what they signed
has expired. A running server follows within seconds, and puts it on record.

--now lets the new keys sign at once. Whoever has the key set cached (at most 5 minutes) refuses new tokens until
reading it again. --compromised also takes the old keys out at once: what they signed is refused by each replica within
seconds, and by others as their caches run out.`,
		Args: exactArgs(1, "the configuration directory"),
		RunE: func(c *cobra.Command, args []string) error {
			r.Algorithm = jose.SignatureAlgorithm(algorithm)
			if len(r.Reason) > 256 {
				return usagef("--reason has %d bytes, and 256 are kept", len(r.Reason))
			}
			if err := d.open(c.Context(), args[0]); err != nil {
				return err
			}
			defer d.close()
			k, err := openKeys(c.Context(), d.server, d.sealer, d.kms, d.redis, true)
			if err != nil {
				return err
			}
			r.By = fmt.Sprintf("uid=%d", os.Getuid())
			if err := k.Rotate(c.Context(), r); err != nil {
				return err
			}
			w := c.OutOrStdout()
			if r.Compromised {
				if _, err := fmt.Fprintf(w, "Taken out: %s. Every token that they signed is refused by each replica as soon as it reads the keys again, within seconds, and elsewhere as caches of the key set run out.\nWhat others believed is listed by: sallyport trust withdraw\n", strings.Join(takenOut(k), ", ")); err != nil {
					return err
				}
			}
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
	c.Flags().StringVar(&r.Reason, "reason", "", "why, for the record; at most 256 bytes")
	c.Flags().BoolVar(&r.Now, "now", false, "sign with the new keys at once")
	c.Flags().BoolVar(&r.Compromised, "compromised", false, "take the old keys out at once; implies --now")
	d.flags(c)
	return c
}

// takenOut are the keys that the last change took out, as SET/KID.
func takenOut(k *keys.Keys) (out []string) {
	for {
		select {
		case c := <-k.News():
			if len(c.Removed) > 0 {
				out = c.Removed
			}
		default:
			return out
		}
	}
}
