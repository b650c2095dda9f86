package aws

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
)

// maxAnswer is in bytes; a session token is some 2 KiB, and AWS promises no size.
const maxAnswer = 64 << 10

// keepIdle is how many connections are kept to an endpoint.
const keepIdle = 4

// api is one endpoint, of STS or IAM.
type api struct {
	url  string
	http *http.Client
}

func newAPI(endpoint string, roots *x509.CertPool) *api {
	return &api{endpoint, upstream.NewClient(roots, keepIdle)}
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
	_, err := upstream.ParseURL(endpoint, "https://HOST/")
	return endpoint, err
}

var errNonsense = errors.New("the answer is none that AWS gives to this call")

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

// sessionAnswer is what STS says of a session.
type sessionAnswer struct {
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
}

// post sends one request, which sign completes (nil: it is unsigned), and reads the answer into out.
func (a *api) post(ctx context.Context, form url.Values, sign func(r *http.Request, body string) error, out any) error {
	body := form.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, strings.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: %w", upstream.ErrNotSent, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "text/xml")
	if sign != nil {
		if err := sign(req, body); err != nil {
			return fmt.Errorf("%w: %w", upstream.ErrNotSent, err)
		}
	}
	res, err := upstream.Do(ctx, a.http, req, maxAnswer)
	switch {
	case err != nil:
		return err
	case res.Status != http.StatusOK:
		var e errorAnswer
		_ = xml.Unmarshal(res.Body, &e) // a proxy in between answers in its own words
		if _, known := codes[e.Error.Code]; !known {
			e.Error.Code = ""
		}
		return &codeError{res.Status, e.Error.Code}
	case out != nil && xml.Unmarshal(res.Body, out) != nil: // its error may repeat the text
		return errNonsense
	}
	return nil
}

// assume asks for a session.
func (a *api) assume(ctx context.Context, form url.Values, sign func(*http.Request, string) error) (sessionAnswer, error) {
	var out struct {
		XMLName xml.Name
		Web     *sessionAnswer `xml:"AssumeRoleWithWebIdentityResult"`
		Role    *sessionAnswer `xml:"AssumeRoleResult"`
		Error   *struct{}      `xml:"Error"` // never beside a session
	}
	if err := a.post(ctx, form, sign, &out); err != nil {
		return sessionAnswer{}, err
	}
	action := form.Get("Action")
	result, other := out.Web, out.Role
	if action == "AssumeRole" {
		result, other = other, result
	}
	if out.Error != nil || out.XMLName.Local != action+"Response" || result == nil || other != nil {
		return sessionAnswer{}, errNonsense
	}
	return *result, nil
}

// signer signs requests (Signature Version 4).
func signer(ctx context.Context, who aws.Credentials, service, region string, now func() time.Time) func(*http.Request, string) error {
	return func(r *http.Request, body string) error {
		sum := sha256.Sum256([]byte(body))
		return v4.NewSigner().SignHTTP(ctx, who, r, hex.EncodeToString(sum[:]), service, region, now())
	}
}

// classOf returns what the error of a mint means to callers of brokers. A session that was made and lost ends by itself.
func classOf(err error) error {
	var c *codeError
	switch {
	case errors.Is(err, upstream.ErrNotSent):
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
