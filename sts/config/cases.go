package config

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/federation/policy"
)

// casesFolder stands inside the policy folder and is no part of the configuration: nothing in it is loaded by a
// server or counted into the hash.
const casesFolder = "tests"

// maxCases bounds what one run answers.
const maxCases = 20_000

// Case is one expectation of a policy: who asks for what, when and from where, and what the answer is.
type Case struct {
	Name    string
	Source  string // "policy/tests/orders.yaml:3"
	Subject CaseToken
	Actor   *CaseToken // nil: nobody acts for the subject
	Want    policy.Want
	Time    time.Time
	Address netip.Addr // the zero Addr when the case names none
	Expect  Expectation
}

// CaseToken is an identity token as its platform would issue it, short of the signature.
type CaseToken struct {
	Issuer    int           // in Set.Issuers
	Claims    []byte        // a JSON object; what the issuer sets on every token may be left out
	Age       time.Duration // since iat
	ExpiresIn time.Duration // until exp; 0: the longest that the issuer's max_lifetime lets pass
}

// Expectation is what a case says the answer is: a rule that allows, or an error code.
type Expectation struct {
	Allow    string
	Scopes   []string      // nil: not compared
	Lifetime time.Duration // 0: not compared
	Refuse   string
}

// The answers that a case can expect to a refused request (SECURITY.md: a caller learns no more).
const (
	RefuseRequest = "invalid_request" // door one: the token
	RefuseTarget  = "invalid_target"
	RefuseScope   = "invalid_scope"
)

// caseTime is when a case happens that does not say: a Monday at noon, so that a case means the same every day.
const caseTime = "2026-01-05T12:00:00Z"

// caseFile is one file of cases.
type caseFile struct {
	Cases []caseEntry `yaml:"cases" jsonschema:"minItems=1" jsonschema_description:"Cases; each is answered by itself. Required, at least one."`
}

type caseEntry struct {
	Name     string       `yaml:"name" jsonschema:"minLength=1" jsonschema_description:"Name of the case, unique in its file. Required."`
	Subject  tokenBlock   `yaml:"subject" jsonschema_description:"The subject token: whose it is and what it says. Required."`
	Actor    *tokenBlock  `yaml:"actor,omitempty" jsonschema_description:"The actor token: who acts for the subject. Default: nobody does."`
	Request  requestBlock `yaml:"request" jsonschema_description:"What is asked for. Required."`
	Time     caseText     `yaml:"time,omitempty" jsonschema:"format=date-time" jsonschema_description:"When the request comes (RFC 3339). Default: 2026-01-05T12:00:00Z, a Monday at noon."`
	SourceIP string       `yaml:"source_ip,omitempty" jsonschema:"minLength=1" jsonschema_description:"Address that the request comes from. Default: none is known, and conditions about it have no answer."`
	Expect   expectBlock  `yaml:"expect" jsonschema_description:"What the answer is: allow or refuse. Required."`
}

type tokenBlock struct {
	Issuer    string     `yaml:"issuer" jsonschema:"minLength=1" jsonschema_description:"Issuer of the token, TRUST-DOMAIN/NAME as in trust/. Required."`
	Claims    caseClaims `yaml:"claims" jsonschema_description:"Claims of the token as its platform would sign them; null leaves a claim out. iss, aud, iat, exp and jti are filled in. Required."`
	Age       duration   `yaml:"age,omitempty" jsonschema_description:"How long ago the token was issued (iat). Default: it was issued just now."`
	ExpiresIn duration   `yaml:"expires_in,omitempty" jsonschema_description:"How long the token still lives (exp). Default: the issuer's max_lifetime, from iat."`
}

type requestBlock struct {
	Audience string   `yaml:"audience,omitempty" jsonschema:"minLength=1" jsonschema_description:"Name of the target. Default: the target is named by resource."`
	Resource string   `yaml:"resource,omitempty" jsonschema:"minLength=1" jsonschema_description:"URI of the target. Default: the target is named by audience."`
	Scopes   []string `yaml:"scopes,omitempty" jsonschema:"minItems=1" jsonschema_description:"Scopes asked for. Default: none, which means those of the rule."`
}

type expectBlock struct {
	Allow    string   `yaml:"allow,omitempty" jsonschema:"minLength=1" jsonschema_description:"Name of the rule that allows. Default: the request is refused."`
	Scopes   []string `yaml:"scopes,omitempty" jsonschema:"minItems=1" jsonschema_description:"Scopes that are granted, exactly. Default: not compared."`
	Lifetime duration `yaml:"lifetime,omitempty" jsonschema_description:"Life of the credential, exactly. Default: not compared."`
	Refuse   string   `yaml:"refuse,omitempty" jsonschema:"enum=invalid_request,enum=invalid_target,enum=invalid_scope" jsonschema_description:"Error code of the refusal; invalid_request is door one refusing a token. Default: the request is allowed."`
}

