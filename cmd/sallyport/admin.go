package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts"
)

const defaultAdmin = "unix:/run/sallyport/admin.sock"

// admin is how operators' commands reach the admin listener of a running server: over its socket, or over the network as
// whoever a certificate or a token names.
type admin struct {
	address               string
	caFile, cert, certKey string
	tokenFile             string
}

func (a *admin) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&a.address, "admin", cmp.Or(os.Getenv("SALLYPORT_ADMIN"), defaultAdmin), "admin socket of the server, or https URL of its operators' listener (or SALLYPORT_ADMIN)")
	f.StringVar(&a.caFile, "admin-ca-file", os.Getenv("SALLYPORT_ADMIN_CA_FILE"), "with an https URL: PEM file of the CA that signed its certificate (or SALLYPORT_ADMIN_CA_FILE; default: the system's)")
	f.StringVar(&a.cert, "admin-cert", os.Getenv("SALLYPORT_ADMIN_CERT"), "with an https URL: PEM file of your client certificate (or SALLYPORT_ADMIN_CERT)")
	f.StringVar(&a.certKey, "admin-key", os.Getenv("SALLYPORT_ADMIN_KEY"), "with an https URL: PEM file of its private key (or SALLYPORT_ADMIN_KEY)")
	f.StringVar(&a.tokenFile, "admin-token-file", os.Getenv("SALLYPORT_ADMIN_TOKEN_FILE"), "with an https URL: file with your token, in place of a certificate (or SALLYPORT_ADMIN_TOKEN_FILE)")
}

// connect returns a client for the listener, the URL of its API, and whoever's token goes with each call.
func (a *admin) connect() (*http.Client, string, secret.Value, error) {
	if socket, ok := strings.CutPrefix(a.address, "unix:"); ok && socket != "" {
		return &http.Client{Timeout: clientTimeout, Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			},
		}}, "http://admin", secret.Value{}, nil
	}
	s := server{url: strings.TrimSuffix(a.address, "/"), caFile: a.caFile}
	if !strings.HasPrefix(s.url, "https://") {
		return nil, "", secret.Value{}, usagef("--admin %s is neither a socket nor an https URL; write for instance --admin %s, or --admin https://sts.example:8444", visible(a.address), defaultAdmin)
	}
	hc, err := s.connect()
	if err != nil {
		return nil, "", secret.Value{}, err
	}
	switch {
	case a.tokenFile != "":
		token, err := readToken(strings.NewReader(""), a.tokenFile, "--admin-token-file")
		return hc, s.url, token, err
	case a.cert == "" || a.certKey == "":
		return nil, "", secret.Value{}, usagef("--admin %s asks who you are: give --admin-cert and --admin-key, or --admin-token-file", visible(a.address))
	}
	pair, err := tls.LoadX509KeyPair(a.cert, a.certKey)
	if err != nil {
		return nil, "", secret.Value{}, usagef("--admin-cert and --admin-key are not a PEM certificate and its private key: %w", err)
	}
	hc.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{pair}
	return hc, s.url, secret.Value{}, nil
}

// call asks the admin listener and decodes an answer into out. body is sent as JSON unless it is nil.
func (a *admin) call(ctx context.Context, method, path string, body, out any) error {
	hc, base, token, err := a.connect()
	if err != nil {
		return err
	}
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = strings.NewReader(string(raw))
	}
	req, err := http.NewRequestWithContext(ctx, method, base+"/admin/v1"+path, payload)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if !token.IsZero() {
		req.Header.Set("Authorization", "Bearer "+token.Reveal())
	}
	resp, err := hc.Do(req)
	if err != nil {
		return unreachable(a.explain(err))
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return unreachable(fmt.Errorf("the server at %s broke off: %w", visible(a.address), err))
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		var refused struct{ Error string }
		_ = json.Unmarshal(raw, &refused)
		return fmt.Errorf("refused with %d: %s", resp.StatusCode, visible(cmp.Or(refused.Error, "no reason was given; is the server of another version?")))
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("%s did not answer like an admin listener; is --admin right?", visible(a.address))
	}
	return nil
}

// explain says what to look at when nobody answers.
func (a *admin) explain(err error) error {
	var network *url.Error
	if errors.As(err, &network) && network.Timeout() {
		return fmt.Errorf("the server at %s was asked and did not answer in time: it may still do what it was asked for; look before you ask again, or ask another replica", visible(a.address))
	}
	if errors.As(err, &network) && strings.HasPrefix(a.address, "https://") {
		return fmt.Errorf("cannot reach %s: %w\n  Is listen.operators set in its sallyport.yaml? Does --admin-ca-file name the authority of its certificate?", visible(a.address), network.Err)
	}
	return fmt.Errorf("no server answers at %s\n  Is listen.admin set in its sallyport.yaml? Is this its host and its user? Name another socket with --admin or SALLYPORT_ADMIN", visible(a.address))
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
	}
	if s.Replica != "" {
		rows = append(rows, []string{"replica", s.Replica})
	}
	rows = append(rows, [][]string{
		{"revocations", fmt.Sprintf("position %s, %d live", s.Revocations.Position, s.Revocations.Live)},
		{"audit", fmt.Sprintf("record %d, signed up to %d, %d unsynced, %d MiB free", s.Audit.Last, s.Audit.Signed, s.Audit.Unsynced, s.Audit.Free>>20)},
	}...)
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
