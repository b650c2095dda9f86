package main

import (
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/lease"
)

// selectorHelp is the same everywhere (design section 8).
const selectorHelp = `Selectors, all of which must hold of one exchange; what descends from it is meant as well:
  token-file=FILE           a token or credential, whatever kind it is; - for standard input
  lease=ID  family=ID       a decision id, and all exchanged from it; all leases of one first exchange
  subject=SPIFFE-ID         a workload         actor=SPIFFE-ID    one that acts anywhere in a chain
  attr.NAME=VALUE           any attribute of the platform's token, such as attr.repository_id=99
  issuer=DOMAIN/NAME        an issuer          key=DOMAIN/NAME/KID    one of its keys
  trust_domain=DOMAIN       all of a domain    signing_key=KID        a key of ours
  target=NAME  rule=NAME  policy=HASH          what was asked for, which rule granted it, under which configuration
  jti=ISS/ID  token=SHA-256                    a token by its id, or by its fingerprint`

// evidence reads a token that somebody has found, and nothing that is no token.
func evidence(in io.Reader, file string) (secret.Value, error) {
	token, err := readToken(in, file, "token-file")
	if err != nil {
		return secret.Value{}, err
	}
	if why := noToken(token.Reveal()); why != "" {
		return secret.Value{}, usagef("%s %s; put the token itself into a file, and nothing else", visible(file), why)
	}
	return token, nil
}

// noToken says what is in a file beside a token: nothing matches that, and it would be called dead.
func noToken(text string) string {
	var answer map[string]json.RawMessage
	switch {
	case json.Unmarshal([]byte(text), &answer) == nil && answer["access_token"] != nil:
		return "holds a whole answer, of which access_token is the token"
	case json.Unmarshal([]byte(text), new(string)) == nil:
		return "holds a token in quotation marks"
	case len(text) > 7 && strings.EqualFold(text[:7], "bearer "):
		return "begins with Bearer, which is no part of a token"
	case strings.HasPrefix(text, "access_token="), strings.HasPrefix(text, "token="):
		return "holds the name of a token as well"
	case strings.HasPrefix(text, "eyJ") && (strings.Count(text, ".") != 2 || strings.ContainsAny(text, " \t\r\n")):
		return "holds what begins like a token and is none: a part of one, or more than one"
	}
	return ""
}

// selectors reads token files, and leaves every other term to the server.
func selectors(in io.Reader, args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, usagef("give a selector, such as subject=spiffe://prod.example/cluster-1/ns/shop/sa/checkout; see --help")
	}
	out := slices.Clone(args)
	for i, arg := range out {
		if key, value, ok := strings.Cut(arg, "="); !ok || key == "" || value == "" {
			return nil, usagef("an argument is no selector KEY=VALUE; a token itself is never an argument: put it into a file, and write token-file=FILE") // which is not repeated: it may be one
		}
		file, ok := strings.CutPrefix(arg, "token-file=")
		if !ok {
			if strings.Count(arg, ".") == 2 && len(arg) > 100 && !strings.ContainsAny(arg, "/ ") {
				return nil, usagef("an argument looks like a token; put it into a file, and write token-file=FILE")
			}
			continue
		}
		token, err := evidence(in, file)
		if err != nil {
			return nil, err
		}
		if f, err := federation.FingerprintOf(token); err == nil {
			out[i] = "token=" + f.String()
		} else { // no JWT: a password, a Vault token
			out[i] = "token=" + lease.Fingerprint(token)
		}
	}
	return out, nil
}
