package sts

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// FuzzForm: whatever the body, the parser answers with a request or with an error that has a row, never with both
// and never with a panic; a single parameter that repeats is refused in any spelling. // standards 1.6-1.8, 4.33
func FuzzForm(f *testing.F) {
	const good = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=a.b.c&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt"
	for _, body := range []string{
		good, good + "&audience=orders&scope=read+write&resource=https%3A%2F%2Fa%2F", good + "&scope=read&scope=", good + "&%73cope=a&scope=a", good + "&scope",
		good + "&actor_token=&actor_token_type=", good + "&actor_token=x&actor_token_type=y", "", "&", "&&&", "=", "=&=", "a", "%", "%4", "%zz", "a=%00", "%00=a", "a=%ff",
		"a=%c0%af", ";", "a;b=c", strings.Repeat("a=b&", 70), strings.Repeat("a", 70_000), good + "&scope=" + strings.Repeat("a+", 3000), good + "&resource=%3A%3A", "\xef\xbb\xbf" + good,
	} {
		f.Add(body, formMedia)
	}
	f.Add(good, "application/json")
	f.Add(good, formMedia+"; charset=\"UTF-8\"")
	f.Add(good, "")
	f.Fuzz(func(t *testing.T, body, contentType string) {
		r := httptest.NewRequest(http.MethodPost, "/token?subject_token=query&audience=query", strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		form, err := readForm(httptest.NewRecorder(), r)
		if (form == nil) == (err == nil) {
			t.Fatalf("form %v and error %v", form, err)
		}
		req, parseErr := parse(Request{Form: form, Err: err})
		if err != nil && !errors.Is(parseErr, err) {
			t.Fatalf("parse says %v to a form that was refused with %v", parseErr, err)
		}
		if parseErr != nil {
			if !empty(req) {
				t.Fatalf("a request and the error %v", parseErr)
			}
			if a := answerTo(parseErr); a.status < 400 || a.status >= 500 {
				t.Fatalf("%v is answered with %d: a caller's fault looks like ours", parseErr, a.status)
			}
			return
		}
		if req.subjectToken.IsZero() || !inputTokenTypes[req.subjectTokenType] || req.subjectToken.Reveal() == "query" || slices.Contains(req.want.Audiences, "query") {
			t.Fatalf("an unusable request passed: %+v", req)
		}
		if len(body) > maxBody || strings.Count(body, "&") >= maxPairs || !strings.Contains(strings.ToLower(contentType), formMedia) {
			t.Fatalf("a body of %d bytes and type %q passed", len(body), contentType)
		}
		decoded := map[string]int{}
		for pair := range strings.SplitSeq(body, "&") {
			name, _, _ := strings.Cut(pair, "=")
			if plain, err := url.QueryUnescape(name); err == nil && pair != "" {
				decoded[plain]++
			}
		}
		for _, name := range []string{
			"grant_type", "subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type", "scope", "client_id", "client_secret",
			"client_assertion", "client_assertion_type",
		} {
			if decoded[name] > 1 {
				t.Fatalf("parameter %s came %d times and passed", name, decoded[name])
			}
		}
		seen := map[string]bool{}
		for _, s := range req.want.Scopes {
			if s == "" || seen[s] || strings.ContainsAny(s, " \"\\") {
				t.Fatalf("scopes %q", req.want.Scopes)
			}
			seen[s] = true
		}
	})
}

const formMedia = "application/x-www-form-urlencoded"

func empty(r request) bool {
	return r.subjectToken.IsZero() && r.subjectTokenType == "" && r.requestedType == "" && r.want.Audiences == nil && r.want.Resources == nil && r.want.Scopes == nil
}
