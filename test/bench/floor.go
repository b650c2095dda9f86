package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A floor reads its keys from the folder it is given, as a restarted service would: it makes none.
const (
	floorCommand    = "floor" // hidden subcommand: bench floor -variant raw|jose -addr HOST:PORT -dir DIR
	floorKeySet     = "keys/ci.json"
	floorSigningKey = "secrets/signing.pem"

	floorBodyLimit = 64 << 10         // bytes of form
	floorSkew      = 30 * time.Second // clock skew allowed on exp and nbf
	issuedLifetime = 10 * time.Minute // of an issued token, as in the sallyport rule
)

// errRefused is every reason a floor has to turn a request down; it does not tell them apart.
var errRefused = errors.New("refused")

// exchanger verifies one subject token and returns the token issued for it.
type exchanger interface {
	exchange(subjectToken string, now time.Time) (string, error)
}

// floorKeys are what both variants are built from.
type floorKeys struct {
	verify jose.JSONWebKeySet
	sign   *ecdsa.PrivateKey
	issuer string // of the issued tokens
}

// subjectClaimSet is what the floors read of a subject token.
type subjectClaimSet struct {
	Issuer       string `json:"iss"`
	Audience     string `json:"aud"`
	Subject      string `json:"sub"`
	Expiry       int64  `json:"exp"` // Unix seconds
	NotBefore    int64  `json:"nbf"` // Unix seconds
	RepositoryID string `json:"repository_id"`
	Ref          string `json:"ref"`
}

// check reports whether the claims are good for an exchange at now. It asks what the sallyport rule asks.
func (c *subjectClaimSet) check(now time.Time) bool {
	return c.Issuer == subjectIssuer && c.Audience == subjectAudience && c.Subject != "" &&
		c.Expiry != 0 && now.Add(-floorSkew).Unix() < c.Expiry && now.Add(floorSkew).Unix() >= c.NotBefore &&
		c.RepositoryID == repositoryID && c.Ref == repositoryRef
}

// issuedClaims are the seven claims of a token that a floor issues (RFC 9068 section 2.2).
type issuedClaims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	Expiry   int64  `json:"exp"` // Unix seconds
	IssuedAt int64  `json:"iat"` // Unix seconds
	ID       string `json:"jti"`
	ClientID string `json:"client_id"`
}

func newIssuedClaims(issuer, subject string, now time.Time) issuedClaims {
	var id [16]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	return issuedClaims{
		Issuer:   issuer,
		Subject:  subject,
		Audience: targetName,
		Expiry:   now.Add(issuedLifetime).Unix(),
		IssuedAt: now.Unix(),
		ID:       hex.EncodeToString(id[:]),
		ClientID: "workload",
	}
}

// tokenResponse is the answer of RFC 8693 section 2.2.1.
type tokenResponse struct {
	AccessToken     string `json:"access_token"`
	IssuedTokenType string `json:"issued_token_type"`
	TokenType       string `json:"token_type"`
	ExpiresIn       int    `json:"expires_in"` // seconds
	Scope           string `json:"scope"`
}

// floorHandler is the HTTP side both variants share.
func floorHandler(x exchanger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, floorBodyLimit)
		if err := r.ParseForm(); err != nil {
			writeRefusal(w)
			return
		}
		form := r.PostForm
		if form.Get("grant_type") != grantType || form.Get("subject_token_type") != jwtType ||
			form.Get("audience") != targetName || form.Get("scope") != scopeName {
			writeRefusal(w)
			return
		}
		token, err := x.exchange(form.Get("subject_token"), time.Now())
		if err != nil {
			writeRefusal(w)
			return
		}
		writeJSON(w, http.StatusOK, tokenResponse{
			AccessToken:     token,
			IssuedTokenType: "urn:ietf:params:oauth:token-type:access_token",
			TokenType:       "Bearer",
			ExpiresIn:       int(issuedLifetime / time.Second),
			Scope:           scopeName,
		})
	})
	return mux
}

func writeRefusal(w http.ResponseWriter) {
	writeJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_request"})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, nil
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store") // RFC 6749 section 5.1
	w.WriteHeader(status)
	w.Write(body) // a caller who hung up is not the floor's concern
}

// serveFloor is the floor process. It returns when it is told to end.
func serveFloor(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet(floorCommand, flag.ContinueOnError)
	variant := fs.String("variant", "", "raw or jose")
	addr := fs.String("addr", "", "listen address")
	dir := fs.String("dir", "", "folder with "+floorKeySet+" and "+floorSigningKey)
	if err := fs.Parse(args); err != nil {
		return err
	}
	keys, err := readFloorKeys(*dir)
	if err != nil {
		return err
	}
	keys.issuer = "http://" + *addr
	x, err := newExchanger(*variant, keys)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	s := &http.Server{Addr: *addr, Handler: floorHandler(x), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		s.Close() // answers under way are worth nothing once the benchmark is over
	}()
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func newExchanger(variant string, keys floorKeys) (exchanger, error) {
	switch variant {
	case "raw":
		return newRawFloor(keys)
	case "jose":
		return newJoseFloor(keys)
	}
	return nil, fmt.Errorf("no variant %q", variant)
}

// floorFiles are the files a floor reads, by path in its folder.
func floorFiles(keySet []byte, key *ecdsa.PrivateKey) (map[string][]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		floorKeySet:     keySet,
		floorSigningKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	}, nil
}

func readFloorKeys(dir string) (floorKeys, error) {
	var keys floorKeys
	text, err := os.ReadFile(filepath.Join(dir, floorKeySet))
	if err != nil {
		return keys, err
	}
	if err := json.Unmarshal(text, &keys.verify); err != nil {
		return keys, fmt.Errorf("%s: %w", floorKeySet, err)
	}
	text, err = os.ReadFile(filepath.Join(dir, floorSigningKey))
	if err != nil {
		return keys, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return keys, fmt.Errorf("%s: no PEM block", floorSigningKey)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return keys, fmt.Errorf("%s: %w", floorSigningKey, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return keys, fmt.Errorf("%s: not an EC key", floorSigningKey)
	}
	keys.sign = key
	return keys, nil
}
