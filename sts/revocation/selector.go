package revocation

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dchest/siphash"
)

// Keys that a selector can name (design section 8), and attr.NAME for any attribute of an adapter.
const (
	KeyLease       = "lease"        // a lease, and all that descends from it
	KeyFamily      = "family"       // all leases of one first exchange
	KeyToken       = "token"        // a token by its fingerprint, 64 hex digits
	KeyJTI         = "jti"          // a token by ISSUER/ID: the iss, and its jti
	KeySubject     = "subject"      // a workload
	KeyActor       = "actor"        // a workload anywhere in a chain of actors
	KeyIssuer      = "issuer"       // TRUST-DOMAIN/NAME
	KeyKey         = "key"          // TRUST-DOMAIN/NAME/KID: a key of an issuer
	KeySigningKey  = "signing_key"  // a key of ours, by its kid
	KeyTrustDomain = "trust_domain" // all workloads of a trust domain
	KeyTarget      = "target"
	KeyRule        = "rule"
	KeyPolicy      = "policy" // hash of a configuration
	attribute      = "attr."
)

var selectorKeys = []string{
	KeyLease, KeyFamily, KeyToken, KeyJTI, KeySubject, KeyActor, KeyIssuer, KeyKey, KeySigningKey, KeyTrustDomain, KeyTarget, KeyRule, KeyPolicy,
}

// Bounds of a selector.
const (
	MaxTerms = 8
	maxTerm  = 512 // bytes
)

// ErrSelector means that a selector says nothing, or not what can be selected.
var ErrSelector = errors.New("no such selector")

// Selector is what a revocation matches: terms KEY=VALUE that all hold of one exchange. It is sorted.
type Selector []string

