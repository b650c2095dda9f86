package config

import (
	"cmp"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/lease"
)

// Defaults and bounds of the server file.
const (
	defaultOps     = "127.0.0.1:9090"
	defaultDataDir = "data"
	defaultKeep    = 400 * 24 * time.Hour
	minKeep        = 24 * time.Hour
	maxKeep        = 10 * 365 * 24 * time.Hour
	minReserve     = 1 << 20
)

// Server is the content of the server file. Paths are absolute.
type Server struct {
	Issuer  string // our issuer identifier
	Listen  Listen
	TLS     TLS
	DataDir string
	Signing Signing
	Audit   Audit

	Store      Store
	Revocation Revocation
	Limits     Limits
	Leases     lease.Limits
}

// Listen holds the addresses that the service listens on, each host:port.
type Listen struct {
	Workload string // token, introspection, revocation, metadata and keys
	Ops      string // liveness, readiness and metrics
	Admin    string // path of the admin socket, "" for none

	Operators string // the admin listener for operators elsewhere, "" for none
}

// TLS says how the workload listener is protected.
type TLS struct {
	Off      bool // no TLS; only on loopback
	CertFile string
	KeyFile  string
}

// Audit says where and how audit records are kept.
type Audit struct {
	Dir        string
	Durability audit.Durability
	Keep       time.Duration // how long records are kept
	Reserve    int64         // bytes of disk held back for revocations
}

// serverFile is sallyport.yaml.
type serverFile struct {
	Issuer     string             `yaml:"issuer" jsonschema:"minLength=1" jsonschema_description:"Our issuer identifier: the iss of what we mint and the base of our metadata (RFC 8414 section 2). Required. An https URL without query, fragment, user information or trailing slash; http only on a loopback host with tls: off. Changing it makes every token minted so far foreign."`
	Listen     listenBlock        `yaml:"listen" jsonschema_description:"Addresses to listen on. Required."`
	TLS        tlsBlock           `yaml:"tls" jsonschema_description:"Certificate of the workload listener, or off. Required; off is accepted only when listen.workload is a loopback address."`
	DataDir    string             `yaml:"data_dir,omitempty" jsonschema:"minLength=1" jsonschema_description:"Directory for keys and state; relative paths start at the configuration directory. Default: data. Losing it loses the signing keys."`
	Signing    signingBlock       `yaml:"signing" jsonschema_description:"How our keys are kept. Required."`
	Store      storeBlock         `yaml:"store,omitempty" jsonschema_description:"What replicas share. Default: nothing; the embedded store in data_dir serves one replica."`
	Revocation revocationBlock    `yaml:"revocation,omitempty" jsonschema_description:"How revocations reach other replicas. Default: all defaults. Needs store."`
	Audit      auditBlock         `yaml:"audit,omitempty" jsonschema_description:"Where and how audit records are kept. Default: all defaults."`
	Leases     leasesBlock        `yaml:"leases,omitempty" jsonschema_description:"How many credentials may live outside at once: database logins, Vault tokens and the like. Default: all defaults."`
	Limits     orOff[limitsBlock] `yaml:"limits,omitempty" jsonschema_description:"How fast callers may ask; beyond it they get 429. Default: all defaults. off: no limit at all."`
}

type listenBlock struct {
	Workload string `yaml:"workload" jsonschema:"minLength=1" jsonschema_description:"Address and port for workloads, resource servers and relying parties, such as 0.0.0.0:8443. Required."`
	Ops      string `yaml:"ops,omitempty" jsonschema:"minLength=1" jsonschema_description:"Address and port for /livez, /readyz and /metrics, without TLS. Default: 127.0.0.1:9090."`
	Admin    string `yaml:"admin,omitempty" jsonschema:"pattern=^unix:." jsonschema_description:"Unix socket for operators, such as unix:/run/sallyport/admin.sock; relative paths start at the configuration directory. Its directory must exist and nobody but its owner and group may write there; the socket is for the user that runs sallyport alone (mode 0600). Default: none, and the admin commands do not work."`

	Operators string `yaml:"operators,omitempty" jsonschema:"minLength=1" jsonschema_description:"Address and port for operators elsewhere, such as 0.0.0.0:8444, with the certificate of the workload listener; tls: off is refused. operators.yaml says who may call. Default: none."`
}

