package kubernetes

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Limits of one request.
const (
	connectTimeout = 3 * time.Second
	requestTimeout = 10 * time.Second
	idleTimeout    = 60 * time.Second // less than load balancers give (from 90 s on), so that none closes under a request
	maxHeader      = 64 << 10         // bytes
	maxAnswer      = 2 << 20          // bytes; a page of a list is some 600 KiB, a token 2
)

// api is the API server of a target. It contacts that server and nothing else: no redirect is followed, and no proxy
// is taken from the environment, which must not choose who sees our login.
type api struct {
	base  string // without a slash at its end
	http  *http.Client
	login login
}

func newAPI(t brokers.Target, s Settings, l login) (*api, error) {
	base, err := parseServer(s.Server)
	if err != nil {
		return nil, fmt.Errorf("kubernetes broker of target %s: %w", t.Name, err)
	}
	roots, err := authorities(t, s)
	if err != nil {
		return nil, fmt.Errorf("kubernetes broker of target %s: %w", t.Name, err)
	}
	return &api{base: base, login: l, http: &http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{
			Proxy:                  nil,
			DialContext:            (&net.Dialer{Timeout: connectTimeout}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			TLSHandshakeTimeout:    connectTimeout,
			DisableCompression:     true,
			MaxIdleConnsPerHost:    8,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: maxHeader,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// authorities returns who may sign the server's certificate; nil is whom the system trusts.
func authorities(t brokers.Target, s Settings) (*x509.CertPool, error) {
	if s.CAFile == "" {
		return nil, nil
	}
	path := s.CAFile
	if t.Path != nil {
		path = t.Path(path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("ca_file has no PEM certificate")
	}
	return pool, nil
}

// Errors of calls. None of them repeats what the server said: it answers to requests that carry our login.
var (
	errNotSent  = errors.New("the API server could not be reached")
	errNoAnswer = errors.New("the API server did not answer")
	errNonsense = errors.New("the API server's answer is not what was asked for")
	errTooLate  = errors.New("too little of the grant is left")
)

// statusError is an answer other than 2xx.
type statusError struct {
	code   int
	reason string // one of reasons, or ""
}

func (e *statusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the API server answers %d %s", e.code, e.reason))
}

// reasons of the Status object (meta/v1) that say more than the code. Anything else could be a word of ours, sent back.
var reasons = []string{"AlreadyExists", "BadRequest", "Conflict", "Expired", "Forbidden", "InternalError", "Invalid", "NotFound", "ServerTimeout", "ServiceUnavailable", "Timeout", "TooManyRequests", "Unauthorized"}

func isStatus(err error, code int) bool {
	var s *statusError
	return errors.As(err, &s) && s.code == code
}

// What answers are asked for. Of Secrets it is never more than the metadata: what somebody else keeps in the namespace
// is not for us to read.
const (
	whole        = "application/json"
	metadataOnly = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	metadataList = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
)

// call sends one request, in as its body when it is not nil, and decodes a 2xx answer into out when that is not nil.
func (a *api) call(ctx context.Context, method, path, accept string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%w: %w", errNotSent, err)
		}
		body = bytes.NewReader(data)
	}
	token, err := a.login(ctx)
	if err != nil {
		return err
	}
	var sent atomic.Bool // once there is a connection, the request may have been read
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	req.Header.Set("Accept", accept)
	req.Header.Set("User-Agent", "sallyport")
	// A connection that the other side closed while it was idle is noticed when it is used again; net/http then repeats
	// what it knows to be harmless, by this header, which is not sent. All of ours is: what is made has a name, a second
	// token is bound to the same Secret, and what is deleted is deleted.
	req.Header["Idempotency-Key"] = nil
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := a.http.Do(req)
	switch {
	case err != nil && !sent.Load():
		return fmt.Errorf("%w: %w", errNotSent, bare(err))
	case err != nil:
		return fmt.Errorf("%w: %w", errNoAnswer, bare(err))
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case res.StatusCode/100 != 2:
		return newStatus(res.StatusCode, text)
	case err != nil:
		return fmt.Errorf("%w: %w", errNoAnswer, bare(err))
	case len(text) > maxAnswer:
		return fmt.Errorf("%w: it is longer than %d bytes", errNonsense, maxAnswer)
	}
	if out != nil && json.Unmarshal(text, out) != nil { // its error may repeat the text
		return fmt.Errorf("%w: it is not the JSON of such an object", errNonsense)
	}
	return nil
}

func newStatus(code int, text []byte) error {
	var s struct{ Reason string }
	_ = json.Unmarshal(text, &s) // a proxy in between answers in its own words
	if !slices.Contains(reasons, s.Reason) {
		s.Reason = ""
	}
	return &statusError{code, s.Reason}
}

// bare drops the URL, which the target's file says already, from what net/http says.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// classOf returns what the error of a request means to callers of brokers. It is ErrUncertain unless it proves that the
// request was not executed.
func classOf(err error) error {
	var s *statusError
	switch {
	case errors.Is(err, errTooLate):
		return brokers.ErrTooShort
	case errors.Is(err, errNotSent), errors.Is(err, errNotSigned):
		return brokers.ErrUnavailable
	case errors.Is(err, errNoLogin):
		return brokers.ErrMisconfigured
	case !errors.As(err, &s):
		return brokers.ErrUncertain
	case s.code == http.StatusTooManyRequests:
		return brokers.ErrUnavailable // refused before it was looked at (API Priority and Fairness)
	case s.code >= 300 && s.code < 500:
		return brokers.ErrMisconfigured // our login, our rights, a name that is not there, or no API server at all
	default:
		return brokers.ErrUncertain // 5xx: a proxy that lost the answer says the same
	}
}
