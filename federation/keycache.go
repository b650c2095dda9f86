package federation

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rs/zerolog"
	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sallyport-sts/sallyport/federation/fetch"
)

// KeySpec says where the keys of one issuer come from. Exactly one of Discovery, JWKSURL, JWKSFile and
// Inline is set.
type KeySpec struct {
	Issuer     string // iss; discovery starts here, and what is discovered must name it
	Discovery  bool   // <issuer>/.well-known/openid-configuration; its jwks_uri has the issuer's origin
	JWKSURL    string
	JWKSFile   string // re-read when it changes
	Inline     []byte // a JWK set
	Algorithms []jose.SignatureAlgorithm
	Network    fetch.Network // for Discovery and JWKSURL
}

// KeyStatus is what operators see of one key source.
type KeyStatus struct {
	Issuer    string
	Source    string    // discovery, jwks_url, jwks_file or inline
	Used      bool      // asked for keys at least once; nothing is fetched before
	Healthy   bool      // the newest attempt succeeded, or there was none yet
	Keys      int       // usable keys
	Dropped   int       // published keys that cannot be used
	Fetched   time.Time // when the keys in use were had, zero when there are none
	LastError string    // constant text, "" when healthy
}

// Age returns how old the keys in use are at now, 0 when there are none.
func (s KeyStatus) Age(now time.Time) time.Duration {
	if s.Fetched.IsZero() {
		return 0
	}
	return now.Sub(s.Fetched)
}

// KeyCache keeps the keys of issuers over reloads of configuration. It is safe for concurrent use; the
// sources it hands out take no lock while their keys are fresh.
type KeyCache struct {
	now func() time.Time
	log zerolog.Logger

	mu      sync.Mutex
	sources map[string]keySource
	closed  bool
}

// keySource is a key set that can be watched and ended.
type keySource interface {
	oidc.KeySet
	status() KeyStatus
	close()
}

// NewKeyCache returns an empty cache. now is the clock for ages, not for timeouts.
func NewKeyCache(now func() time.Time, log zerolog.Logger) *KeyCache {
	return &KeyCache{now: now, log: log, sources: make(map[string]keySource)}
}

// Source returns the key source of spec, the same one for an equal spec. It touches no network: keys are
// had at first use. It refuses a spec that can never work, an inline set without a usable key among them.
func (c *KeyCache) Source(spec KeySpec) (oidc.KeySet, error) {
	key, err := spec.identity()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.New("key cache is closed")
	}
	if s, ok := c.sources[key]; ok {
		return s, nil
	}
	s, err := c.open(spec)
	if err != nil {
		return nil, err
	}
	c.sources[key] = s
	return s, nil
}

func (c *KeyCache) open(spec KeySpec) (keySource, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	switch {
	case spec.Inline != nil:
		return newInlineSource(spec, c.now())
	case spec.JWKSFile != "":
		return newFileSource(spec, c.now, c.log), nil
	default:
		return newRemoteSource(spec, c.now, c.log)
	}
}

// Retain ends all sources but those of specs, fetches in flight included. A key set that has ended
// verifies nothing any more. Call it once no Trust in use needs the others.
func (c *KeyCache) Retain(specs []KeySpec) {
	keep := make(map[string]bool)
	for _, spec := range specs {
		if key, err := spec.identity(); err == nil {
			keep[key] = true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, s := range c.sources {
		if !keep[key] {
			s.close()
			delete(c.sources, key)
		}
	}
}

// Close ends all sources.
func (c *KeyCache) Close() {
	c.Retain(nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// Status returns one line per source, in no order.
func (c *KeyCache) Status() []KeyStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]KeyStatus, 0, len(c.sources))
	for _, s := range c.sources {
		out = append(out, s.status())
	}
	return out
}

// identity is equal for equal specs.
func (s KeySpec) identity() (string, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("keys of %s: %w", s.Issuer, err)
	}
	return string(b), nil
}

func (s KeySpec) source() string {
	switch {
	case s.Discovery:
		return "discovery"
	case s.JWKSURL != "":
		return "jwks_url"
	case s.JWKSFile != "":
		return "jwks_file"
	default:
		return "inline"
	}
}

// check refuses what can never work.
func (s KeySpec) check() error {
	n := 0
	for _, set := range []bool{s.Discovery, s.JWKSURL != "", s.JWKSFile != "", s.Inline != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return errors.New("exactly one of discovery, jwks_url, jwks_file and jwks is needed")
	}
	if len(s.Algorithms) == 0 {
		return errors.New("no algorithms are listed")
	}
	if s.Discovery {
		return checkFetchURL(s.Issuer, s.Network)
	}
	if s.JWKSURL != "" {
		return checkFetchURL(s.JWKSURL, s.Network)
	}
	return nil
}

// checkFetchURL refuses addresses that the guarded client would refuse, before the first token comes.
func checkFetchURL(raw string, n fetch.Network) error {
	u, err := url.Parse(raw)
	if err != nil {
		return errors.New("address is not a URL")
	}
	return n.CheckURL(u)
}
