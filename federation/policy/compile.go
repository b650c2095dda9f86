package policy

import (
	"fmt"
	"net/url"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
)

// Config is everything that door two is made of.
type Config struct {
	Issuers []Issuer
	Targets []Target
	Rules   []Rule // by file name and line: the first rule that covers a request decides it
}

// Problem is one reason why a configuration does not load, with the place it is about.
type Problem struct {
	Part    string // "rule" or "target"
	Index   int    // in Config.Rules or Config.Targets
	Path    string // inside that entry, "workloads.where.namespace"
	Message string // the value, the rule it breaks, the fix

	Line, Column int // from 1, inside the text of a condition; 0 for any other problem
}

// Policy is the compiled, immutable form. It is safe for concurrent use. The zero Policy denies.
type Policy struct {
	issuers    []Issuer
	targets    []Target
	byName     map[string]int
	byResource map[string]int
	rules      []Rule
	conditions []*condition    // of rules, nil for a rule without
	allow      map[key]*bucket // complete keys only
	deny       map[key]*bucket // "" for every issuer, "" for every target
}

// key finds the rules that can matter for one request.
type key struct{ trustDomain, issuer, target string }

// New checks and compiles cfg. It reports every problem, and returns a Policy only when there is none.
func New(cfg Config) (*Policy, []Problem) {
	p := &Policy{
		issuers:    slices.Clone(cfg.Issuers),
		targets:    slices.Clone(cfg.Targets),
		rules:      slices.Clone(cfg.Rules),
		conditions: make([]*condition, len(cfg.Rules)),
		byName:     map[string]int{},
		byResource: map[string]int{},
	}
	c := &checker{cfg: cfg, policy: p, folded: map[string]string{}, issuers: map[string]map[string]federation.Schema{}, languages: newLanguages()}
	for _, is := range cfg.Issuers {
		if c.issuers[is.TrustDomain] == nil {
			c.issuers[is.TrustDomain] = map[string]federation.Schema{}
		}
		c.issuers[is.TrustDomain][is.Name] = is.Schema
	}
	for i := range p.targets {
		c.target(i)
	}
	names := map[string]string{}
	for i := range p.rules {
		r := &p.rules[i]
		if first, ok := names[r.Name]; ok {
			c.rule(i, "name", "rule %s is already defined at %s; audit records name rules, so each needs a name of its own", r.Name, first)
		}
		names[r.Name] = r.Source
		c.compile(i)
	}
	if len(c.problems) == 0 {
		c.onward()
	}
	if len(c.problems) == 0 {
		p.index()
		c.crowds()
	}
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	return p, nil
}

type checker struct {
	cfg       Config
	policy    *Policy
	issuers   map[string]map[string]federation.Schema // trust domain -> issuer -> schema
	languages languages
	folded    map[string]string // target names by themselves in lower case
	problems  []Problem
}

func (c *checker) rule(i int, path, format string, args ...any) {
	c.problems = append(c.problems, Problem{Part: "rule", Index: i, Path: path, Message: fmt.Sprintf(format, args...)})
}

func (c *checker) targetf(i int, path, format string, args ...any) {
	c.problems = append(c.problems, Problem{Part: "target", Index: i, Path: path, Message: fmt.Sprintf(format, args...)})
}

func (c *checker) target(i int) {
	t := &c.policy.targets[i]
	if !targetName(t.Name) {
		c.targetf(i, "target", "target name %q: use letters, digits, '.', '_', '-' (at most 64); audiences and file names are made of it", t.Name)
	}
	if _, ok := c.policy.byName[t.Name]; ok {
		c.targetf(i, "target", "target %s is defined twice; different targets need different names (RFC 9068 section 5)", t.Name)
	}
	if name, ok := c.folded[strings.ToLower(t.Name)]; ok && name != t.Name {
		c.targetf(i, "target", "targets %s and %s differ in case alone; people would confuse them", name, t.Name)
	}
	c.folded[strings.ToLower(t.Name)] = t.Name
	c.policy.byName[t.Name] = i
	if t.Resource != "" {
		if !ValidResource(t.Resource) {
			c.targetf(i, "resource", "resource %q is not an absolute URI without fragment (RFC 8707 section 2)", t.Resource)
		}
		if _, ok := c.policy.byResource[t.Resource]; ok {
			c.targetf(i, "resource", "resource %s already names another target (RFC 9068 section 5)", t.Resource)
		}
		c.policy.byResource[t.Resource] = i
	}
	if t.MaxLifetime == 0 {
		t.MaxLifetime = DefaultLifetime
	}
	if t.MaxLifetime < 0 || t.MaxLifetime > MaxLifetime {
		c.targetf(i, "max_lifetime", "max_lifetime %s is outside 0s to %s", t.MaxLifetime, MaxLifetime)
	}
	for j, s := range t.Scopes {
		if !ValidScope(s) {
			c.targetf(i, "scopes."+s, "scope %q has characters outside RFC 6749 section 3.3", s)
		}
		if slices.Contains(t.Scopes[:j], s) {
			c.targetf(i, "scopes."+s, "scope %q is defined twice", s)
		}
	}
	if t.GrantableTo != nil && len(t.GrantableTo) == 0 {
		c.targetf(i, "grantable_to", "grantable_to lists no trust domain, so nobody could ever get this target; an empty list does not mean all: name the trust domains or leave the key out")
	}
	for j, td := range t.GrantableTo {
		if c.issuers[td] == nil {
			c.targetf(i, fmt.Sprintf("grantable_to.trust_domains[%d]", j), "trust domain %s has no trust file", td)
		}
	}
	for j, rs := range t.ResourceServers {
		c.resourceServer(i, fmt.Sprintf("resource_servers[%d]", j), rs)
	}
}

