package postgres

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

const (
	saltSize   = 16   // bytes, as the server's own
	iterations = 4096 // RFC 7677 section 4; the password is random, so that more would only slow down logins
)

// proof is a password and what the server keeps of it.
type proof struct {
	password secret.Value
	verifier string
}

func newProof() (proof, error) {
	password, salt := brokers.NewPassword(), make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails
	kept, err := verifier(password, salt)
	return proof{password, kept}, err
}

// proofs has one ready, most of the time: deriving a verifier takes about as long as the server needs to make a role, and
// is done while it does. Each is taken once.
type proofs chan proof

func (ready proofs) take() (proof, error) {
	defer func() { go ready.refill() }()
	select {
	case p := <-ready:
		return p, nil
	default:
		return newProof()
	}
}

func (ready proofs) refill() {
	p, err := newProof()
	if err != nil {
		return // the next one to take one says so
	}
	select {
	case ready <- p:
	default:
	}
}

// wellFormed is the one form of verifier that the server stores as it is. It takes anything else for a password, in
// silence, and hashes it: then the verifier, which it logs, would be the password.
var wellFormed = regexp.MustCompile(`^SCRAM-SHA-256\$4096:[A-Za-z0-9+/]{22}==\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$`)

// verifier returns what the server keeps in place of a password (RFC 5802 section 3). Nobody can log in with it. The
// password needs no SASLprep: it is ASCII.
func verifier(password secret.Value, salt []byte) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, password.Reveal(), salt, iterations, sha256.Size)
	if err != nil {
		return "", errors.New("deriving a verifier")
	}
	stored := sha256.Sum256(mac(salted, "Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	v := fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(stored[:]), b64(mac(salted, "Server Key")))
	if !wellFormed.MatchString(v) {
		return "", errors.New("a verifier is not well-formed")
	}
	return v, nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
