package sts_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"

	"github.com/sallyport-sts/sallyport/sts/audit"
)

// Wire words that many tests use.
const (
	grantType   = "urn:ietf:params:oauth:grant-type:token-exchange"
	typePrefix  = "urn:ietf:params:oauth:token-type:"
	jwtType     = typePrefix + "jwt"
	idTokenType = typePrefix + "id_token"
	accessType  = typePrefix + "access_token"
	formType    = "application/x-www-form-urlencoded"
)

// answer is one HTTP answer, read whole.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) decision() string { return a.header.Get("Sallyport-Decision") }

// te is a valid exchange request for orders, with the named parameters set.
func te(subject string, pairs ...string) url.Values {
	form := url.Values{
		"grant_type": {grantType}, "subject_token": {subject}, "subject_token_type": {jwtType}, "audience": {"orders"},
	}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return form
}

// drop returns form without the named parameters.
func drop(form url.Values, names ...string) url.Values {
	for _, n := range names {
		form.Del(n)
	}
	return form
}

// exchange posts to the token endpoint.
func (d *deployment) exchange(form url.Values) answer { return d.post("/token", form) }

// post sends a form; headers come in pairs.
func (d *deployment) post(path string, form url.Values, headers ...string) answer {
	return d.send(http.MethodPost, path, form.Encode(), append([]string{"Content-Type", formType}, headers...)...)
}

// send sends anything to a path below the issuer. It may be called from any goroutine.
func (d *deployment) send(method, path, body string, headers ...string) answer {
	req, err := http.NewRequest(method, d.issuer+path, strings.NewReader(body))
	if err != nil {
		d.t.Errorf("%s %s: %v", method, path, err)
		return answer{}
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	return d.do(req)
}

func (d *deployment) do(req *http.Request) answer {
	resp, err := d.client.Do(req)
	if err != nil {
		d.t.Errorf("%s %s: %v", req.Method, req.URL.Path, err)
		return answer{}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Errorf("reading an answer: %v", err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// minted is what an exchange yielded.
type minted struct {
	token    string
	response map[string]any
	claims   map[string]any // as the token says; verified where a test says so
	decision string
}

// mint exchanges subject for a target and fails the test unless that works.
func (d *deployment) mint(subject, target string, pairs ...string) minted {
	d.t.Helper()
	return d.issued(d.exchange(te(subject, append([]string{"audience", target}, pairs...)...)))
}

// issued reads a successful answer.
func (d *deployment) issued(a answer) minted {
	d.t.Helper()
	if a.status != http.StatusOK {
		d.t.Fatalf("exchange answered %d %s; recorded: %+v", a.status, a.body, d.recorder.of(a.decision()))
	}
	m := minted{response: map[string]any{}, claims: map[string]any{}, decision: a.decision()}
	if err := json.Unmarshal([]byte(a.body), &m.response); err != nil {
		d.t.Fatalf("answer: %v", err)
	}
	m.token, _ = m.response["access_token"].(string)
	d.keepSecret(m.token)
	decodePart(d, m.token, 1, &m.claims)
	return m
}

// decodePart reads header (0) or claims (1) of a token, unverified.
func decodePart(d *deployment, token string, part int, v any) {
	d.t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		d.t.Fatal("the credential is no compact JWS")
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[part])
	if err == nil {
		err = json.Unmarshal(raw, v)
	}
	if err != nil {
		d.t.Fatalf("reading a minted token: %v", err)
	}
}

// texts is every public text: one for each status and error code, whatever the cause.
var texts = map[int]map[string]string{
	400: {
		"invalid_request":        "The request or a token in it was refused.",
		"unsupported_grant_type": "Only the token exchange grant is supported.",
		"invalid_target":         "The requested target was refused.",
		"invalid_scope":          "The requested scope was refused.",
		"unsupported_token_type": "This token cannot be revoked here.",
	},
	401: {"invalid_client": "Client authentication was refused.", "invalid_token": "The caller was refused."},
	405: {"invalid_request": "The method is not allowed."},
	413: {"invalid_request": "The request is too large."},
	500: {"server_error": "The service failed."},
	503: {"temporarily_unavailable": "The service cannot answer now. Try again."},
}

// refused sends one bad request and checks the whole refusal: status, code, constant text, decision id in header
// and body, no caching, one record or one junk sample of that decision, and that nothing was minted, issued or
// revoked.
func (d *deployment) refused(what string, status int, code string, send func() answer) answer {
	d.t.Helper()
	mints, issued, revoked := d.mints.Load(), d.recorder.count(audit.Issued), d.revocations.Len()
	a := send()
	d.wantRefusal(what, a, status, code)
	if d.mints.Load() != mints || d.recorder.count(audit.Issued) != issued || d.revocations.Len() != revoked {
		d.t.Errorf("%s: refused, and yet something was minted, issued or revoked", what)
	}
	if n := len(d.recorder.of(a.decision())); n != 1 {
		d.t.Errorf("%s: %d records of its decision, want 1", what, n)
	}
	return a
}

// wantRefusal checks what the wire says.
func (d *deployment) wantRefusal(what string, a answer, status int, code string) {
	d.t.Helper()
	if a.status != status {
		d.t.Errorf("%s: status %d, want %d; recorded: %+v", what, a.status, status, d.recorder.of(a.decision()))
		return
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		d.t.Errorf("%s: body is not an error object: %v", what, err)
		return
	}
	text, ok := texts[status][code]
	if !ok {
		d.t.Fatalf("%s: the test wants %d %s, which is in no row of the table", what, status, code)
	}
	want := map[string]string{"error": code, "error_description": text + " Decision " + a.decision()}
	if !reflect.DeepEqual(got, want) {
		d.t.Errorf("%s: body %v, want %v", what, got, want)
	}
	for name, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store", "Pragma": "no-cache"} {
		if got := a.header.Get(name); got != want {
			d.t.Errorf("%s: %s is %q, want %q", what, name, got, want)
		}
	}
	if len(a.decision()) != 26 {
		d.t.Errorf("%s: decision id %q is not 128 bits in base32", what, a.decision())
	}
	if (status == 401) != (a.header.Get("WWW-Authenticate") != "") || (status == 503) != (a.header.Get("Retry-After") != "") {
		d.t.Errorf("%s: status %d with challenge %q and Retry-After %q", what, status, a.header.Get("WWW-Authenticate"), a.header.Get("Retry-After"))
	}
}

// withoutDecision is a body with its decision id blanked: what is left must not tell causes apart.
func withoutDecision(a answer) string {
	return strings.ReplaceAll(a.body, a.decision(), "DECISION")
}
