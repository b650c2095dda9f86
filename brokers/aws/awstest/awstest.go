// Package awstest is a FAKE of two actions of AWS STS, AssumeRoleWithWebIdentity and AssumeRole (version 2011-06-15), of an instance's
// metadata (IMDSv2), and of the four of IAM that are
// about inline policies of roles (version 2010-05-08). It is no AWS: it holds requests to what the published documentation says,
// answers in its XML, and refuses with its codes.
package awstest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// What the fake trusts.
const (
	Role     = "arn:aws:iam::123456789012:role/paths/are/left/out/orders"
	Session  = "arn:aws:sts::123456789012:assumed-role/orders/"
	Audience = "sts.amazonaws.com"
	// Revoker is a role that may write inline policies of Role.
	Revoker        = "arn:aws:iam::123456789012:role/sallyport-revoker"
	revokerSession = "arn:aws:sts::123456789012:assumed-role/sallyport-revoker/"
)

// Server is the fake.
type Server struct {
	URL     string
	Issuer  string // of our assertions
	Subject string // that the role trusts; "sallyport-revoker:" and its target is trusted by the revoker's

	verify func(*jose.JSONWebSignature) ([]byte, error)
	mu     sync.Mutex
	asked  []url.Values
	before func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	change func(answer string) string

	sessions map[string]session // by session token
	policies map[string]string  // inline policies of the role
	calls    map[string]int     // of IAM, by action
}

// session is what the fake remembers of one that it made.
type session struct {
	key, secret, role string
	policy            string // that bounds it
	tags              map[string][]string
}

