package audit

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// text draws strings with everything that needs an escape.
func text() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(),
		rapid.StringMatching(`[a-z0-9:/._-]{0,20}`),
		rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, "bytes")) }),
		rapid.SampledFrom([]string{"", `"`, `\`, "\n", "\x00", "\x7f", "<>&", "\u2028", "\ufffd", "\xff", "Jey", "eyJ"}),
	)
}

func moments() *rapid.Generator[time.Time] {
	zones := []*time.Location{time.UTC, time.FixedZone("", 3600), time.FixedZone("x", -7*3600-1800)}
	return rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.Bool().Draw(t, "zero") {
			return time.Time{}
		}
		s := rapid.Int64Range(0, 253402300799-86400).Draw(t, "seconds")
		ns := rapid.Int64Range(0, 999_999_999).Draw(t, "ns")
		return time.Unix(s, ns).In(rapid.SampledFrom(zones).Draw(t, "zone"))
	})
}

func optional[T any](g *rapid.Generator[T]) *rapid.Generator[*T] { return rapid.Ptr(g, true) }

func subjects() *rapid.Generator[Subject] {
	return rapid.Custom(func(t *rapid.T) Subject {
		s := Subject{IssuedAt: moments().Draw(t, "iat"), Expires: moments().Draw(t, "exp")}
		for _, f := range []*string{&s.Workload, &s.TrustDomain, &s.Issuer, &s.Iss, &s.Sub, &s.TokenID, &s.Fingerprint, &s.KeyID, &s.Alg} {
			*f = text().Draw(t, "field")
		}
		// Names of attributes are declared by adapters; broken UTF-8 in two of them could collide.
		s.Attributes = rapid.MapOfN(rapid.StringMatching(`[a-z_"\\<\n]{0,9}`), text(), 0, 5).Draw(t, "attributes")
		return s
	})
}

func allRecords() *rapid.Generator[Record] {
	return rapid.Custom(func(t *rapid.T) Record {
		list := rapid.SliceOfN(text(), 0, 3)
		return Record{
			N:    rapid.Uint64().Draw(t, "n"),
			Type: Type(text().Draw(t, "type")), Time: moments().Draw(t, "time"), Decision: text().Draw(t, "decision"),
			Outcome: Outcome(text().Draw(t, "outcome")), Error: text().Draw(t, "error"), Reason: text().Draw(t, "reason"),
			Reasons: list.Draw(t, "reasons"), Config: text().Draw(t, "config"), Remote: text().Draw(t, "remote"),
			Near:    optional(rapid.Make[Near]()).Draw(t, "near"),
			Subject: optional(subjects()).Draw(t, "subject"), Actor: optional(subjects()).Draw(t, "actor"),
			Requested: optional(rapid.Make[Requested]()).Draw(t, "requested"),
			Granted:   optional(rapid.Make[Granted]()).Draw(t, "granted"),
			Lease: optional(rapid.Custom(func(t *rapid.T) Lease {
				return Lease{
					ID: text().Draw(t, "id"), Family: text().Draw(t, "family"), Ancestors: list.Draw(t, "ancestors"),
					Position: text().Draw(t, "position"), Expires: moments().Draw(t, "expires"), Kind: text().Draw(t, "kind"),
					Audience: text().Draw(t, "audience"), Fingerprint: text().Draw(t, "fingerprint"),
				}
			})).Draw(t, "lease"),
			Introspection: optional(rapid.Make[Introspection]()).Draw(t, "introspection"),
			Opened:        optional(rapid.Make[Opened]()).Draw(t, "opened"),
			Segment:       optional(rapid.Make[Segment]()).Draw(t, "segment"),
			Pruned:        optional(rapid.Make[Pruned]()).Draw(t, "pruned"),
			Accepted:      optional(rapid.Make[Accepted]()).Draw(t, "accepted"),
		}
	})
}

// utc does what encoding/json would not: the log writes times in UTC.
func utc(r Record) Record {
	r.Time = r.Time.UTC()
	for _, s := range []**Subject{&r.Subject, &r.Actor} {
		if *s != nil {
			c := **s
			c.IssuedAt, c.Expires = c.IssuedAt.UTC(), c.Expires.UTC()
			*s = &c
		}
	}
	if r.Lease != nil {
		c := *r.Lease
		c.Expires = c.Expires.UTC()
		r.Lease = &c
	}
	return r
}

