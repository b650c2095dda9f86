package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/fetch"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/statuslist"
)

// Bounds of [Config.Skew].
const (
	DefaultSkew = federation.DefaultSkew // 30 s
	MaxSkew     = federation.MaxSkew     // 120 s
)

// Config says whose tokens are taken, and which.
type Config struct {
	// Issuer is the deployment's `issuer`, exactly as its configuration has it: an https URL, or http on a loopback
	// host.
	Issuer string
	// Audience is the aud of tokens for this resource server: the target's jwt.audience, else its resource, else its
	// name.
	Audience string
	// Algorithms are those that the deployment may sign such tokens with, for instance ES256. It has no default.
	Algorithms []string
	// Skew is how far the clocks may be apart, in both directions: a token passes for so long after its exp. 0 means
	// DefaultSkew, the most is MaxSkew.
	Skew time.Duration

	// AllowPrivate lets the issuer's name lead to a private address. Loopback issuers need no permission; link-local
	// addresses get none.
	AllowPrivate bool
	// CAFile is a PEM file with the only certificate authorities to believe. Default: the system's.
	CAFile string

	// Introspect makes the deployment be asked about each token, too. Default: nobody is asked.
	Introspect *Introspection

	// Follow makes the verifier follow the deployment's feed of revocations; [Verifier.Follow] has to run. Default: nobody
	// follows.
	Follow *Following

	// StatusList makes the verifier read the status list in which each token has its place (OAuth Token Status List): for
	// targets with `jwt: {status_list: true}`. A token without a place is refused. Default: no list is read.
	StatusList bool

	// Refused is told of each request that [Verifier.Middleware] or [Verifier.RequireScope] refuses, and why, for logs and
	// metrics. It may be called concurrently. Default: nobody is told.
	Refused func(r *http.Request, why error)

	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Verifier checks tokens. It is safe for concurrent use.
type Verifier struct {
	trust   *federation.Trust
	keys    *federation.KeyCache
	live    *live  // nil: nobody is asked
	feed    *feed  // nil: nobody follows
	lists   *lists // nil: no list is read
	refused func(*http.Request, error)
	now     func() time.Time
}

// New returns a Verifier, or an error that says what is wrong with c. It touches no network.
func New(c Config) (*Verifier, error) {
	network, err := c.network()
	if err != nil {
		return nil, fmt.Errorf("making a verifier: %w", err)
	}
	v := &Verifier{refused: c.Refused, now: c.Now}
	if v.now == nil {
		v.now = time.Now
	}
	if v.refused == nil {
		v.refused = func(*http.Request, error) {}
	}
	if err := v.believe(c, network); err != nil {
		return nil, fmt.Errorf("making a verifier: %w", err)
	}
	if c.Introspect != nil {
		if v.live, err = newLive(c, network, v.now); err != nil {
			return nil, fmt.Errorf("making a verifier: %w", err)
		}
	}
	if c.Follow != nil {
		if v.feed, err = newFeed(c, network, v.now); err != nil {
			return nil, fmt.Errorf("making a verifier: %w", err)
		}
	}
	return v, nil
}

// believe compiles the one issuer that v knows.
func (v *Verifier) believe(c Config, network fetch.Network) error {
	algorithms := make([]jose.SignatureAlgorithm, len(c.Algorithms))
	for i, a := range c.Algorithms {
		algorithms[i] = jose.SignatureAlgorithm(a)
	}
	v.keys = federation.NewKeyCache(v.now, zerolog.Nop())
	source, err := v.keys.Source(federation.KeySpec{Issuer: c.Issuer, Discovery: true, Algorithms: algorithms, Network: network})
	if err != nil {
		return err
	}
	trust, err := federation.NewTrust([]federation.Issuer{{
		TrustDomain: "verify", Name: "sallyport", // names that nobody sees
		URL: c.Issuer, Keys: source, Adapter: profile{c.Issuer},
		Audiences: []string{c.Audience}, ManyAudiences: true, // RFC 9068 section 4: ours is among them
		Algorithms:  algorithms,
		Types:       []string{"at+jwt"},
		Skew:        c.Skew,
		MaxLifetime: federation.MaxMaxLifetime, // lifetimes are the deployment's business
	}}, nil)
	if err != nil {
		return problems(err)
	}
	v.trust = trust.Caching()
	if c.StatusList {
		v.lists = &lists{
			prefix: c.Issuer + statuslist.Path, network: network, keys: source, algorithms: algorithms, skew: cmp.Or(c.Skew, DefaultSkew), now: v.now,
			kept: map[string]keptList{},
		}
	}
	return nil
}

// fields are the words for what [federation.Issuer] calls otherwise than [Config].
var fields = map[string]string{"URL": "issuer", "Audiences": "audience"}

// problems says in the words of [Config] what is wrong with an issuer.
func problems(err error) error {
	var several interface{ Unwrap() []error }
	if !errors.As(err, &several) {
		return err
	}
	var out []error
	for _, err := range several.Unwrap() {
		var p *federation.IssuerError
		if !errors.As(err, &p) {
			out = append(out, err)
			continue
		}
		field := cmp.Or(fields[p.Field], strings.ToLower(p.Field))
		out = append(out, errors.New(field+" "+p.Problem))
	}
	return errors.Join(out...)
}

// network says what may be reached for c, and refuses issuers whose keys could be replaced on the way.
func (c Config) network() (fetch.Network, error) {
	u, err := url.Parse(c.Issuer)
	if err != nil || u.Host == "" {
		return fetch.Network{}, errors.New("issuer is not a URL")
	}
	loopback := isLoopback(u.Hostname())
	switch {
	case u.Scheme != "https" && !(u.Scheme == "http" && loopback):
		return fetch.Network{}, errors.New("issuer is not https; whoever is on the path could replace the keys (http is for loopback hosts)")
	case strings.HasSuffix(c.Issuer, "/"):
		return fetch.Network{}, errors.New("issuer ends in a slash, and iss is compared byte for byte: no Sallyport calls itself so")
	}
	return fetch.Network{AllowPrivate: c.AllowPrivate || loopback, AllowHTTP: u.Scheme == "http", CAFile: c.CAFile}, nil
}

// isLoopback reports whether a host is this machine, by what it says and not by asking a resolver.
func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// Verify checks a token: raw is what stood after "Bearer ". Every error wraps exactly one of the sentinels of this
// package; of them [ErrUnavailable] alone is worth a retry. ctx bounds waiting for keys and for introspection. Who follows the feed
// asks only while it knows too little.
func (v *Verifier) Verify(ctx context.Context, raw string) (Token, error) {
	value := secret.New(raw)
	w, err := v.trust.Identify(ctx, value, v.now())
	if errors.Is(err, federation.ErrKeysUnavailable) {
		return Token{}, &refusedError{ErrUnavailable, "keys of the issuer: " + v.keyProblem()}
	}
	if err != nil {
		return Token{}, reasonOf(err)
	}
	t := tokenOf(w)
	if v.lists != nil {
		if err := v.lists.check(ctx, t); err != nil {
			return Token{}, err
		}
	}
	if v.feed != nil {
		stale := v.feed.fresh() // first: what is told between the two counts for the second, which only grows
		if v.feed.dead(t) {
			return Token{}, ErrInactive
		}
		if stale == nil || v.live == nil {
			if stale != nil {
				return Token{}, stale
			}
			return t, nil
		}
	}
	if v.live != nil {
		if err := v.live.check(ctx, t, value); err != nil {
			return Token{}, err
		}
	}
	return t, nil
}

// keyProblem is the constant text for why there are no keys.
func (v *Verifier) keyProblem() string {
	for _, s := range v.keys.Status() {
		if s.LastError != "" {
			return s.LastError
		}
	}
	return "none could be had in time"
}
