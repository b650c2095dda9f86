package operator

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// TrustDomain is the one in which people are named; no workload is in it.
const TrustDomain = "operators"

// Role is what those who have it may do, and where.
type Role struct {
	Name         string
	May          []Action
	Estate       bool     // in every trust domain; else
	TrustDomains []string // in these
	Certificates []string // URI or email names (SAN) of client certificates
	People       []policy.Workloads
}

// Authority knows who has which role. It is immutable and safe for concurrent use.
type Authority struct {
	People *federation.Trust // issuers of people's tokens, with audiences of their own; it accepts no token minted here
	Roles  []Role
	Second Second
	Same   []Person // whose credentials are whose, for what takes two
}

// ErrUnknown means that nobody with a role has called. Its text is for the log.
var ErrUnknown = errors.New("nobody with a role")

// Authenticate says who calls: by the verified chain of a client certificate, or by a person's token. Who presents both is
// the person.
func (a *Authority) Authenticate(ctx context.Context, chain []*x509.Certificate, token secret.Value, now time.Time) (Operator, error) {
	switch {
	case !token.IsZero():
		return a.person(ctx, token, now)
	case len(chain) > 0:
		return a.certificate(chain[0], now)
	}
	return Operator{}, fmt.Errorf("%w: neither a client certificate nor a token was presented", ErrUnknown)
}

func (a *Authority) person(ctx context.Context, token secret.Value, now time.Time) (Operator, error) {
	if a.People == nil {
		return Operator{}, fmt.Errorf("%w: a token was presented, and operators.yaml trusts no issuer of people", ErrUnknown)
	}
	who, err := a.People.Identify(ctx, token, now)
	if err != nil {
		return Operator{}, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	var grounds []string
	for _, r := range a.Roles {
		for _, w := range r.People {
			if w.Holds(who) {
				grounds = append(grounds, byPeople(r, w))
			}
		}
	}
	o := Operator{Name: who.ID(), By: Credential{Token, who.ID()}}
	return a.with(o, func(ground string) bool { return slices.Contains(grounds, ground) })
}

func (a *Authority) certificate(leaf *x509.Certificate, now time.Time) (Operator, error) {
	if now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) { // of a connection that has lived on
		return Operator{}, fmt.Errorf("%w: the certificate is not valid now", ErrUnknown)
	}
	names := slices.Clone(leaf.EmailAddresses)
	for _, u := range leaf.URIs {
		names = append(names, u.String())
	}
	if len(names) != 1 {
		return Operator{}, fmt.Errorf("%w: the certificate has %d URI and email names (SAN), and one of them is who calls", ErrUnknown, len(names))
	}
	o := Operator{Name: names[0] + " certificate=" + leaf.SerialNumber.Text(16), By: Credential{Certificate, names[0]}}
	return a.with(o, func(string) bool { return true })
}

// with gives o the roles for which there is a ground: a certificate of its name, or what has says holds of a person.
func (a *Authority) with(o Operator, has func(ground string) bool) (Operator, error) {
	for _, r := range a.Roles {
		var grounds []string
		switch {
		case o.By.Kind == Token:
			for _, w := range r.People {
				grounds = append(grounds, byPeople(r, w))
			}
		case slices.Contains(r.Certificates, o.By.ID):
			grounds = []string{r.Name + " by certificate"}
		}
		grounds = slices.DeleteFunc(grounds, func(g string) bool { return !has(g) })
		if len(grounds) > 0 {
			o.roles, o.grounds = append(o.roles, r), append(o.grounds, grounds...)
		}
	}
	if len(o.roles) == 0 {
		return Operator{}, fmt.Errorf("%w: %s has none", ErrUnknown, o.Name)
	}
	return o, nil
}

// byPeople names what gives a role to a person: the entry that holds of them, as it is written.
func byPeople(r Role, w policy.Workloads) string {
	text := fmt.Sprintf("%q %q", w.TrustDomain, w.Issuer)
	for _, name := range slices.Sorted(maps.Keys(w.Where)) {
		text += fmt.Sprintf(" %q %q", name, w.Where[name])
	}
	sum := sha256.Sum256([]byte(text))
	return r.Name + " by people " + hex.EncodeToString(sum[:12])
}
