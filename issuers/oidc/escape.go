package oidc

import (
	"encoding/hex"
	"errors"
	"strings"
)

// Escape turns any non-empty string into one SPIFFE path segment, different strings into different ones.
func Escape(s string) string {
	const digits = "0123456789abcdef"
	dots := s == "." || s == ".."
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if plain(c) && !dots {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('_')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&0xf])
	}
	return b.String()
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-'
}

// Unescape returns what Escape was given, or an error for what Escape never makes.
func Unescape(segment string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(segment); i++ {
		if segment[i] != '_' {
			b.WriteByte(segment[i])
			continue
		}
		if i+2 >= len(segment) {
			return "", errors.New("segment ends inside an escape")
		}
		c, err := hex.DecodeString(segment[i+1 : i+3])
		if err != nil {
			return "", errors.New("segment has an underscore that starts no escape")
		}
		b.Write(c)
		i += 2
	}
	if s := b.String(); s != "" && Escape(s) == segment {
		return s, nil
	}
	return "", errors.New("segment is not in the form that escaping makes")
}