// caseText is an instant, which YAML takes for a date of its own.
type caseText string

var _ checker = (*caseText)(nil)

func (*caseText) check(d *document, n *yaml.Node, path string) bool {
	if _, err := time.Parse(time.RFC3339, n.Value); n.Kind != yaml.ScalarNode || err != nil {
		d.place(n, path, "%s %s is not an instant; write for instance %s (RFC 3339)", last(path), show(n.Value), caseTime)
	}
	return true
}

// UnmarshalYAML reads the text as written.
func (c *caseText) UnmarshalYAML(n *yaml.Node) error {
	*c = caseText(n.Value)
	return nil
}

// caseClaims is a claim set as JSON, types as written.
type caseClaims []byte

var (
	_ checker          = (*caseClaims)(nil)
	_ yaml.Unmarshaler = (*caseClaims)(nil)
)

func (*caseClaims) check(d *document, n *yaml.Node, path string) bool {
	if n.Kind != yaml.MappingNode {
		d.place(n, path, "claims must be a mapping (claim: value), not %s", kindOf(n))
		return true
	}
	d.claim(n, path)
	return true
}

// claim refuses values of which nobody knows what JSON they are.
func (d *document) claim(n *yaml.Node, path string) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			d.claim(n.Content[i+1], join(path, n.Content[i].Value))
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			d.claim(c, index(path, i))
		}
	default:
		if _, ok := jsonScalar(n); !ok {
			d.place(n, path, "the claim %s can be read in two ways; put it in quotes for a string, or write a whole number in decimal digits", show(n.Value))
		}
	}
}

// jsonScalar returns the JSON of a scalar.
func jsonScalar(n *yaml.Node) (any, bool) {
	switch {
	case n.Tag == "!!str":
		return n.Value, true
	case n.Tag == "!!bool":
		return strings.EqualFold(n.Value, "true"), true
	case n.Tag == "!!null":
		return nil, true
	case n.Tag == "!!int" && decimal.MatchString(n.Value):
		return json.Number(n.Value), true
	default:
		return nil, false
	}
}

func jsonValue(n *yaml.Node) any {
	switch n.Kind {
	case yaml.MappingNode:
		out := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			out[n.Content[i].Value] = jsonValue(n.Content[i+1])
		}
		return out
	case yaml.SequenceNode:
		out := make([]any, len(n.Content))
		for i, c := range n.Content {
			out[i] = jsonValue(c)
		}
		return out
	default:
		v, _ := jsonScalar(n)
		return v
	}
}

// UnmarshalYAML reads the claims; what check refuses is left out.
func (c *caseClaims) UnmarshalYAML(n *yaml.Node) (err error) {
	*c, err = json.Marshal(jsonValue(n))
	return err
}

// LoadCases reads the configuration in dir as [Load] does, and the cases in files: those that are named, or all
// in policy/tests. The error is of type [Problems] and has every problem. Like Load it has no side effects.
func LoadCases(dir string, files []string, kinds Kinds) (*Set, []Case, error) {
	set, err := Load(dir, kinds)
	if err != nil {
		return nil, nil, err
	}
	var problems Problems
	if len(files) == 0 {
		files = caseFiles(dir, &problems)
	}
	l := caseLoader{set: set, problems: &problems}
	for _, file := range files {
		data, err := readFile(file, maxFileSize)
		name := display(dir, file)
		if err != nil {
			problems.add(name, "%s", reason(err))
			continue
		}
		if d := parse(source{name, data}, &problems); d != nil {
			l.file(d)
		}
	}
	if len(problems) > 0 {
		return nil, nil, problems.sorted()
	}
	return set, l.cases, nil
}

// caseFiles lists the cases that stand beside the policy.
func caseFiles(dir string, problems *Problems) []string {
	folder := filepath.Join(dir, policyFolder, casesFolder)
	name := policyFolder + "/" + casesFolder
	entries, err := os.ReadDir(folder)
	if err != nil {
		problems.add(name, "there are no cases: %s; write some to %s/NAME.yaml, or name files", reason(err), name)
		return nil
	}
	var out []string
	for _, e := range entries {
		switch {
		case ignored(e.Name()):
		case filepath.Ext(e.Name()) != extension:
			problems.add(name+"/"+e.Name(), "this file would not be read: the names of case files end in %s", extension)
		default:
			out = append(out, filepath.Join(folder, e.Name()))
		}
	}
	if len(out) == 0 && len(*problems) == 0 {
		problems.add(name, "there is no *%s file in it", extension)
	}
	return out
}

// display names a file as problems of the configuration name theirs, when it is below dir.
func display(dir, file string) string {
	if rel, err := filepath.Rel(dir, file); err == nil && filepath.IsLocal(rel) {
		return filepath.ToSlash(rel)
	}
	return file
}