// resourceServer: an id that nobody can have would leave the target's resource server without an answer, and one
// that everybody can have would answer all.
func (c *checker) resourceServer(i int, path, rs string) {
	below, all := strings.CutSuffix(rs, "/*")
	if all {
		below += "/x" // the beginning of an id, made into one
	}
	id, err := federation.ParseID(below)
	if err != nil {
		c.targetf(i, path, "resource server %q is not a workload id (spiffe://trust-domain/issuer/path, or the beginning of one and /* for all below it)", rs)
		return
	}
	domain, ok := c.issuers[id.TrustDomain]
	if !ok {
		c.targetf(i, path, "resource server %s: trust domain %s has no trust file%s", rs, id.TrustDomain, didYouMean(id.TrustDomain, keys(c.issuers)))
	} else if _, ok := domain[id.Issuer]; !ok {
		c.targetf(i, path, "resource server %s: issuer %s is not in trust domain %s%s", rs, id.Issuer, id.TrustDomain, didYouMean(id.Issuer, keys(domain)))
	}
}

func (c *checker) compile(i int) {
	r := &c.policy.rules[i]
	if r.Name == "" {
		c.rule(i, "name", "a rule needs a name; audit records and explanations refer to it")
	}
	switch r.Effect {
	case Allow, Deny:
	default:
		c.rule(i, "effect", "effect must be allow or deny")
		return
	}
	domain, ok := c.issuers[r.Workloads.TrustDomain]
	if !ok {
		c.rule(i, "workloads.trust_domain", "trust domain %q has no trust file%s", r.Workloads.TrustDomain, didYouMean(r.Workloads.TrustDomain, keys(c.issuers)))
		return
	}
	issuers := []string{r.Workloads.Issuer}
	if r.Workloads.Issuer == "" {
		if r.Effect == Allow {
			c.rule(i, "workloads.issuer", "an allow rule names its issuer; the issuers of %s are %s", r.Workloads.TrustDomain, strings.Join(keys(domain), ", "))
			return
		}
		issuers = keys(domain)
	} else if _, ok := domain[r.Workloads.Issuer]; !ok {
		c.rule(i, "workloads.issuer", "issuer %q is not in trust domain %s%s", r.Workloads.Issuer, r.Workloads.TrustDomain, didYouMean(r.Workloads.Issuer, keys(domain)))
		return
	}
	for _, is := range issuers {
		c.where(i, "workloads", &Workloads{Issuer: is, Where: r.Workloads.Where}, domain[is])
	}
	c.anchor(i)
	c.actors(i)
	c.targets(i)
	c.lifetime(i)
	c.require(i)
	c.when(i)
	if r.Effect == Deny {
		if r.Scopes != nil || r.Lifetime != 0 || r.ExchangeFrom != nil {
			c.rule(i, "effect", "a deny rule refuses whatever is asked; scopes, lifetime and exchange_from have no place in it")
		}
		return
	}
	if len(r.Targets) == 0 {
		c.rule(i, "targets", "an allow rule names its targets; none does not mean all")
	}
	if len(r.Workloads.Where) == 0 && r.ExchangeFrom == nil {
		c.rule(i, "workloads.where", "an allow rule says which workloads of %s it is about (where: ...)", r.Workloads.Issuer)
	}
	if r.ExchangeFrom != nil && len(r.ExchangeFrom) == 0 {
		c.rule(i, "exchange_from", "exchange_from lists no target; name those whose tokens may be exchanged, or leave the key out")
	}
	if len(r.ExchangeFrom) > 0 && len(r.Workloads.Where) > 0 {
		c.rule(i, "workloads.where", "a token minted here carries no platform attributes, so where would never match; leave it out of a rule with exchange_from")
	}
	for j, t := range r.ExchangeFrom {
		if _, ok := c.policy.byName[t]; !ok {
			c.rule(i, fmt.Sprintf("exchange_from[%d]", j), "target %q is not defined%s", t, didYouMean(t, keys(c.policy.byName)))
		}
	}
}

