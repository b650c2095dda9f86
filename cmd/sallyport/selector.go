package main

import (
	"io"
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/federation"
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
		token, err := readToken(in, file, "token-file")
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
