package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/zitadel/oidc/v3/pkg/client"
	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

const clientTimeout = 20 * time.Second

// server is how client commands find and reach a Sallyport.
type server struct {
	url    string
	caFile string
}

func (s *server) flags(c *cobra.Command) {
	c.Flags().StringVar(&s.url, "server", os.Getenv("SALLYPORT_SERVER"), "issuer URL of the server, exactly as its metadata says (or SALLYPORT_SERVER)")
	c.Flags().StringVar(&s.caFile, "ca-file", os.Getenv("SALLYPORT_CA_FILE"), "PEM file of the CA that signed the server's certificate (or SALLYPORT_CA_FILE; default: the system's)")
}

// connect checks the flags and returns an HTTP client. Redirects are not followed: a form with a token in it
// goes to the server that was named and to no other.
func (s *server) connect() (*http.Client, error) {
	u, err := url.Parse(s.url)
	if s.url == "" || err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, usagef("--server needs the server's URL, for example --server https://sts.example")
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, usagef("--server %s would carry tokens in the clear; http is for loopback alone, use https", s.url)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if s.caFile != "" {
		pem, err := os.ReadFile(s.caFile)
		if err != nil {
			return nil, usagef("--ca-file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, usagef("--ca-file %s holds no PEM certificate", s.caFile)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{
		Transport:     transport,
		Timeout:       clientTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// discover reads the server's metadata; the endpoints come from there.
func (s *server) discover(ctx context.Context, hc *http.Client) (*oidc.DiscoveryConfiguration, error) {
	c, err := client.Discover(ctx, strings.TrimSuffix(s.url, "/"), hc)
	if err != nil {
		return nil, s.explain(err)
	}
	for _, endpoint := range []string{c.TokenEndpoint, c.IntrospectionEndpoint, c.RevocationEndpoint} {
		if endpoint != "" && !sameOrigin(s.url, endpoint) {
			return nil, fmt.Errorf("the server's metadata names an endpoint on another host; no token is sent there")
		}
	}
	return c, nil
}

// sameOrigin: a token goes to the server that was named, whatever its metadata says.
func sameOrigin(a, b string) bool {
	u, err1 := url.Parse(a)
	v, err2 := url.Parse(b)
	return err1 == nil && err2 == nil && u.Scheme == v.Scheme && u.Host == v.Host
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// explain turns a client error into what to do next. It never repeats a response body.
func (s *server) explain(err error) error {
	var refused *oidc.Error
	var network *url.Error
	switch {
	case errors.As(err, &refused):
		return fmt.Errorf("refused: %s: %s%s", visible(string(refused.ErrorType)), visible(refused.Description), hint(string(refused.ErrorType), refused.Description))
	case errors.As(err, &network):
		return unreachable(fmt.Errorf("cannot reach %s: %w", s.url, network.Err))
	case errors.Is(err, oidc.ErrIssuerInvalid):
		return fmt.Errorf("the server at %s calls itself something else; give --server exactly as the issuer in its metadata says: %s/.well-known/openid-configuration", s.url, strings.TrimSuffix(s.url, "/"))
	default:
		return fmt.Errorf("%s did not answer like a token service; is --server right?", s.url)
	}
}

// decisionID is what a server's description ends in.
var decisionID = regexp.MustCompile(`[a-z2-7]{26}$`)

func hint(code, description string) string {
	explain := "sallyport explain " + decisionID.FindString(description)
	switch code {
	case "invalid_request":
		return "\n  Is the token fresh, meant for this service (aud) and from a trusted issuer? Its operator can run: " + explain
	case "invalid_scope":
		return "\n  The token is good; policy says no, or nothing has all of these scopes at once. An operator sees why with: " + explain
	case "invalid_target":
		return "\n  The token is good; policy says no. An operator sees why with: " + explain
	case "invalid_token":
		return "\n  The bearer must be a live token for the target introspection; get one with: sallyport exchange --audience introspection"
	case "unsupported_token_type":
		return "\n  A token of the platform, or one that cannot be killed. An operator refuses it from now on with: sallyport revoke --admin ... token-file=FILE"
	case "temporarily_unavailable":
		return "\n  Try again in a moment."
	default:
		return ""
	}
}

// readToken reads a token from a file, or from standard input for "-". Tokens are never arguments.
func readToken(in io.Reader, file, flag string) (secret.Value, error) {
	var b []byte
	var err error
	switch {
	case file == "-":
		b, err = io.ReadAll(io.LimitReader(in, federation.MaxTokenSize+2))
	case strings.Count(file, ".") == 2 && len(file) > 100:
		return secret.Value{}, usagef("%s takes the name of a file, and this looks like a token (not repeated here)", flag)
	default:
		b, err = os.ReadFile(file)
	}
	if err != nil {
		return secret.Value{}, usagef("%s: %w", flag, err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return secret.Value{}, usagef("%s: there is no token in it", flag)
	}
	return secret.New(token), nil
}

// post sends a form and returns a 200's body, or the server's refusal.
func (s *server) post(ctx context.Context, hc *http.Client, endpoint string, form url.Values, bearer secret.Value) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, s.explain(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if !bearer.IsZero() {
		req.Header.Set("Authorization", "Bearer "+bearer.Reveal())
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, s.explain(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, s.explain(err)
	}
	if resp.StatusCode == http.StatusOK {
		return body, nil
	}
	refused := new(oidc.Error)
	if json.Unmarshal(body, refused) != nil || refused.ErrorType == "" {
		return nil, s.explain(errors.New("no OAuth answer"))
	}
	return nil, s.explain(refused)
}
