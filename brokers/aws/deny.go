package aws

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
)

// The denial of sessions is a set that only grows and forgets: each batch is an inline policy of its own, under a name that no other
// writer takes and that says when its last session has ended. So replicas do not overwrite each other, IAM having no compare-and-set;
// whoever writes next deletes what is over, and joins many small policies to one, writing it first.
const (
	policyPrefix = "sallyport-revoked-"
	maxBatch     = 64 // sessions in a policy that is written: some 2,200 of the 10,240 characters that a role's inline policies may have
	maxPolicies  = 8  // of ours on a role, before they are joined
	pruneAfter   = 5 * time.Minute
)

// denier is the revoker's session for one call of RevokeAll.
type denier struct {
	b   *Broker
	now time.Time
	who aws.Credentials
}

// RevokerSubject is the sub of the assertion with which a target's sessions are denied. No target's own can equal it.
func RevokerSubject(target string) string { return "sallyport-revoker:" + target }

// denier takes the revoker's role, bounded to the target's role once more.
func (b *Broker) denier(ctx context.Context, now time.Time) (denier, error) {
	id := strings.ToLower(rand.Text())
	bound, err := json.Marshal(revokerPolicy(b.settings.Role))
	if err != nil {
		return denier{}, fmt.Errorf("%w: %w", brokers.ErrMisconfigured, err)
	}
	a, err := b.assume(ctx, url.Values{
		"RoleArn": {b.settings.Revoker.Role}, "RoleSessionName": {"sallyport-revoker-" + id},
		"DurationSeconds": {strconv.Itoa(int(leastLife / time.Second))}, "Policy": {string(bound)},
	}, assertion{Assertion: upstream.NewAssertion(b.deps, RevokerSubject(b.target), b.audience, id)})
	if err != nil {
		return denier{}, fmt.Errorf("taking the revoker's role: %w", err)
	}
	got := a.Credentials
	if !isKey(got.AccessKey, 16, 128) || !isKey(got.SecretKey, 16, 1024) || !isKey(got.SessionToken, 16, maxAnswer) {
		return denier{}, fmt.Errorf("taking the revoker's role: %w: %w", brokers.ErrUncertain, errNonsense)
	}
	return denier{b, now, aws.Credentials{AccessKeyID: got.AccessKey, SecretAccessKey: got.SecretKey, SessionToken: got.SessionToken}}, nil
}

// revokerPolicy is what the revoker may do.
func revokerPolicy(role string) policy {
	return policy{policyFormat, []statement{{Effect: "Allow", Action: []string{"iam:ListRolePolicies", "iam:GetRolePolicy", "iam:PutRolePolicy", "iam:DeleteRolePolicy"}, Resource: role}}}
}

type policy struct {
	Version   string
	Statement []statement
}

type statement struct {
	Effect    string
	Action    any
	Resource  string
	Condition map[string]map[string][]string `json:",omitempty"`
}

// conditionKey is what tells a session from all others of its role.
const conditionKey = "aws:PrincipalTag/" + tagSession

func denial(names []string) policy {
	return policy{policyFormat, []statement{{Effect: "Deny", Action: "*", Resource: "*", Condition: map[string]map[string][]string{"StringEquals": {conditionKey: names}}}}}
}

// deny denies sessions by their names, and says what came of it.
func (d denier) deny(ctx context.Context, names []string) (reason string, err error) {
	mine, err := d.list(ctx)
	if err != nil {
		return "", fmt.Errorf("listing the role's policies: %w", err)
	}
	if len(mine) >= maxPolicies {
		if policy, err := d.join(ctx, mine, names); err == nil {
			return d.b.reasonDenied(policy, d.now), nil
		}
	}
	policy, err := d.put(ctx, names)
	var c *codeError
	switch {
	case errors.As(err, &c) && c.code == "LimitExceeded":
		return d.b.reasonFull(d.now), nil
	case err != nil:
		return "", fmt.Errorf("writing the denial: %w", err)
	}
	return d.b.reasonDenied(policy, d.now), nil
}

// put writes a new policy.
func (d denier) put(ctx context.Context, names []string) (string, error) {
	last := d.now
	for _, n := range names {
		if end, ok := brokers.ParseName(n); ok && end.After(last) {
			last = end
		}
	}
	text, err := json.Marshal(denial(names))
	if err != nil {
		return "", err
	}
	policy := policyPrefix + strconv.FormatInt(last.Unix(), 10) + "-" + strings.ToLower(rand.Text()[:12])
	return policy, d.call(ctx, url.Values{"Action": {"PutRolePolicy"}, "PolicyName": {policy}, "PolicyDocument": {string(text)}}, nil)
}

