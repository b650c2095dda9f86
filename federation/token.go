package federation

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Limits of what is read before any cryptography.
const (
	maxKeyID      = 256 // bytes of kid; it is a map key and nothing else
	maxHeaderSize = 4 << 10
	maxDepth      = 8   // nesting of arrays and objects, in headers, claims and key sets
	maxClaims     = 256 // members of the claims object; the largest platform has about 40
)

// compact is a token in JWS compact serialization, split and strictly decoded, nothing of it verified.
type compact struct {
	raw         string
	header      header
	input       []byte // header.payload, encoded
	payload     []byte
	signature   []byte
	fingerprint Fingerprint
}

// header is the JOSE header as far as it is used.
type header struct {
	alg, kid, typ string
	hasTyp        bool
}

// FingerprintOf returns the fingerprint of a token that need not be valid: it is split and decoded
// strictly, not verified. Responders name a stolen token by it.
func FingerprintOf(raw secret.Value) (Fingerprint, error) {
	t, err := parseCompact(raw.Reveal())
	if err != nil {
		return Fingerprint{}, fmt.Errorf("computing a fingerprint: %w", err)
	}
	return t.fingerprint, nil
}

// parseCompact splits and decodes a token: size, charset and dot count first, then strict base64url, then
// the header rules (RFC 7515 sections 3.1, 4.1 and 7.1, RFC 8725 section 3). Every error is a [refusal].
// The fingerprint is set in the result even on error, once the token could be decoded.
func parseCompact(raw string) (compact, error) {
	t := compact{raw: raw}
	first, second, err := split(raw)
	if err != nil {
		return t, err
	}
	if first > maxHeaderSize {
		return t, malformed("header is too large")
	}
	input, decoded := []byte(raw), make([]byte, 0, base64.RawURLEncoding.DecodedLen(len(raw)))
	headerJSON, decoded, err := decode(decoded, input[:first])
	if err != nil {
		return t, malformed("header is not base64url")
	}
	t.payload, decoded, err = decode(decoded, input[first+1:second])
	if err != nil {
		return t, malformed("payload is not base64url")
	}
	t.signature, _, err = decode(decoded, input[second+1:])
	if err != nil {
		return t, malformed("signature is not base64url")
	}
	t.input = input[:second]
	t.fingerprint = sha256.Sum256(t.input)
	if err := boundJSON(headerJSON); err != nil {
		return t, err
	}
	if err := json.Unmarshal(headerJSON, &t.header); err != nil {
		t.header = header{}
		return t, asRefusal(err, malformed("header is not a JSON object without duplicates"))
	}
	if err := t.header.check(); err != nil {
		t.header = header{} // what is not fit to be used is not fit to be recorded
		return t, err
	}
	return t, nil
}

// split finds the two dots. It looks at every byte once and refuses all but three non-empty parts of the
// base64url alphabet: JWE, JSON serialization, padding, white space and newlines end here.
func split(raw string) (first, second int, err error) {
	if len(raw) > MaxTokenSize {
		return 0, 0, malformed("token is too large")
	}
	first, second = -1, -1
	for i := range len(raw) {
		c := raw[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		case c != '.':
			return 0, 0, malformed("token has characters outside base64url")
		case first < 0:
			first = i
		case second < 0:
			second = i
		default:
			return 0, 0, malformed("token has more than three parts")
		}
	}
	if second < 0 || first == 0 || second == first+1 || second == len(raw)-1 {
		return 0, 0, malformed("token does not have three non-empty parts")
	}
	return first, second, nil
}

// decode appends what part says to buf and returns that piece, which nothing later grows into. Strict: a
// second spelling of the same bytes, by bits set beyond the last one, is an error (RFC 4648 section 3.5).
func decode(buf, part []byte) (piece, rest []byte, err error) {
	start := len(buf)
	buf, err = base64.RawURLEncoding.Strict().AppendDecode(buf, part)
	return buf[start:len(buf):len(buf)], buf, err
}

// UnmarshalJSONFrom reads the header members that matter and refuses those that would have to be obeyed
// (crit, b64), that would supply keys (jku, jwk, x5u, x5c; RFC 8725 section 3.10) or that belong to JWE.
func (h *header) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	return eachMember(dec, func(name []byte, dec *jsontext.Decoder) (err error) {
		switch string(name) {
		case "alg":
			h.alg, err = readString(dec, malformed("alg is not a string"))
		case "kid":
			h.kid, err = readString(dec, malformed("kid is not a string"))
			if err == nil && h.kid == "" {
				return malformed("kid is empty")
			}
		case "typ":
			h.hasTyp = true
			h.typ, err = readString(dec, malformed("typ is not a string"))
		case "crit", "b64", "jku", "jwk", "x5u", "x5c", "cty", "enc", "zip":
			return malformed("header member " + string(name) + " is not accepted")
		default:
			return dec.SkipValue()
		}
		return err
	})
}

// check holds what a header must say beyond its types.
func (h *header) check() error {
	if h.alg == "" {
		return malformed("alg is missing")
	}
	if len(h.kid) > maxKeyID {
		return malformed("kid is too long")
	}
	for i := range len(h.kid) {
		if h.kid[i] < 0x20 || h.kid[i] > 0x7e {
			return malformed("kid has characters outside printable ASCII")
		}
	}
	return nil
}

// mediaType returns typ in one form: lower case and without "application/" (RFC 7515 section 4.1.9).
func mediaType(typ string) string {
	s := strings.ToLower(typ)
	if rest, ok := strings.CutPrefix(s, "application/"); ok && !strings.Contains(rest, "/") {
		return rest
	}
	return s
}