type tlsBlock struct {
	off      bool
	CertFile string `yaml:"cert_file" jsonschema:"minLength=1" jsonschema_description:"Path of the PEM certificate chain, leaf first; relative paths start at the configuration directory. Required unless tls is off."`
	KeyFile  string `yaml:"key_file" jsonschema:"minLength=1" jsonschema_description:"Path of the PEM private key of the certificate; relative paths start at the configuration directory. Required unless tls is off. Refused when others can read it."`
}

var (
	_ checker          = (*tlsBlock)(nil)
	_ yaml.Unmarshaler = (*tlsBlock)(nil)
)

func (*tlsBlock) check(d *document, n *yaml.Node, path string) bool {
	if n.Kind != yaml.ScalarNode {
		return false
	}
	if n.Value != "off" || n.Tag != "!!str" {
		d.place(n, path, "tls must be {cert_file: PATH, key_file: PATH} or the word off, not %s", show(n.Value))
	}
	return true
}

// UnmarshalYAML takes a mapping or the word off.
func (t *tlsBlock) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		t.off = true
		return nil
	}
	type plain tlsBlock // without this method
	return n.Load((*plain)(t), yaml.WithKnownFields())
}

type auditBlock struct {
	Dir        string   `yaml:"dir,omitempty" jsonschema:"minLength=1" jsonschema_description:"Directory for audit records; relative paths start at the configuration directory. Default: audit inside data_dir. When it cannot be written, no token is minted."`
	Durability string   `yaml:"durability,omitempty" jsonschema:"enum=process,enum=machine" jsonschema_description:"When a record is safe before the answer goes out. process: in the operating system, synced every 50 ms. machine: synced to disk, slower. Default: process."`
	Keep       duration `yaml:"keep,omitempty" jsonschema_description:"How long records are kept, in days (d) or a smaller unit; 1d to 3650d. Default: 400d."`
	Reserve    size     `yaml:"reserve,omitempty" jsonschema_description:"Disk space held back so that revocations can be written on a full disk, in KiB, MiB, GiB or TiB; at least 1MiB. Default: 64MiB."`
}

// server checks the server file and builds its part of the set.
func (l *loader) server(d *document) {
	var f serverFile
	d.decode(d.root, "", &f, true)
	s := Server{
		Issuer:  f.Issuer,
		Listen:  Listen{Workload: f.Listen.Workload, Ops: cmp.Or(f.Listen.Ops, defaultOps), Admin: socketPath(l.dir, f.Listen.Admin), Operators: f.Listen.Operators},
		TLS:     TLS{Off: f.TLS.off},
		DataDir: under(l.dir, cmp.Or(f.DataDir, defaultDataDir)),
		Audit: Audit{
			Durability: audit.Durability(cmp.Or(f.Audit.Durability, string(audit.Process))),
			Keep:       cmp.Or(f.Audit.Keep.value(), defaultKeep),
			Reserve:    cmp.Or(f.Audit.Reserve.value(), audit.DefaultReserve),
		},
	}
	s.Audit.Dir = filepath.Join(s.DataDir, "audit")
	if f.Audit.Dir != "" {
		s.Audit.Dir = under(l.dir, f.Audit.Dir)
	}
	if d.ok("listen") {
		l.listen(d, s.Listen)
		d.admin(l.dir, f.Listen.Admin)
	}
	if d.ok("tls") && d.ok("listen") && f.TLS.off && !loopback(s.Listen.Workload) {
		d.problem("tls", "tls: off needs a loopback address, and listen.workload is %s: tokens would cross the network in the clear; give cert_file and key_file, or listen on 127.0.0.1", s.Listen.Workload)
	}
	if d.ok("tls") && d.ok("listen.operators") && f.TLS.off && s.Listen.Operators != "" {
		d.problem("listen.operators", "operators from elsewhere are known by certificates and tokens, which need TLS; give tls a cert_file and a key_file, or leave operators out")
	}
	if d.ok("issuer") {
		l.issuerURL(d, f)
	}
	if d.ok("tls") && !f.TLS.off {
		s.TLS.CertFile, s.TLS.KeyFile = under(l.dir, f.TLS.CertFile), under(l.dir, f.TLS.KeyFile)
		l.certificate(d, s.TLS)
	}
	s.Signing = l.signing(d, f.Signing)
	l.audit(d, s.Audit)
	l.store(d, f, &s)
	s.Limits = d.limits(f.Limits)
	s.Leases = d.leases(f.Leases)
	if d.ok("data_dir") {
		l.directory(d, "data_dir", s.DataDir)
	}
	if d.ok("audit.dir") && f.Audit.Dir != "" {
		l.directory(d, "audit.dir", s.Audit.Dir)
		if rel, err := filepath.Rel(s.Audit.Dir, s.DataDir); err == nil && filepath.IsLocal(rel) {
			d.problem("audit.dir", "audit.dir is data_dir or around it; records and the state that vouches for them must not be lost together: name a directory of its own")
		}
	}
	l.set.Server = s
}

