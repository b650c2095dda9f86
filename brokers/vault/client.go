package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// maxAnswer is the largest answer in bytes: Vault's own limit of a request is 32 MiB, secrets are a few KiB.
const maxAnswer = 1 << 20

// client asks Vault. It holds no token: each call brings its own.
type client struct {
	api       *api.Client
	transport *http.Transport
	timeout   time.Duration
}

// newClient connects to nothing. The library fills what it is not given from the environment (VAULT_ADDR, VAULT_TOKEN,
// VAULT_SKIP_VERIFY, VAULT_HEADERS, VAULT_WRAP_TTL and more), so everything is given: a variable in the environment of the
// service must not choose where tokens go. Variables that the library cannot read stop it, and us.
func newClient(address, namespace string, pool *x509.CertPool, timeout time.Duration) (*client, error) {
	transport := &http.Transport{
		Proxy:                  nil, // an environment variable must not choose who sees our requests
		DialContext:            (&net.Dialer{Timeout: timeout}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool},
		TLSHandshakeTimeout:    timeout,
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConnsPerHost:    16, // exchanges at once, not a limit
		IdleConnTimeout:        30 * time.Second,
		ForceAttemptHTTP2:      true,
	}
	c, err := api.NewClient(&api.Config{
		Address:          strings.TrimSuffix(address, "/"),
		HttpClient:       &http.Client{Transport: bounded{transport}, CheckRedirect: stay},
		Timeout:          timeout,
		MaxRetries:       0, // a second try makes a second credential, and the first is lost
		DisableRedirects: true,
	})
	if err != nil {
		return nil, errors.New("the client of Vault does not start; a VAULT_ variable of the environment may be malformed: they are not used, unset them")
	}
	c.SetHeaders(http.Header{api.RequestHeaderName: {"true"}}) // without those of the environment
	c.ClearToken()
	if namespace != "" {
		c.SetNamespace(namespace)
	}
	c.SetWrappingLookupFunc(func(string, string) string { return "" })
	return &client{c, transport, timeout}, nil
}

// stay keeps a redirect from taking the token along.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// bounded cuts answers at maxAnswer, and lets a request be sent anew when the connection that it was put on turns out to
// have been closed while it was idle. That is safe for every request of ours: what the first made, if it made anything, is
// known to nobody, and dies with the login or ends as soon.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header["X-Idempotency-Key"] = nil // for net/http alone: without a value it is not sent
	resp, err := b.RoundTripper.RoundTrip(r)
	if resp != nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer+1), resp.Body}
	}
	return resp, err
}

func (c *client) close() { c.transport.CloseIdleConnections() }

// call is one request.
type call struct {
	what  string // for errors, as in "logging in"
	path  string // without v1/
	token secret.Value
	wrap  time.Duration // wrap the answer for so long; 0 for not
	body  any           // nil: a read, with query
	query url.Values
}

// answer is what Vault says: api.Secret, and what that type leaves out.
type answer struct {
	LeaseID       string              `json:"lease_id"`
	LeaseDuration int64               `json:"lease_duration"`
	Data          json.RawMessage     `json:"data"`
	Auth          *auth               `json:"auth"`
	WrapInfo      *api.SecretWrapInfo `json:"wrap_info"`
	Errors        []json.RawMessage   `json:"errors"`

	status int
}

type auth struct {
	api.SecretAuth
	TokenType string `json:"token_type"`
}

// refusal is an answer that says no. Its text is Vault's, and is looked at but never repeated: it can hold what was sent.
type refusal struct {
	status int
	texts  []string
}

func (r *refusal) Error() string { return fmt.Sprintf("Vault answers %d", r.status) }

func (r *refusal) says(text string) bool {
	for _, t := range r.texts {
		if strings.Contains(t, text) {
			return true
		}
	}
	return false
}

// do asks. Its errors wrap what they mean for a mint, see [meaning], and a *refusal when Vault answered.
func (c *client) do(ctx context.Context, q call) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	logical := c.api.WithRequestCallbacks(func(r *api.Request) {
		r.ClientToken = q.token.Reveal()
		if q.wrap > 0 {
			r.WrapTTL = fmt.Sprintf("%ds", int64(q.wrap/time.Second))
		}
	}).Logical()
	var resp *api.Response
	var err error
	if q.body == nil {
		resp, err = logical.ReadRawWithDataWithContext(ctx, q.path, q.query)
	} else {
		var body []byte
		if body, err = json.Marshal(q.body); err != nil {
			return answer{}, fmt.Errorf("%s: encoding the request", q.what)
		}
		resp, err = logical.WriteRawWithContext(ctx, q.path, body)
	}
	if resp != nil && resp.Body != nil {
		defer resp.Body.Close()
	}
	if err != nil {
		return answer{}, fmt.Errorf("%s: %w", q.what, meaning(err))
	}
	return read(q.what, resp)
}

// read takes an answer apart, and only a whole one.
func read(what string, resp *api.Response) (answer, error) {
	a := answer{status: resp.StatusCode}
	if resp.StatusCode == http.StatusNoContent {
		return a, nil
	}
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("%s: %w: Vault answers %d, and nothing but 200 is followed; address must name the active node", what, brokers.ErrMisconfigured, resp.StatusCode)
	}
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return a, fmt.Errorf("%s: %w: the answer broke off", what, brokers.ErrUncertain)
	case len(body) > maxAnswer:
		return a, fmt.Errorf("%s: %w: the answer is larger than %d bytes", what, brokers.ErrUncertain, maxAnswer)
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&a); err != nil {
		return answer{}, fmt.Errorf("%s: %w: the answer is no JSON of Vault's", what, brokers.ErrUncertain) // err can repeat a value
	}
	if len(a.Errors) > 0 { // beside what it gives: then it gives nothing
		return a, fmt.Errorf("%s: %w: Vault answers 200 with errors in it", what, brokers.ErrUncertain)
	}
	return a, nil
}

// meaning says what an error of the library's is for a mint: whether something can have been made.
func meaning(err error) error {
	var said *api.ResponseError
	if errors.As(err, &said) {
		r := &refusal{said.StatusCode, said.Errors}
		switch code := said.StatusCode; {
		case code == http.StatusTooManyRequests || code == http.StatusNotImplemented || code == http.StatusServiceUnavailable || code == 472 || code == 473:
			return fmt.Errorf("%w: %w", brokers.ErrUnavailable, r) // a quota, or standing by, or sealed
		case code >= 500:
			return fmt.Errorf("%w: %w", brokers.ErrUncertain, r)
		default:
			return fmt.Errorf("%w: %w", brokers.ErrMisconfigured, r)
		}
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("%w: no connection", brokers.ErrUnavailable)
	}
	var unknown *tls.CertificateVerificationError
	if errors.As(err, &unknown) {
		return fmt.Errorf("%w: Vault's certificate is not one that we trust; set ca_file", brokers.ErrMisconfigured)
	}
	// The address and the path are all that such errors name; still they are not repeated.
	return fmt.Errorf("%w: no answer", brokers.ErrUncertain)
}

// bare is the cause of a file error without the path.
func bare(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
