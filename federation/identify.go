package federation

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Identify verifies raw and names the workload it speaks for. Tokens whose iss is our own are named by
// their sub and carry a [Lineage]; all others by the adapter of the issuer found by exact (iss, aud).
//
// Nothing is fetched for a token whose issuer is not configured. Identity is read from the very bytes that
// were verified. Every error is a [*RejectedError] with exactly one reason, for the audit record and never
// for the caller; of them [ErrKeysUnavailable] alone is worth a retry. ctx bounds waiting for keys. Safe
// for concurrent use.
//
// Specs: RFC 7515, RFC 7519 section 7.2, RFC 8725 section 3.
func (t *Trust) Identify(ctx context.Context, raw secret.Value, now time.Time) (Workload, error) {
	key, caching := t.cache.keyOf(raw)
	if caching {
		if w, ok := t.cache.find(key, now); ok {
			return w, nil
		}
	}
	v, err := t.verify(ctx, raw, now, false)
	if err != nil {
		return Workload{}, err
	}
	w, err := v.workload()
	if err == nil && caching {
		t.cache.admit(key, v, w)
	}
	return w, err
}

// VerifyOwn verifies a token that this deployment minted, by the path of [Trust.Identify], and returns its
// claims too, for introspection. A token of any other issuer is refused with [ErrUntrustedIssuer] before
// its signature is looked at.
func (t *Trust) VerifyOwn(ctx context.Context, raw secret.Value, now time.Time) (Workload, Claims, error) {
	v, err := t.verify(ctx, raw, now, true)
	if err != nil {
		return Workload{}, Claims{}, err
	}
	w, err := v.workload()
	if err != nil {
		return Workload{}, Claims{}, err
	}
	return w, v.claimSet(), nil
}

// Minted returns one of our own tokens for killing it: signature and typ say that we minted it. Whether it is
// valid now, or names a workload whose issuer is still trusted, does not matter: clocks are set back and issuers
// come back, and a token that somebody wanted dead must not live again with them. Errors: as VerifyOwn.
func (t *Trust) Minted(ctx context.Context, raw secret.Value) (Token, error) {
	a, err := t.authenticate(ctx, raw, true)
	if err != nil {
		return Token{}, err
	}
	if a.claims.jti == "" || a.claims.exp.IsZero() || !printable(a.claims.jti, maxSubject) {
		return Token{}, a.refuse(badClaim("jti or exp is missing"))
	}
	return a.described(), nil
}

// attempt is one verification under way. Its fields fill up in the order of the flow.
type attempt struct {
	trust    *Trust
	token    compact
	record   *record // nil until (iss, aud) found one
	verified bool    // the signature verified
	claims   registered

	generation uint64 // of the issuer's keys, before the signature was checked
}

// verify runs every step that needs no adapter.
func (t *Trust) verify(ctx context.Context, raw secret.Value, now time.Time, ownOnly bool) (*attempt, error) {
	a, err := t.authenticate(ctx, raw, ownOnly)
	if err != nil {
		return nil, err
	}
	if err := a.claims.check(a.record, now); err != nil {
		return nil, a.refuse(err)
	}
	return a, nil
}

// authenticate runs every step that needs no clock: who signed this, and what kind of token is it?
func (t *Trust) authenticate(ctx context.Context, raw secret.Value, ownOnly bool) (*attempt, error) {
	a := &attempt{trust: t}
	var err error
	if a.token, err = parseCompact(raw.Reveal()); err != nil {
		return nil, a.refuse(err)
	}
	if a.claims, err = parseRegistered(a.token.payload); err != nil {
		return nil, a.refuse(err)
	}
	if a.record, err = t.find(&a.claims, ownOnly); err != nil {
		return nil, a.refuse(err)
	}
	if err := a.checkSignature(ctx); err != nil {
		return nil, a.refuse(err)
	}
	a.verified = true
	if err := a.record.accepts(a.token.header); err != nil {
		return nil, a.refuse(err)
	}
	return a, nil
}

