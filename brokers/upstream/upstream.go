// Package upstream is what brokers that call one HTTP API have in common: a client that contacts that API and nothing else, requests
// that tell whether they can have had an effect, and the assertion that we show.
package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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
)

// Errors of requests. None of them repeats what the server said: it answers to requests that carry an assertion or a token of ours.
var (
	ErrNotSent  = errors.New("it could not be reached") // the request had no effect
	ErrNoAnswer = errors.New("it did not answer")       // the request may have had its effect
)

// NewClient returns a client that follows no redirect and takes no proxy from the environment, which must not choose who sees our
// login. keep is how many idle connections it keeps; 0 for none.
func NewClient(roots *x509.CertPool, keep int) *http.Client {
	return &http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{
			Proxy:                  nil,
			DialContext:            (&net.Dialer{Timeout: connectTimeout}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			TLSHandshakeTimeout:    connectTimeout,
			DisableCompression:     true,
			DisableKeepAlives:      keep == 0,
			MaxIdleConnsPerHost:    keep,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: maxHeader,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Authorities returns who may sign a server's certificate: the PEM certificates of a file, or nil, whom the system trusts, for "".
func Authorities(t brokers.Target, caFile string) (*x509.CertPool, error) {
	if caFile == "" {
		return nil, nil
	}
	path := caFile
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

// ParseURL checks the URL of an API: https, or http to a loopback host, with a plain path and nothing else. Its errors follow the name
// of the setting; like is a URL as it should be.
func ParseURL(s, like string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "":
		return nil, fmt.Errorf("is no URL; write %s", like)
	case u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())):
		return nil, errors.New("is not https; what we show and what we get would be read on the way (http is for a loopback host)")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"), strings.Contains(s, "%"), strings.Contains(u.Path, "//"), strings.Contains(u.Path, ".."):
		return nil, fmt.Errorf("is more than a host and a plain path; write %s", like)
	}
	return u, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Answer is a whole answer.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends a request and reads the answer, most bytes of it at most. An answer that broke off or is longer is ErrNoAnswer, but for one
// whose status is not 2xx: that has been read as far as it goes.
func Do(ctx context.Context, c *http.Client, r *http.Request, most int64) (Answer, error) {
	var sent atomic.Bool // once there is a connection, the request may have been read
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	r.Header.Set("User-Agent", "sallyport")
	res, err := c.Do(r.WithContext(ctx))
	switch {
	case err != nil && !sent.Load():
		return Answer{}, fmt.Errorf("%w: %w", ErrNotSent, bare(err))
	case err != nil:
		return Answer{}, fmt.Errorf("%w: %w", ErrNoAnswer, bare(err))
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	switch {
	case res.StatusCode/100 != 2:
		return Answer{res.StatusCode, res.Header, text[:min(int64(len(text)), most)]}, nil
	case err != nil:
		return Answer{}, fmt.Errorf("%w: %w", ErrNoAnswer, bare(err))
	case int64(len(text)) > most:
		return Answer{}, fmt.Errorf("%w: its answer is longer than %d bytes", ErrNoAnswer, most)
	}
	return Answer{res.StatusCode, res.Header, text}, nil
}

// bare drops the URL, which the target's file says already, from what net/http says.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

const (
	assertionLifetime = 2 * time.Minute // of the JWT that is shown: it is used at once
	clocks            = 5 * time.Second // that another clock may be behind ours: some refuse what begins later than now
)

// Assertion is the JWT that we show to others. It has one audience and no azp; its subject is the target, so that the other side can
// trust it exactly.
type Assertion struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
	ID       string `json:"jti"`
}

// NewAssertion is one of a subject for an audience, from now.
func NewAssertion(d brokers.Deps, subject, audience, id string) Assertion {
	now := d.Now()
	return Assertion{d.Issuer + brokers.AssertionsPath, subject, audience, now.Add(-clocks).Unix(), now.Add(assertionLifetime).Unix(), id}
}

// Subject is the sub of the assertions that are shown for a target.
func Subject(target string) string { return "sallyport:" + target }

// IsWord reports whether s is 1 to most printable ASCII characters without blanks.
func IsWord(s string, most int) bool {
	return s != "" && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// CheckAlgorithm reports an algorithm of assertions that the service does not sign with, or that the other side, which knows known,
// does not take. "" is the deployment's default.
func CheckAlgorithm(t brokers.Target, algorithm string, known ...string) []brokers.Problem {
	bad := func(format string, args ...any) []brokers.Problem {
		return []brokers.Problem{{Path: "algorithm", Message: fmt.Sprintf(format, args...)}}
	}
	switch {
	case algorithm != "" && t.Signing != nil && !slices.Contains(t.Signing, algorithm):
		return bad("algorithm %q is not one of signing.algorithms (%s); add it there, or choose one of them", algorithm, strings.Join(t.Signing, ", "))
	case algorithm != "" && !slices.Contains(known, algorithm):
		return bad("algorithm %q is none that the other side takes; choose %s", algorithm, strings.Join(known, " or "))
	case algorithm == "" && len(t.Signing) > 0 && !slices.Contains(known, t.Signing[0]):
		return bad("the first of signing.algorithms is %s, which the other side does not take; name one here that it does, %s, and list it there", t.Signing[0], strings.Join(known, " or "))
	}
	return nil
}
