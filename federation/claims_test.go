package federation_test

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
)

// Claims that two readers could understand differently (RFC 7519 section 4, RFC 8725 section 3.7). All are
// correctly signed.
func TestIdentifyRejectsAmbiguousClaims(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	base := fmt.Sprintf(`"iss":"https://issuer.example","aud":"%s","exp":%d`, audience, noon.Unix()+60)
	for name, payload := range map[string]string{
		"sub twice":                   `{` + base + `,"sub":"low","sub":"admin"}`,
		"iss twice":                   `{` + base + `,"sub":"a","iss":"https://other.example"}`,
		"sub twice, escaped":          `{` + base + `,"sub":"low","s\u0075b":"admin"}`,
		"duplicate in unknown object": `{` + base + `,"sub":"a","x":{"y":1,"y":2}}`,
		"invalid UTF-8":               `{` + base + `,"sub":"a` + "\xff" + `"}`,
		"invalid UTF-8 elsewhere":     `{` + base + `,"sub":"a","x":"` + "\xc3\x28" + `"}`,
		"lone surrogate":              `{` + base + `,"sub":"a\ud800"}`,
		"UTF-16":                      "\xfe\xff\x00{\x00}",
		"byte order mark":             "\xef\xbb\xbf{" + base + `,"sub":"a"}`,
		"trailing bytes":              `{` + base + `,"sub":"a"} x`,
		"second object":               `{` + base + `,"sub":"a"}{}`,
		"array":                       `[{` + base + `,"sub":"a"}]`,
		"string":                      `"x"`,
		"null":                        `null`,
		"nothing but blanks":          `  `,
		"nine deep":                   `{` + base + `,"sub":"a","x":` + strings.Repeat("[", 8) + strings.Repeat("]", 8) + `}`,
		"9,000 deep":                  `{"x":` + strings.Repeat("[", 9000),
		"257 claims":                  `{` + base + `,"sub":"a"` + manyClaims(253) + `}`,
		"unterminated string":         `{` + base + `,"sub":"a`,
		"backslash at the end":        `{` + base + `,"sub":"a\`,
	} {
		_, err := identify(t, newTrust(t, entry(iss)), iss.SignPayload([]byte(payload)))
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		wantRejected(t, err, federation.ErrMalformed)
	}
	for name, payload := range map[string]string{
		"SUB beside sub": `{` + base + `,"sub":"a","SUB":"admin","Exp":1}`,
		"eight deep":     `{` + base + `,"sub":"a","x":` + strings.Repeat("[", 7) + strings.Repeat("]", 7) + `}`,
		"256 claims":     `{` + base + `,"sub":"a"` + manyClaims(252) + `}`,
		"braces in text": `{` + base + `,"sub":"a","x":"` + strings.Repeat(`{\"[`, 50) + `"}`,
	} {
		w, err := identify(t, newTrust(t, entry(iss)), iss.SignPayload([]byte(payload)))
		if err != nil || w.Token().Subject() != "a" {
			t.Errorf("%s: got sub %q, %v; want a", name, w.Token().Subject(), err)
		}
	}
}

func manyClaims(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"c%d":1`, i)
	}
	return b.String()
}

func TestIdentifyRequiresClaims(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	claims := iss.Claims(noon, "api", audience)
	for _, name := range []string{"iss", "sub", "aud", "exp"} {
		_, err := identify(t, newTrust(t, entry(iss)), iss.Sign(claims.Without(name)))
		wantRejected(t, err, federation.ErrClaims)
	}
	for _, name := range []string{"nbf", "iat", "jti"} {
		if _, err := identify(t, newTrust(t, entry(iss)), iss.Sign(claims.Without(name))); err != nil {
			t.Errorf("without %s: %v, want it accepted", name, err)
		}
	}
}

func TestTokenIDFallsBackToFingerprint(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	w, err := identify(t, newTrust(t, entry(iss)), iss.Sign(iss.Claims(noon, "api", audience).Without("jti")))
	if err != nil || w.Token().ID() != w.Token().Fingerprint().String() {
		t.Errorf("id %s, %v; want the fingerprint %s", w.Token().ID(), err, w.Token().Fingerprint())
	}
}