type caseLoader struct {
	set      *Set
	problems *Problems
	cases    []Case
}

func (l *caseLoader) file(d *document) {
	var f caseFile
	if !d.decode(d.root, "", &f, true) || !d.shaped("cases", len(f.Cases)) {
		return
	}
	if len(f.Cases) == 0 {
		d.problem("cases", "cases lists nothing")
	}
	names := map[string]string{}
	for i, e := range f.Cases {
		path := index("cases", i)
		if len(l.cases) == maxCases {
			d.problem(path, "more than %d cases", maxCases)
			return
		}
		if first, ok := names[e.Name]; ok || e.Name == "" {
			d.problem(join(path, "name"), "a case needs a name of its own%s", after(first))
		}
		names[e.Name] = d.source(path)
		l.one(d, path, e)
	}
}

func after(first string) string {
	if first == "" {
		return ""
	}
	return "; this one is taken at " + first
}

func (l *caseLoader) one(d *document, path string, e caseEntry) {
	c := Case{
		Name: e.Name, Source: d.source(path),
		Subject: l.token(d, join(path, "subject"), e.Subject),
		Want:    policy.Want{Scopes: e.Request.Scopes},
		Expect:  Expectation{Allow: e.Expect.Allow, Scopes: e.Expect.Scopes, Lifetime: e.Expect.Lifetime.value(), Refuse: e.Expect.Refuse},
	}
	if e.Actor != nil {
		t := l.token(d, join(path, "actor"), *e.Actor)
		c.Actor = &t
	}
	if e.Request.Audience != "" {
		c.Want.Audiences = []string{e.Request.Audience}
	}
	if e.Request.Resource != "" {
		c.Want.Resources = []string{e.Request.Resource}
	}
	if len(c.Want.Audiences)+len(c.Want.Resources) == 0 {
		d.problem(join(path, "request"), "the request names no target; write audience or resource")
	}
	at := string(e.Time)
	if at == "" {
		at = caseTime
	}
	c.Time, _ = time.Parse(time.RFC3339, at) // was checked
	if e.SourceIP != "" {
		var err error
		if c.Address, err = netip.ParseAddr(e.SourceIP); err != nil {
			d.problem(join(path, "source_ip"), "source_ip %s is not an IP address", show(e.SourceIP))
		}
	}
	expect, known := join(path, "expect"), []string{RefuseRequest, RefuseTarget, RefuseScope}
	switch x := c.Expect; {
	case (x.Allow == "") == (x.Refuse == ""):
		d.problem(expect, "a case expects either allow: RULE or refuse: %s", strings.Join(known, " | "))
	case x.Refuse != "" && (x.Scopes != nil || x.Lifetime != 0):
		d.problem(expect, "a refusal has neither scopes nor lifetime")
	case x.Allow != "" && l.set.Policy.Strange("rule", x.Allow) != "":
		d.problem(join(expect, "allow"), "%s", l.set.Policy.Strange("rule", x.Allow))
	case x.Refuse != "" && !slices.Contains(known, x.Refuse):
		d.problem(join(expect, "refuse"), "refuse %s is no answer%s", show(x.Refuse), suggest(x.Refuse, known))
	}
	l.cases = append(l.cases, c)
}

func (l *caseLoader) token(d *document, path string, b tokenBlock) CaseToken {
	t := CaseToken{Claims: b.Claims, Age: b.Age.value(), ExpiresIn: b.ExpiresIn.value(), Issuer: -1}
	names := make([]string, len(l.set.Issuers))
	for i, is := range l.set.Issuers {
		names[i] = is.TrustDomain + "/" + is.Name
		if names[i] == b.Issuer {
			t.Issuer = i
		}
	}
	if t.Issuer < 0 {
		d.problem(join(path, "issuer"), "issuer %s is not configured; it is written TRUST-DOMAIN/NAME%s", show(b.Issuer), suggest(b.Issuer, names))
		return t
	}
	t.Claims = l.complete(t, b)
	return t
}

// complete adds what the issuer sets on every token and the case leaves to it: iss and aud.
func (l *caseLoader) complete(t CaseToken, b tokenBlock) []byte {
	is := l.set.Issuers[t.Issuer]
	claims := map[string]json.RawMessage{}
	if json.Unmarshal(b.Claims, &claims) != nil {
		return b.Claims
	}
	for name, value := range map[string]string{"iss": is.URL, "aud": is.Audiences[0]} {
		if _, ok := claims[name]; !ok {
			claims[name], _ = json.Marshal(value)
		}
	}
	var out bytes.Buffer
	if json.NewEncoder(&out).Encode(claims) != nil {
		return b.Claims
	}
	return bytes.TrimSpace(out.Bytes())
}
