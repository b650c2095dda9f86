package federationtest

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// Behaviour is one way to misbehave.
type Behaviour int

// The ways. The zero Behaviour is none.
const (
	SlowDrip          Behaviour = iota + 1 // the key set comes one byte at a time and never ends
	EndlessBody                            // the key set is blanks without end
	EndlessDiscovery                       // so is the metadata
	Redirects                              // the key set is elsewhere: at /elsewhere, which would serve it
	RedirectDiscovery                      // so is the metadata
	LyingKeyID                             // every published kid belongs to another key
	ManyKeys                               // 10,000 keys, the right one among them
	ForeignJWKS                            // jwks_uri is on another origin
	WrongIssuer                            // the metadata names another issuer
	Compressed                             // the key set is sent with a content encoding nobody asked for
	DeepJSON                               // the key set nests 100,000 deep
	RedirectsAway                          // the key set is on another host
	GzipBomb                               // the key set is 64 MiB of blanks, compressed to a thousandth
	NoAnswer                               // the connection is accepted and nothing comes
)

// NewHostile starts an issuer that signs good tokens and serves its keys in a bad way.
func NewHostile(t testing.TB, b Behaviour) *Issuer {
	t.Helper()
	return start(t, jose.ES256, false, func(iss *Issuer, good http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !iss.misbehave(b, w, r) {
				good.ServeHTTP(w, r)
			}
		})
	})
}

// misbehave reports whether it answered.
func (i *Issuer) misbehave(b Behaviour, w http.ResponseWriter, r *http.Request) bool {
	switch r.URL.Path {
	case "/elsewhere":
		i.serveKeys(w, r)
		return true
	case oidc.DiscoveryEndpoint:
		return i.misbehaveDiscovery(b, w, r)
	case "/keys":
		if i.misbehaveKeys(b, w, r) {
			i.fetches.Add(1)
			return true
		}
	}
	return false
}

func (i *Issuer) misbehaveDiscovery(b Behaviour, w http.ResponseWriter, r *http.Request) bool {
	switch b {
	case EndlessDiscovery:
		endless(w, r)
	case RedirectDiscovery:
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	case ForeignJWKS:
		i.answer(w, map[string]any{"issuer": i.url, "jwks_uri": strings.Replace(i.JWKSURL(), "127.0.0.1", "localhost", 1)})
	case WrongIssuer:
		i.answer(w, map[string]any{"issuer": i.url + "/", "jwks_uri": i.JWKSURL()})
	default:
		return false
	}
	i.discoveries.Add(1)
	return true
}

func (i *Issuer) misbehaveKeys(b Behaviour, w http.ResponseWriter, r *http.Request) bool {
	switch b {
	case SlowDrip:
		drip(w, r)
	case EndlessBody:
		endless(w, r)
	case Redirects:
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	case RedirectsAway:
		http.Redirect(w, r, strings.Replace(i.url, "127.0.0.1", "localhost", 1)+"/elsewhere", http.StatusTemporaryRedirect)
	case GzipBomb:
		gzipBomb(w)
	case Compressed:
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write([]byte{0x1f, 0x8b})
	case DeepJSON:
		_, _ = fmt.Fprint(w, `{"keys":`+strings.Repeat("[", 100_000))
	case NoAnswer:
		<-r.Context().Done()
	case LyingKeyID:
		i.answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{NewKey(i.t, i.Key().ID, jose.ES256).Public()}})
	case ManyKeys:
		i.manyKeys(w)
	default:
		return false
	}
	return true
}

func (i *Issuer) manyKeys(w http.ResponseWriter) {
	one, err := json.Marshal(i.Key().Public())
	if err != nil {
		return
	}
	all := strings.Repeat(string(one)+",", 9_999) + string(one)
	_, _ = fmt.Fprint(w, `{"keys":[`+all+`]}`)
}

// gzipBomb writes blanks that were worth compressing.
func gzipBomb(w http.ResponseWriter) {
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	blanks := []byte(strings.Repeat(" ", 1<<20))
	for range 64 {
		if _, err := z.Write(blanks); err != nil {
			return
		}
	}
	_ = z.Close()
}

// endless writes blanks until the client hangs up.
func endless(w http.ResponseWriter, r *http.Request) {
	blanks := []byte(strings.Repeat(" ", 32<<10))
	for r.Context().Err() == nil {
		if _, err := w.Write(blanks); err != nil {
			return
		}
	}
}

// drip writes a byte every tenth of a second until the client hangs up.
func drip(w http.ResponseWriter, r *http.Request) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-ticker.C:
			if _, err := w.Write([]byte(" ")); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	}
}
