package mysql

import (
	"encoding/hex"
	"regexp"
	"testing"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Vectors of https://www.akkadia.org/drepper/SHA-crypt.txt; salts cut to 16 bytes, as crypt(3) does.
func TestSHA256CryptIsThatOfItsSpecification(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		password, salt string
		rounds         int
		want           string
	}{
		{"Hello world!", "saltstring", 5000, "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"},
		{"Hello world!", "saltstringsaltst", 10000, "3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA"},
		{"This is just a test", "toolongsaltstrin", 5000, "Un/5jzAHMgOGZ5.mWJpuVolil07guHPvOW8mGRcvxa5"},
		{"a very much longer text to encrypt.  This one even stretches over morethan one line.", "anotherlongsalts", 1400, "Rx.j8H.h8HjEDGomFU8bDkXm3XIUnzyxf12oP84Bnq1"},
		{"we have a short salt string but not a short password", "short", 77777, "JiO1O3ZpDAxGJeaDIuqCoEFysAe1mZNJRs3pw0KQRd/"},
		{"a short string", "asaltof16chars..", 123456, "gP3VQ/6X7UUEW3HkBn2w1/Ptq2jxPyzV/cZKmF/wJvD"},
		{"the minimum number is still observed", "roundstoolow", 1000, "yfvwcWrQ8l/K0DAWyuPMDNHpIVlTQebY9l/gL972bIC"},
	} {
		if got := sha256Crypt(tc.password, tc.salt, tc.rounds); got != tc.want {
			t.Errorf("%q with %q: got %s, want %s", tc.password, tc.salt, got, tc.want)
		}
	}
}

// What MySQL servers have kept of known passwords, as published with the tools that guess them: MySQL's salt has 20
// bytes, of which crypt(3) would use 16.
func TestCachingHashIsWhatMySQLKeeps(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ password, salt, digest string }{
		{"hashcat", "F9CC98CE08892924F50A213B6BC571A2C11778C5", "625479393559393965414D45316477456B484F41316E64484742577A2E3162785353526B7554584647562F"},
		{"password", "06437A150142644D74187A6A2F0D7971094F2575", "48667A67485366745A304F6A487A73704250663465337A7530325157687A51364A384D737554424939702E"},
	} {
		salt, _ := hex.DecodeString(tc.salt)
		digest, _ := hex.DecodeString(tc.digest)
		if got, want := cachingString(tc.password, string(salt)), "$A$005$"+string(salt)+string(digest); got != want {
			t.Errorf("%s: got %q, want %q", tc.password, got, want)
		}
	}
	one, two := cachingHash(secret.New("x")), cachingHash(secret.New("x"))
	if one == two {
		t.Error("two hashes share a salt")
	}
	text, err := hex.DecodeString(one)
	if err != nil || !regexp.MustCompile(`^\$A\$005\$[A-Za-z0-9]{20}[./A-Za-z0-9]{43}$`).Match(text) {
		t.Errorf("%q is not what the server takes (%v)", text, err)
	}
}

func TestNativeHash(t *testing.T) {
	t.Parallel()
	if got, want := nativeHash(secret.New("password")), "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