// where checks that each named attribute is declared by the adapter and is compared with its own type. block is
// what w stands in: workloads or actors.
func (c *checker) where(i int, block string, w *Workloads, schema federation.Schema) {
	issuer := w.Issuer
	for _, name := range keys(w.Where) {
		m, path := w.Where[name], block+".where."+name
		a, ok := schema.Lookup(name)
		if !ok {
			declared := make([]string, len(schema))
			for j, a := range schema {
				declared[j] = a.Name
			}
			c.rule(i, path, "issuer %s declares no attribute %q%s", issuer, name, didYouMean(name, declared))
			continue
		}
		switch {
		case m.Prefix != "" && a.Type != federation.TypeString:
			c.rule(i, path, "prefix compares strings; %s is of type %s", name, a.Type)
		case m.Contains != nil && a.Type != federation.TypeStrings:
			c.rule(i, path, "contains reads a list; %s is of type %s", name, a.Type)
		case m.Prefix == "" && m.Contains == nil && a.Type == federation.TypeStrings:
			c.rule(i, path, "%s is a list; write {contains: VALUE}", name)
		case m.Prefix == "" && m.Contains == nil && len(m.OneOf) == 0:
			c.rule(i, path, "%s lists no value; an empty list does not mean all", name)
		}
		for _, v := range m.OneOf {
			if a.Type != federation.TypeStrings && v.Type() != a.Type {
				c.rule(i, path, "%s is of type %s and would never equal %s, which is of type %s%s", name, a.Type, render(v), v.Type(), quoteHint(a.Type, v))
			}
		}
	}
}

func (c *checker) targets(i int) {
	r := &c.policy.rules[i]
	for j, name := range r.Targets {
		ti, ok := c.policy.byName[name]
		if !ok {
			c.rule(i, fmt.Sprintf("targets[%d]", j), "target %q is not defined%s", name, didYouMean(name, keys(c.policy.byName)))
			continue
		}
		t := c.policy.targets[ti]
		if r.Effect == Allow && t.GrantableTo != nil && !slices.Contains(t.GrantableTo, r.Workloads.TrustDomain) {
			c.rule(i, fmt.Sprintf("targets[%d]", j), "target %s is grantable to %s only; its owner must add %s to grantable_to first", name, strings.Join(t.GrantableTo, ", "), r.Workloads.TrustDomain)
		}
		for k, s := range r.Scopes {
			if !slices.Contains(t.Scopes, s) {
				c.rule(i, fmt.Sprintf("scopes[%d]", k), "target %s defines no scope %q%s", name, s, didYouMean(s, t.Scopes))
			}
		}
		if r.Lifetime > 0 && r.Lifetime < t.MinLifetime {
			c.rule(i, "lifetime", "lifetime %s is shorter than a credential for target %s can live, which is %s; raise it", r.Lifetime, name, t.MinLifetime)
		}
		if r.Lifetime > t.MaxLifetime {
			c.rule(i, "lifetime", "lifetime %s is longer than max_lifetime %s of target %s", r.Lifetime, t.MaxLifetime, name)
		}
	}
}

func (c *checker) lifetime(i int) {
	if l := c.policy.rules[i].Lifetime; l != 0 && l < time.Second {
		c.rule(i, "lifetime", "lifetime %s is below one second", l)
	}
}

// ValidScope reports whether s is one scope-token of RFC 6749 section 3.3.
func ValidScope(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != 0x21 && (c < 0x23 || c > 0x5b) && (c < 0x5d || c > 0x7e) {
			return false
		}
	}
	return s != ""
}

// ValidResource reports whether s is an absolute URI without fragment (RFC 8707 section 2).
func ValidResource(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.IsAbs() && (u.Host != "" || u.Opaque != "") && !strings.Contains(s, "#")
}

func targetName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, c := range s {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", c) {
			return false
		}
	}
	return true
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

func quoteHint(want federation.Type, got federation.Value) string {
	if want == federation.TypeString && got.Type() != federation.TypeString {
		return `; put it in quotes: "` + render(got) + `"`
	}
	return ""
}

// didYouMean lists what there is, the nearest first when one is near.
func didYouMean(got string, have []string) string {
	if len(have) == 0 {
		return "; there is none"
	}
	best, bestDistance := "", 4
	for _, h := range have {
		if d := distance(got, h); d < bestDistance {
			best, bestDistance = h, d
		}
	}
	if best != "" {
		return "; did you mean " + best + "?"
	}
	return "; there are " + strings.Join(have, ", ")
}

// distance is the Levenshtein distance, for hints only.
func distance(a, b string) int {
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(row[j]+1, prev[j+1]+1, prev[j]+cost)
		}
		prev = row
	}
	return prev[len(b)]
}