// checkSignature holds the algorithm against the issuer's list, then the signature against the issuer's
// keys alone (RFC 8725 sections 3.1 and 3.8).
func (a *attempt) checkSignature(ctx context.Context) error {
	h := a.token.header
	if !a.record.allows(h.alg) {
		return &refusal{ErrAlgorithm, "alg is not on the list of this issuer"}
	}
	jws, err := jose.ParseSignedCompact(a.token.raw, a.record.Algorithms)
	if err != nil || len(jws.Signatures) != 1 {
		return malformed("not a compact JWS")
	}
	// Two parsers read this header; they must have read the same.
	if p := jws.Signatures[0].Protected; p.Algorithm != h.alg || p.KeyID != h.kid {
		return malformed("header is ambiguous")
	}
	a.generation = a.record.generation()
	verified, err := a.record.Keys.VerifySignature(ctx, jws)
	if err != nil {
		return signatureRefusal(err)
	}
	// What was parsed before must be what was verified, byte for byte: identity from one blob and signature
	// over another is how others failed.
	if !bytes.Equal(verified, a.token.payload) {
		return &refusal{ErrSignature, "verified bytes are not the token's payload"}
	}
	return nil
}

// signatureRefusal turns a key set's error into a reason. Text of key sets that are not ours is dropped: it
// may quote the token.
func signatureRefusal(err error) error {
	if r := (*refusal)(nil); errors.As(err, &r) {
		return r
	}
	if errors.Is(err, ErrKeysUnavailable) {
		return &refusal{ErrKeysUnavailable, "the key set has no keys"}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &refusal{ErrKeysUnavailable, "the request ended while keys were fetched"}
	}
	return &refusal{ErrSignature, "no key of this issuer verifies it"}
}

// workload names what was verified.
func (a *attempt) workload() (Workload, error) {
	w := Workload{token: a.described()}
	var err error
	if a.record.own {
		err = a.nameOwn(&w)
	} else if err = a.nameByAdapter(&w); err == nil {
		err = w.legible()
	}
	if err != nil {
		return Workload{}, a.refuse(err)
	}
	return w, nil
}

// described returns what the token says of itself.
func (a *attempt) described() Token {
	return Token{
		iss: a.claims.iss, sub: a.claims.sub, jti: a.claims.jti,
		keyID: a.token.header.kid, algorithm: a.token.header.alg, typ: mediaType(a.token.header.typ),
		audiences:   a.claims.aud,
		fingerprint: a.token.fingerprint,
		issuedAt:    a.claims.iat, expires: a.claims.exp,
		singleUse:  a.record.SingleUse,
		delegation: a.claims.delegation,
		shared:     len(a.trust.issuers[a.claims.iss]) > 1,
	}
}

// nameByAdapter asks the issuer's adapter and holds it to its own schema.
func (a *attempt) nameByAdapter(w *Workload) error {
	naming, err := a.record.Adapter.Name(a.claimSet())
	if err != nil {
		return &refusal{ErrNaming, err.Error()}
	}
	if !validPath(naming.Path) {
		return &refusal{ErrNaming, "path is not made of SPIFFE path segments"}
	}
	id := ID{TrustDomain: a.record.TrustDomain, Issuer: a.record.Name, Path: naming.Path}.String()
	if len(id) > MaxWorkloadID {
		return &refusal{ErrNaming, "workload id is longer than 127 bytes"}
	}
	for name, value := range naming.Attributes {
		if declared, ok := a.record.schema[name]; !ok || declared != value.Type() {
			return &refusal{ErrNaming, "attribute " + name + " is not of the declared type"}
		}
	}
	w.id, w.trustDomain, w.issuer, w.attributes = id, a.record.TrustDomain, a.record.Name, naming.Attributes
	return nil
}

// legible refuses names in the shape of a token: records blot those out wherever they stand, and nobody may become
// unreadable by choosing one.
func (w *Workload) legible() error {
	texts := []string{w.id, w.token.sub, w.token.jti}
	for _, v := range w.attributes {
		switch x := v.Any().(type) {
		case string:
			texts = append(texts, x)
		case []string:
			texts = append(texts, x...)
		}
	}
	for _, s := range texts {
		if _, rest, ok := strings.Cut(s, "eyJ"); ok && strings.Contains(rest, ".") {
			return &refusal{ErrNaming, "a claim that names the workload has the shape of a token"}
		}
	}
	return nil
}

func (a *attempt) claimSet() Claims {
	return Claims{payload: a.token.payload, members: a.claims.members}
}

// refuse makes the one error that leaves this package.
func (a *attempt) refuse(err error) error {
	out := &RejectedError{
		Reason:      ErrMalformed,
		KeyID:       a.token.header.kid,
		Fingerprint: a.token.fingerprint,
		Verified:    a.verified,
	}
	if r := (*refusal)(nil); errors.As(err, &r) {
		out.Reason, out.Detail = r.reason, r.detail
	}
	rec := a.record
	if rec == nil {
		rec = a.trust.only(a.claims.iss)
	}
	if rec != nil {
		out.TrustDomain, out.Issuer = rec.TrustDomain, rec.Name
	}
	return out
}
