package mysql

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// nativeHash is what mysql_native_password keeps: SHA1(SHA1(password)). It is only as strong as the password, and ours
// have 190 bits. MariaDB's ed25519 would be better, but neither is its plugin loaded by default nor does every driver
// know it.
func nativeHash(password secret.Value) string {
	once := sha1.Sum([]byte(password.Reveal()))
	twice := sha1.Sum(once[:])
	return "*" + strings.ToUpper(hex.EncodeToString(twice[:]))
}

// What caching_sha2_password keeps: $A$, thousands of rounds in three hex digits, $, a salt, and SHA-256-crypt's digest.
const (
	cachingRounds = 5000
	cachingSalt   = 20 // bytes; crypt(3) takes 16
)

// cachingHash returns the hex digits of what caching_sha2_password keeps, with a fresh salt.
func cachingHash(password secret.Value) string {
	salt := brokers.NewPassword().Reveal()[:cachingSalt] // of letters and digits: the server takes neither $ nor NUL
	return hex.EncodeToString([]byte(cachingString(password.Reveal(), salt)))
}

func cachingString(password, salt string) string {
	return fmt.Sprintf("$A$%03X$%s%s", cachingRounds/1000, salt, sha256Crypt(password, salt, cachingRounds))
}

// sha256Crypt is Ulrich Drepper's SHA-crypt with SHA-256, the digest alone, with a salt of any length.
// https://www.akkadia.org/drepper/SHA-crypt.txt
func sha256Crypt(password, salt string, rounds int) string {
	p, s := []byte(password), []byte(salt)
	b := sha256.New()
	b.Write(p)
	b.Write(s)
	b.Write(p)
	sumB := b.Sum(nil)

	a := sha256.New()
	a.Write(p)
	a.Write(s)
	a.Write(stretch(sumB, len(p)))
	for n := len(p); n > 0; n >>= 1 {
		if n&1 != 0 {
			a.Write(sumB)
		} else {
			a.Write(p)
		}
	}
	sum := a.Sum(nil)

	dp := sha256.New()
	for range p {
		dp.Write(p)
	}
	seqP := stretch(dp.Sum(nil), len(p))
	ds := sha256.New()
	for range 16 + int(sum[0]) {
		ds.Write(s)
	}
	seqS := stretch(ds.Sum(nil), len(s))

	for i := range rounds {
		c := sha256.New()
		if i&1 != 0 {
			c.Write(seqP)
		} else {
			c.Write(sum)
		}
		if i%3 != 0 {
			c.Write(seqS)
		}
		if i%7 != 0 {
			c.Write(seqP)
		}
		if i&1 != 0 {
			c.Write(sum)
		} else {
			c.Write(seqP)
		}
		sum = c.Sum(sum[:0:0])
	}
	return cryptBase64(sum)
}

// stretch repeats sum to n bytes.
func stretch(sum []byte, n int) []byte {
	out := make([]byte, 0, n+len(sum))
	for len(out) < n {
		out = append(out, sum...)
	}
	return out[:n]
}

// cryptBase64 writes 32 bytes in the order and alphabet of crypt(3).
func cryptBase64(sum []byte) string {
	const alphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	var out strings.Builder
	put := func(v uint, chars int) {
		for range chars {
			out.WriteByte(alphabet[v&63])
			v >>= 6
		}
	}
	for i := range 10 {
		j := i * 21 // modulo 30: 0 21 12 3 24 15 6 27 18 9
		put(uint(sum[j%30])<<16|uint(sum[(j+10)%30])<<8|uint(sum[(j+20)%30]), 4)
	}
	put(uint(sum[31])<<8|uint(sum[30]), 3)
	return out.String()
}
