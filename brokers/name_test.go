package brokers

import (
	"strings"
	"testing"
	"time"
)

func TestNamesSayWhenTheyEnd(t *testing.T) {
	t.Parallel()
	end := time.Unix(1790000600, 0)
	const lease = "abcdefghijklmnopqrstuvwxyz"
	got := name(end, lease)
	if got != "sts_"+"tlpxaw"+"_abcdefghijklmnop" {
		t.Errorf("the name is %s", got)
	}
	if len(name(time.Unix(1<<35, 0), lease)) > 28 {
		t.Errorf("%s is longer than 28 characters", name(time.Unix(1<<35, 0), lease))
	}
	for _, lease := range []string{lease, "", "x", "UPPER CASE; DROP ROLE postgres", strings.Repeat("é", 40)} {
		n := name(end, lease)
		if at, ok := ParseName(n); !ok || !at.Equal(end) {
			t.Errorf("lease %q: ParseName(%q) is %s, %v; want %s", lease, n, at, ok, end)
		}
	}
	if name(end, "one") == name(end, "two") {
		t.Error("two leases share a name")
	}
}

func TestForeignNamesDoNotParse(t *testing.T) {
	t.Parallel()
	good := name(time.Unix(1790000600, 0), "abcdefghijklmnopqrstuvwxyz")
	for _, s := range []string{
		"", "postgres", "sts_", "sts__", good + "a", good[:len(good)-1], " " + good, good + " ", strings.ToUpper(good), "x" + good,
		"sts_tlpuw8_abcdefghijklmno1", "sts_tlpuw8_abcdefghijklmno'", "sts_0tlpuw8_abcdefghijklmnop", "sts_tlpuw8tlpuw8_abcdefghijklmnop",
		"sts_-1_abcdefghijklmnop", "sts_+1_abcdefghijklmnop", "sts__abcdefghijklmnop", "sts_tlpuw8-abcdefghijklmnop",
	} {
		if _, ok := ParseName(s); ok {
			t.Errorf("%q parses, and no order has that name", s)
		}
	}
}
