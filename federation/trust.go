package federation

import (
	"strconv"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// Issuer is one configured source of subject tokens inside one trust domain.
type Issuer struct {
	TrustDomain string                    // "prod.example"
	Name        string                    // "cluster-1", unique inside the trust domain
	URL         string                    // iss, compared byte for byte
	Audiences   []string                  // values that name us; one must be present
	Algorithms  []jose.SignatureAlgorithm // allow-list, never empty
	Types       []string                  // accepted typ headers, "" for an absent one; nil means absent or JWT
	Keys        oidc.KeySet               // keys of this issuer alone
	Adapter     Adapter
	MaxLifetime time.Duration // ceiling for exp-iat, or exp-now without iat; 0 means [DefaultMaxLifetime]
	Skew        time.Duration // clock skew, both directions; 0 means [DefaultSkew]

	// ManyAudiences accepts tokens that name other audiences beside ours. Such a token is replayable at
	// us by every one of them, so the default is that ours is the only value.
	ManyAudiences bool

	// SingleUse says that a token of this issuer may be exchanged once for each target: right for platforms that
	// mint one for each job, wrong for those that re-serve one from a cache (Kubernetes, SPIFFE).
	SingleUse bool
}

// Own describes the tokens this deployment mints, so that they can be subject tokens again and be
// introspected. Their names were made here, so they need no adapter.
type Own struct {
	URL        string // our issuer identifier
	Keys       oidc.KeySet
	Algorithms []jose.SignatureAlgorithm
}

// Defaults and bounds of design section 6.
const (
	DefaultSkew        = 30 * time.Second
	MaxSkew            = 120 * time.Second
	DefaultMaxLifetime = time.Hour
	MaxMaxLifetime     = 24 * time.Hour
	OwnMaxLifetime     = time.Hour // of what we mint: whoever has our key can make tokens of no longer life
	MaxTokenSize       = 16 << 10  // bytes; AWS web identity tokens may reach 20,000 characters, none of ours do
	MaxWorkloadID      = 127       // bytes; the smallest limit of the clouds that will see it as sub
)

// Trust is a compiled set of issuers: whom we believe, and within which limits. It is immutable and safe
// for concurrent use; a reload makes a new one. Key caches are referred to, not owned.
type Trust struct {
	records map[recordKey]*record
	issuers map[string][]*record // by iss
	names   map[issuerName]bool
	own     *record     // nil when own tokens are not accepted
	cache   *tokenCache // nil when none is wanted
}

// recordKey finds a record: clusters that share one iss each have an audience of their own.
type recordKey struct{ iss, aud string }

// issuerName is how configuration and workload ids name an issuer.
type issuerName struct{ trustDomain, name string }

// record is one issuer, compiled.
type record struct {
	Issuer
	own        bool
	types      []string // media types, lower case
	typeAbsent bool
	expirySkew time.Duration // how long after exp a token still passes
	schema     map[string]Type
}

// find returns the record for iss and aud, by exact comparison and without any look at the network
// (RFC 8725 section 3.8). Own tokens name their target in aud, not us.
func (t *Trust) find(c *registered, ownOnly bool) (*record, error) {
	if c.iss == "" {
		return nil, badClaim("iss is missing")
	}
	if len(c.aud) == 0 {
		return nil, badClaim("aud is missing")
	}
	if t.own != nil && c.iss == t.own.URL {
		return t.own, nil
	}
	if _, ok := t.issuers[c.iss]; !ok || ownOnly {
		return nil, &refusal{ErrUntrustedIssuer, "no issuer " + claimed(c.iss) + " is configured"}
	}
	return t.byAudience(c)
}

func (t *Trust) byAudience(c *registered) (*record, error) {
	if len(c.aud) == 1 {
		if r := t.records[recordKey{c.iss, c.aud[0]}]; r != nil {
			return r, nil
		}
		return nil, &refusal{ErrAudience, "aud " + claimed(c.aud[0]) + " is not one of the configured audiences"}
	}
	var found *record
	for _, aud := range c.aud {
		r := t.records[recordKey{c.iss, aud}]
		if r == nil || r == found {
			continue
		}
		if found != nil {
			return nil, &refusal{ErrAudience, "aud names two configured issuers"}
		}
		found = r
	}
	if found == nil {
		return nil, &refusal{ErrAudience, "aud is not one of the configured audiences"}
	}
	if !found.ManyAudiences {
		return nil, &refusal{ErrAudience, "aud names others beside us"}
	}
	return found, nil
}

// claimed quotes what an unverified token says, for the operator who has to compare it with the configuration: in
// printable ASCII, and not much of it.
func claimed(s string) string {
	const most = 128 // bytes
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strconv.QuoteToASCII(s)
}

// only returns the record of an iss that has but one, to name it in a refusal.
func (t *Trust) only(iss string) *record {
	if rs := t.issuers[iss]; len(rs) == 1 {
		return rs[0]
	}
	return nil
}
