package sts

import (
	"net/http"
	"sync/atomic"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/sts/keys"
)

// KeySet is a set of our keys. keys.Signers is one.
type KeySet interface {
	Published() *keys.Published // the same pointer until a key comes or goes
	Fresh() error               // why the set may lack a key that others sign with, nil when it cannot
}

// Published is what the metadata documents and key sets are made of.
type Published struct {
	Issuer     string // our issuer identifier, without trailing slash
	Tokens     KeySet // of what we mint
	Assertions KeySet // of the second issuer, Issuer + [brokers.AssertionsPath]; nil for none
}

// documents are those of one issuer. All that stands in them was true together.
type documents struct {
	of                   *keys.Published
	fresh                bool
	keys, openid, server *document
}

// publisher serves the documents of one issuer and makes them anew when its keys change.
type publisher struct {
	set     KeySet
	openid  func(*keys.Published) any
	server  any
	current atomic.Pointer[documents]
}

// load returns the documents that say what the key set says now.
func (p *publisher) load() (*documents, error) {
	fresh := p.set.Fresh() == nil // first: what is read afterwards is at least as new
	now := p.set.Published()
	if d := p.current.Load(); d != nil && d.of == now && d.fresh == fresh {
		return d, nil
	}
	age := now.MaxAge
	if !fresh { // there may be keys that this replica has not heard of: nobody shall keep the set
		age = 0
	}
	d := &documents{of: now, fresh: fresh}
	var err error
	if d.keys, err = newDocument("application/jwk-set+json", age, now.Set); err != nil {
		return nil, err
	}
	if d.openid, err = newDocument("application/json", age, p.openid(now)); err != nil {
		return nil, err
	}
	if d.server, err = newDocument("application/json", age, p.server); err != nil {
		return nil, err
	}
	p.current.Store(d)
	return d, nil
}

// serve answers with one of the documents.
func (p *publisher) serve(pick func(*documents) *document) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, err := p.load()
		if err != nil {
			panic(err) // a public key that cannot be encoded; the answer is a 500
		}
		pick(d).ServeHTTP(w, r)
	})
}

func keysOf(d *documents) *document   { return d.keys }
func openIDOf(d *documents) *document { return d.openid }
func serverOf(d *documents) *document { return d.server }

// newPublisher publishes the issuer of what we mint.
func newPublisher(p Published) *publisher {
	return &publisher{
		set:    p.Tokens,
		openid: func(k *keys.Published) any { return openIDConfiguration(p.Issuer, k.Algorithms) },
		server: authorizationServer(p.Issuer),
	}
}

// newAssertionsPublisher publishes the second issuer. It has keys and no endpoint: nobody can ask it for a token.
func newAssertionsPublisher(p Published) *publisher {
	issuer := p.Issuer + brokers.AssertionsPath
	return &publisher{
		set: p.Assertions,
		openid: func(k *keys.Published) any {
			full := openIDConfiguration(issuer, k.Algorithms)
			c := oidc.DiscoveryConfiguration{
				ResponseTypesSupported: full.ResponseTypesSupported, SubjectTypesSupported: full.SubjectTypesSupported,
				IDTokenSigningAlgValuesSupported: full.IDTokenSigningAlgValuesSupported,
			}
			c.Issuer, c.JwksURI = full.Issuer, full.JwksURI
			return c
		},
		server: struct {
			Issuer  string `json:"issuer"`
			JWKSURI string `json:"jwks_uri"`
		}{issuer, issuer + "/jwks"},
	}
}

// fresh refuses exchanges while keys may be missing: what would be minted could be signed with a key that was
// taken out.
func (x *Exchanger) fresh(set KeySet, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := set.Fresh(); err != nil {
			x.open(Request{Remote: remote(r)}).refuse(r.Context(), err).write(w)
			return
		}
		next(w, r)
	}
}
