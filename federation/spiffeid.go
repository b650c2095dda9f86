package federation

import (
	"errors"
	"strings"
)

// maxTrustDomain is the longest trust domain name in bytes (SPIFFE-ID section 2.1).
const maxTrustDomain = 255

// idPrefix starts every workload id.
const idPrefix = "spiffe://"

// ErrID means that a string is not a workload id in canonical form.
var ErrID = errors.New("not a workload id")

// ID is a workload id taken apart: spiffe://<TrustDomain>/<Issuer>/<Path>.
type ID struct {
	TrustDomain string
	Issuer      string // first path segment: the configured name of the issuer
	Path        string // one or more segments joined by "/"
}

// String returns the id in its one canonical form.
func (id ID) String() string {
	return idPrefix + id.TrustDomain + "/" + id.Issuer + "/" + id.Path
}

// ParseID takes a workload id apart. It accepts the canonical form alone: lower-case scheme and trust
// domain, at least two path segments, no port, user, query, fragment, percent sign, empty segment, "." or
// "..", at most [MaxWorkloadID] bytes (SPIFFE-ID section 2). Anything else is [ErrID].
func ParseID(s string) (ID, error) {
	rest, ok := strings.CutPrefix(s, idPrefix)
	if !ok || len(s) > MaxWorkloadID {
		return ID{}, ErrID
	}
	td, rest, _ := strings.Cut(rest, "/")
	issuer, path, _ := strings.Cut(rest, "/")
	if !ValidTrustDomain(td) || !ValidSegment(issuer) || !validPath(path) {
		return ID{}, ErrID
	}
	return ID{TrustDomain: td, Issuer: issuer, Path: path}, nil
}

// ValidTrustDomain reports whether s is a SPIFFE trust domain name in canonical form: 1 to 255 bytes of
// lower-case letters, digits, ".", "-" and "_" (SPIFFE-ID section 2.1).
func ValidTrustDomain(s string) bool {
	if s == "" || len(s) > maxTrustDomain {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// ValidSegment reports whether s is one SPIFFE path segment: letters, digits, ".", "-" and "_", neither
// empty nor "." nor ".." (SPIFFE-ID section 2.2).
func ValidSegment(s string) bool {
	if s == "" || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// validPath reports whether s is one or more segments joined by "/".
func validPath(s string) bool {
	for {
		segment, rest, more := strings.Cut(s, "/")
		if !ValidSegment(segment) {
			return false
		}
		if !more {
			return true
		}
		s = rest
	}
}