// Types and forms of registered claims (RFC 7519 sections 2 and 4.1).
func TestIdentifyRejectsMistypedClaims(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	claims := iss.Claims(noon, "api", audience)
	cases := map[string]federationtest.Claims{
		"iss number":        claims.With("iss", 1),
		"iss null":          claims.With("iss", nil),
		"iss array":         claims.With("iss", []string{iss.URL()}),
		"iss empty":         claims.With("iss", ""),
		"sub empty":         claims.With("sub", ""),
		"sub null":          claims.With("sub", nil),
		"sub number":        claims.With("sub", 7),
		"sub array":         claims.With("sub", []string{"api"}),
		"sub newline":       claims.With("sub", "api\nadmin"),
		"sub NUL":           claims.With("sub", "api\x00"),
		"sub DEL":           claims.With("sub", "api\x7f"),
		"sub C1 control":    claims.With("sub", "api\u0085"),
		"sub too long":      claims.With("sub", strings.Repeat("a", 1025)),
		"jti null":          claims.With("jti", nil),
		"jti empty":         claims.With("jti", ""),
		"jti number":        claims.With("jti", 1),
		"jti control":       claims.With("jti", "a\x1b"),
		"aud empty array":   claims.With("aud", []string{}),
		"aud number":        claims.With("aud", 1),
		"aud array of ints": claims.With("aud", []int{1}),
		"aud mixed array":   claims.With("aud", []any{audience, 1}),
		"aud object":        claims.With("aud", map[string]string{"aud": audience}),
		"aud null":          claims.With("aud", nil),
		"aud nested":        claims.With("aud", [][]string{{audience}}),
		"aud 65 values":     claims.With("aud", strings.Split(strings.Repeat("x,", 64)+audience, ",")),
	}
	for _, date := range []string{"exp", "nbf", "iat"} {
		for name, v := range map[string]any{
			"string": fmt.Sprint(noon.Unix()), "negative": -1, "null": nil, "bool": true, "array": []int{1},
			"RFC 3339": noon.Format(time.RFC3339), "1e400": json.RawMessage("1e400"), "above 2^53": json.RawMessage("9007199254740993"),
			"int64 overflow": json.RawMessage("9223372036854775808"), "1e300": 1e300, "negative zero point": json.RawMessage("-0.0"),
		} {
			cases[date+" "+name] = claims.With(date, v)
		}
	}
	for name, c := range cases {
		_, err := identify(t, newTrust(t, entry(iss)), iss.Sign(c))
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		wantRejected(t, err, federation.ErrClaims)
	}
}

func TestNumericDatesMayHaveFractions(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	c := iss.Claims(noon, "api", audience).With("exp", float64(noon.Unix())+60.5).With("iat", json.RawMessage("1.7954352e9"))
	w, err := identify(t, newTrust(t, entry(iss)), iss.Sign(c.Without("nbf")))
	if err != nil {
		t.Fatal(err)
	}
	if got := w.Token().Expires().Sub(noon); got != 60500*time.Millisecond {
		t.Errorf("exp is %s after noon, want 60.5s", got)
	}
}

