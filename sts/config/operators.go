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
	Same         []operator.Person // whose credentials are whose
}

// operatorsFile is operators.yaml.
type operatorsFile struct {
	ClientCA string        `yaml:"client_ca_file,omitempty" jsonschema:"minLength=1" jsonschema_description:"Path of the PEM certificates of the authority that signs operators' client certificates, and nothing else; relative paths start at the configuration directory. Default: none, and certificates make nobody an operator. Read at start."`
	People   []issuerEntry `yaml:"people,omitempty" jsonschema:"minItems=1" jsonschema_description:"Issuers of people's tokens, as in a trust file. Their audience names operators alone: a token that workloads present, or that Sallyport minted, is none. Default: none, and tokens make nobody an operator."`
	Second   []string      `yaml:"second_person,omitempty" jsonschema:"minItems=1,enum=unlock,enum=estate,enum=domain" jsonschema_description:"What takes two people. unlock: lifting a lock. estate: a revocation or lock whose selector names no trust domain, no workload and no token. domain: one whose selector names no workload, no token and no lease, whatever else it names. It holds for the admin socket as well. Default: nothing."`
	Same     []personEntry `yaml:"same_person,omitempty" jsonschema:"minItems=1" jsonschema_description:"Whose credentials are whose, for second_person. Two logins of one issuer of people are two people; of any other two credentials, such as a certificate and a user of the socket, nobody can tell, and neither approves what the other asked for unless both are listed here, of different people. Default: none."`
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

// personEntry is one person's credentials.
type personEntry struct {
	Name         string   `yaml:"name" jsonschema:"minLength=1" jsonschema_description:"Name of the person, for messages. Required."`
	Certificates []string `yaml:"certificates,omitempty" jsonschema:"minItems=1" jsonschema_description:"URI or email names (SAN) of the person's client certificates, as in a role. Default: none."`
	Tokens       []string `yaml:"tokens,omitempty" jsonschema:"minItems=1" jsonschema_description:"The person's logins, as the audit log names them: spiffe://operators/ISSUER/... Default: none."`
	Users        []int64  `yaml:"users,omitempty" jsonschema:"minItems=1" jsonschema_description:"Numbers (uid) of the users of the system that are this person at the admin socket, on every host. Default: none."`
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
		out.Second.Domain = out.Second.Domain || s == "domain"
		if kinds := []string{"unlock", "estate", "domain"}; !slices.Contains(kinds, s) && d.ok("second_person") {
			d.problem("second_person", "second_person %s is none of unlock, estate and domain%s", show(s), suggest(s, kinds))
		}
	}
	l.persons(d, f, known)
	for i, e := range f.Roles {
		l.role(d, index("roles", i), e, known)
	}
	l.peopleAgree(d, f, known)
}

// persons checks whose credentials are whose.
func (l *loader) persons(d *document, f operatorsFile, known map[string]policy.Issuer) {
	of := map[operator.Credential]string{}
	for i, e := range f.Same {
		path := index("same_person", i)
		p := operator.Person{Name: e.Name}
		add := func(key string, kind operator.Kind, ids []string, wrong func(id string) string) {
			for j, id := range ids {
				c, at := operator.Credential{Kind: kind, ID: id}, index(join(path, key), j)
				if why := wrong(id); why != "" && d.ok(at) {
					d.problem(at, "%s", why)
				}
				if other, twice := of[c]; twice {
					d.problem(at, "%s is %s already; a credential is one person's", show(id), show(other))
				}
				of[c] = e.Name
				p.Credentials = append(p.Credentials, c)
			}
		}
		add("certificates", operator.Certificate, e.Certificates, func(id string) string {
			if !strings.ContainsAny(id, ":@") {
				return show(id) + " is neither a URI nor an email name; subject names (CN) are not looked at"
			}
			return ""
		})
		add("tokens", operator.Token, e.Tokens, func(id string) string {
			issuer, rest, _ := strings.Cut(strings.TrimPrefix(id, "spiffe://"+operator.TrustDomain+"/"), "/")
			if _, ok := known[issuer]; !ok || rest == "" || !strings.HasPrefix(id, "spiffe://") {
				return show(id) + " is no login of an issuer in people; write it as the audit log does: spiffe://" + operator.TrustDomain + "/ISSUER/..."
			}
			return ""
		})
		users := make([]string, len(e.Users))
		for j, uid := range e.Users {
			users[j] = fmt.Sprintf("uid=%d", uid)
		}
		add("users", operator.User, users, func(id string) string {
			if strings.HasPrefix(id, "uid=-") {
				return show(id) + " is no user of a system"
			}
			return ""
		})
		if len(p.Credentials) == 0 && d.ok(path) {
			d.problem(path, "nothing is %s; name certificates, tokens or users", show(e.Name))
		}
		if slices.ContainsFunc(l.set.Operators.Same, func(o operator.Person) bool { return o.Name == e.Name }) && d.ok(join(path, "name")) {
			d.problem(join(path, "name"), "%s is named twice; write all that is one person's in one entry", show(e.Name))
		}
		l.set.Operators.Same = append(l.set.Operators.Same, p)
	}
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
