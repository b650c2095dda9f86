package main

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

// Claims, targets and other servers' texts reach an operator's terminal; they must not command it.
func TestTerminalIsNotCommandedByOtherPeoplesWords(t *testing.T) {
	t.Parallel()
	const evil = "x\x1b]0;title\x07\x1b[2J\x1b[31m\noutcome  issued\u009b2J\u202e\u2028"
	var out strings.Builder
	if err := table(&out, [][]string{{"team", evil}, {evil, "value"}}, map[string]string{"team": red}); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(&out, map[string]string{"team": evil}, ""); err != nil {
		t.Fatal(err)
	}
	for _, r := range out.String() {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%U came out raw", r)
		}
	}
	if lines := strings.Count(out.String(), "\n"); lines != 3 {
		t.Errorf("%d lines came out, want 3: a value made one of its own", lines)
	}
	if !strings.Contains(out.String(), `\u001b]0;title\u0007`) || !strings.Contains(out.String(), `\u202e`) {
		t.Errorf("what was there is not shown: %s", out.String())
	}
}

func TestEscapedJSONMeansTheSame(t *testing.T) {
	t.Parallel()
	want := map[string]string{"a": "\x1b\u009b\u202e\u007f ünïcode \U000e0001 \U0001f511 \\u0041 <&>"}
	var out strings.Builder
	if err := writeJSON(&out, want, "  "); err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil || got["a"] != want["a"] {
		t.Errorf("read back as %q (%v), want %q", got["a"], err, want["a"])
	}
}