func TestEncoderWritesWhatEncodingJSONWould(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := allRecords().Draw(t, "record")
		var want bytes.Buffer
		std := json.NewEncoder(&want)
		std.SetEscapeHTML(false)
		if err := std.Encode(utc(r)); err != nil {
			t.Fatal(err)
		}
		e := encoder{}
		e.record(&r)
		if e.err != nil {
			t.Fatal(e.err)
		}
		if got := string(e.b) + "\n"; got != want.String() {
			t.Fatalf("got  %s\nwant %s", got, want.String())
		}
	})
}

// A field that is added to a type must not be forgotten in the hand-written part of the encoder.
func TestEncoderKnowsEveryField(t *testing.T) {
	var r Record
	fill(reflect.ValueOf(&r).Elem())
	want, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	e := encoder{}
	e.record(&r)
	if e.err != nil || !bytes.Equal(e.b, want) {
		t.Errorf("got  %s (%v)\nwant %s", e.b, e.err, want)
	}
}

// fill sets every field to something.
func fill(v reflect.Value) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(1e9, 5).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		elem := reflect.New(v.Type().Elem()).Elem()
		fill(elem)
		v.SetMapIndex(reflect.ValueOf("k"), elem)
	case reflect.String:
		v.SetString("s")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint64:
		v.SetUint(7)
	default:
		panic("a record must not hold a " + v.Type().String())
	}
}

// Redaction by construction: nothing in a record can take what its writer did not name.
func TestRecordHasNoUntypedField(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var walk func(path string, typ reflect.Type)
	walk = func(path string, typ reflect.Type) {
		if seen[typ] || typ == reflect.TypeFor[time.Time]() {
			return
		}
		seen[typ] = true
		switch typ.Kind() {
		case reflect.Interface, reflect.Func, reflect.Chan, reflect.Array:
			t.Errorf("%s is a %v", path, typ)
		case reflect.Slice:
			if typ.Elem().Kind() == reflect.Uint8 {
				t.Errorf("%s is raw bytes", path)
			}
			walk(path+"[]", typ.Elem())
		case reflect.Pointer, reflect.Map:
			walk(path, typ.Elem())
		case reflect.Struct:
			for i := range typ.NumField() {
				f := typ.Field(i)
				if name := strings.ToLower(f.Name); name == "token" || strings.Contains(name, "secret") || strings.Contains(name, "password") || strings.Contains(name, "credential") {
					t.Errorf("%s.%s looks like a place for a secret", path, f.Name)
				}
				walk(path+"."+f.Name, f.Type)
			}
		}
	}
	walk("Record", reflect.TypeFor[Record]())
}

func TestTokenInTextIsBlottedOut(t *testing.T) {
	const token = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
	cfg := testConfig(t.TempDir())
	l := mustOpen(t, cfg)
	r := exchange(1)
	r.Reason = "parsing " + token + ": bad"
	r.Subject.Attributes["claim"] = token
	if err := l.Append(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	l.Junk("malformed", &Record{Type: TypeExchange, Reason: "Bearer " + token})
	mustClose(t, l)
	if r.Reason != "parsing "+token+": bad" {
		t.Error("the caller's record was changed")
	}
	for _, name := range []string{segmentName(1), junkNames[0]} {
		b := readAll(t, cfg.Dir, name)
		if len(b) == 0 {
			t.Errorf("%s is empty", name)
		}
		for _, part := range strings.Split(token, ".") {
			if bytes.Contains(b, []byte(part)) {
				t.Errorf("%s holds a part of the token: %s", name, part)
			}
		}
	}
	rec, ok, err := Find(cfg.Dir, decisionID(1))
	if err != nil || !ok || rec.Reason != "parsing "+strings.Repeat("*", len(token))+": bad" {
		t.Errorf("Find: %q %v %v", rec.Reason, ok, err)
	}
	wantOK(t, mustVerify(t, cfg))
}

func TestBlotLeavesOtherTextAlone(t *testing.T) {
	for _, s := range []string{"", "J", "eyJ", "eyJeyJeyJ", "KeyJar.Example", "the keyJ", "eyJabc.def", strings.Repeat("eyJ", 100), "10.1.2.3 JSON"} {
		b := []byte(s)
		blot(b)
		if string(b) != s {
			t.Errorf("blot(%q) = %q", s, b)
		}
	}
}
