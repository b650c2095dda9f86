package config

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"
	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/fetch"
)

type keysBlock struct {
	Discovery bool          `yaml:"discovery,omitempty" jsonschema_description:"true: ask the issuer's /.well-known/openid-configuration for the URL of its keys. Default: not asked."`
	JWKSURL   string        `yaml:"jwks_url,omitempty" jsonschema:"minLength=1" jsonschema_description:"URL of its JWK set (RFC 7517 section 5), when there is no discovery. No default."`
	JWKSFile  string        `yaml:"jwks_file,omitempty" jsonschema:"minLength=1" jsonschema_description:"Path of a file with its JWK set; relative paths start at the configuration directory. No default. Nobody renews it: when the issuer rotates its keys, its tokens are refused until the file follows."`
	Inline    *inlineJWKS   `yaml:"inline,omitempty" jsonschema_description:"Its JWK set itself, public keys only. No default. Nobody renews it."`
	Network   *networkBlock `yaml:"network,omitempty" jsonschema_description:"How its keys are fetched. Default: https to public addresses with the system's certificate authorities. Only with discovery and jwks_url."`
}

type networkBlock struct {
	AllowPrivate bool   `yaml:"allow_private,omitempty" jsonschema_description:"Whether keys may be fetched from private and loopback addresses. Default: false. With true, a name that resolves to an internal service reaches it. Link-local addresses stay refused."`
	AllowHTTP    bool   `yaml:"allow_http,omitempty" jsonschema_description:"Whether keys may be fetched without TLS. Default: false. With true, whoever is on the path chooses the keys."`
	CAFile       string `yaml:"ca_file,omitempty" jsonschema:"minLength=1" jsonschema_description:"Path of PEM certificates that alone are trusted for this fetch; relative paths start at the configuration directory. Default: the system's certificate authorities."`
}

// inlineJWKS is a JWK set written as YAML.
type inlineJWKS struct{ set any }

var (
	_ checker          = (*inlineJWKS)(nil)
	_ yaml.Unmarshaler = (*inlineJWKS)(nil)
)

func (*inlineJWKS) check(d *document, n *yaml.Node, path string) bool {
	return d.is(n, yaml.MappingNode, path) // free form: JWKs have members of many kinds
}

// UnmarshalYAML keeps the set as it is written.
func (j *inlineJWKS) UnmarshalYAML(n *yaml.Node) error { return n.Load(&j.set) }

// keySpec checks where the keys of an issuer come from.
func (l *loader) keySpec(d *document, path string, is federation.Issuer, k keysBlock) federation.KeySpec {
	at := func(key string) string { return join(path, key) }
	spec := federation.KeySpec{
		Issuer: is.URL, Discovery: k.Discovery, JWKSURL: k.JWKSURL, Algorithms: is.Algorithms,
	}
	var chosen []string
	for _, key := range []string{"discovery", "jwks_url", "jwks_file", "inline"} {
		if child(d.value(path), key) != nil {
			chosen = append(chosen, key)
		}
	}
	if d.value(path) == nil && k.Discovery {
		chosen = []string{"discovery"} // left out, on a platform that has it
	}
	if len(chosen) != 1 {
		d.problem(path, "keys need exactly one of discovery, jwks_url, jwks_file and inline; here is %s", strings.Join(append(chosen, "none")[:max(1, len(chosen))], " and "))
		return spec
	}
	if chosen[0] == "discovery" && !k.Discovery {
		d.problem(at("discovery"), "discovery: false is no key source; write true, or jwks_url, jwks_file or inline in its place")
	}
	if k.Network != nil {
		spec.Network = fetch.Network{AllowPrivate: k.Network.AllowPrivate, AllowHTTP: k.Network.AllowHTTP}
		if k.Network.CAFile != "" {
			spec.Network.CAFile = under(l.dir, k.Network.CAFile)
			l.certificates(d, at("network.ca_file"), spec.Network.CAFile)
		}
		if chosen[0] == "jwks_file" || chosen[0] == "inline" {
			d.problem(at("network"), "network does nothing with %s, which fetches nothing; remove it", chosen[0])
		}
	}
	switch chosen[0] {
	case "discovery":
		l.fetched(d, at("discovery"), "discovery of", is.URL, spec.Network)
	case "jwks_url":
		l.fetched(d, at("jwks_url"), "jwks_url", k.JWKSURL, spec.Network)
	case "jwks_file":
		spec.JWKSFile = under(l.dir, k.JWKSFile)
		doc, err := readFile(spec.JWKSFile, fetch.MaxBody)
		if err != nil {
			d.problem(at("jwks_file"), "jwks_file %s: %s", show(k.JWKSFile), reason(err))
			return spec
		}
		l.jwks(d, at("jwks_file"), spec, doc)
	case "inline":
		doc, err := json.Marshal(k.Inline.set)
		if err != nil {
			d.problem(at("inline"), "inline is not a JWK set: its members must be what JSON has")
			return spec
		}
		spec.Inline = doc
		l.jwks(d, at("inline"), spec, doc)
	}
	return spec
}

