package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/sts/operator"
)

// Operators says who may respond over the network. The zero value is nobody.
type Operators struct {
	ClientCAFile string   // authorities of client certificates, "" for none
	People       []Issuer // of people's tokens
	Roles        []operator.Role
	Second       operator.Second
}

// operatorsFile is operators.yaml.
type operatorsFile struct {
	ClientCA string        `yaml:"client_ca_file,omitempty" jsonschema:"minLength=1" jsonschema_description:"Path of the PEM certificates of the authority that signs operators' client certificates, and nothing else; relative paths start at the configuration directory. Default: none, and certificates make nobody an operator. Read at start."`
	People   []issuerEntry `yaml:"people,omitempty" jsonschema:"minItems=1" jsonschema_description:"Issuers of people's tokens, as in a trust file. Their audience names operators alone: a token that workloads present, or that Sallyport minted, is none. Default: none, and tokens make nobody an operator."`
	Second   []string      `yaml:"second_person,omitempty" jsonschema:"minItems=1,enum=unlock,enum=estate" jsonschema_description:"What takes two people. unlock: lifting a lock. estate: a revocation or lock whose selector names no trust domain, no workload and no token. It holds for the admin socket as well, where a user of the system is one person. Default: nothing."`
	Roles    []roleEntry   `yaml:"roles" jsonschema:"minItems=1" jsonschema_description:"Who may do what, and where. Required, at least one."`
}

// roleEntry is one role.
type roleEntry struct {
	Name         string        `yaml:"name" jsonschema:"minLength=1" jsonschema_description:"Name of the role. Required."`
	May          []string      `yaml:"may" jsonschema:"minItems=1,enum=look,enum=revoke,enum=unlock" jsonschema_description:"look: see leases, locks, reach, dry runs and how the server does. revoke: revoke and lock. unlock: lift locks. Required."`
	TrustDomains []string      `yaml:"trust_domains,omitempty" jsonschema:"minItems=1" jsonschema_description:"Trust domains in which it may: what identities of these obtained. Required unless estate is true."`
	Estate       *opening      `yaml:"estate,omitempty" jsonschema_description:"true: in every trust domain. Default: in trust_domains only."`
	Certificates []string      `yaml:"certificates,omitempty" jsonschema:"minItems=1" jsonschema_description:"Who has it, by the one URI or email name (SAN) of a client certificate, compared byte for byte. Default: nobody by certificate."`
	People       []peopleEntry `yaml:"people,omitempty" jsonschema:"minItems=1" jsonschema_description:"Who has it, by what a token says of its person. Default: nobody by token."`
}

type peopleEntry struct {
	Issuer string                `yaml:"issuer" jsonschema:"minLength=1" jsonschema_description:"Name of an entry of people. Required."`
	Where  map[string]whereValue `yaml:"where" jsonschema_description:"What the attributes of the person must be; all must match. Required."`
}

// operators checks operators.yaml.
func (l *loader) operators(d *document) {
	root, blocks := l.issuerEntries(d, "people")
	var f operatorsFile
	d.decode(root, "", &f, true)
	out := &l.set.Operators
	if f.ClientCA != "" && d.ok("client_ca_file") {
		out.ClientCAFile = under(l.dir, f.ClientCA)
		l.certificates(d, "client_ca_file", out.ClientCAFile)
	}
	known := map[string]policy.Issuer{}
	for i, e := range f.People {
		path := index("people", i)
		if _, twice := known[e.Name]; twice {
			d.problem(join(path, "name"), "issuer %s is already defined; give it a name of its own", show(e.Name))
			continue
		}
		is, schema := l.readIssuer(d, path, operator.TrustDomain, e, blocks[i])
		if e.SingleUse {
			d.problem(join(path, "single_use"), "single_use has no place here: a person makes many calls with one token")
		}
		known[e.Name] = schema
		out.People = append(out.People, is)
	}
	if slices.Contains(l.set.TrustDomains, operator.TrustDomain) {
		d.problem("people", "the trust domain %s is that of people, and a file in trust/ defines it for workloads; give workloads another one", operator.TrustDomain)
	}
	for _, s := range f.Second {
		out.Second.Unlock = out.Second.Unlock || s == "unlock"
		out.Second.Estate = out.Second.Estate || s == "estate"
		if s != "unlock" && s != "estate" && d.ok("second_person") {
			d.problem("second_person", "second_person %s is neither unlock nor estate", show(s))
		}
	}
	for i, e := range f.Roles {
		l.role(d, index("roles", i), e, known)
	}
	l.peopleAgree(d, f, known)
}