func (l *loader) audit(d *document, a Audit) {
	if d.ok("audit.durability") && a.Durability != audit.Process && a.Durability != audit.Machine {
		d.problem("audit.durability", "durability %s is neither process nor machine%s", show(string(a.Durability)),
			didYouMean(string(a.Durability), []string{string(audit.Process), string(audit.Machine)}))
	}
	if d.ok("audit.keep") && (a.Keep < minKeep || a.Keep > maxKeep) {
		d.problem("audit.keep", "keep is outside 1d to 3650d; records are what an incident is understood from")
	}
	if d.ok("audit.reserve") && a.Reserve < minReserve {
		d.problem("audit.reserve", "reserve is below 1MiB; revocations could not be written on a full disk")
	}
}

func (l *loader) listen(d *document, a Listen) {
	all := []struct{ path, address string }{{"listen.workload", a.Workload}, {"listen.ops", a.Ops}}
	if a.Operators != "" {
		all = append(all, struct{ path, address string }{"listen.operators", a.Operators})
	}
	for i, one := range all {
		host, port, err := net.SplitHostPort(one.address)
		switch {
		case err != nil:
			d.problem(one.path, "%s %s is not an address and port; write for instance 127.0.0.1:8443, or [::1]:8443", last(one.path), show(one.address))
		case host != "" && host != "localhost" && net.ParseIP(host) == nil:
			d.problem(one.path, "%s %s names a host; a listener takes an address of this machine, such as 0.0.0.0 or 127.0.0.1", last(one.path), show(one.address))
		case !portNumber(port):
			d.problem(one.path, "the port of %s %s is not a number from 0 to 65535", last(one.path), show(one.address))
		}
		for _, other := range all[:i] {
			if err == nil && one.address == other.address && port != "0" {
				d.problem(one.path, "%s and %s are the same address; those who may call the one are not those who may call the other: give %s a port of its own", last(one.path), last(other.path), last(one.path))
			}
		}
	}
}

// issuerURL checks our issuer identifier (RFC 8414 section 2).
func (l *loader) issuerURL(d *document, f serverFile) {
	if f.Issuer == "" {
		d.problem("issuer", "issuer is empty; write the https URL that workloads reach this service by")
		return
	}
	u, message := parseURL(f.Issuer)
	switch {
	case message != "":
	case strings.HasSuffix(f.Issuer, "/"):
		message = "ends in a slash; leave it out, issuers are compared byte for byte"
	case u.Scheme == "http" && !loopbackName(u.Hostname()):
		message = "is http; use https, since keys and tokens would cross the network in the clear (http is for a loopback host with tls: off)"
	case u.Scheme == "http" && d.ok("tls") && !f.TLS.off:
		message = "is http, but the listener speaks TLS; use https, or tls: off on loopback"
	}
	if message != "" {
		d.problem("issuer", "issuer %s %s", showURL(f.Issuer), message)
	}
}

// parseURL parses an absolute http or https URL that can be an identifier; the message says why it is none.
func parseURL(s string) (*url.URL, string) {
	u, err := url.Parse(s)
	switch {
	case err != nil || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\\\"<>^`{|}", r) }):
		return nil, "is not a URL"
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, "is not an absolute https URL; write for instance https://sts.example"
	case u.Hostname() == "" || u.Opaque != "":
		return nil, "has no host"
	case u.Host != strings.ToLower(u.Host):
		return nil, "has capitals in its host; identifiers are compared byte for byte: write it in lower case"
	case u.User != nil:
		return nil, "has user information; remove it"
	case strings.ContainsAny(s, "?#"):
		return nil, "has a query or a fragment; remove it (RFC 8414 section 2)"
	case strings.Contains(s, "*"):
		return nil, "has a *; there are no wildcards, identifiers are compared byte for byte"
	case strings.HasSuffix(u.Host, ":") || u.Port() != "" && !portNumber(u.Port()):
		return nil, "has a port that is not a number from 1 to 65535"
	}
	return u, ""
}
