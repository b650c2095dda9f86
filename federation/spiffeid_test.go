package federation_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/federation"
)

// Canonical workload ids alone are parsed (SPIFFE-ID section 2).
func TestParseID(t *testing.T) {
	for _, s := range []string{
		"spiffe://prod.example/ci/api", "spiffe://p/c/a", "spiffe://10.0.0.1/c/a", "spiffe://a_b-c.d/C.1/ns/a/sa/b",
	} {
		id, err := federation.ParseID(s)
		if err != nil || id.String() != s {
			t.Errorf("ParseID(%s) = %v, %v", s, id, err)
		}
	}
	for _, s := range []string{
		"", "spiffe://", "spiffe://prod.example", "spiffe://prod.example/", "spiffe://prod.example/ci", "spiffe://prod.example/ci/",
		"SPIFFE://prod.example/ci/api", "spiffe://Prod.example/ci/api", "https://prod.example/ci/api", "spiffe:/prod.example/ci/api",
		"spiffe://prod.example:1/ci/api", "spiffe://u@prod.example/ci/api", "spiffe://prod.example/ci//api", "spiffe://prod.example//api",
		"spiffe://prod.example/ci/./api", "spiffe://prod.example/../ci/api", "spiffe://prod.example/ci/api/", "spiffe://prod.example/ci/a%20b",
		"spiffe://prod.example/ci/api?x", "spiffe://prod.example/ci/api#x", "spiffe:///ci/api", " spiffe://prod.example/ci/api",
		"spiffe://prod.example/ci/ä", "spiffe://prod.example/ci/a\\b", "spiffe://prod.example/ci/a\x00", "spiffe://" + strings.Repeat("a", 256) + "/ci/api",
		"spiffe://prod.example/ci/" + strings.Repeat("a", 103),
	} {
		if id, err := federation.ParseID(s); !errors.Is(err, federation.ErrID) {
			t.Errorf("ParseID(%q) = %v, %v; want ErrID", s, id, err)
		}
	}
}
