package aws

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Limits of one request.
const (
	connectTimeout = 3 * time.Second
	requestTimeout = 10 * time.Second
	maxHeader      = 64 << 10 // bytes
	maxAnswer      = 64 << 10 // bytes; a session token is some 2 KiB, and AWS promises no size
)

// api is one endpoint, of STS or IAM. Nothing else is contacted: no redirect is followed, and no proxy is taken from the environment, which
// must not choose who sees our assertion.
type api struct {
	url  string
	http *http.Client
}

func newAPI(endpoint string, roots *x509.CertPool) *api {
	return &api{url: endpoint, http: &http.Client{
		Timeout: requestTimeout,
		Transport: &http.Transport{
			Proxy:                  nil,
			DialContext:            (&net.Dialer{Timeout: connectTimeout}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			TLSHandshakeTimeout:    connectTimeout,
			DisableCompression:     true,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        20 * time.Second,
			MaxResponseHeaderBytes: maxHeader,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// authorities returns who may sign the endpoint's certificate; nil is whom the system trusts.
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

var region = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-\d$`)

// parseEndpoint returns the URL that is asked.
func stsEndpoint(s Settings) (string, error) {
	if s.Endpoint != "" {
		return parseEndpoint(s.Endpoint)
	}
	if !region.MatchString(s.Region) {
		return "", errors.New("follows from the region, and that is none")
	}
	suffix := ".amazonaws.com/"
	if strings.HasPrefix(s.Region, "cn-") {
		suffix = ".amazonaws.com.cn/"
	}
	return "https://sts." + s.Region + suffix, nil
}

// parseEndpoint reads the URL of an endpoint that is not AWS's own.
func parseEndpoint(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	loopback := func(host string) bool {
		ip := net.ParseIP(host)
		return host == "localhost" || ip != nil && ip.IsLoopback()
	}
	switch {
	case err != nil || u.Hostname() == "":
		return "", errors.New("is no URL; write https://HOST/")
	case u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())):
		return "", errors.New("is not https; our assertion and the session would be read on the way (http is for a loopback host)")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(endpoint, "#"):
		return "", errors.New("is more than a host and a path; write https://HOST/")
	}
	return endpoint, nil
}

// Errors of calls. None of them repeats what the server said: it answers to requests that carry our assertion.
var (
	errNotSent  = errors.New("AWS could not be reached")
	errNoAnswer = errors.New("AWS did not answer")
	errNonsense = errors.New("the answer is none that AWS gives to this call")
)

// codeError is an error of STS or IAM, by its code. Codes are a closed list: anything else could be a word of ours, sent back.
type codeError struct {
	status int
	code   string
}

func (e *codeError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("AWS answers %d %s", e.status, e.code))
}

// codes that STS publishes for AssumeRoleWithWebIdentity and for every action, and what each means to a caller of brokers.
var codes = map[string]error{
	"ExpiredTokenException":       brokers.ErrMisconfigured, // our assertion: our clock
	"IDPCommunicationError":       brokers.ErrUnavailable,   // AWS could not read our keys
	"IDPRejectedClaim":            brokers.ErrMisconfigured,
	"InvalidIdentityToken":        brokers.ErrMisconfigured,
	"AccessDenied":                brokers.ErrMisconfigured, // no such role, or it does not trust this target
	"AccessDeniedException":       brokers.ErrMisconfigured,
	"MalformedPolicyDocument":     brokers.ErrMisconfigured,
	"PackedPolicyTooLarge":        brokers.ErrScopes,
	"RegionDisabledException":     brokers.ErrMisconfigured,
	"ValidationError":             brokers.ErrMisconfigured,
	"InvalidParameterValue":       brokers.ErrMisconfigured,
	"InvalidParameterCombination": brokers.ErrMisconfigured,
	"MissingParameter":            brokers.ErrMisconfigured,
	"OptInRequired":               brokers.ErrMisconfigured,
	"Throttling":                  brokers.ErrUnavailable, // with the status 400
	"ThrottlingException":         brokers.ErrUnavailable,
	"RequestLimitExceeded":        brokers.ErrUnavailable,
	"ServiceUnavailable":          brokers.ErrUnavailable,
	"RequestExpired":              brokers.ErrMisconfigured,
	"InvalidClientTokenId":        brokers.ErrMisconfigured, // from here on IAM's
	"SignatureDoesNotMatch":       brokers.ErrMisconfigured,
	"NoSuchEntity":                brokers.ErrMisconfigured,
	"UnmodifiableEntity":          brokers.ErrMisconfigured, // a role of IAM Identity Center
	"LimitExceeded":               brokers.ErrScopes,
	"ConcurrentModification":      brokers.ErrUnavailable,
	"ServiceFailure":              brokers.ErrUnavailable,
}

// errorAnswer is an error of STS (version 2011-06-15).
type errorAnswer struct {
	XMLName xml.Name `xml:"ErrorResponse"`
	Error   struct {
		Code string `xml:"Code"`
	} `xml:"Error"`
}

// sessionAnswer is the answer to AssumeRoleWithWebIdentity.
type sessionAnswer struct {
	XMLName xml.Name `xml:"AssumeRoleWithWebIdentityResponse"`
	Result  struct {
		Credentials struct {
			AccessKey    string `xml:"AccessKeyId"`
			SecretKey    string `xml:"SecretAccessKey"`
			SessionToken string `xml:"SessionToken"`
			Expiration   string `xml:"Expiration"`
		} `xml:"Credentials"`
		User struct {
			ARN string `xml:"Arn"`
		} `xml:"AssumedRoleUser"`
		SourceIdentity string `xml:"SourceIdentity"`
	} `xml:"AssumeRoleWithWebIdentityResult"`
	Error *struct{} `xml:"Error"` // never beside a session
}

// post sends one request, which sign completes (nil: it is unsigned), and reads the answer into out.
func (a *api) post(ctx context.Context, form url.Values, sign func(r *http.Request, body string) error, out any) error {
	body := form.Encode()
	var sent atomic.Bool // once there is a connection, the request may have been read
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, strings.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "text/xml")
	req.Header.Set("User-Agent", "sallyport")
	if sign != nil {
		if err := sign(req, body); err != nil {
			return fmt.Errorf("%w: %w", errNotSent, err)
		}
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
	if res.StatusCode != http.StatusOK {
		var e errorAnswer
		_ = xml.Unmarshal(text, &e) // a proxy in between answers in its own words
		if _, known := codes[e.Error.Code]; !known {
			e.Error.Code = ""
		}
		return &codeError{res.StatusCode, e.Error.Code}
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errNoAnswer, bare(err))
	case len(text) > maxAnswer:
		return fmt.Errorf("%w: it is longer than %d bytes", errNonsense, maxAnswer)
	case out != nil && xml.Unmarshal(text, out) != nil: // its error may repeat the text
		return errNonsense
	}
	return nil
}

// assume asks for a session.
func (a *api) assume(ctx context.Context, form url.Values) (sessionAnswer, error) {
	var out sessionAnswer
	if err := a.post(ctx, form, nil, &out); err != nil {
		return sessionAnswer{}, err
	}
	if out.Error != nil {
		return sessionAnswer{}, errNonsense
	}
	return out, nil
}

// bare drops the URL, which the target's file says already, from what net/http says.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// classOf returns what the error of a mint means to callers of brokers. A session that was made and lost ends by itself.
func classOf(err error) error {
	var c *codeError
	switch {
	case errors.Is(err, errNotSent):
		return brokers.ErrUnavailable
	case !errors.As(err, &c):
		return brokers.ErrUncertain
	case codes[c.code] != nil:
		return codes[c.code]
	case c.status >= 300 && c.status < 500:
		return brokers.ErrMisconfigured
	default:
		return brokers.ErrUncertain
	}
}
