// Package fetch is the one HTTP client for keys and bundles of issuers. It contacts nothing but what
// configuration names, and gives a hostile or broken server little to work with: addresses are checked as
// they are dialled, after name resolution (a name that resolves differently the second time gains
// nothing), time and size are capped, redirects, cookies, proxies from the environment and compression do
// not exist. No byte of an answer ever stands in an error.
package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Limits of design section 6.
const (
	ConnectTimeout = 3 * time.Second
	TotalTimeout   = 10 * time.Second
	MaxBody        = 512 << 10 // bytes
	maxHeaderBytes = 64 << 10
)

// Why a fetch failed, beyond what the network says.
var (
	ErrAddress  = errors.New("address is not public")
	ErrScheme   = errors.New("address is not https")
	ErrURL      = errors.New("address has user information, a fragment or no host")
	ErrRedirect = errors.New("server redirects")
	ErrTooLarge = errors.New("answer is too large")
	ErrEncoding = errors.New("answer is compressed, which was not asked for")
	ErrStatus   = errors.New("server answers with an error status")
)

// Network is what an issuer entry may allow.
type Network struct {
	AllowPrivate bool   `yaml:"allow_private" json:"allow_private,omitempty" jsonschema_description:"Allow loopback and private addresses. Link-local and cloud metadata addresses stay refused."`
	AllowHTTP    bool   `yaml:"allow_http" json:"allow_http,omitempty" jsonschema_description:"Allow plain http. Whoever is on the path can then replace the keys."`
	CAFile       string `yaml:"ca_file" json:"ca_file,omitempty" jsonschema_description:"PEM file with the only certificate authorities to believe. Default: the system's."`
}

// CheckURL refuses URLs that would not be fetched: other schemes than https (or http where allowed), user
// information, a fragment, no host.
func (n Network) CheckURL(u *url.URL) error {
	if u.Scheme != "https" && !(u.Scheme == "http" && n.AllowHTTP) {
		return ErrScheme
	}
	if u.User != nil || u.Host == "" || u.Fragment != "" || u.Opaque != "" {
		return ErrURL
	}
	return nil
}

// New returns a client for one issuer. It reads CAFile, so a new certificate authority needs a new client.
// The client keeps no connection open between requests and is safe for concurrent use.
func New(n Network) (*http.Client, error) {
	return n.client(nil)
}

// Stream returns a client for an answer without an end, such as server-sent events: the same as [New], but that the answer
// takes as long as its reader likes and is as long as it is. Whoever reads bounds both.
func Stream(n Network) (*http.Client, error) {
	c, err := n.client(nil)
	if err != nil {
		return nil, err
	}
	c.Timeout = 0
	c.Transport.(*guard).endless = true
	return c, nil
}

// client is New with a resolver, nil for the system's.
func (n Network) client(resolver *net.Resolver) (*http.Client, error) {
	roots, err := n.roots()
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: ConnectTimeout, Resolver: resolver, ControlContext: n.control}
	return &http.Client{
		Timeout: TotalTimeout,
		Transport: &guard{network: n, base: &http.Transport{
			Proxy:                  nil, // an environment variable must not choose who sees our requests
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			TLSHandshakeTimeout:    ConnectTimeout,
			DisableCompression:     true,
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: maxHeaderBytes,
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

func (n Network) roots() (*x509.CertPool, error) {
	if n.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(n.CAFile)
	if err != nil {
		return nil, fmt.Errorf("reading certificate authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading certificate authorities: %s has no PEM certificate", n.CAFile)
	}
	return pool, nil
}

// guard refuses requests before they are sent and answers before they are read.
type guard struct {
	network Network
	base    http.RoundTripper
	endless bool
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.network.CheckURL(req.URL); err != nil {
		return nil, err
	}
	res, err := g.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if err := checkAnswer(res); err != nil {
		res.Body.Close()
		return nil, err
	}
	if !g.endless {
		res.Body = &limited{body: res.Body, left: MaxBody}
	}
	return res, nil
}

func checkAnswer(res *http.Response) error {
	switch {
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return ErrRedirect
	case res.StatusCode != http.StatusOK:
		return ErrStatus
	case res.Header.Get("Content-Encoding") != "" && res.Header.Get("Content-Encoding") != "identity":
		return ErrEncoding
	case res.ContentLength > MaxBody:
		return ErrTooLarge
	}
	return nil
}

// limited is a body that fails rather than ends when it is too long: half a document is no document.
type limited struct {
	body io.ReadCloser
	left int
}

// Read implements io.Reader.
func (l *limited) Read(p []byte) (int, error) {
	if len(p) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.body.Read(p)
	if n > l.left {
		return l.left, ErrTooLarge
	}
	l.left -= n
	return n, err
}

// Close implements io.Closer.
func (l *limited) Close() error { return l.body.Close() }

// Document is a fetched answer.
type Document struct {
	Body   []byte
	MaxAge time.Duration // of Cache-Control, 0 when it says nothing
}

// Get fetches url with a client of this package.
func Get(ctx context.Context, client *http.Client, url string) (Document, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Document{}, ErrURL
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	res, err := client.Do(req)
	if err != nil {
		return Document{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return Document{}, err
	}
	return Document{Body: body, MaxAge: maxAge(res.Header)}, nil
}

// maxAge reads max-age of Cache-Control; no-store and no-cache count as nothing (RFC 9111 section 5.2.2).
func maxAge(h http.Header) time.Duration {
	var age time.Duration
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			return 0
		case "max-age":
			seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
			if err == nil {
				age = time.Duration(seconds) * time.Second
			}
		}
	}
	return age
}

// Reason returns a constant text for why a fetch failed, "" when it was not for the network. Unlike the
// error it holds no address.
func Reason(err error) string {
	for _, known := range []error{ErrAddress, ErrScheme, ErrURL, ErrRedirect, ErrTooLarge, ErrEncoding, ErrStatus} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	var (
		certificate *tls.CertificateVerificationError
		timeout     interface{ Timeout() bool }
		request     *url.Error
	)
	switch {
	case errors.As(err, &certificate):
		return "server certificate does not verify"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "server does not answer in time"
	case errors.As(err, &request):
		return "server cannot be reached"
	default:
		return ""
	}
}