func (l *loader) role(d *document, path string, e roleEntry, known map[string]policy.Issuer) {
	at := func(key string) string { return join(path, key) }
	r := operator.Role{Name: e.Name, Estate: e.Estate != nil, TrustDomains: e.TrustDomains, Certificates: e.Certificates}
	for j, may := range e.May {
		a := operator.Action(may)
		if !slices.Contains(operator.Actions(), a) && d.ok(index(at("may"), j)) {
			d.problem(index(at("may"), j), "may %s is none of look, revoke and unlock%s", show(may), suggest(may, []string{"look", "revoke", "unlock"}))
		}
		r.May = append(r.May, a)
	}
	if slices.ContainsFunc(l.set.Operators.Roles, func(o operator.Role) bool { return o.Name == e.Name }) {
		d.problem(at("name"), "role %s is already defined; give it a name of its own", show(e.Name))
	}
	switch {
	case r.Estate && len(r.TrustDomains) > 0:
		d.problem(at("estate"), "estate: true is every trust domain; leave trust_domains out, or estate")
	case !r.Estate && len(r.TrustDomains) == 0 && d.ok(at("trust_domains")):
		d.problem(path, "role %s may act nowhere; name its trust_domains, or write estate: true for every one", show(e.Name))
	}
	for j, name := range r.TrustDomains {
		if !slices.Contains(l.set.TrustDomains, name) && d.ok(at("trust_domains")) {
			d.problem(index(at("trust_domains"), j), "trust domain %s is not defined in trust/%s", show(name), suggest(name, l.set.TrustDomains))
		}
	}
	if len(e.Certificates) == 0 && len(e.People) == 0 && d.ok(at("certificates")) && d.ok(at("people")) {
		d.problem(path, "nobody has role %s; say who, by certificates or people", show(e.Name))
	}
	if len(e.Certificates) > 0 && l.set.Operators.ClientCAFile == "" && d.ok("client_ca_file") {
		d.problem(at("certificates"), "certificates are believed only when client_ca_file names the authority that signs them; name it, or leave them out")
	}
	for j, c := range e.Certificates {
		if !strings.ContainsAny(c, ":@") && d.ok(index(at("certificates"), j)) {
			d.problem(index(at("certificates"), j), "%s is neither a URI nor an email name; subject names (CN) are not looked at", show(c))
		}
	}
	for j, p := range e.People {
		below := index(at("people"), j)
		if _, ok := known[p.Issuer]; !ok && d.ok(join(below, "issuer")) {
			d.problem(join(below, "issuer"), "issuer %s is no entry of people", show(p.Issuer))
		}
		w := workloadsBlock{TrustDomain: operator.TrustDomain, Issuer: p.Issuer, Where: p.Where}.value()
		if len(w.Where) == 0 && d.ok(join(below, "where")) {
			d.problem(join(below, "where"), "where says nothing, and would make everybody with a token of %s an operator", show(p.Issuer))
		}
		r.People = append(r.People, w)
	}
	l.set.Operators.Roles = append(l.set.Operators.Roles, r)
}

// peopleAgree lets door two look at what people must be, as it looks at rules, and door one at their issuers.
func (l *loader) peopleAgree(d *document, f operatorsFile, known map[string]policy.Issuer) {
	if len(l.problems) > 0 || len(f.People) == 0 {
		return
	}
	const target = "operators"
	cfg := policy.Config{Targets: []policy.Target{{Name: target, MaxLifetime: time.Hour}}}
	for _, e := range f.People {
		cfg.Issuers = append(cfg.Issuers, known[e.Name])
	}
	var paths []string
	for i, r := range l.set.Operators.Roles {
		for j, w := range r.People {
			path := index(join(index("roles", i), "people"), j)
			cfg.Rules = append(cfg.Rules, policy.Rule{Name: fmt.Sprint(r.Name, " ", j), Source: d.source(path), Effect: policy.Allow, Workloads: w, Targets: []string{target}})
			paths = append(paths, path)
		}
	}
	_, problems := policy.New(cfg)
	for _, p := range problems {
		if p.Part == "rule" {
			d.problem(join(paths[p.Index], strings.TrimPrefix(p.Path, "workloads.")), "%s", p.Message)
		}
	}
	list := make([]federation.Issuer, len(l.set.Operators.People))
	for i, is := range l.set.Operators.People {
		list[i] = is.Issuer
		list[i].Keys = noKeys{}
	}
	_, err := federation.NewTrust(list, nil)
	for _, err := range flatten(err) {
		var e *federation.IssuerError
		if errors.As(err, &e) && e.Index >= 0 {
			d.problem(index("people", e.Index), "%s %s", e.Field, e.Problem)
			continue
		}
		d.problem("people", "%s", err)
	}
}
