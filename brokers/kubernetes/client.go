package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
)

const (
	maxAnswer = 2 << 20 // bytes; a page of a list is some 600 KiB, a token 2
	keepIdle  = 8       // connections
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
	roots, err := upstream.Authorities(t, s.CAFile)
	if err != nil {
		return nil, fmt.Errorf("kubernetes broker of target %s: %w", t.Name, err)
	}
	return &api{base: base, login: l, http: upstream.NewClient(roots, keepIdle)}, nil
}

// Errors of calls. None of them repeats what the server said: it answers to requests that carry our login.
var (
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
			return fmt.Errorf("%w: %w", upstream.ErrNotSent, err)
		}
		body = bytes.NewReader(data)
	}
	token, err := a.login(ctx)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return fmt.Errorf("%w: %w", upstream.ErrNotSent, err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	req.Header.Set("Accept", accept)
	// A connection that the other side closed while it was idle is noticed when it is used again; net/http then repeats
	// what it knows to be harmless, by this header, which is not sent. All of ours is: what is made has a name, a second
	// token is bound to the same Secret, and what is deleted is deleted.
	req.Header["Idempotency-Key"] = nil
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := upstream.Do(ctx, a.http, req, maxAnswer)
	switch {
	case err != nil:
		return err
	case res.Status/100 != 2:
		return newStatus(res.Status, res.Body)
	}
	if out != nil && json.Unmarshal(res.Body, out) != nil { // its error may repeat the text
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

// classOf returns what the error of a request means to callers of brokers. It is ErrUncertain unless it proves that the
// request was not executed.
func classOf(err error) error {
	var s *statusError
	switch {
	case errors.Is(err, errTooLate):
		return brokers.ErrTooShort
	case errors.Is(err, upstream.ErrNotSent), errors.Is(err, errNotSigned):
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
