package aws

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// assertion is the JWT that we show to AWS.
type assertion struct {
	upstream.Assertion
	Tags   *tags  `json:"https://aws.amazon.com/tags,omitempty"`
	Source string `json:"https://aws.amazon.com/source_identity,omitempty"`
}

// tags are session tags: who the session is for, which a chained role keeps.
type tags struct {
	Principal  map[string][]string `json:"principal_tags"`
	Transitive []string            `json:"transitive_tag_keys"`
}

// Names of the tags.
const (
	tagWorkload = "sallyport:workload"
	tagTarget   = "sallyport:target"
	tagSession  = "sallyport:session" // the name of the credential, which tells when it ends: see [brokers.ParseName]
)

// Mint implements [brokers.Broker].
func (b *Broker) Mint(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
	if o.IsZero() {
		return brokers.Credential{}, brokers.ErrZeroOrder
	}
	if b.settings.HandOver {
		return upstream.HandOver(ctx, b.deps, b.algorithm, b.target, b.audience, reasonHandedOver, o)
	}
	policy, arns, err := b.bounds(o.Grant().Scopes())
	if err != nil {
		return brokers.Credential{}, err
	}
	now := b.deps.Now()
	seconds := int64(o.Grant().Expires().Sub(now)/time.Second) - int64(slack/time.Second)
	if seconds < int64(leastLife/time.Second) {
		return brokers.Credential{}, fmt.Errorf("%w: AWS gives no session of less than %s", brokers.ErrTooShort, leastLife)
	}
	name := sessionName(o)
	form := url.Values{"RoleArn": {b.settings.Role}, "RoleSessionName": {name}, "DurationSeconds": {strconv.FormatInt(seconds, 10)}}
	if policy != "" {
		form.Set("Policy", policy)
	}
	for i, arn := range arns {
		form.Set(fmt.Sprintf("PolicyArns.member.%d.arn", i+1), arn)
	}
	a, err := b.assume(ctx, form, b.about(o))
	if err != nil {
		return brokers.Credential{}, err
	}
	c, err := b.fits(a, name, o, now)
	if err != nil {
		return brokers.Credential{}, err
	}
	text, err := json.Marshal(c)
	if err != nil {
		return brokers.Credential{}, fmt.Errorf("%w: %w", brokers.ErrUncertain, err)
	}
	return brokers.Credential{
		Type: Type, TokenType: brokers.NotApplicable, Value: secret.New(string(text)), Audience: o.Grant().Target(), Scopes: o.Grant().Scopes(), Expires: c.Expiration,
	}, nil
}

// about is what the assertion for a session says of it.
func (b *Broker) about(o brokers.Order) assertion {
	a := assertion{Assertion: upstream.NewAssertion(b.deps, upstream.Subject(b.target), b.audience, o.Lease().ID)}
	if !b.settings.Compatible {
		a.Tags = &tags{
			Principal: map[string][]string{
				tagWorkload: {tagValue(o.Grant().Workload().ID())}, tagTarget: {tagValue(b.target)}, tagSession: {o.Name()},
			},
			Transitive: []string{tagWorkload, tagTarget, tagSession},
		}
		a.Source = sourceIdentity(o)
	}
	return a
}

