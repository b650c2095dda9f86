package postgres

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// The example of RFC 7677 section 3: from its client proof and server signature follow the keys.
func TestVerifierIsThatOfTheStandard(t *testing.T) {
	t.Parallel()
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	got, err := verifier(secret.New("pencil"), salt)
	const want = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
	if err != nil || got != want {
		t.Errorf("the verifier is %s (%v)\nwant %s", got, err, want)
	}
}

// The server takes what it cannot parse for a password, without a word.
func TestOnlyWholeVerifiersAreWellFormed(t *testing.T) {
	t.Parallel()
	good, err := verifier(brokers.NewPassword(), make([]byte, saltSize))
	if err != nil || !wellFormed.MatchString(good) {
		t.Fatalf("%s is not well-formed (%v)", good, err)
	}
	for _, bad := range []string{
		"", good + "\n", "\n" + good, good + "x", good[1:], good[:len(good)-1], good + "'", strings.Replace(good, "4096", "1", 1),
		strings.Replace(good, "SHA-256", "SHA-1", 1), strings.Replace(good, ":", ";", 1), strings.Replace(good, "$", "'", 1), strings.ToLower(good),
		strings.Replace(good, "==$", "$", 1), good[:len(good)-2] + "'=",
	} {
		if wellFormed.MatchString(bad) {
			t.Errorf("%q is well-formed", bad)
		}
	}
	if _, err := verifier(brokers.NewPassword(), make([]byte, saltSize-1)); err == nil {
		t.Error("a verifier with a short salt is returned")
	}
}
