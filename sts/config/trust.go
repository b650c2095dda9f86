package config

import (
	"cmp"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

// Issuer is one trusted issuer: all that door one needs but its keys, and where those come from.
type Issuer struct {
	federation.Issuer                    // its Keys are nil
	Keys              federation.KeySpec // to be turned into a key set
}

// trustFile is one file in trust/. Not a word about access.
type trustFile struct {
	TrustDomain string        `yaml:"trust_domain" jsonschema:"minLength=1,maxLength=255" jsonschema_description:"Name of the boundary inside which these identities have meaning, such as prod.example (SPIFFE-ID section 2.1). Required; one file per trust domain. Part of every workload id."`
	Issuers     []issuerEntry `yaml:"issuers" jsonschema:"minItems=1" jsonschema_description:"Whom this trust domain believes. Required, at least one."`
}

// issuerEntry is one issuer. The block named like its type is not in it, see [document.detach].
type issuerEntry struct {
	Name        string    `yaml:"name" jsonschema:"minLength=1" jsonschema_description:"Name of the issuer inside its trust domain: letters, digits, '.', '_' and '-'. Required. Part of every workload id; rules refer to it."`
	Type        string    `yaml:"type" jsonschema:"minLength=1" jsonschema_description:"Kind of platform, which decides how its tokens are named. Required. A block of the same name holds that platform's own settings."`
	Issuer      string    `yaml:"issuer" jsonschema:"minLength=1" jsonschema_description:"The iss of its tokens, compared byte for byte: a trailing slash matters. Required."`
	Audiences   []string  `yaml:"audiences" jsonschema:"minItems=1" jsonschema_description:"Values of aud that name this service; a token must have one of them. Required. Issuers that share one issuer URL need audiences of their own."`
	Algorithms  []string  `yaml:"algorithms" jsonschema:"minItems=1,enum=RS256,enum=RS384,enum=RS512,enum=PS256,enum=PS384,enum=PS512,enum=ES256,enum=ES384,enum=ES512,enum=EdDSA,enum=Ed25519" jsonschema_description:"Signature algorithms that its tokens may use. Required. HMAC and none are never accepted."`
	Types       []string  `yaml:"types,omitempty" jsonschema:"minItems=1" jsonschema_description:"Values of the typ header that its tokens may have. Default: JWT, or no typ at all."`
	Keys        keysBlock `yaml:"keys" jsonschema_description:"Where its public keys come from: exactly one of discovery, jwks_url, jwks_file and inline. Required."`
	MaxLifetime duration  `yaml:"max_lifetime,omitempty" jsonschema_description:"Longest life of a token that is accepted, from iat to exp; at most 24h. Default: 1h. Tokens that live longer are refused."`
	SingleUse   bool      `yaml:"single_use,omitempty" jsonschema_description:"Whether a token of it may be exchanged only once for each target. Default: false. Right for platforms that mint a token for each job; with true, workloads that read one token again and again (Kubernetes, SPIFFE) are refused the second time."`
	ClockSkew   duration  `yaml:"clock_skew,omitempty" jsonschema_description:"How far its clock may be off, in both directions; 1s to 120s. Default: 30s."`
}

// trust checks one trust file and adds its issuers to the set.
func (l *loader) trust(d *document) {
	root, blocks := l.issuerEntries(d, "issuers")
	var f trustFile
	d.decode(root, "", &f, true)
	if f.TrustDomain == "" || !d.ok("trust_domain") || !d.shaped("issuers", len(f.Issuers)) {
		l.incomplete = true
	}
	if d.ok("trust_domain") {
		l.trustDomain(d, f.TrustDomain)
	}
	names := map[string]string{}
	for i, e := range f.Issuers {
		path := index("issuers", i)
		if e.Name == "" || !d.ok(join(path, "name")) {
			l.incomplete = true
			if d.ok(join(path, "name")) {
				d.problem(join(path, "name"), "name is empty; rules and workload ids are made of it")
			}
			continue
		}
		if first, ok := names[e.Name]; ok {
			d.problem(join(path, "name"), "issuer %s is already defined at %s; give it a name of its own", show(e.Name), first)
			continue
		}
		names[e.Name] = d.source(path)
		if l.issuers++; l.issuers == maxIssuers+1 {
			d.problem(path, "more than %d issuers; split the deployment", maxIssuers)
		}
		l.issuer(d, path, f.TrustDomain, e, blocks[i])
	}
}

// issuerEntries takes the blocks of platforms out of the issuers in a list, by their places there.
func (l *loader) issuerEntries(d *document, key string) (*yaml.Node, map[int]block) {
	types := l.kinds.Issuers.Types()
	blocks := make(map[int]block)
	root := d.mapItems(key, func(i int, item *yaml.Node) *yaml.Node {
		path := index(key, i)
		item = l.platformEntry(d, item, path)
		rest, b := d.detach(item, path, "type", reflect.TypeFor[issuerEntry](), types)
		blocks[i] = b
		return rest
	})
	return root, blocks
}

func (l *loader) trustDomain(d *document, name string) {
	if first, ok := l.domains[name]; ok {
		d.problem("trust_domain", "trust domain %s is already defined in %s; one file per trust domain: put the issuers there", show(name), first)
		return
	}
	l.domains[name] = d.name
	l.set.TrustDomains = append(l.set.TrustDomains, name)
	if !federation.ValidTrustDomain(name) {
		d.problem("trust_domain", "trust domain %s: use lower-case letters, digits, '.', '-' and '_', at most 255 (SPIFFE-ID section 2.1)", show(name))
	}
}

func (l *loader) issuer(d *document, path, domain string, e issuerEntry, b block) {
	is, known := l.readIssuer(d, path, domain, e, b)
	if is.Adapter == nil {
		l.unnamed[domain+"/"+e.Name] = true
	}
	l.known = append(l.known, known)
	l.set.Issuers = append(l.set.Issuers, is)
	l.places = append(l.places, place{d, path})
}

// readIssuer checks one issuer; its adapter is nil after a problem.
func (l *loader) readIssuer(d *document, path, domain string, e issuerEntry, b block) (Issuer, policy.Issuer) {
	at := func(key string) string { return join(path, key) }
	if d.ok(at("name")) && !federation.ValidSegment(e.Name) {
		d.problem(at("name"), "issuer name %s: use letters, digits, '.', '-' and '_'; workload ids are made of it", show(e.Name))
	}
	is := Issuer{
		Issuer: federation.Issuer{
			TrustDomain: domain,
			Name:        e.Name,
			URL:         e.Issuer,
			Audiences:   e.Audiences,
			Types:       e.Types,
			SingleUse:   e.SingleUse,
			MaxLifetime: cmp.Or(e.MaxLifetime.value(), federation.DefaultMaxLifetime),
			Skew:        cmp.Or(e.ClockSkew.value(), federation.DefaultSkew),
		},
	}
	if d.ok(at("issuer")) {
		l.foreignURL(d, at("issuer"), e.Issuer)
		// The adapter of any other type would ask for no tenant and no anchor.
		if typ, shared := l.kinds.Issuers.Shared(e.Issuer); shared && typ != e.Type && d.ok(at("type")) {
			d.problem(at("type"), "issuer %s is shared by all customers of its platform, and type %s cannot tell them apart; use type: %s, which pins yours", showURL(e.Issuer), show(e.Type), typ)
		}
	}
	if d.ok(at("audiences")) {
		l.audiences(d, path, is)
	}
	if d.ok(at("algorithms")) {
		is.Algorithms = algorithms(d, at("algorithms"), e.Algorithms)
	}
	if d.ok(at("max_lifetime")) && is.MaxLifetime > federation.MaxMaxLifetime {
		d.problem(at("max_lifetime"), "max_lifetime %s is longer than %s; a stolen token would live too long", e.MaxLifetime, brief(federation.MaxMaxLifetime))
	}
	if d.ok(at("clock_skew")) && is.Skew > federation.MaxSkew {
		d.problem(at("clock_skew"), "clock_skew %s is more than %s; repair the clock instead", e.ClockSkew, brief(federation.MaxSkew))
	}
	if d.ok(at("keys")) {
		is.Keys = l.keySpec(d, at("keys"), is.Issuer, e.Keys)
	}
	is.Adapter = l.adapter(d, path, e.Type, b)
	known := policy.Issuer{TrustDomain: domain, Name: e.Name}
	if is.Adapter != nil {
		known.Schema = is.Adapter.Schema()
		if t, ok := is.Adapter.(federation.Tenancy); ok {
			var pinned bool
			if known.MultiTenant, pinned = t.Shared(e.Issuer); known.MultiTenant && !pinned {
				d.problem(path, "issuer %s pins no tenant, and every customer of %s can get tokens of it; list the ids of yours, not their names", show(e.Name), e.Type)
			}
		}
	}
	return is, known
}

// adapter decodes the block of the issuer's type and builds its adapter; nil after a problem.
func (l *loader) adapter(d *document, path, typ string, b block) federation.Adapter {
	if !d.ok(join(path, "type")) {
		return nil
	}
	settings, ok := l.kinds.Issuers.Settings(typ)
	if !ok {
		d.problem(join(path, "type"), "issuer type %s is not known%s", show(typ), suggest(typ, l.kinds.Issuers.Types()))
		return nil
	}
	below := join(path, typ)
	if _, known := l.kinds.Issuers.Platform(typ); known {
		below = path
	}
	if b.value != nil && !d.decode(b.value, below, settings, false) {
		return nil
	}
	a, err := l.kinds.Issuers.Build(typ, settings)
	for _, err := range flatten(err) {
		// An adapter says "attributes.team.claim: why"; the path is pointed at, and nothing else is read from it.
		at, _, _ := strings.Cut(err.Error(), ": ")
		if d.value(join(below, at)) == nil {
			at = ""
		}
		d.problem(strings.TrimSuffix(join(below, at), "."), "%s: %s", typ, err)
	}
	if err != nil {
		return nil
	}
	return a
}

// foreignURL checks the iss of a trusted issuer.
func (l *loader) foreignURL(d *document, path, s string) {
	_, message := parseURL(s)
	own := strings.TrimSuffix(l.set.Server.Issuer, "/")
	switch {
	case s == "":
		message = "is empty; write the iss of its tokens"
	case message != "":
	case own != "" && (strings.EqualFold(strings.TrimSuffix(s, "/"), own) || strings.HasPrefix(s, own+"/assertions")):
		message = "is this service itself; tokens that it minted are let in by exchange_from in a rule, never by trust"
	}
	if message != "" {
		d.problem(path, "issuer %s %s", showURL(s), message)
	}
}

// audiences checks that aud values are usable and that issuers sharing one iss can be told apart.
func (l *loader) audiences(d *document, path string, is Issuer) {
	for i, a := range is.Audiences {
		at := index(join(path, "audiences"), i)
		switch first, ok := l.records[[2]string{is.URL, a}]; {
		case a == "" || len(a) > 255 || strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r > '~' }):
			d.problem(at, "audience %s must be 1 to 255 printable ASCII characters without spaces", show(a))
		case slices.Contains(is.Audiences[:i], a):
			d.problem(at, "audience %s is listed twice; remove one", show(a))
		case ok:
			d.problem(at, "audience %s of issuer %s is already used at %s; issuers that share one issuer URL are told apart by audience, so give each its own", show(a), show(is.URL), first)
		default:
			l.records[[2]string{is.URL, a}] = d.source(at)
		}
	}
}