// assume asks for a session: with an assertion, which is all that AWS is told of it, or as whoever this service is inside AWS, and then
// the tags are parameters.
func (b *Broker) assume(ctx context.Context, form url.Values, a assertion) (sessionAnswer, error) {
	form.Set("Version", "2011-06-15")
	var sign func(*http.Request, string) error
	if b.inside == nil {
		jwt, err := b.deps.Assertions.Sign(ctx, brokers.Header{Algorithm: b.algorithm, Type: "JWT"}, a)
		if err != nil {
			return sessionAnswer{}, fmt.Errorf("%w: signing the assertion for AWS: %w", brokers.ErrUnavailable, err)
		}
		form.Set("Action", "AssumeRoleWithWebIdentity")
		form.Set("WebIdentityToken", jwt)
	} else {
		who, err := b.inside.Retrieve(ctx)
		if err != nil { // it may repeat what it was answered
			return sessionAnswer{}, fmt.Errorf("%w: AWS gives this service no credentials where it runs; login: inside wants an instance profile, a task role or a pod identity", brokers.ErrUnavailable)
		}
		form.Set("Action", "AssumeRole")
		a.parameters(form)
		if b.settings.ExternalID != "" {
			form.Set("ExternalId", b.settings.ExternalID)
		}
		sign = signer(ctx, who, "sts", b.settings.Region, b.deps.Now)
	}
	answer, err := b.sts.assume(ctx, form, sign)
	if err != nil {
		return sessionAnswer{}, fmt.Errorf("%w: %w", classOf(err), err)
	}
	return answer, nil
}

// parameters says in a form what an assertion says of a session.
func (a assertion) parameters(form url.Values) {
	if a.Source != "" {
		form.Set("SourceIdentity", a.Source)
	}
	if a.Tags == nil {
		return
	}
	for i, key := range a.Tags.Transitive {
		form.Set(fmt.Sprintf("Tags.member.%d.Key", i+1), key)
		form.Set(fmt.Sprintf("Tags.member.%d.Value", i+1), a.Tags.Principal[key][0])
		form.Set(fmt.Sprintf("TransitiveTagKeys.member.%d", i+1), key)
	}
}

// sourceIdentity is the family of a lease: what CloudTrail has, also of roles that were chained from the session.
func sourceIdentity(o brokers.Order) string { return o.Lease().Family }

// sessionName is the lease, which no two sessions share, and as much of the workload's path as fits, for people. Each character
// that a session name cannot have is a dash: a name says, and does not decide.
func sessionName(o brokers.Order) string {
	path := o.Grant().Workload().ID()
	path = path[strings.LastIndexByte(path, '/')+1:]
	return cut(o.Lease().ID+"-"+mapped(path, "+=,.@-_"), maxSession)
}

// tagValue is a value as tags can have it.
func tagValue(s string) string { return cut(mapped(s, " _.:/=+-@"), maxTagValue) }

func mapped(s, more string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(more, r) {
			return r
		}
		return '-'
	}, s)
}

func cut(s string, most int) string { return s[:min(len(s), most)] }

// fits compares what was made with what was asked. A session that does not fit is handed to nobody; it cannot be taken back, and
// ends by itself.
func (b *Broker) fits(a sessionAnswer, name string, o brokers.Order, now time.Time) (credential, error) {
	got := a.Credentials
	expires, err := time.Parse(time.RFC3339, got.Expiration)
	wrong := ""
	switch {
	case !isKey(got.AccessKey, 16, 128) || !isKey(got.SecretKey, 16, 1024) || !isKey(got.SessionToken, 16, maxAnswer):
		wrong = "it lacks a part of a session"
	case err != nil || !expires.After(now):
		wrong = "it does not say when it ends, or has ended"
	case expires.After(o.Grant().Expires()):
		wrong = "it lives longer than was asked for"
	case !b.settings.Compatible && a.User.ARN != b.role.session()+name:
		wrong = "it is of another role or session"
	case !b.settings.Compatible && a.SourceIdentity != sourceIdentity(o):
		wrong = "it has another source identity; does the role's trust policy allow sts:SetSourceIdentity?"
	}
	if wrong != "" {
		return credential{}, fmt.Errorf("%w: the STS made a session, and %s", brokers.ErrUncertain, wrong)
	}
	return credential{"aws-session", 1, got.AccessKey, got.SecretKey, got.SessionToken, expires.UTC(), b.settings.Region}, nil
}

// isKey reports whether a text can be a part of a credential.
func isKey(s string, least, most int) bool {
	return len(s) >= least && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