// Every limit on time, on both sides of its edge (RFC 7519 section 4.1, standards 4.16 and 4.17).
func TestTimeLimits(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	base := iss.Claims(noon, "api", audience).Without("nbf", "iat", "exp")
	at := func(d time.Duration) int64 { return noon.Add(d).Unix() }
	const second, skew = time.Second, federation.DefaultSkew
	for _, tc := range []struct {
		name   string
		claims federationtest.Claims
		want   error
	}{
		{"exp within skew", base.With("exp", at(-skew+second)), nil},
		{"exp at the end of skew", base.With("exp", at(-skew)), federation.ErrExpired},
		{"exp beyond skew", base.With("exp", at(-skew-second)), federation.ErrExpired},
		{"exp long ago", base.With("exp", 1), federation.ErrExpired},
		{"exp zero", base.With("exp", 0), federation.ErrExpired},
		{"nbf at skew", base.With("exp", at(time.Minute)).With("nbf", at(skew)), nil},
		{"nbf beyond skew", base.With("exp", at(time.Minute)).With("nbf", at(skew+second)), federation.ErrNotYetValid},
		{"nbf in a year", base.With("exp", at(time.Minute)).With("nbf", at(8760*time.Hour)), federation.ErrNotYetValid},
		{"nbf long before iat, as GitHub's", base.With("exp", at(time.Minute)).With("nbf", at(-10*time.Minute)).With("iat", at(0)), nil},
		{"iat at skew", base.With("exp", at(time.Minute)).With("iat", at(skew)), nil},
		{"iat beyond skew", base.With("exp", at(time.Minute)).With("iat", at(skew+second)), federation.ErrNotYetValid},
		{"exp equals nbf", base.With("exp", at(10*second)).With("nbf", at(10*second)), federation.ErrClaims},
		{"exp before nbf", base.With("exp", at(10*second)).With("nbf", at(11*second)), federation.ErrClaims},
		{"exp equals iat", base.With("exp", at(0)).With("iat", at(0)), federation.ErrClaims},
		{"an hour left", base.With("exp", at(time.Hour)), nil},
		{"more than an hour left", base.With("exp", at(time.Hour+second)), federation.ErrLifetime},
		{"an hour long", base.With("exp", at(30*time.Minute)).With("iat", at(-30*time.Minute)), nil},
		{"an hour long, issuer's clock ahead", base.With("exp", at(time.Hour+10*second)).With("iat", at(10*second)), nil},
		{"longer than an hour, nearly over", base.With("exp", at(second)).With("iat", at(-time.Hour)), federation.ErrLifetime},
		{"2^53", base.With("exp", int64(1)<<53), federation.ErrLifetime},
		{"2^53 from 0", base.With("exp", int64(1)<<53).With("iat", 0), federation.ErrLifetime},
	} {
		_, err := identify(t, newTrust(t, entry(iss)), iss.Sign(tc.claims))
		if tc.want == nil {
			if err != nil {
				t.Errorf("%s: %v, want it accepted", tc.name, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: accepted, want %v", tc.name, tc.want)
			continue
		}
		if r := wantRejected(t, err, tc.want); !r.Verified {
			t.Errorf("%s: refused before the signature was checked", tc.name)
		}
	}
}

func TestLimitsArePerIssuer(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	e := entry(iss)
	e.Skew, e.MaxLifetime = 2*time.Minute, 5*time.Minute
	trust := newTrust(t, e)
	claims := iss.Claims(noon, "api", audience).Without("nbf", "iat")
	if _, err := identify(t, trust, iss.Sign(claims.With("exp", noon.Unix()-119))); err != nil {
		t.Errorf("119 s after exp with 120 s skew: %v", err)
	}
	_, err := identify(t, trust, iss.Sign(claims.With("exp", noon.Unix()+301)))
	wantRejected(t, err, federation.ErrLifetime)
}

// capture keeps the claims that verification hands to adapters.
type capture struct{ claims *federation.Claims }

func (capture) Schema() federation.Schema { return nil }
func (c capture) Name(claims federation.Claims) (federation.Naming, error) {
	*c.claims = claims
	return federation.Naming{Path: "x"}, nil
}

func TestClaimsLookup(t *testing.T) {
	iss := federationtest.NewNamed(t, "https://issuer.example", jose.ES256)
	e := entry(iss)
	var claims federation.Claims
	e.Adapter = capture{&claims}
	c := iss.Claims(noon, "api", audience).With("o", map[string]any{"a.b": map[string]any{"c": 42}, "n": nil}).
		With("big", json.RawMessage("9223372036854775807")).With("bigger", json.RawMessage("9223372036854775808")).
		With("half", 0.5).With("one", json.RawMessage("1.0")).With("yes", true).With("list", []any{"a", 1}).With("é\"", "quoted").
		With("huge", json.RawMessage("1e999"))
	if _, err := identify(t, newTrust(t, e), iss.Sign(c)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path []string
		want any
		ok   bool
	}{
		{[]string{"sub"}, "api", true},
		{[]string{"SUB"}, nil, false},
		{[]string{"o", "a.b", "c"}, int64(42), true},
		{[]string{"o.a.b"}, nil, false},
		{[]string{"o", "n"}, nil, true},
		{[]string{"o", "x"}, nil, false},
		{[]string{"sub", "x"}, nil, false},
		{[]string{"big"}, int64(math.MaxInt64), true},
		{[]string{"bigger"}, 9223372036854775808.0, true},
		{[]string{"half"}, 0.5, true},
		{[]string{"one"}, 1.0, true},
		{[]string{"yes"}, true, true},
		{[]string{"list"}, []any{"a", int64(1)}, true},
		{[]string{"é\""}, "quoted", true},
		{[]string{"huge"}, nil, false},
		{nil, nil, false},
	} {
		if got, ok := claims.Lookup(tc.path...); ok != tc.ok || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("Lookup(%q) = %#v, %v; want %#v, %v", tc.path, got, ok, tc.want, tc.ok)
		}
	}
	var v struct{ Sub int }
	if err := claims.Decode(&v); err != nil || v.Sub != 0 {
		t.Errorf("Decode matched Sub to sub: %v", err)
	}
	var w struct {
		S int `json:"sub"`
	}
	err := claims.Decode(&w)
	if err == nil || strings.Contains(err.Error(), "api") {
		t.Errorf("Decode of a string into an int: %v, want an error without the value", err)
	}
	var zero federation.Claims
	if _, ok := zero.Lookup("sub"); ok || zero.Decode(&v) == nil || !zero.IsZero() {
		t.Error("the zero Claims has claims")
	}
}

func TestAttributesMarshalAsBareValues(t *testing.T) {
	b, err := json.Marshal(federation.Attributes{
		"a": federation.String("x"), "b": federation.Strings([]string{"y"}), "c": federation.Bool(true), "d": federation.Int(1 << 60), "e": {},
	})
	if want := `{"a":"x","b":["y"],"c":true,"d":1152921504606846976,"e":null}`; err != nil || string(b) != want {
		t.Errorf("got %s, %v; want %s", b, err, want)
	}
}
