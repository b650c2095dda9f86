package sts

import (
	"fmt"
	"slices"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// maxTerms is how many terms a lease carries, in all its parts: 8 bytes each of a token that has a size.
const maxTerms = 512

// terms collects what can be selected.
type terms struct {
	revocation.Hasher
	list []revocation.Digest
}

func (t *terms) add(key, value string) {
	if value == "" {
		return
	}
	if d := t.Term(key, value); !slices.Contains(t.list, d) {
		t.list = append(t.list, d)
	}
}

// identity adds what a verified workload can be selected by.
func (t *terms) identity(w federation.Workload) {
	issuer := w.TrustDomain() + "/" + w.Issuer()
	t.add(revocation.KeySubject, w.ID())
	t.add(revocation.KeyTrustDomain, w.TrustDomain())
	t.add(revocation.KeyIssuer, issuer)
	t.token(w.Token())
	if w.Token().Lineage().IsZero() {
		t.add(revocation.KeyKey, issuer+"/"+w.Token().KeyID())
		for name, v := range w.Attributes() {
			for _, one := range elements(v) {
				t.add("attr."+name, one)
			}
		}
	}
}

// token adds what names one token.
func (t *terms) token(k federation.Token) {
	t.add(revocation.KeyToken, k.Fingerprint().String())
	t.add(revocation.KeyJTI, k.Issuer()+"/"+k.ID())
	for _, id := range k.Actors() {
		t.add(revocation.KeyActor, id)
	}
}

// elements are the values that an attribute can be selected by: each of a list.
func elements(v federation.Value) []string {
	if list, ok := v.Any().([]string); ok {
		return list
	}
	return []string{text(v)}
}

// asks is what is known of a token that is presented.
func (x *Exchanger) asks(w federation.Workload) revocation.Facts {
	t, lineage := w.Token(), w.Token().Lineage()
	own := terms{Hasher: x.revocations.Hasher()}
	own.identity(w)
	if lineage.IsZero() {
		return revocation.Facts{Parts: []revocation.Part{{Platform: true, Issued: t.IssuedAt(), Terms: own.list}}}
	}
	own.add(revocation.KeySigningKey, t.KeyID())
	own.add(revocation.KeyTarget, lineage.Target)
	own.add(revocation.KeyFamily, lineage.Family)
	f := revocation.Facts{Lease: lineage.Lease, Ancestors: lineage.Ancestors, Parts: revocation.DecodeParts(lineage.Facts)}
	if len(f.Parts) == 0 { // minted before tokens said more
		at, _ := revocation.ParsePosition(lineage.Position) // none is before everything
		f.Parts = []revocation.Part{{At: at}}
	}
	f.Parts[0].Terms = merged(f.Parts[0].Terms, own.list)
	return f
}

func merged(a, b []revocation.Digest) []revocation.Digest {
	for _, d := range b {
		if !slices.Contains(a, d) {
			a = append(a, d)
		}
	}
	return a
}

// decided is the moment that tells an exchange from those before a moment that is past: when it was decided, or, if that is earlier,
// when the platform issued what was presented. What a thief had before is no better for being exchanged later. A token that does
// not say when it was issued was there before everything.
func decided(w federation.Workload, now time.Time) time.Time {
	if t := w.Token(); t.Lineage().IsZero() && t.IssuedAt().Before(now) {
		return t.IssuedAt()
	}
	return now
}

// obtains is what will be known of the lease of a grant: this exchange, by whoever has a hand in it, and all that it
// descends from.
func (x *Exchanger) obtains(who parties, g policy.Grant, l brokers.Lease, config string, at revocation.Position, now time.Time) (revocation.Facts, error) {
	f := revocation.Facts{Lease: l.ID, Ancestors: l.Ancestors}
	for _, w := range []federation.Workload{who.subject, who.actor} {
		if w.IsZero() || w.Token().Issuer() == "" { // an actor that a token of ours names, and which did not ask
			continue
		}
		own := terms{Hasher: x.revocations.Hasher()}
		own.identity(w)
		for _, id := range l.Actors {
			own.add(revocation.KeyActor, id)
		}
		own.add(revocation.KeyTarget, g.Target())
		own.add(revocation.KeyRule, g.Rule())
		own.add(revocation.KeyPolicy, config)
		own.add(revocation.KeyFamily, l.Family)
		f.Parts = append(f.Parts, revocation.Part{At: at, Decided: decided(w, now), Terms: own.list})
	}
	for _, w := range []federation.Workload{who.subject, who.actor} {
		if !w.Token().Lineage().IsZero() {
			f.Parts = append(f.Parts, x.asks(w).Parts...)
		}
	}
	all := 0
	for _, p := range f.Parts {
		all += len(p.Terms)
	}
	if len(f.Parts) > revocation.MaxParts || all > maxTerms {
		return f, fmt.Errorf("%w: %d exchanges with %d terms would have to be told apart; the limits are %d and %d", ErrDelegation, len(f.Parts), all, revocation.MaxParts, maxTerms)
	}
	return f, nil
}

// encoded is f as a token or a lease carries it.
func encoded(f revocation.Facts) []string {
	out := make([]string, len(f.Parts))
	for i, p := range f.Parts {
		out[i] = p.Encode()
	}
	return out
}

// FactsOf is what is known of a lease that lives outside.
func FactsOf(h revocation.Hasher, l lease.Lease) revocation.Facts {
	own := terms{Hasher: h}
	own.add(revocation.KeySubject, l.Workload)
	own.add(revocation.KeyTarget, l.Target)
	own.add(revocation.KeyRule, l.Rule)
	own.add(revocation.KeyFamily, l.Family)
	own.add(revocation.KeyToken, l.Fingerprint)
	f := revocation.Facts{Lease: l.ID, Ancestors: l.Ancestors, Parts: revocation.DecodeParts(l.Facts)}
	if len(f.Parts) == 0 {
		at, _ := revocation.ParsePosition(l.Position)
		f.Parts = []revocation.Part{{At: at}}
	}
	f.Parts[0].Terms = merged(f.Parts[0].Terms, own.list)
	return f
}