// fetched checks the URL from which keys would be fetched.
func (l *loader) fetched(d *document, path, what, raw string, n fetch.Network) {
	if _, message := parseURL(strings.SplitN(raw, "?", 2)[0]); message != "" {
		if what == "jwks_url" { // the issuer's own URL is reported where it stands
			d.problem(path, "%s %s %s", what, showURL(raw), message)
		}
		return
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Fragment != "":
		d.problem(path, "%s %s is not a URL that can be fetched", what, showURL(raw))
	case u.Scheme == "http" && !n.AllowHTTP:
		d.problem(path, "%s %s is http: whoever is on the path could choose the keys; use https, or say network: {allow_http: true}", what, showURL(raw))
	case linkLocal(u.Hostname()):
		d.problem(path, "%s %s: link-local addresses are never fetched, because clouds hand out credentials there", what, showURL(raw))
	case private(u.Hostname()) && !n.AllowPrivate:
		d.problem(path, "%s %s is a private address, which is not fetched; say network: {allow_private: true} if it is meant", what, showURL(raw))
	}
}

func linkLocal(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLinkLocalUnicast()
}

// jwks checks a key set that is at hand: nothing private, and at least one key that would verify.
func (l *loader) jwks(d *document, path string, spec federation.KeySpec, doc []byte) {
	var set struct {
		Keys []map[string]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(doc, &set); err != nil || set.Keys == nil {
		d.problem(path, "%s is not a JWK set: JSON of the form {\"keys\": [...]} (RFC 7517 section 5)", last(path))
		return
	}
	for i, k := range set.Keys {
		_, private := k["d"]
		_, shared := k["k"]
		if private || shared {
			d.problem(path, "key %d of %s is a private or shared key (not repeated here): whoever reads it can sign; keep the public half only, and replace the key", i+1, last(path))
			return
		}
	}
	if len(spec.Algorithms) == 0 {
		return // reported there
	}
	spec.Discovery, spec.JWKSURL, spec.JWKSFile, spec.Inline = false, "", "", doc
	cache := federation.NewKeyCache(time.Now, zerolog.Nop())
	defer cache.Close()
	if _, err := cache.Source(spec); err != nil {
		names := make([]string, len(spec.Algorithms))
		for i, a := range spec.Algorithms {
			names[i] = string(a)
		}
		d.problem(path, "%s has no key that could verify %s: public, for signatures (use: sig or none), RSA of 2048 bits or more", last(path), strings.Join(names, " or "))
	}
}

// algorithms checks an allow-list of signature algorithms.
func algorithms(d *document, path string, names []string) []jose.SignatureAlgorithm {
	known := []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
	out := make([]jose.SignatureAlgorithm, 0, len(names))
	for i, name := range names {
		at := index(path, i)
		switch {
		case strings.EqualFold(name, "none"):
			d.problem(at, "algorithm none: everybody could write such a token (RFC 8725 section 3.2); list what the issuer signs with, for instance RS256")
		case strings.HasPrefix(strings.ToUpper(name), "HS"):
			d.problem(at, "algorithm %s: its key is shared with whoever verifies, and a public key would serve as one (RFC 8725 section 3.1); list what the issuer signs with, for instance RS256", show(name))
		case !slices.Contains(known, name):
			d.problem(at, "algorithm %s is not a signature algorithm that is accepted%s", show(name), suggest(name, known))
		case slices.Contains(names[:i], name):
			d.problem(at, "algorithm %s is listed twice; remove one", show(name))
		}
		out = append(out, jose.SignatureAlgorithm(name))
	}
	return out
}
