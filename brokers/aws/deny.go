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
// writer takes and that says when its last session has ended and how many it names. So replicas do not overwrite each other, IAM having
// no compare-and-set; whoever writes next deletes what is over, and joins many small policies to one, writing it first. Policies of a
// size are joined, so that what is joined has room twice beside all else, and no name is written more than a few times.
const (
	policyPrefix = "sallyport-revoked-"
	maxBatch     = 64  // sessions in a policy: some 2,500 of the 10,240 characters that a role's inline policies may have
	maxPolicies  = 8   // of ours on a role of one size, before they are joined
	maxReturned  = 128 // sessions that are denied, before those that holders gave back wait: half of the room is for operators
	pruneAfter   = 5 * time.Minute
)

// batched is a policy of ours on the role.
type batched struct {
	name string
	last time.Time // when the last of its sessions has ended
	n    int       // sessions
}

// size is what policies are joined by: below maxPolicies, below maxBatch, and what is joined no more.
func (p batched) size() int {
	switch {
	case p.n < maxPolicies:
		return 0
	case p.n < maxBatch:
		return 1
	}
	return 2
}

// denied is what came of sessions that were to be denied.
type denied struct {
	reason string
	again  bool // they are not, and may be later
}

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

// deny denies sessions by their names, and says what came of it. Those that holders gave back have half of the room.
func (d denier) deny(ctx context.Context, names []string, returned bool) (denied, error) {
	mine, err := d.list(ctx)
	if err != nil {
		return denied{}, fmt.Errorf("listing the role's policies: %w", err)
	}
	have := 0
	for _, p := range mine {
		have += p.n
	}
	if returned && have+len(names) > maxReturned {
		return denied{d.b.reasonReturned(), true}, nil
	}
	for size := range 2 {
		same := slices.DeleteFunc(slices.Clone(mine), func(p batched) bool { return p.size() != size })
		if len(same) < maxPolicies {
			continue
		}
		if p, ok := d.join(ctx, same); ok {
			mine = append(mine, p) // which may be one too many of the next size
		}
	}
	policy, err := d.put(ctx, names)
	var c *codeError
	switch {
	case errors.As(err, &c) && c.code == "LimitExceeded":
		return denied{d.b.reasonFull(d.now), true}, nil
	case err != nil:
		return denied{}, fmt.Errorf("writing the denial: %w", err)
	}
	return denied{reason: d.b.reasonDenied(policy.name, d.now)}, nil
}

// put writes a new policy.
func (d denier) put(ctx context.Context, names []string) (batched, error) {
	out := batched{last: d.now, n: len(names)}
	for _, n := range names {
		if end, ok := brokers.ParseName(n); ok && end.After(out.last) {
			out.last = end
		}
	}
	text, err := json.Marshal(denial(names))
	if err != nil {
		return batched{}, err
	}
	out.name = fmt.Sprintf("%s%d-%d-%s", policyPrefix, out.last.Unix(), out.n, strings.ToLower(rand.Text()[:12]))
	return out, d.call(ctx, url.Values{"Action": {"PutRolePolicy"}, "PolicyName": {out.name}, "PolicyDocument": {string(text)}}, nil)
}

// join writes what several policies deny as one, and then deletes them. What another writer joined meanwhile is gone from here, and
// stands in its policy.
func (d denier) join(ctx context.Context, policies []batched) (batched, bool) {
	var all []string
	var joined []batched
	for _, p := range policies {
		names, err := d.read(ctx, p.name)
		if err != nil {
			continue // it stays as it is
		}
		joined = append(joined, p)
		for _, n := range names {
			if end, ok := brokers.ParseName(n); ok && end.Add(pruneAfter).After(d.now) {
				all = append(all, n)
			}
		}
	}
	var policy batched
	if slices.Sort(all); len(all) > 0 {
		var err error
		if policy, err = d.put(ctx, slices.Compact(all)); err != nil {
			return batched{}, false // what there is denies them
		}
	}
	for _, p := range joined {
		_ = d.drop(ctx, p.name) // the next writer tries again
	}
	return policy, policy.n > 0
}

// list returns our policies on the role, without those that are over, which it deletes.
func (d denier) list(ctx context.Context) ([]batched, error) {
	var out []batched
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
			p, ours := parseBatched(name)
			switch {
			case ours && p.last.Add(pruneAfter).Before(d.now):
				_ = d.drop(ctx, name)
			case ours:
				out = append(out, p)
			}
		}
		if marker = a.Marker; !a.Truncated || marker == "" {
			break
		}
	}
	return out, nil
}

// parseBatched reads the name of a policy; ok is false for one that is not ours.
func parseBatched(policy string) (p batched, ok bool) {
	rest, ours := strings.CutPrefix(policy, policyPrefix)
	part := strings.Split(rest, "-")
	if !ours || len(part) != 3 || len(part[2]) != 12 {
		return batched{}, false
	}
	seconds, err := strconv.ParseInt(part[0], 10, 64)
	n, bad := strconv.Atoi(part[1])
	return batched{policy, time.Unix(seconds, 0), n}, err == nil && bad == nil && seconds > 0 && n > 0
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
