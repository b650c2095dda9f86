package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newIntrospect() *cobra.Command {
	var s server
	var bearerFile, tokenFile, output string
	c := &cobra.Command{
		Use:     "introspect",
		Short:   "Ask whether a token is alive, as a resource server does",
		Example: "sallyport introspect --server https://sts.example --bearer-file introspection.jwt --token-file received.jwt",
		Long: `Ask whether a token is alive (RFC 7662). The bearer is a token that Sallyport minted for the built-in
target introspection; a target shows its tokens to the workloads it lists under resource_servers, and
every other token reads inactive. Exit code 1 when the token is inactive.`,
		Args: exactArgs(0, "no argument: tokens come from a file or standard input"),
		RunE: func(c *cobra.Command, _ []string) error {
			if bearerFile == "" {
				return usagef("--bearer-file needs a token for the target introspection; get one with: sallyport exchange --audience introspection")
			}
			if !slices.Contains([]string{"table", "json"}, output) {
				return usagef("-o %s is not a form; choose table or json", output)
			}
			hc, err := s.connect()
			if err != nil {
				return err
			}
			bearer, err := readToken(c.InOrStdin(), bearerFile, "--bearer-file")
			if err != nil {
				return err
			}
			token, err := readToken(c.InOrStdin(), tokenFile, "--token-file")
			if err != nil {
				return err
			}
			meta, err := s.discover(c.Context(), hc)
			if err != nil {
				return err
			}
			body, err := s.post(c.Context(), hc, meta.IntrospectionEndpoint, url.Values{"token": {token.Reveal()}}, bearer)
			if err != nil {
				return err
			}
			return printIntrospection(c.OutOrStdout(), output, body)
		},
	}
	s.flags(c)
	c.Flags().StringVar(&bearerFile, "bearer-file", "", "file with a token for the target introspection")
	c.Flags().StringVar(&tokenFile, "token-file", "-", "file with the token to ask about, - for standard input")
	c.Flags().StringVarP(&output, "output", "o", "table", "table | json")
	return c
}

func printIntrospection(w io.Writer, form string, body []byte) error {
	var claims map[string]any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&claims); err != nil {
		return fmt.Errorf("the server's answer is not JSON")
	}
	active, _ := claims["active"].(bool)
	if form == "json" {
		if _, err := fmt.Fprintln(w, string(body)); err != nil {
			return err
		}
	} else {
		names := make([]string, 0, len(claims))
		for name := range claims {
			names = append(names, name)
		}
		sort.Strings(names)
		rows := make([][]string, 0, len(names))
		for _, name := range names {
			rows = append(rows, []string{name, claimText(name, claims[name])})
		}
		if err := table(w, rows, nil); err != nil {
			return err
		}
	}
	if !active {
		return &exitError{exitFailed, fmt.Errorf("the token is not active, or this caller may not see it")}
	}
	return nil
}

func claimText(name string, v any) string {
	if n, ok := v.(json.Number); ok && (name == "exp" || name == "iat") {
		if sec, err := n.Int64(); err == nil {
			return time.Unix(sec, 0).UTC().Format(time.RFC3339)
		}
	}
	if list, ok := v.([]any); ok {
		parts := make([]string, len(list))
		for i, e := range list {
			parts[i] = fmt.Sprint(e)
		}
		return strings.Join(parts, " ")
	}
	return fmt.Sprint(v)
}
