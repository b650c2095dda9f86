package federation

import (
	"math"
	"strconv"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of single claims.
const (
	maxSubject    = 1024    // bytes of sub and of jti
	maxAudiences  = 64      // values of aud
	maxNumberDate = 1 << 53 // seconds; beyond it a double no longer counts in ones (RFC 8259 section 6)
)

// registered are the claims that verification itself reads (RFC 7519 section 4.1, RFC 8693 section 4.2).
// Absent dates are the zero time, absent strings "".
type registered struct {
	iss, sub, jti string
	aud           []string
	exp, nbf, iat time.Time
	delegation    delegation
	payload       []byte
	members       []member // every claim, aliasing payload
}

// parseRegistered reads the claims in one pass. The result aliases payload.
func parseRegistered(payload []byte) (registered, error) {
	r := registered{payload: payload}
	if err := boundJSON(payload); err != nil {
		return r, err
	}
	if err := json.Unmarshal(payload, &r); err != nil {
		return r, asRefusal(err, malformed("claims are not a JSON object without duplicates"))
	}
	return r, nil
}

// UnmarshalJSONFrom reads the registered claims and notes where every claim stands.
func (r *registered) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	r.members = make([]member, 0, 32)
	return eachMember(dec, func(name []byte, dec *jsontext.Decoder) error {
		nameEnd := int(dec.InputOffset())
		if quoted := nameEnd - len(name) - 1; string(r.payload[quoted:nameEnd-1]) == string(name) {
			name = r.payload[quoted : nameEnd-1] // nothing was escaped: outlives the decoder
		}
		value, err := dec.ReadValue()
		if err != nil {
			return err
		}
		end := int(dec.InputOffset())
		value = r.payload[end-len(value) : end]
		r.members = append(r.members, member{name: name, value: value})
		switch string(name) {
		case "iss":
			r.iss, err = claimString(value, "iss is not a non-empty string")
		case "sub":
			r.sub, err = claimString(value, "sub is not a non-empty string")
		case "jti":
			r.jti, err = claimString(value, "jti is not a non-empty string")
		case "aud":
			r.aud, err = audiences(value)
		case "exp":
			r.exp, err = numericDate(value, "exp is not a NumericDate")
		case "nbf":
			r.nbf, err = numericDate(value, "nbf is not a NumericDate")
		case "iat":
			r.iat, err = numericDate(value, "iat is not a NumericDate")
		case "act":
			r.delegation.acted = true
			r.delegation.actors, err = parseAct(value)
		case "may_act":
			r.delegation.limited = true
			r.delegation.mayAct, err = parseMayAct(value)
		case "cnf":
			r.delegation.bound = true
		}
		return err
	})
}

func claimString(value jsontext.Value, detail string) (string, error) {
	if value.Kind() != '"' || len(value) == 2 {
		return "", badClaim(detail)
	}
	return string(unquote(value)), nil
}

// audiences reads aud: one string or a list of strings, neither empty (RFC 7519 section 4.1.3).
func audiences(value jsontext.Value) ([]string, error) {
	const detail = "aud is neither a string nor a list of strings"
	if value.Kind() == '"' {
		return []string{string(unquote(value))}, nil
	}
	var list []jsontext.Value
	if value.Kind() != '[' || json.Unmarshal(value, &list) != nil || len(list) == 0 {
		return nil, badClaim(detail)
	}
	if len(list) > maxAudiences {
		return nil, badClaim("aud has too many values")
	}
	out := make([]string, len(list))
	for i, e := range list {
		if e.Kind() != '"' {
			return nil, badClaim(detail)
		}
		out[i] = string(unquote(e))
	}
	return out, nil
}

// numericDate reads seconds since 1970, with or without fraction, from 0 to 2^53 (RFC 7519 section 2).
func numericDate(value jsontext.Value, detail string) (time.Time, error) {
	if value.Kind() != '0' || value[0] == '-' {
		return time.Time{}, badClaim(detail)
	}
	if n, ok := integer(value); ok { // exactly: a double would round 2^53+1 down
		if n > maxNumberDate {
			return time.Time{}, badClaim(detail)
		}
		return time.Unix(n, 0), nil
	}
	f, err := strconv.ParseFloat(string(value), 64)
	if err != nil || f < 0 || f > maxNumberDate {
		return time.Time{}, badClaim(detail)
	}
	whole, fraction := math.Modf(f)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}

// printable reports whether s is within limit and free of control characters.
func printable(s string, limit int) bool {
	if len(s) > limit {
		return false
	}
	for _, c := range s {
		if unicode.IsControl(c) {
			return false
		}
	}
	return true
}
