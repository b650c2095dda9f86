package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// floorWorld is a subject key and the two floors that trust it.
type floorWorld struct {
	rsa    *rsa.PrivateKey
	ec     *ecdsa.PrivateKey
	floors map[string]exchanger
}

func newFloorWorld(t *testing.T) floorWorld {
	t.Helper()
	var w floorWorld
	var err error
	if w.rsa, err = rsa.GenerateKey(rand.Reader, rsaBits); err != nil {
		t.Fatal(err)
	}
	if w.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: w.rsa.Public(), KeyID: subjectKeyID}}})
	if err != nil {
		t.Fatal(err)
	}
	files, err := floorFiles(set, w.ec)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := writeFiles(dir, files); err != nil {
		t.Fatal(err)
	}
	keys, err := readFloorKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	keys.issuer = "http://floor"
	w.floors = make(map[string]exchanger)
	for _, variant := range []string{"raw", "jose"} {
		if w.floors[variant], err = newExchanger(variant, keys); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// sign makes a subject token with some claims changed; a nil value removes the claim.
func (w floorWorld) sign(t *testing.T, alg jose.SignatureAlgorithm, key any, kid string, change map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	claims := subjectClaims(0, time.Now())
	for name, v := range change {
		if claims[name] = v; v == nil {
			delete(claims, name)
		}
	}
	token, err := signClaims(signer, claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestFloorsIssueVerifiableTokens(t *testing.T) {
	w := newFloorWorld(t)
	token := w.sign(t, jose.RS256, w.rsa, subjectKeyID, nil)
	for name, floor := range w.floors {
		now := time.Now()
		got, err := floor.exchange(token, now)
		if err != nil {
			t.Errorf("%s refused a good token: %v", name, err)
			continue
		}
		parsed, err := jwt.ParseSigned(got, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var claims map[string]any
		if err := parsed.Claims(w.ec.Public(), &claims); err != nil {
			t.Errorf("%s: issued token does not verify: %v", name, err)
		}
		if len(claims) != 7 || claims["aud"] != targetName || claims["iss"] != "http://floor" ||
			claims["exp"] != float64(now.Add(issuedLifetime).Unix()) || claims["jti"] == "" {
			t.Errorf("%s: issued claims %v, want seven", name, claims)
		}
		if typ := parsed.Headers[0].ExtraHeaders["typ"]; typ != "at+jwt" {
			t.Errorf("%s: typ %v", name, typ)
		}
	}
}

func TestFloorsRefuse(t *testing.T) {
	w := newFloorWorld(t)
	other, err := rsa.GenerateKey(rand.Reader, rsaBits)
	if err != nil {
		t.Fatal(err)
	}
	good := w.sign(t, jose.RS256, w.rsa, subjectKeyID, nil)
	forged, err := corruptSignature(good)
	if err != nil {
		t.Fatal(err)
	}
	hour := func(n int) int64 { return time.Now().Add(time.Duration(n) * time.Hour).Unix() }
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"`+subjectKeyID+`"}`)) + "." + parts[1] + "."
	with := func(claim string, v any) string {
		return w.sign(t, jose.RS256, w.rsa, subjectKeyID, map[string]any{claim: v})
	}
	for what, token := range map[string]string{
		"corrupted signature": forged,
		"another key":         w.sign(t, jose.RS256, other, subjectKeyID, nil),
		"unknown kid":         w.sign(t, jose.RS256, w.rsa, "who", nil),
		"another algorithm":   w.sign(t, jose.RS384, w.rsa, subjectKeyID, nil),
		"alg none":            none,
		"payload of another":  parts[0] + "." + strings.Split(with("sub", "admin"), ".")[1] + "." + parts[2],
		"another issuer":      with("iss", "https://evil.example"),
		"another audience":    with("aud", "https://other.example"),
		"no audience":         with("aud", nil),
		"expired":             with("exp", hour(-1)),
		"no expiry":           with("exp", nil),
		"not yet valid":       with("nbf", hour(1)),
		"another repository":  with("repository_id", "90211"),
		"empty":               "",
		"two parts":           parts[0] + "." + parts[1],
		"not base64":          "%%%." + parts[1] + "." + parts[2],
	} {
		for name, floor := range w.floors {
			if got, err := floor.exchange(token, time.Now()); err == nil || got != "" {
				t.Errorf("%s issued %.20q for a token with: %s", name, got, what)
			}
		}
	}
}

// TestFloorAnswersRenderedRequest sends the very bytes of the load generator through net/http's parser.
func TestFloorAnswersRenderedRequest(t *testing.T) {
	w := newFloorWorld(t)
	token := w.sign(t, jose.RS256, w.rsa, subjectKeyID, nil)
	good := renderRequest("127.0.0.1:1", token)
	forged, err := corruptSignature(token)
	if err != nil {
		t.Fatal(err)
	}
	for name, floor := range w.floors {
		for _, c := range []struct {
			what    string
			request []byte
			status  int
		}{
			{"good", good, 200},
			{"forged", renderRequest("127.0.0.1:1", forged), 400},
			{"another target", bytes.Replace(good, []byte("audience=orders"), []byte("audience=orderz"), 1), 400},
			{"no form", []byte("POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"), 400},
			{"GET", []byte("GET /token HTTP/1.1\r\nHost: x\r\n\r\n"), 405},
		} {
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(c.request)))
			if err != nil {
				t.Fatal(err)
			}
			answer := httptest.NewRecorder()
			floorHandler(floor).ServeHTTP(answer, r)
			if answer.Code != c.status || (accessToken(answer.Body.Bytes()) != nil) != (c.status == 200) {
				t.Errorf("%s, %s request: status %d, want %d; body %s", name, c.what, answer.Code, c.status, answer.Body)
			}
			if c.status == 200 && answer.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%s: answer may be cached: %v", name, answer.Header())
			}
		}
	}
}

func TestFloorNeedsKnownVariant(t *testing.T) {
	if _, err := newExchanger("gold", floorKeys{}); err == nil || !strings.Contains(fmt.Sprint(err), `"gold"`) {
		t.Errorf("got %v, want an error that names the variant", err)
	}
}
