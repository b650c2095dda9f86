package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// encoder appends JSON. It writes byte for byte what encoding/json would (a property test compares
// the two), in a quarter of its time: the record of an exchange is on the path of every token. Whatever is rare
// is left to encoding/json.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) record(r *Record) {
	e.b = append(e.b, '{')
	if r.N != 0 {
		e.key("n")
		e.b = strconv.AppendUint(e.b, r.N, 10)
	}
	e.text("type", string(r.Type))
	e.moment("time", r.Time)
	e.optional("decision", r.Decision)
	e.optional("outcome", string(r.Outcome))
	e.optional("error", r.Error)
	e.optional("reason", r.Reason)
	e.list("reasons", r.Reasons)
	e.optional("signal", r.Signal)
	if n := r.Near; n != nil {
		e.open("near")
		e.text("rule", n.Rule)
		e.optional("claim", n.Claim)
		e.optional("expected", n.Expected)
		e.optional("found", n.Found)
		e.b = append(e.b, '}')
	}
	e.optional("config", r.Config)
	e.optional("remote", r.Remote)
	e.subject("subject", r.Subject)
	e.subject("actor", r.Actor)
	e.asked(r.Requested)
	if g := r.Granted; g != nil {
		e.open("granted")
		e.text("target", g.Target)
		e.list("scopes", g.Scopes)
		e.optional("rule", g.Rule)
		e.key("lifetime_seconds")
		e.b = strconv.AppendInt(e.b, g.LifetimeSeconds, 10)
		e.b = append(e.b, '}')
	}
	e.lease(r.Lease)
	rare(e, "introspection", r.Introspection)
	rare(e, "revocation", r.Revocation)
	rare(e, "receipt", r.Receipt)
	rare(e, "admin", r.Admin)
	rare(e, "keys", r.Keys)
	rare(e, "reload", r.Reload)
	rare(e, "segment", r.Segment)
	rare(e, "opened", r.Opened)
	rare(e, "recovered", r.Recovered)
	rare(e, "pruned", r.Pruned)
	rare(e, "accepted", r.Accepted)
	rare(e, "junk", r.Junk)
	rare(e, "head", r.Head)
	e.b = append(e.b, '}')
}

func (e *encoder) subject(key string, s *Subject) {
	if s == nil {
		return
	}
	e.open(key)
	e.optional("workload", s.Workload)
	e.optional("trust_domain", s.TrustDomain)
	e.optional("issuer", s.Issuer)
	e.optional("iss", s.Iss)
	e.optional("sub", s.Sub)
	e.optional("token_id", s.TokenID)
	e.optional("fingerprint", s.Fingerprint)
	e.optional("key_id", s.KeyID)
	e.optional("alg", s.Alg)
	e.known("issued_at", s.IssuedAt)
	e.known("expires", s.Expires)
	if len(s.Attributes) > 0 {
		e.open("attributes")
		for _, name := range slices.Sorted(maps.Keys(s.Attributes)) {
			e.text(name, s.Attributes[name])
		}
		e.b = append(e.b, '}')
	}
	e.list("actors", s.Actors)
	e.b = append(e.b, '}')
}

func (e *encoder) asked(r *Requested) {
	if r == nil {
		return
	}
	e.open("requested")
	e.list("audience", r.Audience)
	e.list("resource", r.Resource)
	e.optional("scope", r.Scope)
	e.optional("subject_token_type", r.SubjectTokenType)
	e.optional("actor_token_type", r.ActorTokenType)
	e.optional("requested_token_type", r.RequestedTokenType)
	e.b = append(e.b, '}')
}

func (e *encoder) lease(l *Lease) {
	if l == nil {
		return
	}
	e.open("lease")
	e.text("id", l.ID)
	e.optional("family", l.Family)
	e.list("ancestors", l.Ancestors)
	e.list("actors", l.Actors)
	e.optional("position", l.Position)
	e.known("expires", l.Expires)
	e.optional("kind", l.Kind)
	e.optional("audience", l.Audience)
	e.optional("fingerprint", l.Fingerprint)
	e.b = append(e.b, '}')
}

// key begins a member; the names are constants, or attribute names, which are escaped.
func (e *encoder) key(name string) {
	if e.b[len(e.b)-1] != '{' {
		e.b = append(e.b, ',')
	}
	e.quote(name)
	e.b = append(e.b, ':')
}

func (e *encoder) open(name string) {
	e.key(name)
	e.b = append(e.b, '{')
}

func (e *encoder) text(name, value string) {
	e.key(name)
	e.quote(value)
}

func (e *encoder) optional(name, value string) {
	if value != "" {
		e.text(name, value)
	}
}

func (e *encoder) list(name string, values []string) {
	if len(values) == 0 {
		return
	}
	e.key(name)
	for i, v := range values {
		e.b = append(e.b, "[,"[min(i, 1)])
		e.quote(v)
	}
	e.b = append(e.b, ']')
}

func (e *encoder) known(name string, t time.Time) {
	if !t.IsZero() {
		e.moment(name, t)
	}
}

func (e *encoder) moment(name string, t time.Time) {
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		e.err = fmt.Errorf("%s: year %d", name, y)
		return
	}
	e.key(name)
	e.b = append(e.b, '"')
	e.b = t.AppendFormat(e.b, time.RFC3339Nano)
	e.b = append(e.b, '"')
}

// quote appends a JSON string. What needs an escape is left to encoding/json.
func (e *encoder) quote(s string) {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == 0x7f {
			e.value(s)
			return
		}
	}
	e.b = append(e.b, '"')
	e.b = append(e.b, s...)
	e.b = append(e.b, '"')
}

func (e *encoder) value(v any) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		e.err = err
		return
	}
	e.b = append(e.b, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...)
}

func rare[T any](e *encoder, name string, v *T) {
	if v != nil {
		e.key(name)
		e.value(v)
	}
}
