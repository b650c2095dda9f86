package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// decisionIn finds the decision id in a text that a caller saw.
var decisionIn = regexp.MustCompile(`Decision ([a-z2-7]{26})`)

// answer is what a caller got: one HTTP response, or the failure to get one.
type answer struct {
	err    error
	status int
	header http.Header
	closes bool // the connection
	raw    string
	body   struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
		Scope       string `json:"scope"`
		Error       string `json:"error"`
		Active      bool   `json:"active"`
	}
}

func (a answer) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	if a.body.AccessToken != "" {
		return fmt.Sprintf("%d with a token", a.status) // never the token itself
	}
	return fmt.Sprintf("%d %s", a.status, a.raw)
}

// decision is the id of the attempt, from the answer's header.
func (a answer) decision() string { return a.header.Get("Sallyport-Decision") }

// caller is one connection's worth of client.
type caller struct {
	url  string
	http *http.Client
}

// caller returns a client with connections of its own.
func (d *deployment) caller() *caller {
	tr := http.DefaultTransport.(*http.Transport).Clone()
	d.t.Cleanup(tr.CloseIdleConnections)
	return &caller{url: d.url, http: &http.Client{Transport: tr, Timeout: patience}}
}

func exchangeForm(token, target, scope string) url.Values {
	form := url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token":      {token},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
		"audience":           {target},
	}
	if scope != "" {
		form.Set("scope", scope)
	}
	return form
}

func (c *caller) exchange(token, target string) answer {
	return c.post("/token", "", exchangeForm(token, target, ""))
}

func (c *caller) revoke(token string) answer {
	return c.post("/revoke", "", url.Values{"token": {token}})
}

func (c *caller) introspect(bearer, token string) answer {
	return c.post("/introspect", bearer, url.Values{"token": {token}})
}

func (c *caller) post(path, bearer string, form url.Values, headers ...string) answer {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, c.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		return answer{err: err}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	a := answer{err: err, status: resp.StatusCode, header: resp.Header, closes: resp.Close, raw: string(raw)}
	if err == nil && len(raw) > 0 {
		a.err = json.Unmarshal(raw, &a.body)
	}
	return a
}

// minted exchanges and fails the test unless a token comes back.
func (c *caller) minted(t *testing.T, token, target string) string {
	t.Helper()
	a := c.exchange(token, target)
	if a.err != nil || a.status != http.StatusOK || a.body.AccessToken == "" {
		t.Fatalf("exchange for %s: got %s, want a token", target, a)
	}
	return a.body.AccessToken
}

// wantStatus fails unless the answer has the status.
func wantStatus(t *testing.T, did string, a answer, want int) {
	t.Helper()
	if a.err != nil || a.status != want {
		t.Errorf("%s: got %s, want status %d", did, a, want)
	}
}

// readiness is what /readyz says.
type readinessAnswer struct {
	status int
	Ready  bool `json:"ready"`
	Checks []struct {
		Name   string `json:"name"`
		OK     bool   `json:"ok"`
		Reason string `json:"reason"`
	} `json:"checks"`
}

// reason returns what a check says, "" when all is well.
func (r readinessAnswer) reason(check string) string {
	for _, c := range r.Checks {
		if c.Name == check {
			return c.Reason
		}
	}
	return "there is no check " + check
}

func (d *deployment) readyz() readinessAnswer {
	d.t.Helper()
	hc := http.Client{Timeout: patience}
	resp, err := hc.Get("http://" + d.ops + "/readyz")
	if err != nil {
		d.t.Fatalf("asking /readyz: %v", err)
	}
	defer resp.Body.Close()
	r := readinessAnswer{status: resp.StatusCode}
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		d.t.Fatalf("/readyz is not JSON: %v", err)
	}
	return r
}

// claim reads a string claim of a token, unverified.
func claim(token, name string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims map[string]any
	if json.Unmarshal(raw, &claims) != nil {
		return ""
	}
	s, _ := claims[name].(string)
	return s
}

// loop calls do until stop is closed, one call after the other.
func loop(stop <-chan struct{}, do func()) {
	for {
		select {
		case <-stop:
			return
		default:
			do()
		}
	}
}

func containsFold(text, part string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(part))
}
