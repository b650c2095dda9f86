package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/sts"
)

const defaultAdmin = "unix:/run/sallyport/admin.sock"

// admin is how operators' commands reach the admin listener of a running server.
type admin struct{ address string }

func (a *admin) flags(c *cobra.Command) {
	c.Flags().StringVar(&a.address, "admin", cmp.Or(os.Getenv("SALLYPORT_ADMIN"), defaultAdmin), "admin socket of the server (or SALLYPORT_ADMIN)")
}

// call asks the admin listener and decodes a 200 into out. body is sent as JSON unless it is nil.
func (a *admin) call(ctx context.Context, method, path string, body, out any) error {
	socket, ok := strings.CutPrefix(a.address, "unix:")
	if !ok || socket == "" {
		return usagef("--admin %s is not a socket; write for instance --admin %s", visible(a.address), defaultAdmin)
	}
	hc := &http.Client{Timeout: clientTimeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = strings.NewReader(string(raw))
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://admin/admin/v1"+path, payload)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := hc.Do(req)
	if err != nil {
		return unreachable(fmt.Errorf("no server answers at %s\n  Is listen.admin set in its sallyport.yaml? Is this its host and its user? Name another socket with --admin or SALLYPORT_ADMIN", visible(a.address)))
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return unreachable(fmt.Errorf("the server at %s broke off: %w", visible(a.address), err))
	}
	if resp.StatusCode != http.StatusOK {
		var refused struct{ Error string }
		_ = json.Unmarshal(raw, &refused)
		return fmt.Errorf("refused with %d: %s", resp.StatusCode, visible(cmp.Or(refused.Error, "no reason was given; is the server of another version?")))
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("%s did not answer like an admin listener; is --admin right?", visible(a.address))
	}
	return nil
}

func newStatus() *cobra.Command {
	var a admin
	var output string
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show how a running server does",
		Example: "sallyport status --admin unix:/run/sallyport/admin.sock",
		Long: `Show how a running server does: its version and configuration, what /readyz checks, where revocations and
the audit log stand, and the keys of each issuer.`,
		Args: exactArgs(0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"table", "json"}, output) {
				return usagef("-o %s is not a form; choose table or json", output)
			}
			var s sts.AdminStatus
			if err := a.call(c.Context(), http.MethodGet, "/status", nil, &s); err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(c.OutOrStdout(), s, "  ")
			}
			return printStatus(c.OutOrStdout(), s)
		},
	}
	a.flags(c)
	c.Flags().StringVarP(&output, "output", "o", "table", "table | json")
	return c
}

func printStatus(w io.Writer, s sts.AdminStatus) error {
	rows := [][]string{
		{"version", s.Version},
		{"issuer", s.Issuer},
		{"started", s.Started.UTC().Format(time.RFC3339)},
		{"configuration", s.Config},
		{"revocations", fmt.Sprintf("position %s, %d live", s.Revocations.Position, s.Revocations.Live)},
		{"audit", fmt.Sprintf("record %d, signed up to %d, %d unsynced, %d MiB free", s.Audit.Last, s.Audit.Signed, s.Audit.Unsynced, s.Audit.Free>>20)},
	}
	for _, c := range s.Checks {
		rows = append(rows, []string{"check " + c.Name, cmp.Or(c.Reason, "ok")})
	}
	for _, is := range s.Issuers {
		state := "not asked yet"
		switch {
		case !is.Healthy:
			state = is.Error
		case is.Used || is.Keys > 0:
			state = strconv.Itoa(is.Keys) + " keys, " + (time.Duration(is.Age) * time.Second).String() + " old"
		}
		rows = append(rows, []string{"keys of " + is.Issuer, is.Source + ": " + state})
	}
	return table(w, rows, nil)
}