// New runs a server until the test ends. verify checks the signature of an assertion by the issuer's keys.
func New(t testing.TB, issuer, subject string, verify func(*jose.JSONWebSignature) ([]byte, error)) *Server {
	t.Helper()
	s := &Server{Issuer: issuer, Subject: subject, verify: verify, sessions: map[string]session{}, policies: map[string]string{}, calls: map[string]int{}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Before lets a test answer in the server's place.
func (s *Server) Before(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

// Change lets a test change what is answered.
func (s *Server) Change(f func(string) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change = f
}

// Asked returns the last request.
func (s *Server) Asked() url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) == 0 {
		return nil
	}
	return s.asked[len(s.asked)-1]
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>0f</RequestId></ErrorResponse>`, code, message)
}

var (
	sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
	tag         = regexp.MustCompile(`^[\w .:/=+@-]{1,256}$`)
)

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	before, change := s.before, s.change
	s.mu.Unlock()
	if before != nil && before(w, r) {
		return
	}
	switch {
	case strings.Contains(r.Header.Get("Authorization"), "/iam/aws4_request"):
		s.iam(w, r)
		return
	case strings.HasPrefix(r.URL.Path, "/latest/"):
		s.metadata(w, r)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		refuse(w, 400, "ValidationError", "the body")
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if r.Method != http.MethodPost || r.ParseForm() != nil {
		refuse(w, 400, "ValidationError", "the action is a form")
		return
	}
	f := r.PostForm
	s.mu.Lock()
	s.asked = append(s.asked, f)
	s.mu.Unlock()
	seconds, err := strconv.Atoi(f.Get("DurationSeconds"))
	switch {
	case f.Get("Action") != "AssumeRoleWithWebIdentity" && f.Get("Action") != "AssumeRole" || f.Get("Version") != "2011-06-15":
		refuse(w, 400, "InvalidAction", "no such action")
		return
	case f.Get("Action") == "AssumeRoleWithWebIdentity" && r.Header.Get("Authorization") != "":
		refuse(w, 400, "ValidationError", "the action is unsigned")
		return
	case err != nil || seconds < 900 || seconds > 43200:
		refuse(w, 400, "ValidationError", "DurationSeconds is outside 900 to 43200")
		return
	case !sessionName.MatchString(f.Get("RoleSessionName")):
		refuse(w, 400, "ValidationError", "RoleSessionName")
		return
	case len(f.Get("Policy")) > 2048 || f.Has("Policy") && !json.Valid([]byte(f.Get("Policy"))):
		refuse(w, 400, "MalformedPolicyDocument", "Policy")
		return
	case f.Has("PolicyArns.member.11.arn"):
		refuse(w, 400, "ValidationError", "PolicyArns")
		return
	case f.Get("RoleArn") != Role && f.Get("RoleArn") != Revoker:
		refuse(w, 403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
		return
	}
	action := f.Get("Action")
	for key := range f {
		if action == "AssumeRoleWithWebIdentity" && (strings.HasPrefix(key, "Tags.") || key == "SourceIdentity" || key == "ExternalId") || action == "AssumeRole" && key == "WebIdentityToken" {
			refuse(w, 400, "ValidationError", "there is no such parameter of this action")
			return
		}
	}
	subject, arn := s.Subject, Session
	if f.Get("RoleArn") == Revoker {
		subject, arn = strings.Replace(s.Subject, "sallyport:", "sallyport-revoker:", 1), revokerSession
	}
	var source, code, message string
	var tags map[string][]string
	if action == "AssumeRole" {
		source, tags, code, message = s.inside(r, body, f)
	} else {
		source, tags, code, message = s.identity(f.Get("WebIdentityToken"), subject)
	}
	if code != "" {
		status := 400
		if code == "AccessDenied" || code == "InvalidClientTokenId" || code == "SignatureDoesNotMatch" || code == "IDPRejectedClaim" {
			status = 403
		}
		refuse(w, status, code, message)
		return
	}
	made := session{key: "ASIA" + rand.Text()[:16], secret: rand.Text() + rand.Text()[:12] + "/+", role: f.Get("RoleArn"), policy: f.Get("Policy"), tags: tags}
	token := strings.Repeat(rand.Text(), 20) + "=="
	s.mu.Lock()
	s.sessions[token] = made
	s.mu.Unlock()
	answer := fmt.Sprintf(`<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>`+
		`<Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials>`+
		`<AssumedRoleUser><Arn>%s%s</Arn><AssumedRoleId>AROA1:%s</AssumedRoleId></AssumedRoleUser><Audience>%s</Audience><Provider>%s</Provider>`+
		`<SubjectFromWebIdentityToken>%s</SubjectFromWebIdentityToken><SourceIdentity>%s</SourceIdentity></AssumeRoleWithWebIdentityResult>`+
		`<ResponseMetadata><RequestId>0f</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>`,
		made.key, made.secret, token, time.Now().Add(time.Duration(seconds)*time.Second).UTC().Format(time.RFC3339),
		arn, f.Get("RoleSessionName"), f.Get("RoleSessionName"), Audience, s.Issuer, subject, source)
	answer = strings.ReplaceAll(answer, "AssumeRoleWithWebIdentityRes", action+"Res")
	if change != nil {
		answer = change(answer)
	}
	w.Header().Set("Content-Type", "text/xml")
	_, _ = w.Write([]byte(answer))
}

// identity verifies an assertion as AWS does.
func (s *Server) identity(raw, subject string) (source string, with map[string][]string, code, message string) {
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.RS256, jose.ES256})
	if err != nil || len(raw) > 20000 {
		return "", nil, "InvalidIdentityToken", "no JWT"
	}
	payload, err := s.verify(jws)
	if err != nil {
		return "", nil, "InvalidIdentityToken", "the signature does not verify"
	}
	var c struct {
		Iss, Sub string
		Aud      any
		Azp      string
		Exp, Iat int64
		Tags     struct {
			Principal  map[string][]string `json:"principal_tags"`
			Transitive []string            `json:"transitive_tag_keys"`
		} `json:"https://aws.amazon.com/tags"`
		Source string `json:"https://aws.amazon.com/source_identity"`
	}
	now := time.Now().Unix()
	switch {
	case json.Unmarshal(payload, &c) != nil || c.Iss != s.Issuer || c.Aud != Audience || c.Azp != "":
		return "", nil, "InvalidIdentityToken", "iss or aud"
	case c.Exp <= now || c.Iat > now+5:
		return "", nil, "ExpiredTokenException", "exp"
	case c.Sub != subject:
		return "", nil, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"
	case c.Source != "" && !sessionName.MatchString(c.Source), len(c.Tags.Principal) > 50:
		return "", nil, "IDPRejectedClaim", "source identity or tags"
	}
	for k, v := range c.Tags.Principal {
		if len(v) != 1 || len(k) > 128 || strings.HasPrefix(strings.ToLower(k), "aws:") || !tag.MatchString(k) || !tag.MatchString(v[0]) {
			return "", nil, "IDPRejectedClaim", "a tag"
		}
	}
	return c.Source, c.Tags.Principal, "", ""
}
