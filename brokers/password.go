package brokers

import (
	"crypto/rand"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Passwords are 32 characters of these: 190 bits, and nothing that a URL, an option file, a shell or SQL would take
// for its own.
const (
	passwordLength = 32
	passwordChars  = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
)

// NewPassword returns a password that nobody had before, in a charset safe for every consumer.
func NewPassword() secret.Value {
	out := make([]byte, 0, passwordLength)
	for len(out) < passwordLength {
		var draw [passwordLength]byte
		_, _ = rand.Read(draw[:]) // never fails
		for _, b := range draw {
			// What is above the last multiple of 62 is drawn again: a remainder of it would favour the first characters.
			if int(b) < 256/len(passwordChars)*len(passwordChars) && len(out) < passwordLength {
				out = append(out, passwordChars[int(b)%len(passwordChars)])
			}
		}
	}
	return secret.New(string(out))
}