// join writes what several policies deny, and names besides, as one, and then deletes them. What another writer joined meanwhile is gone
// from here, and stands in its policy.
func (d denier) join(ctx context.Context, policies, names []string) (string, error) {
	all, joined := slices.Clone(names), policies[:0:0]
	for _, p := range policies {
		denied, err := d.read(ctx, p)
		if err != nil {
			continue // it stays as it is
		}
		joined = append(joined, p)
		for _, n := range denied {
			if end, ok := brokers.ParseName(n); ok && end.Add(pruneAfter).After(d.now) {
				all = append(all, n)
			}
		}
	}
	slices.Sort(all)
	policy, err := d.put(ctx, slices.Compact(all))
	if err != nil {
		return "", err
	}
	for _, p := range joined {
		_ = d.drop(ctx, p) // the next writer tries again
	}
	return policy, nil
}

// list returns our policies on the role, without those that are over, which it deletes.
func (d denier) list(ctx context.Context) ([]string, error) {
	var out []string
	marker := ""
	for range 20 { // pages
		form := url.Values{"Action": {"ListRolePolicies"}}
		if marker != "" {
			form.Set("Marker", marker)
		}
		var a struct {
			XMLName   xml.Name `xml:"ListRolePoliciesResponse"`
			Names     []string `xml:"ListRolePoliciesResult>PolicyNames>member"`
			Truncated bool     `xml:"ListRolePoliciesResult>IsTruncated"`
			Marker    string   `xml:"ListRolePoliciesResult>Marker"`
		}
		if err := d.call(ctx, form, &a); err != nil {
			return nil, err
		}
		for _, name := range a.Names {
			last, ours := lastOf(name)
			switch {
			case ours && last.Add(pruneAfter).Before(d.now):
				_ = d.drop(ctx, name)
			case ours:
				out = append(out, name)
			}
		}
		if marker = a.Marker; !a.Truncated || marker == "" {
			break
		}
	}
	return out, nil
}

// lastOf returns when the last session that a policy denies has ended, and false for a policy that is not ours.
func lastOf(policy string) (time.Time, bool) {
	rest, ok := strings.CutPrefix(policy, policyPrefix)
	digits, id, found := strings.Cut(rest, "-")
	seconds, err := strconv.ParseInt(digits, 10, 64)
	return time.Unix(seconds, 0), ok && found && len(id) == 12 && err == nil && seconds > 0
}

// read returns the names that a policy of ours denies.
func (d denier) read(ctx context.Context, name string) ([]string, error) {
	var a struct {
		XMLName  xml.Name `xml:"GetRolePolicyResponse"`
		Document string   `xml:"GetRolePolicyResult>PolicyDocument"`
	}
	if err := d.call(ctx, url.Values{"Action": {"GetRolePolicy"}, "PolicyName": {name}}, &a); err != nil {
		return nil, err
	}
	text, err := url.PathUnescape(a.Document) // RFC 3986
	if err != nil {
		return nil, errNonsense
	}
	var p policy
	if json.Unmarshal([]byte(text), &p) != nil || len(p.Statement) != 1 || p.Statement[0].Effect != "Deny" {
		return nil, errNonsense
	}
	return p.Statement[0].Condition["StringEquals"][conditionKey], nil
}

func (d denier) drop(ctx context.Context, name string) error {
	return d.call(ctx, url.Values{"Action": {"DeleteRolePolicy"}, "PolicyName": {name}}, nil)
}

// call makes a signed call to IAM about the target's role.
func (d denier) call(ctx context.Context, form url.Values, out any) error {
	form.Set("Version", "2010-05-08")
	form.Set("RoleName", d.b.role.name)
	err := d.b.iam.post(ctx, form, signer(ctx, d.who, "iam", d.b.role.iamRegion(), d.b.deps.Now), out)
	if err != nil {
		return fmt.Errorf("%w: %w", classOf(err), err)
	}
	return nil
}

// iamRegion is where the IAM of a partition signs.
func (r role) iamRegion() string {
	switch r.partition {
	case "aws-cn":
		return "cn-north-1"
	case "aws-us-gov":
		return "us-gov-west-1"
	default:
		return "us-east-1"
	}
}

func iamEndpoint(s Settings) (string, error) {
	if s.Revoker.Endpoint != "" {
		return parseEndpoint(s.Revoker.Endpoint)
	}
	r, err := parseRole(s)
	if err != nil {
		return "", errors.New("follows from the role, and that is none")
	}
	switch r.partition {
	case "aws-cn":
		return "https://iam.cn-north-1.amazonaws.com.cn/", nil
	case "aws-us-gov":
		return "https://iam.us-gov.amazonaws.com/", nil
	default:
		return "https://iam.amazonaws.com/", nil
	}
}