// ParseSelector checks terms and returns them as a Selector. Values are compared byte for byte; nothing in them is a
// pattern.
func ParseSelector(terms []string) (Selector, error) {
	out := slices.Clone(terms)
	slices.Sort(out)
	switch {
	case len(out) == 0:
		return nil, fmt.Errorf("%w: it has no term; write for instance subject=spiffe://prod.example/cluster-1/ns/shop/sa/checkout", ErrSelector)
	case len(out) > MaxTerms:
		return nil, fmt.Errorf("%w: it has more than %d terms", ErrSelector, MaxTerms)
	case len(slices.Compact(slices.Clone(out))) < len(out):
		return nil, fmt.Errorf("%w: a term is given twice", ErrSelector)
	}
	for _, term := range out {
		key, value, ok := strings.Cut(term, "=")
		name, attr := strings.CutPrefix(key, attribute)
		switch {
		case !ok || value == "":
			return nil, fmt.Errorf("%w: %q is not KEY=VALUE", ErrSelector, short(term))
		case !slices.Contains(selectorKeys, key) && (!attr || name == ""):
			return nil, fmt.Errorf("%w: %q is no key; choose %s, or attr.NAME for a claim of the platform's token", ErrSelector, short(key), strings.Join(selectorKeys, ", "))
		case len(term) > maxTerm || strings.ContainsFunc(term, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return nil, fmt.Errorf("%w: the value of %s is too long, or has control characters", ErrSelector, key)
		case !shaped(key, value):
			return nil, fmt.Errorf("%w: %s is %s", ErrSelector, key, shapes[key])
		case key == KeyLease && len(out) > 1:
			return nil, fmt.Errorf("%w: lease=ID says all by itself", ErrSelector)
		}
	}
	return out, nil
}

// shapes are the forms of values that can match anything.
var shapes = map[string]string{
	KeySubject: "a workload id, spiffe://TRUST-DOMAIN/ISSUER/PATH", KeyActor: "a workload id, spiffe://TRUST-DOMAIN/ISSUER/PATH",
	KeyIssuer: "TRUST-DOMAIN/NAME, as configured", KeyKey: "TRUST-DOMAIN/NAME/KID", KeyTrustDomain: "a name without slashes",
	KeyJTI: "ISS/ID, the token's iss and its jti", KeyToken: "a fingerprint, 64 hex digits; of a token in a file write token-file=FILE",
}

func shaped(key, value string) bool {
	switch key {
	case KeySubject, KeyActor:
		id, ok := strings.CutPrefix(value, "spiffe://")
		return ok && strings.Count(id, "/") >= 1
	case KeyIssuer:
		return strings.Count(value, "/") == 1
	case KeyKey:
		return strings.Count(value, "/") >= 2 && !strings.Contains(value, "://")
	case KeyTrustDomain:
		return !strings.Contains(value, "/")
	case KeyJTI:
		return strings.Contains(value, "/")
	case KeyToken:
		_, err := hex.DecodeString(value)
		return err == nil && len(value) == 64 && value == strings.ToLower(value)
	}
	return true
}

func short(s string) string { return strings.ToValidUTF8(s[:min(len(s), 64)], "") }

// Value returns the value of a key, "" when the selector does not name it.
func (s Selector) Value(key string) string {
	for _, term := range s {
		if value, ok := strings.CutPrefix(term, key+"="); ok {
			return value
		}
	}
	return ""
}

// lease returns the lease that s names, "" when it names something else.
func (s Selector) lease() string { return s.Value(KeyLease) }

// Digest is a term as tokens and leases carry it: a keyed hash, which says nothing to whoever has not the key.
type Digest uint64

// Hasher makes digests. All replicas of a deployment make the same ones.
type Hasher struct{ k0, k1 uint64 }

// NewHasher derives the key of digests from the key that authenticates stored revocations.
func NewHasher(mac []byte) Hasher {
	a, b := siphash.Hash128(binary.BigEndian.Uint64(mac), binary.BigEndian.Uint64(mac[8:]), append([]byte("sallyport selector\x00"), mac[16:]...))
	return Hasher{a, b}
}

// Term returns the digest of KEY=VALUE.
func (h Hasher) Term(key, value string) Digest { return h.digest(key + "=" + value) }

func (h Hasher) digest(term string) Digest { return Digest(siphash.Hash(h.k0, h.k1, []byte(term))) }

// Part is what is known of one exchange: what can be selected of it, and where the log stood when it was decided. A
// platform's token has been through none; it has the time at which it was issued instead.
type Part struct {
	At       Position
	Decided  time.Time // zero when it is not known; whole seconds
	Platform bool
	Issued   time.Time // of a platform's token, zero when it does not say
	Terms    []Digest
}

// Facts is what is known of one lease, or of a token that asks: itself, what it descends from by id, and a Part for each
// exchange in its line.
type Facts struct {
	Lease     string
	Ancestors []string
	Parts     []Part
}

// MaxParts is how many exchanges a line has at most: what tokens carry is bounded by their size.
const MaxParts = 16

// before reports whether an exchange was decided, or a platform's token issued, before a moment, as far as is known.
func (p Part) before(moment time.Time) bool {
	at := p.Decided
	if p.Platform {
		at = p.Issued
	}
	return at.IsZero() || !at.After(moment.Add(issuedSkew))
}

// Encode renders a part of an exchange for a token of ours: "EPOCH.N@DECIDED:TERMS", DECIDED in Unix seconds, base 36.
func (p Part) Encode() string {
	raw := make([]byte, 0, 8*len(p.Terms))
	for _, t := range p.Terms {
		raw = binary.BigEndian.AppendUint64(raw, uint64(t))
	}
	at := p.At.String()
	if !p.Decided.IsZero() {
		at += "@" + strconv.FormatInt(p.Decided.Unix(), 36)
	}
	return at + ":" + base64.RawURLEncoding.EncodeToString(raw)
}

// DecodePart reads what Encode wrote.
func DecodePart(s string) (Part, error) {
	at, terms, ok := strings.Cut(s, ":")
	at, when, timed := strings.Cut(at, "@")
	p, err := ParsePosition(at)
	var decided time.Time
	if timed {
		seconds, err := strconv.ParseInt(when, 36, 64)
		if err != nil || seconds <= 0 {
			return Part{}, errors.New("what a token says of its exchange has a time that is none")
		}
		decided = time.Unix(seconds, 0)
	}
	raw, err2 := base64.RawURLEncoding.DecodeString(terms)
	if !ok || err != nil || err2 != nil || len(raw)%8 != 0 {
		return Part{}, errors.New("what a token says of its exchange is not EPOCH.N:TERMS")
	}
	out := Part{At: p, Decided: decided}
	for ; len(raw) > 0; raw = raw[8:] {
		out.Terms = append(out.Terms, Digest(binary.BigEndian.Uint64(raw)))
	}
	return out, nil
}

// DecodeParts reads parts, and leaves out what is none.
func DecodeParts(list []string) []Part {
	var out []Part
	for _, s := range list {
		if p, err := DecodePart(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// Matches reports whether all terms of a selector hold of one part, whatever its time.
func (f Facts) Matches(h Hasher, s Selector) bool { return f.MatchesBefore(h, s, time.Time{}) }

// MatchesBefore is Matches for what was decided before a moment; zero for whenever.
func (f Facts) MatchesBefore(h Hasher, s Selector, moment time.Time) bool {
	if lease := s.lease(); lease != "" {
		return f.Lease == lease || slices.Contains(f.Ancestors, lease)
	}
	digests := make([]Digest, len(s))
	for i, term := range s {
		digests[i] = h.digest(term)
	}
	return slices.ContainsFunc(f.Parts, func(p Part) bool { return p.has(digests) && (moment.IsZero() || p.before(moment)) })
}

func (p Part) has(all []Digest) bool {
	for _, d := range all {
		if !slices.Contains(p.Terms, d) {
			return false
		}
	}
	return true
}
