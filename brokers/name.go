package brokers

import (
	"crypto/sha256"
	"encoding/base32"
	"strconv"
	"strings"
	"time"
)

// Names are sts_EXPIRY_ID: EXPIRY is when the credential ends, in Unix seconds, base 36; ID is 16 characters of the
// lease id. They are at most 28 characters of a-z, 0-9 and _, which every upstream takes as they are (MySQL has 32,
// PostgreSQL 63), and they say by themselves when to clean up.
const (
	namePrefix = "sts_"
	nameID     = 16 // characters, 80 random bits
	maxExpiry  = 7  // characters: until the year 4453
)

func name(expires time.Time, lease string) string {
	id := lease
	if len(id) < nameID || !all(id[:nameID], base32Char) {
		sum := sha256.Sum256([]byte(lease))
		id = strings.ToLower(base32.StdEncoding.EncodeToString(sum[:10]))
	}
	return namePrefix + strconv.FormatInt(max(expires.Unix(), 0), 36) + "_" + id[:nameID]
}

// ParseName returns when a credential of this name ends, and false for any name that no [Order] has: such an object is
// somebody else's, and is not touched.
func ParseName(s string) (expires time.Time, ok bool) {
	rest, ok := strings.CutPrefix(s, namePrefix)
	if !ok {
		return time.Time{}, false
	}
	expiry, id, ok := strings.Cut(rest, "_")
	if !ok || len(id) != nameID || !all(id, base32Char) || expiry == "" || len(expiry) > maxExpiry || expiry[0] == '0' || !all(expiry, base36Char) {
		return time.Time{}, false
	}
	n, err := strconv.ParseInt(expiry, 36, 64)
	return time.Unix(n, 0), err == nil
}

// LeaseOf returns what a name says of its lease: how its id begins. It is "" for a name that no [Order] has.
func LeaseOf(s string) string {
	if _, ok := ParseName(s); !ok {
		return ""
	}
	return s[len(s)-nameID:]
}

func base32Char(c byte) bool { return c >= 'a' && c <= 'z' || c >= '2' && c <= '7' }

func base36Char(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

func all(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}
